//! One pass: one transaction that carries the outboxes of many partitions over, so that one commit serves them all.

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

/// How much one pass takes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlushLimits {
    /// Entries read from each partition.
    pub(super) entries: u32,
    /// Events after which a partition's turn ends.
    pub(super) events: usize,
}

/// What a pass has done.
#[derive(Default)]
pub(super) struct FlushSummary {
    /// Outbox entries applied.
    pub(super) entries: usize,
    /// Events in them.
    pub(super) events: usize,
    /// When the newest of them happened.
    pub(super) newest: Option<DateTime<Utc>>,
    /// Rows written to each table.
    pub(super) rows: Vec<(&'static str, usize)>,
    /// Lines written to wallets' ledgers, by kind.
    pub(super) ledger_rows: BTreeMap<&'static str, u64>,
    /// Partitions that this pass held and found sound.
    pub(super) healthy: Vec<Partition>,
    /// Partitions that can't go on, and why.
    pub(super) errors: Vec<(Partition, ApplyError)>,
}

/// Why a pass has done nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlushFailure {
    #[error(transparent)]
    Mysql(#[from] mysql::Error),
    #[error(transparent)]
    Redis(#[from] redis::Error),
}

impl FlushFailure {
    /// Whether the same pass may succeed when it is repeated; else something in a partition stands in its way.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Mysql(error) => error.is_transient(),
            Self::Redis(error) => !matches!(error, redis::Error::Protocol(_)),
        }
    }
}

impl FlushFailure {
    /// Whether some row is refused for what it says.
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

/// Carries over what stands in the outboxes of `partitions`; those that another writer is at work on are left to it. After an error, or
/// when this future is dropped, nothing was written, or all of it with its checkpoints (a commit whose reply was lost): either
/// way the pass can be repeated.
pub(super) async fn flush(
    redis: &RedisClient,
    pool: &MySqlPool,
    nudge: &WriterHandle,
    partitions: &[Partition],
    bounds: FlushLimits,
) -> Result<FlushSummary, FlushFailure> {
    failpoint!("writer.before_transaction");
    let mut tx = pool.begin().await.map_err(mysql::Error::from)?;
    let FlushedTransaction { summary: pass, through, moved } =
        match apply_outboxes(&mut tx, redis, partitions, bounds).await {
            Ok(carried) => carried,
            Err(failure) => {
                // Now, not whenever the pool gets to it: until then the rows are locked, and our own next pass would take that for another
                // writer's and leave the partitions to it. Where even this fails the connection is gone, and its locks with it.
                if let Err(error) = tx.rollback().await {
                    tracing::debug!(%error, "rolling a failed pass back");
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
        nudge.record_committed(moved);
    }
    trim(redis, &through).await;
    failpoint!("writer.after_trim");
    Ok(pass)
}

/// What a transaction has carried over, and may commit.
struct FlushedTransaction {
    summary: FlushSummary,
    /// Up to where the outbox of each partition is in MySQL then.
    through: Vec<(Partition, u64)>,
    /// Of these the ones that were behind.
    moved: Vec<(Partition, u64)>,
}

async fn apply_outboxes(
    tx: &mut MySqlConnection,
    redis: &RedisClient,
    partitions: &[Partition],
    bounds: FlushLimits,
) -> Result<FlushedTransaction, FlushFailure> {
    let locked = sql::lock(tx, partitions).await?;
    let checkpoints = keep_matching_epochs(redis, locked).await?;
    let after: Vec<_> =
        checkpoints.iter().map(|checkpoint| (checkpoint.partition, checkpoint.n)).collect();
    // Read under the lock: what is read follows the checkpoint that this transaction will move.
    let mut outboxes = redis.outbox_read(&after, bounds.entries).await?;
    let read: Vec<_> = after.iter().map(|(partition, _)| *partition).collect();
    for (entries, safe) in outboxes.iter_mut().zip(redis.reads_are_replicated(&read).await?) {
        if !safe {
            // What its replicas do not have yet may be gone after a failover. It waits, the others go on.
            entries.clear();
        }
    }
    let mut batch = FlushBatch::default();
    let mut pass = FlushSummary::default();
    let mut through = Vec::with_capacity(checkpoints.len());
    for (checkpoint, entries) in checkpoints.iter().zip(&outboxes) {
        let (n, fault) = batch.take(checkpoint, entries, bounds.events);
        through.push((checkpoint.partition, n));
        match fault {
            Some(fault) => pass.errors.push((checkpoint.partition, fault)),
            None => pass.healthy.push(checkpoint.partition),
        }
    }
    batch.sort();
    let moved: Vec<_> =
        through.iter().zip(&after).filter(|(to, from)| to != from).map(|(to, _)| *to).collect();
    if !moved.is_empty() {
        pass.rows = sql::write(tx, &batch).await?;
        for line in &batch.ledger_rows {
            *pass.ledger_rows.entry(line.entry.kind.as_str()).or_default() += 1;
        }
        sql::advance(tx, &moved).await?;
    }
    (pass.entries, pass.events, pass.newest) = (batch.entries, batch.events, batch.newest);
    Ok(FlushedTransaction { summary: pass, through, moved })
}

/// The checkpoints whose outbox is of their generation. Another installation's Redis, or one that was emptied, has nothing that MySQL may take: its
/// numbers mean something else. The fence moves only under the row lock that is held here.
async fn keep_matching_epochs(
    redis: &RedisClient,
    checkpoints: Vec<Checkpoint>,
) -> Result<Vec<Checkpoint>, FlushFailure> {
    let partitions: Vec<_> = checkpoints.iter().map(|checkpoint| checkpoint.partition).collect();
    let marks = redis.fence_marks(&partitions).await?;
    let ours = |(checkpoint, marks): &(Checkpoint, FenceMarks)| {
        checkpoint.epoch.is_some() && checkpoint.epoch == marks.fence.outbox_epoch()
    };
    Ok(checkpoints.into_iter().zip(marks).filter(ours).map(|(checkpoint, _)| checkpoint).collect())
}

/// Trims what MySQL has, also where nothing moved: a writer that died between commit and trim has left its entries behind. A trim that
/// fails is no failure of the pass, since the next one trims the same.
async fn trim(redis: &RedisClient, through: &[(Partition, u64)]) {
    if let Err(error) = redis.outbox_trim(through).await {
        tracing::warn!(%error, "outbox entries that MySQL has could not be trimmed yet");
    }
}
