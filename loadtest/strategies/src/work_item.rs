//! What each strategy is asked to do, and what it may answer.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// One request of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkItem {
    /// Charges a wallet, or uses money of it if the amount is negative.
    Move { user: u64, amount: i64 },
    /// Requests the one queue token that a user may have.
    Token { user: u64 },
    /// Requests a coupon: one per user, up to the quota.
    Issue { coupon: u64, user: u64 },
}

impl WorkItem {
    /// Requests with equal keys must not run concurrently.
    pub(crate) fn lock_key(&self) -> String {
        match self {
            Self::Move { user, .. } | Self::Token { user } => format!("account:{user}"),
            Self::Issue { coupon, .. } => format!("coupon:{coupon}"),
        }
    }
}

/// A correct answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkAnswer {
    /// This request made the change.
    Done,
    /// The user already has it.
    Known,
    /// Sold out, or insufficient balance.
    Refused,
}

/// Why a request has no answer. The request has changed nothing then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum WorkFailure {
    /// The lock was taken, and the strategy does not wait.
    Busy,
    /// Another request changed the row first.
    Conflict,
    /// The database chose this transaction to break a deadlock.
    Deadlock,
    /// The lock was not free within [`LOCK_TIMEOUT`].
    TimedOut,
    /// A server or the connection to it failed.
    Broken,
}

impl WorkFailure {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Conflict => "conflict",
            Self::Deadlock => "deadlock",
            Self::TimedOut => "timed out",
            Self::Broken => "broken",
        }
    }
}

impl From<fred::error::Error> for WorkFailure {
    fn from(error: fred::error::Error) -> Self {
        eprintln!("strategies: Redis: {error}");
        Self::Broken
    }
}

/// How long a strategy waits for its lock, all attempts together.
pub(crate) const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);

pub(crate) type WorkResult = Result<WorkAnswer, WorkFailure>;

/// One instance of a way to serialize concurrent requests. Instances share state only through
/// servers.
pub(crate) trait LockStrategy: Send + Sync {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult>;
}
