//! Lays one partition back from MySQL.
//!
//! ```text
//! bar ─→ drain ─→ clear ─→ lay ─→ seal ─→ new generation in Redis ─→ commit in MySQL
//! ```
//!
//! **One at a time.** From the clearing to the commit the partition's row in `outbox_checkpoints` is locked: other recoveries skip it, and no writer moves it. Should
//! MySQL lose that lock while we go on, the *bar* keeps order: a value with a random token in place of the generation. Every write of a recovery is a script
//! under its own bar, so whoever bars the partition after us ends our writing with that same step.
//!
//! **In one Redis.** From the bar that says «nothing» on, everything goes through one connection that is not made again. A Redis that was started anew in the middle may
//! have lost a part of what was laid and kept the bar; it gets nothing more, and the recovery begins anew.
//!
//! **Closed until whole.** A bar is no generation that any script accepts. The new generation comes last in Redis, after everything that was laid (a file or a
//! replica that is cut anywhere before shows the bar), and last of all in MySQL. Killed before the first, the partition is barred; between the
//! two, Redis shows a generation that MySQL does not have: closed both ways, and the next recovery begins anew. It never matters where the one before
//! stopped, because the clearing takes all it has laid.
//!
//! **Nothing that MySQL could still get is thrown away.** If the outbox of the right generation stands behind the bar with more than MySQL has (somebody lays back
//! a partition that serves), the bar says so, the writer goes on writing it, and clearing waits until it is through. From then on the bar says that
//! there is nothing, so that no writer takes what stands there in between.
//!
//! **Numbers go on.** `seq` is set to the checkpoint, so the next entry is the one after it.

use std::time::Duration;

use sqlx::MySqlPool;
use tokio::time::{Instant, sleep};

use super::open::{FenceState, fence_state, new_epoch};
use super::restore::{self, FencedWriter};
use super::{Error, sql};
use crate::failpoint::failpoint;
use crate::mysql::{checkpoint, migrate};
use crate::outbox::{self, WriterHandle};
use crate::partition::Partition;
use crate::redis::{self, KeyScope, PinnedConnection, RedisClient, ScriptArgs, scripts};
use crate::telemetry::Metric;

/// How long the outbox behind a bar may take to come to MySQL, and how often it is looked at.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long it is waited until MySQL has what other partitions told before this one is laid. Whatever comes later is settled by the orphans' rounds.
const OTHER_PARTITIONS_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryOutcome {
    /// The partition serves again.
    Restored {
        /// Rows that were laid.
        rows: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// It could serve all the time; nothing was done.
    AlreadyServing,
    /// Another instance is at it.
    InProgress,
}

/// Lays partitions back.
#[derive(Debug, Clone)]
pub struct PartitionRecovery {
    pub(super) redis: RedisClient,
    pub(super) mysql: MySqlPool,
    writer: WriterHandle,
}

impl PartitionRecovery {
    /// Over both stores; `nudge` wakes a writer.
    pub fn new(redis: RedisClient, mysql: MySqlPool, nudge: WriterHandle) -> Self {
        Self { redis, mysql, writer: nudge }
    }

    /// What the fences of all partitions say now.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn states(&self) -> Result<Vec<(Partition, FenceState)>, Error> {
        let partitions: Vec<_> = self.redis.keys().partitions().all().collect();
        let checkpoints = checkpoint::load_all(&self.mysql, self.redis.keys().partitions()).await?;
        let marks = self.redis.fence_marks(&partitions).await?;
        let told = checkpoints.iter().zip(marks);
        Ok(told
            .map(|(checkpoint, marks)| (checkpoint.partition, fence_state(checkpoint, marks)))
            .collect())
    }

    /// Lays a partition back; `anyway` also one that could serve.
    ///
    /// # Errors
    /// When a store fails, or what is there must not be thrown away. Then the partition stays closed, and it can be begun anew.
    pub async fn recover(
        &self,
        partition: Partition,
        anyway: bool,
    ) -> Result<RecoveryOutcome, Error> {
        let started = Instant::now();
        let Some((token, next)) = self.fence_partition(partition, anyway).await? else {
            return Ok(RecoveryOutcome::AlreadyServing);
        };
        if token == 0 {
            return Ok(RecoveryOutcome::InProgress);
        }
        self.drain(partition).await?;
        let Some(rows) = self.restore(partition, token, next).await? else {
            return Ok(RecoveryOutcome::InProgress);
        };
        let took = started.elapsed();
        Metric::RecoveriesTotal.counter(&[]).increment(1);
        Metric::RecoverySeconds.histogram(&[]).record(took);
        tracing::info!(%partition, rows, ?took, "a partition was laid back from MySQL and serves again");
        Ok(RecoveryOutcome::Restored { rows, elapsed: took })
    }

    /// Bars the partition. Gives the bar's token and the generation to come; a token of 0 when another is at it, nothing when it serves.
    pub(super) async fn fence_partition(
        &self,
        partition: Partition,
        anyway: bool,
    ) -> Result<Option<(u64, u64)>, Error> {
        let mut tx = self.mysql.begin().await?;
        let Some(checkpoint) = sql::lock(&mut tx, partition).await? else {
            return Ok(Some((0, 0)));
        };
        // Under the lock: whoever changes the count holds all of them.
        migrate::check_count(&mut tx, self.redis.keys().partitions(), false).await?;
        let marks = self.redis.fence_marks(&[partition]).await?[0];
        if let (FenceState::Serving(generation), false) = (fence_state(&checkpoint, marks), anyway) {
            self.redis.epochs().open(partition, generation);
            return Ok(None);
        }
        self.redis.epochs().close(partition);
        let ours =
            checkpoint.epoch.is_some() && marks.fence.outbox_epoch() == checkpoint.epoch;
        let drains = checkpoint.epoch.filter(|_| ours && marks.seq > checkpoint.n);
        let (token, next) = (rand::random_range(1..=u64::MAX), new_epoch());
        self.redis.write_fence(partition, &redis::recovery_fence(token, drains)).await?;
        sql::record_start(&mut tx, partition, checkpoint.epoch, next).await?;
        tx.commit().await?;
        Ok(Some((token, next)))
    }

    /// Waits until MySQL has what stands behind the bar.
    pub(super) async fn drain(&self, partition: Partition) -> Result<(), Error> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        loop {
            let marks = self.redis.fence_marks(&[partition]).await?[0];
            let checkpoint = checkpoint::load(&self.mysql, partition).await?;
            if marks.fence.outbox_epoch().is_none() || marks.seq <= checkpoint.n {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::OutboxNotDrained(partition));
            }
            self.writer.wake();
            sleep(DRAIN_POLL_INTERVAL).await;
        }
    }

    /// Everything under the row's lock. `None` when another took it.
    async fn restore(&self, partition: Partition, token: u64, next: u64) -> Result<Option<u64>, Error> {
        let mut tx = self.mysql.begin().await?;
        let Some(checkpoint) = sql::lock(&mut tx, partition).await? else { return Ok(None) };
        let pinned = self.redis.pin(partition).await?;
        let before = self.redis.fence_marks(&[partition]).await?[0];
        let bar = redis::recovery_fence(token, None);
        for drains in [checkpoint.epoch, None] {
            let was = redis::recovery_fence(token, drains);
            if replace_fence(&pinned, partition, &was, &bar).await? {
                break;
            }
            if drains.is_none() {
                return Err(Error::FencedByOther(partition));
            }
        }
        if before.fence.outbox_epoch().is_some() && before.seq > checkpoint.n {
            return Err(Error::OutboxNotDrained(partition));
        }
        self.wait_for_other_partitions().await?;
        let cleared = pinned.clear(partition, &bar).await?.ok_or(Error::FencedByOther(partition))?;
        tracing::info!(%partition, cleared, checkpoint = checkpoint.n, "laying a partition back from MySQL");
        let times = sql::restore_count(&mut tx, partition).await?;
        let mut hand =
            FencedWriter::new((&self.redis, &pinned), partition, checkpoint.n, bar.clone(), times);
        restore::restore_partition(&mut hand, &mut tx).await?;
        sql::record_restored(&mut tx, partition, next).await?;
        checkpoint::set_epoch(&mut tx, partition, next).await?;
        if !replace_fence(&pinned, partition, &bar, &next.to_string()).await? {
            return Err(Error::FencedByOther(partition));
        }
        failpoint!("recovery.before_commit");
        tx.commit().await?;
        self.redis.epochs().open(partition, next);
        Ok(Some(hand.rows()))
    }

    /// Waits until MySQL has what the partitions that serve have told by now: a payment that was confirmed there must be known here.
    async fn wait_for_other_partitions(&self) -> Result<(), Error> {
        let states = self.states().await?;
        let serving: Vec<_> = states
            .into_iter()
            .filter(|(_, state)| matches!(state, FenceState::Serving(_)))
            .map(|(partition, _)| partition)
            .collect();
        if !outbox::wait_until_written(&self.redis, &self.mysql, &self.writer, &serving, OTHER_PARTITIONS_TIMEOUT).await? {
            tracing::warn!("MySQL is behind; what it does not have yet is settled afterwards");
        }
        Ok(())
    }
}

/// Puts a fence in place of another. `false` when that one does not stand there.
pub(super) async fn replace_fence(
    pinned: &PinnedConnection,
    partition: Partition,
    was: &str,
    then: &str,
) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.text(then);
    let place = KeyScope::partition(partition);
    Ok(pinned
        .call_fenced(&scripts::RECOVERY_REPLACE_FENCE, place, was, args, Vec::new())
        .await?
        .is_some())
}
