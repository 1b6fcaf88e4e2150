//! What the line refuses.

use crate::store_error::{StoreError, from_store_errors};

/// Why a call to the line was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such queue.
    #[error("there is no such queue")]
    NotFound,
    /// The queue takes nobody in.
    #[error("the queue is closed")]
    Closed,
    /// As many wait as may.
    #[error("the queue is full")]
    Full,
    /// The place was left, used up, or has lapsed.
    #[error("the place behind this token is gone")]
    TokenExpired,
    /// The user still waits; ask again after so many milliseconds.
    #[error("the user still waits in line")]
    NotAdmitted {
        /// When to ask again.
        poll_after_ms: u64,
    },
    /// Settings that contradict their ranges or each other.
    #[error("the settings are not sound")]
    Unsound(Vec<super::rules::Flaw>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
