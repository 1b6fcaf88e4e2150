//! The errors of catalogue operations.

use crate::definition::{DefinitionViolation, InUseItem, from_change_refusal};
use crate::queue;
use crate::store_error::{StoreError, from_store_errors};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the concert does not exist")]
    NotFound,
    #[error("the concert is invalid")]
    Invalid(Vec<DefinitionViolation>),
    /// Seats that the change removes are held or sold, or a booking is in progress.
    #[error("seats of the concert are held or sold")]
    InUse(Vec<InUseItem>),
    /// The stored definition is not the one that the change was made for.
    #[error("the concert has changed")]
    PreconditionFailed,
    /// A schedule would leave a queue of which MySQL lacks changes.
    #[error("changes of the schedule's queue are not in MySQL yet")]
    NotWritten,
    #[error("the concert is archived")]
    Archived,
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
from_change_refusal!(Error);
