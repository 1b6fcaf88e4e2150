//! What the catalogue refuses.

use crate::queue;
use crate::store_error::{StoreError, from_store_errors};

/// Why a call to the catalogue was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such concert or schedule.
    #[error("there is no such concert")]
    NotFound,
    /// A field is not sound, or contradicts another.
    #[error("the concert is not sound")]
    Unsound(Vec<super::rules::Flaw>),
    /// The change would take away a held or sold seat.
    #[error("the change would take away a seat that is held or sold")]
    InUse,
    /// The sale is over and archived.
    #[error("the sale is over and archived")]
    Archived,
    /// The queue did not take a change.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
