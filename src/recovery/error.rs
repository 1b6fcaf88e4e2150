//! Why a partition could not be verified or laid back.

use crate::partition::Partition;
use crate::store_error::{StoreError, from_store_errors};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another instance has barred the partition meanwhile, or Redis was replaced again.
    #[error("somebody else has barred partition {0}")]
    FencedByOther(Partition),
    /// What stands in the partition's outbox does not come to MySQL, so laying it back would lose it.
    #[error(
        "the outbox of partition {0} is not being written to MySQL; nothing of it is thrown away"
    )]
    OutboxNotDrained(Partition),
    /// Events that MySQL refused are kept by the numbers of their partitions.
    #[error("{0} dead letters are kept: apply them first (`usher dead-letters retry`)")]
    DeadLetters(i64),
    /// A row is not of a form that this release knows.
    #[error("a row of {0} can't be laid back: {1}")]
    InvalidRow(&'static str, String),
}

from_store_errors!(Error);

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
