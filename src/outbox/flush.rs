//! A flush: one transaction that writes the outboxes of many partitions to MySQL, so that one
//! commit serves them all.
//!
//! Order: lock the checkpoints, read the outboxes, write the rows and the checkpoints, commit, trim
//! the outboxes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlPool;

use super::apply::{ApplyError, FlushBatch};
use super::sql;
use super::writer_handle::WriterHandle;
use crate::failpoint::failpoint;
use crate::mysql;
use crate::mysql::checkpoint::Checkpoint;
use crate::partition::Partition;
use crate::redis::{self, FenceMarks, RedisClient};

/// How much one flush takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlushLimits {
    /// Entries read from each partition.
    pub(super) entries: u32,
    /// Events after which no further entry of a partition is taken.
    pub(super) events: usize,
}

/// What a flush did.
#[must_use = "partitions with errors must be stopped or repaired"]
#[derive(Default)]
pub(super) struct FlushSummary {
    /// Outbox entries applied.
    pub(super) entries: usize,
    /// Events in them.
    pub(super) events: usize,
    /// The time of the newest event.
    pub(super) newest: Option<DateTime<Utc>>,
    /// Rows written to each table.
    pub(super) rows: Vec<(&'static str, usize)>,
    /// Rows written to wallet ledgers, by kind.
    pub(super) ledger_rows: BTreeMap<&'static str, u64>,
    /// Partitions that were locked and have no error.
    pub(super) healthy: Vec<Partition>,
    /// Partitions that can't continue, and why.
    pub(super) errors: Vec<(Partition, ApplyError)>,
}

/// Why a flush wrote nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlushFailure {
    #[error(transparent)]
    Mysql(#[from] mysql::Error),
    #[error(transparent)]
    Redis(#[from] redis::Error),
}

impl FlushFailure {
    /// Whether the same flush may succeed when it is repeated. Otherwise something in a partition
    /// prevents it.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Mysql(error) => error.is_transient(),
            Self::Redis(error) => !matches!(error, redis::Error::Protocol(_)),
        }
    }
}

impl FlushFailure {
    /// Whether MySQL rejected the content of a row.
    pub(super) fn is_row_rejection(&self) -> bool {
        matches!(self, Self::Mysql(error) if error.is_row_rejection())
    }
}

impl From<FlushFailure> for ApplyError {
    fn from(failure: FlushFailure) -> Self {
        match failure {
            FlushFailure::Mysql(error) => Self::Refused(error),
            FlushFailure::Redis(error) => Self::Outbox(error),
        }
    }
}

/// Writes the outboxes of `partitions` to MySQL. Partitions that another writer has locked are
/// skipped.
///
/// After an error, or when this future is dropped, either nothing was written or everything
/// together with the checkpoints (a commit whose reply was lost). In both cases the flush can be
/// repeated.
pub(super) async fn flush(
    redis: &RedisClient,
    pool: &MySqlPool,
    writer: &WriterHandle,
    partitions: &[Partition],
    limits: FlushLimits,
) -> Result<FlushSummary, FlushFailure> {
    failpoint!("writer.before_transaction");
    let mut tx = pool.begin().await.map_err(mysql::Error::from)?;
    let FlushedTransaction { summary, through, moved } =
        match apply_outboxes(&mut tx, redis, partitions, limits).await {
            Ok(flushed) => flushed,
            Err(failure) => {
                // Roll back now, not when the pool does it: until then the rows are locked, and our
                // own next flush would skip these partitions as if another writer had them. If this
                // fails, the connection is gone with its locks.
                if let Err(error) = tx.rollback().await {
                    tracing::debug!(%error, "could not roll back a failed flush");
                }
                return Err(failure);
            }
        };
    if moved.is_empty() {
        tx.rollback().await.map_err(mysql::Error::from)?;
    } else {
        failpoint!("writer.before_commit");
        tx.commit().await.map_err(mysql::Error::from)?;
        failpoint!("writer.after_commit");
        writer.record_committed(moved);
    }
    trim(redis, &through).await;
    failpoint!("writer.after_trim");
    Ok(summary)
}

/// A transaction that is ready to commit.
struct FlushedTransaction {
    summary: FlushSummary,
    /// The checkpoint of each partition after the commit.
    through: Vec<(Partition, u64)>,
    /// Those of `through` that change.
    moved: Vec<(Partition, u64)>,
}

async fn apply_outboxes(
    tx: &mut MySqlConnection,
    redis: &RedisClient,
    partitions: &[Partition],
    limits: FlushLimits,
) -> Result<FlushedTransaction, FlushFailure> {
    let locked = sql::lock(tx, partitions).await?;
    let checkpoints = keep_matching_epochs(redis, locked).await?;
    let after: Vec<_> =
        checkpoints.iter().map(|checkpoint| (checkpoint.partition, checkpoint.n)).collect();
    // Read under the lock: what is read follows the checkpoint that this transaction moves.
    let mut outboxes = redis.outbox_read(&after, limits.entries).await?;
    let read: Vec<_> = after.iter().map(|(partition, _)| *partition).collect();
    let replicated = redis.reads_are_replicated(&read).await?;
    for (entries, partition) in outboxes.iter_mut().zip(read) {
        if !replicated.contains(partition) {
            // Entries that the replicas lack may be lost in a failover, and MySQL must not be ahead
            // of Redis. They wait for the next flush; other partitions go on.
            entries.clear();
        }
    }
    let mut batch = FlushBatch::default();
    let mut summary = FlushSummary::default();
    let mut through = Vec::with_capacity(checkpoints.len());
    for (checkpoint, entries) in checkpoints.iter().zip(&outboxes) {
        let (n, error) = batch.take(checkpoint, entries, limits.events);
        through.push((checkpoint.partition, n));
        match error {
            Some(error) => summary.errors.push((checkpoint.partition, error)),
            None => summary.healthy.push(checkpoint.partition),
        }
    }
    batch.sort();
    let moved: Vec<_> =
        through.iter().zip(&after).filter(|(to, from)| to != from).map(|(to, _)| *to).collect();
    if !moved.is_empty() {
        summary.rows = sql::write(tx, &batch).await?;
        for row in &batch.ledger_rows {
            *summary.ledger_rows.entry(row.entry.kind.as_str()).or_default() += 1;
        }
        sql::advance(tx, &moved).await?;
    }
    (summary.entries, summary.events, summary.newest) = (batch.entries, batch.events, batch.newest);
    Ok(FlushedTransaction { summary, through, moved })
}

/// Keeps the checkpoints whose epoch is the one in Redis. An empty Redis, or one of another
/// installation, numbers its entries independently, so MySQL must not take them. The fence changes
/// only under the row lock that is held here.
pub(super) async fn keep_matching_epochs(
    redis: &RedisClient,
    checkpoints: Vec<Checkpoint>,
) -> Result<Vec<Checkpoint>, FlushFailure> {
    let partitions: Vec<_> = checkpoints.iter().map(|checkpoint| checkpoint.partition).collect();
    let marks = redis.fence_marks(&partitions).await?;
    let matches = |(checkpoint, marks): &(Checkpoint, FenceMarks)| {
        checkpoint.epoch.is_some() && checkpoint.epoch == marks.fence.outbox_epoch()
    };
    Ok(checkpoints
        .into_iter()
        .zip(marks)
        .filter(matches)
        .map(|(checkpoint, _)| checkpoint)
        .collect())
}

/// Trims what MySQL has, also where no checkpoint moved: a writer that died between commit and trim
/// left its entries behind. A failed trim does not fail the flush; the next one trims the same
/// entries.
async fn trim(redis: &RedisClient, through: &[(Partition, u64)]) {
    if let Err(error) = redis.outbox_trim(through).await {
        tracing::warn!(%error, "could not trim outbox entries that MySQL has; the next flush tries \
                                again");
    }
}
