//! Why a partition could not be verified or restored.

use crate::partition::Partition;
use crate::store_error::{StoreError, from_store_errors};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another recovery fenced the partition meanwhile, or Redis was replaced again.
    #[error("another recovery fenced partition {0}")]
    FencedByOther(Partition),
    /// The partition's outbox is not written to MySQL, so a restore would lose it.
    #[error("the outbox of partition {0} is not written to MySQL; a restore would discard it")]
    OutboxNotDrained(Partition),
    /// Dead letters are identified by their partitions, so the number of partitions can't change.
    #[error("{0} dead letters exist; apply them first (`usher dead-letters retry`)")]
    DeadLetters(i64),
    /// A row has a form that this release does not know. First the table, then the cause.
    #[error("can't restore a row of {0}: {1}")]
    InvalidRow(&'static str, String),
}

from_store_errors!(Error);

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
