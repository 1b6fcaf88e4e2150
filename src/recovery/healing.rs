//! Healing: MySQL lost its last transactions (a failover to a replica that lagged, a restored
//! backup), and Redis still has everything.
//!
//! Redis stores the highest checkpoint that it knows of each partition (`written`). A checkpoint in
//! MySQL below it means that MySQL went back. Then the partition is fenced, so that nothing is sold
//! on top of it, and its entries count as not written again. The writer writes them from MySQL's
//! checkpoint on, as it does after any pause, because rows and checkpoint are in one transaction:
//! what MySQL lost, it lost with its checkpoint. When MySQL has the whole outbox, the partition
//! opens under the same epoch.
//!
//! When Redis has trimmed an entry that MySQL lost, the partition is *stuck*: it stays fenced and
//! nothing is discarded until MySQL has a newer state or an operator gives the entries up.

use sqlx::MySqlPool;

use super::Error;
use crate::mysql::checkpoint::{self, Checkpoint};
use crate::partition::Partition;
use crate::redis::codes::{RecoveryFenceBehindCode, RecoveryReopenCode};
use crate::redis::{self, FenceMarks, KeyScope, RedisClient, ScriptArgs, scripts};
use crate::telemetry::Metric;

/// Partitions that MySQL is behind.
#[derive(Debug, Default)]
pub(super) struct BehindPartitions {
    healing: usize,
    stuck: usize,
}

impl BehindPartitions {
    /// Counts a fenced partition, and opens it when MySQL has its whole outbox.
    ///
    /// # Errors
    /// When Redis or MySQL does not answer.
    pub(super) async fn advance(
        &mut self,
        redis: &RedisClient,
        mysql: &MySqlPool,
        checkpoint: &Checkpoint,
        marks: FenceMarks,
        epoch: u64,
    ) -> Result<(), Error> {
        if marks.seq <= checkpoint.n {
            reopen(redis, checkpoint, epoch).await?;
        } else if is_stuck(redis, mysql, checkpoint.partition).await? {
            self.stuck += 1;
        } else {
            self.healing += 1;
        }
        Ok(())
    }

    pub(super) fn record(&self) {
        for (state, count) in [("healing", self.healing), ("stuck", self.stuck)] {
            Metric::PartitionsBehind.gauge(&[("state", state)]).set(count as f64);
        }
    }
}

/// Fences a partition that MySQL is behind, unless that changed since it was read.
pub(super) async fn fence_behind(
    redis: &RedisClient,
    checkpoint: &Checkpoint,
    epoch: u64,
) -> Result<(), redis::Error> {
    let partition = checkpoint.partition;
    redis.epochs().close(partition);
    let mut args = ScriptArgs::new();
    args.text(&checkpoint.n.to_string()).text(&redis::healing_fence(epoch));
    let pinned = redis.pin(partition).await?;
    let (script, scope) = (&scripts::RECOVERY_FENCE_BEHIND, KeyScope::partition(partition));
    let reply = pinned.call_fenced(script, scope, &epoch.to_string(), args, Vec::new()).await?;
    // No reply: another instance has fenced it.
    let Some(reply) = reply else { return Ok(()) };
    if reply.code::<RecoveryFenceBehindCode>()? == RecoveryFenceBehindCode::Fenced {
        Metric::MysqlWentBackTotal.counter(&[]).increment(1);
        tracing::error!(
            %partition,
            checkpoint = checkpoint.n,
            "MySQL is older than Redis; the partition is fenced until the writer has written its \
             outbox again"
        );
    }
    Ok(())
}

/// Opens a partition under its epoch.
async fn reopen(
    redis: &RedisClient,
    checkpoint: &Checkpoint,
    epoch: u64,
) -> Result<(), redis::Error> {
    let partition = checkpoint.partition;
    let mut args = ScriptArgs::new();
    args.text(&checkpoint.n.to_string()).text(&epoch.to_string());
    let pinned = redis.pin(partition).await?;
    let (script, scope) = (&scripts::RECOVERY_REOPEN, KeyScope::partition(partition));
    let fence = redis::healing_fence(epoch);
    let Some(reply) = pinned.call_fenced(script, scope, &fence, args, Vec::new()).await? else {
        return Ok(());
    };
    if reply.code::<RecoveryReopenCode>()? == RecoveryReopenCode::Reopened {
        tracing::info!(%partition, "MySQL has everything that Redis has; the partition serves");
        // The next verification compares it like any other partition.
        redis.request_verification();
    }
    Ok(())
}

/// Whether the outbox lacks the entry after MySQL's checkpoint, so that the writer can't go on.
pub(super) async fn is_stuck(
    redis: &RedisClient,
    mysql: &MySqlPool,
    partition: Partition,
) -> Result<bool, Error> {
    let before = checkpoint::load(mysql, partition).await?;
    let marks = redis.fence_marks(&[partition]).await?[0];
    let next = redis.outbox_read(&[(partition, before.n)], 1).await?.pop().unwrap_or_default();
    let is_missing = marks.seq > before.n && next.first().is_none_or(|next| next.n > before.n + 1);
    // The writer may have written and trimmed the entry meanwhile.
    Ok(is_missing && checkpoint::load(mysql, partition).await?.n == before.n)
}
