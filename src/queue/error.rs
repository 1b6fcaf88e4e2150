//! The errors of queue operations.

use crate::definition::{DefinitionViolation, InUseItem, from_change_refusal};
use crate::store_error::{StoreError, from_store_errors};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the queue does not exist")]
    NotFound,
    #[error("the queue is closed")]
    Closed,
    #[error("the queue is full")]
    Full,
    /// The user left, their active slot ended, or they did not show up in time.
    #[error("the place of this token no longer exists")]
    TokenExpired,
    #[error("the user is still waiting")]
    NotAdmitted { poll_after_ms: u64 },
    /// Concerts name the queue, or users are in it.
    #[error("the queue is in use")]
    InUse(Vec<InUseItem>),
    /// The stored settings are not those that the change was made for.
    #[error("the settings have changed")]
    PreconditionFailed,
    #[error("the settings are invalid")]
    Invalid(Vec<DefinitionViolation>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
from_change_refusal!(Error);
