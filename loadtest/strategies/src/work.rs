//! What every strategy is asked to do, and what it may say.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// One request of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Puts money into a wallet, or takes it out where the amount is negative.
    Move { user: u64, amount: i64 },
    /// Asks for the one place in line that a user may have.
    Token { user: u64 },
    /// Asks for a coupon: one to a user, as many as there are.
    Issue { coupon: u64, user: u64 },
}

impl Work {
    /// What must not be done by two at once.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Move { user, .. } | Self::Token { user } => format!("account:{user}"),
            Self::Issue { coupon, .. } => format!("coupon:{coupon}"),
        }
    }
}

/// A right answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Done now.
    Done,
    /// The user has it already.
    Known,
    /// Sold out, or not enough money.
    Refused,
}

/// Why there is no answer. Nothing was changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Failed {
    /// Somebody else had the lock, and the strategy does not wait.
    Busy,
    /// Somebody else was quicker to write.
    Conflict,
    /// The database chose this transaction to break a deadlock.
    Deadlock,
    /// The turn did not come in [`PATIENCE`].
    Patience,
    /// A server or the way to it failed.
    Broken,
}

impl Failed {
    /// For the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Conflict => "conflict",
            Self::Deadlock => "deadlock",
            Self::Patience => "out of patience",
            Self::Broken => "broken",
        }
    }
}

impl From<fred::error::Error> for Failed {
    fn from(error: fred::error::Error) -> Self {
        eprintln!("strategies: Redis: {error}");
        Self::Broken
    }
}

/// How long a strategy that waits for its turn waits for it, in all.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// What a request comes to.
pub(crate) type Outcome = Result<Answer, Failed>;

/// A way of keeping concurrent requests apart, as one instance of a service would do it: what two instances share is in servers.
pub(crate) trait Strategy: Send + Sync {
    /// Does one request.
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome>;
}
