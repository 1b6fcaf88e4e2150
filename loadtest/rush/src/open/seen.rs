//! What one user saw: what the checks from outside judge by. Times are microseconds since the crowd began to come.

use serde::{Deserialize, Serialize};

/// How it ended for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// Has a seat and has paid, or has a coupon.
    Won,
    /// Heard that everything was sold out.
    SoldOut,
    /// Lost patience in line and left.
    GaveUp,
    /// Polled to the end of the run.
    Stayed,
    /// Got an answer that nobody should get.
    Failed,
}

impl End {
    /// As the report says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::SoldOut => "sold out before their turn",
            Self::GaveUp => "lost patience",
            Self::Stayed => "stayed to the end",
            Self::Failed => "failed",
        }
    }
}

/// One user's run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The user's number in the order of their coming.
    pub(crate) n: u64,
    /// When their first request was sent and when it was answered well.
    pub(crate) came: (u64, u64),
    /// When the last request was sent that was answered with «waiting».
    pub(crate) waited: Option<u64>,
    /// When the first answer was there that said «active».
    pub(crate) active: Option<u64>,
    /// When the request was sent that ended their turn inside: until then they held an active slot.
    pub(crate) over: Option<u64>,
    /// Whether their position went up while they waited.
    pub(crate) rose: bool,
    /// Whether a second request for the same thing got a different answer.
    pub(crate) doubled: bool,
    /// The seat they paid for.
    pub(crate) seat: Option<u64>,
    /// When the payment was confirmed, or the coupon issued.
    pub(crate) won: Option<u64>,
    /// The coupon issue's id.
    pub(crate) issue: Option<String>,
    /// What they put into their wallet, what they paid, and what it held at the end (none: not asked).
    pub(crate) charged: u64,
    pub(crate) paid: u64,
    pub(crate) balance: Option<u64>,
    pub(crate) end: End,
}

impl Seen {
    /// A user who has not done anything yet.
    pub(crate) fn new(n: u64) -> Self {
        Self {
            n,
            came: (0, 0),
            waited: None,
            active: None,
            over: None,
            rose: false,
            doubled: false,
            seat: None,
            won: None,
            issue: None,
            charged: 0,
            paid: 0,
            balance: None,
            end: End::Failed,
        }
    }
}
