//! What one user observed, which is all that the checks use. Times are microseconds since the run
//! began.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UserOutcome {
    /// Paid for a seat, or got a coupon.
    Won,
    SoldOut,
    /// Left the queue after waiting too long.
    GaveUp,
    /// Polled until the end of the run.
    StillWaiting,
    /// Got a response that the API contract does not allow.
    Failed,
}

impl UserOutcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::SoldOut => "sold out",
            Self::GaveUp => "gave up waiting",
            Self::StillWaiting => "still waiting",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct UserObservation {
    /// Number of the user in order of arrival.
    pub(super) number: u64,
    /// When the first request was sent and when it was answered.
    pub(super) arrival: (u64, u64),
    /// When the last request was sent that was answered with `waiting`.
    pub(super) last_waiting: Option<u64>,
    /// When the first response with `active` arrived.
    pub(super) active: Option<u64>,
    /// When the request was sent that ended the active time.
    pub(super) active_end: Option<u64>,
    pub(super) position_rose: bool,
    /// Whether a repeated request got a different answer.
    pub(super) repeat_differed: bool,
    /// The seat that the user paid for.
    pub(super) seat: Option<u64>,
    /// Id of the coupon issue.
    pub(super) issue: Option<String>,
    pub(super) charged: u64,
    pub(super) paid: u64,
    /// Wallet balance after the payment.
    pub(super) balance: Option<u64>,
    pub(super) outcome: UserOutcome,
}

impl UserObservation {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            arrival: (0, 0),
            last_waiting: None,
            active: None,
            active_end: None,
            position_rose: false,
            repeat_differed: false,
            seat: None,
            issue: None,
            charged: 0,
            paid: 0,
            balance: None,
            outcome: UserOutcome::Failed,
        }
    }
}
