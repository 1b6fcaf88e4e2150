//! A flush: one transaction that writes the outboxes of many partitions to MySQL, so that one
//! commit serves them all.
//!
//! Order: lock the checkpoints, read the outboxes, write the rows and the checkpoints, commit,
//! record in Redis what MySQL has, which also trims the outboxes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlPool;

use super::apply::{ApplyError, FlushBatch};
use super::event_log;
use super::sql;
use super::store::{WrittenOutbox, record_written};
use super::writer_handle::WriterHandle;
use crate::failpoint::failpoint;
use crate::mysql;
use crate::mysql::checkpoint::Checkpoint;
use crate::partition::Partition;
use crate::redis::{self, FenceMarks, RedisClient};

/// Bytes that Redis needs for an entry besides its payload.
const ENTRY_OVERHEAD: usize = 32;

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
    let FlushedTransaction { summary, written, moved } =
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
    // Also where no checkpoint moved: a writer that died after its commit recorded nothing.
    record_written(redis, &written).await;
    failpoint!("writer.after_trim");
    Ok(summary)
}

/// A transaction that is ready to commit.
struct FlushedTransaction {
    summary: FlushSummary,
    /// The checkpoint of each partition after the commit.
    written: Vec<WrittenOutbox>,
    /// The checkpoints that change.
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
        checkpoints.iter().map(|(checkpoint, _)| (checkpoint.partition, checkpoint.n)).collect();
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
    let (mut written, mut moved) = (Vec::with_capacity(checkpoints.len()), Vec::new());
    for ((checkpoint, marks), entries) in checkpoints.iter().zip(&outboxes) {
        let partition = checkpoint.partition;
        let (through, error) = batch.take(checkpoint, entries, limits.events);
        let taken = entries.iter().take_while(|entry| entry.n <= through);
        let bytes = taken.map(|entry| entry.payload.len() + ENTRY_OVERHEAD).sum();
        written.push(WrittenOutbox { partition, fence: marks.fence, through, bytes });
        if through > checkpoint.n {
            moved.push((partition, through));
        }
        match error {
            Some(error) => summary.errors.push((partition, error)),
            None => summary.healthy.push(partition),
        }
    }
    batch.sort();
    if !moved.is_empty() {
        summary.rows = sql::write(tx, &batch).await?;
        for row in &batch.ledger_rows {
            *summary.ledger_rows.entry(row.entry.kind.as_str()).or_default() += 1;
        }
        let locked: Vec<_> = checkpoints
            .iter()
            .map(|(checkpoint, marks)| (*checkpoint, checkpoint.n < marks.written))
            .collect();
        event_log::append(tx, &locked, &batch.log).await?;
        sql::advance(tx, &moved).await?;
    }
    (summary.entries, summary.events, summary.newest) = (batch.entries, batch.events, batch.newest);
    Ok(FlushedTransaction { summary, written, moved })
}

/// Keeps the checkpoints whose epoch is the one in Redis. An empty Redis, or one of another
/// installation, numbers its entries independently, so MySQL must not take them. The fence changes
/// only under the row lock that is held here.
pub(super) async fn keep_matching_epochs(
    redis: &RedisClient,
    checkpoints: Vec<Checkpoint>,
) -> Result<Vec<(Checkpoint, FenceMarks)>, FlushFailure> {
    let partitions: Vec<_> = checkpoints.iter().map(|checkpoint| checkpoint.partition).collect();
    let marks = redis.fence_marks(&partitions).await?;
    let matches = |(checkpoint, marks): &(Checkpoint, FenceMarks)| {
        checkpoint.epoch.is_some() && checkpoint.epoch == marks.fence.outbox_epoch()
    };
    let kept: Vec<_> = checkpoints.into_iter().zip(marks).filter(matches).collect();
    if kept.iter().any(|(checkpoint, marks)| checkpoint.n < marks.written) {
        // MySQL went back. The verifier stops the partition until MySQL has everything again.
        redis.request_verification();
    }
    Ok(kept)
}
