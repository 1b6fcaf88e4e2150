//! Restores one partition in Redis from MySQL.
//!
//! ```text
//! fence ─→ drain ─→ clear ─→ restore ─→ new epoch in Redis ─→ commit in MySQL
//! ```
//!
//! **One at a time.** From the clear to the commit the partition's row in `outbox_checkpoints` is
//! locked: other recoveries skip it, and no writer moves it. If MySQL loses that lock, the
//! *recovery fence* still keeps order. It is a random token in place of the epoch, and every write
//! of a recovery is a script that requires its own fence. A later recovery replaces the fence and
//! thereby ends our writes.
//!
//! **One Redis.** After the drain everything goes through one connection that never reconnects. A
//! Redis that restarts during the restore may have lost a part of the restored data and kept the
//! fence. It receives nothing more, and the recovery starts again.
//!
//! **Closed until complete.** No domain script accepts a recovery fence. The new epoch is the last
//! write to Redis, so a file or a replica that is cut off earlier still has the fence. The commit
//! in MySQL is last of all. After a crash before the new epoch the partition is fenced. After a
//! crash between the two, Redis has an epoch that MySQL does not have, so the partition is closed
//! as well. The next recovery clears everything and starts again, whatever the previous one did.
//!
//! **Nothing is discarded that MySQL could still get.** When Redis has the right epoch and its
//! outbox is ahead of the checkpoint (an operator restores a partition that serves), the fence
//! names that epoch: the writer goes on writing this outbox, and the restore waits for it. After
//! that the fence says that there is nothing to write, so no writer reads the outbox during the
//! restore.
//!
//! A restore that would discard entries is refused, and the fence before it is put back.
//!
//! **Numbers continue.** `seq` is set to the checkpoint, so the next entry follows it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::restore::{self, FencedWriter};
use super::verify::{FenceState, fence_state};
use super::{Error, healing, raise_records, sql};
use crate::failpoint::failpoint;
use crate::mysql::{checkpoint, migrate};
use crate::outbox::{self, WriterHandle};
use crate::partition::Partition;
use crate::redis::{
    self, FenceReading, KeyScope, PinnedConnection, RedisClient, ScriptArgs, scripts,
};
use crate::telemetry::Metric;

/// How long the outbox of a fenced partition may take to be written to MySQL.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long to wait until MySQL has the events of the other partitions. The reconciler repairs what
/// comes later.
const OTHER_PARTITIONS_TIMEOUT: Duration = Duration::from_secs(5);

/// The outcome of a recovery.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryOutcome {
    /// The partition was restored and serves.
    Restored { rows: u64, elapsed: Duration },
    /// The partition could serve, so nothing was done.
    AlreadyServing,
    /// Another instance is restoring the partition.
    InProgress,
}

/// The outcome of fencing a partition.
#[must_use]
pub(super) enum FenceOutcome {
    /// Redis has our recovery fence now.
    Fenced(AcquiredFence),
    /// The partition could serve, so nothing was done.
    AlreadyServing,
    /// MySQL is older than Redis, so a restore would discard what only Redis has.
    Behind,
    /// Another recovery, or a busy writer, has the checkpoint locked.
    Locked,
}

/// A recovery fence of this instance.
#[derive(Clone, Copy)]
pub(super) struct AcquiredFence {
    pub(super) token: u64,
    /// The epoch that the restored partition will have.
    next_epoch: u64,
    /// The fence before ours, for a partition that may not be restored.
    previous: FenceReading,
}

/// Whether a fence was replaced.
#[must_use = "a recovery that lost its fence must stop"]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FenceSwap {
    Replaced,
    /// Redis has another fence than the expected one. Nothing was changed.
    Mismatch,
}

/// Restores partitions.
#[derive(Debug, Clone)]
pub struct PartitionRecovery {
    pub(super) redis: RedisClient,
    pub(super) mysql: MySqlPool,
    writer: WriterHandle,
    /// When the last wait for the other partitions began. One wait serves every restore that asked
    /// before it began: all partitions are read once, not once for each of them.
    other_partitions: Arc<Mutex<Option<Instant>>>,
}

impl PartitionRecovery {
    pub fn new(redis: RedisClient, mysql: MySqlPool, writer: WriterHandle) -> Self {
        Self { redis, mysql, writer, other_partitions: Arc::default() }
    }

    /// The fence state of every partition.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn states(&self) -> Result<Vec<(Partition, FenceState)>, Error> {
        let partitions: Vec<_> = self.redis.keys().partitions().all().collect();
        let checkpoints = checkpoint::load_all(&self.mysql, self.redis.keys().partitions()).await?;
        let marks = self.redis.fence_marks(&partitions).await?;
        Ok(checkpoints
            .iter()
            .zip(marks)
            .map(|(checkpoint, marks)| (checkpoint.partition, fence_state(checkpoint, marks)))
            .collect())
    }

    /// Restores a partition; with `force` also one that could serve.
    ///
    /// # Errors
    /// When a store fails, or the restore would discard events. The partition then stays closed,
    /// and the recovery can be repeated.
    pub async fn recover(
        &self,
        partition: Partition,
        force: bool,
    ) -> Result<RecoveryOutcome, Error> {
        let started = Instant::now();
        let fence = match self.fence_partition(partition, force).await? {
            FenceOutcome::Fenced(fence) => fence,
            FenceOutcome::AlreadyServing => return Ok(RecoveryOutcome::AlreadyServing),
            FenceOutcome::Behind => return self.wait_until_healed(partition).await,
            FenceOutcome::Locked => return Ok(RecoveryOutcome::InProgress),
        };
        let restored = match self.drain(partition).await {
            Ok(()) => self.restore(partition, fence).await,
            Err(error) => Err(error),
        };
        if let Err(Error::OutboxNotDrained(_)) = restored {
            self.put_fence_back(partition, fence).await?;
        }
        let Some(rows) = restored? else { return Ok(RecoveryOutcome::InProgress) };
        Box::pin(raise_records::raise(&self.redis, partition)).await?;
        let elapsed = started.elapsed();
        Metric::RecoveriesTotal.counter(&[]).increment(1);
        Metric::RecoverySeconds.histogram(&[]).record(elapsed);
        tracing::info!(%partition, rows, ?elapsed, "restored a partition from MySQL; it serves");
        Ok(RecoveryOutcome::Restored { rows, elapsed })
    }

    /// Replaces the partition's epoch by a recovery fence; with `force` also when it could serve.
    pub(super) async fn fence_partition(
        &self,
        partition: Partition,
        force: bool,
    ) -> Result<FenceOutcome, Error> {
        let mut tx = self.mysql.begin().await?;
        let Some(checkpoint) = sql::lock(&mut tx, partition).await? else {
            return Ok(FenceOutcome::Locked);
        };
        // Under the lock: a repartition holds the locks of all checkpoints.
        migrate::check_count(&mut tx, self.redis.keys().partitions(), false).await?;
        let marks = self.redis.fence_marks(&[partition]).await?[0];
        match fence_state(&checkpoint, marks) {
            FenceState::Serving(epoch) if !force => {
                self.redis.epochs().open(partition, epoch);
                return Ok(FenceOutcome::AlreadyServing);
            }
            FenceState::Behind(_) | FenceState::Healing(_) if !force => {
                return Ok(FenceOutcome::Behind);
            }
            _ => {}
        }
        self.redis.epochs().close(partition);
        // An outbox of our epoch that is ahead of the checkpoint must still be written to MySQL.
        let is_ours = checkpoint.epoch.is_some() && marks.fence.outbox_epoch() == checkpoint.epoch;
        let draining = checkpoint.epoch.filter(|_| is_ours && marks.seq > checkpoint.n);
        let token = rand::random_range(1..=u64::MAX);
        let next_epoch = redis::new_epoch();
        self.redis.write_fence(partition, &redis::recovery_fence(token, draining)).await?;
        sql::record_start(&mut tx, partition, checkpoint.epoch, next_epoch).await?;
        tx.commit().await?;
        Ok(FenceOutcome::Fenced(AcquiredFence { token, next_epoch, previous: marks.fence }))
    }

    /// Replaces our fence by the one before it. Nothing was cleared yet, so a partition that served
    /// serves again.
    pub(super) async fn put_fence_back(
        &self,
        partition: Partition,
        fence: AcquiredFence,
    ) -> Result<(), Error> {
        let Some(epoch) = fence.previous.outbox_epoch() else { return Ok(()) };
        let previous = match fence.previous {
            FenceReading::Open(epoch) => epoch.to_string(),
            _ => redis::healing_fence(epoch),
        };
        let pinned = self.redis.pin(partition).await?;
        for draining in [Some(epoch), None] {
            let ours = redis::recovery_fence(fence.token, draining);
            if replace_fence(&pinned, partition, &ours, &previous).await? == FenceSwap::Replaced {
                break;
            }
        }
        self.redis.request_verification();
        Ok(())
    }

    /// Waits until the writer has written to MySQL what MySQL lost.
    async fn wait_until_healed(&self, partition: Partition) -> Result<RecoveryOutcome, Error> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while Instant::now() < deadline {
            // The verification reopens the partition.
            let _ = super::verify(&self.redis, &self.mysql).await?;
            if self.redis.epochs().get(partition).is_some() {
                return Ok(RecoveryOutcome::AlreadyServing);
            }
            if healing::is_stuck(&self.redis, &self.mysql, partition).await? {
                break;
            }
            self.writer.wake();
            sleep(DRAIN_POLL_INTERVAL).await;
        }
        Err(Error::OutboxNotDrained(partition))
    }

    /// Waits until MySQL has the outbox that the fence names, if it names one. Refuses at once when
    /// the outbox lacks an entry that MySQL needs next.
    pub(super) async fn drain(&self, partition: Partition) -> Result<(), Error> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        loop {
            let marks = self.redis.fence_marks(&[partition]).await?[0];
            let checkpoint = checkpoint::load(&self.mysql, partition).await?;
            if marks.fence.outbox_epoch().is_none() || marks.seq <= checkpoint.n {
                return Ok(());
            }
            if Instant::now() >= deadline
                || healing::is_stuck(&self.redis, &self.mysql, partition).await?
            {
                return Err(Error::OutboxNotDrained(partition));
            }
            self.writer.wake();
            sleep(DRAIN_POLL_INTERVAL).await;
        }
    }

    /// Clears and restores a fenced partition under the lock of its checkpoint. Returns the number
    /// of rows, or `None` when another recovery has the lock.
    async fn restore(
        &self,
        partition: Partition,
        fence: AcquiredFence,
    ) -> Result<Option<u64>, Error> {
        let mut tx = self.mysql.begin().await?;
        let Some(checkpoint) = sql::lock(&mut tx, partition).await? else { return Ok(None) };
        let pinned = self.redis.pin(partition).await?;
        let marks = self.redis.fence_marks(&[partition]).await?[0];

        // From here on the fence says that MySQL must not read this outbox. If it already says so,
        // nothing had to be drained.
        let sealed = redis::recovery_fence(fence.token, None);
        let draining = redis::recovery_fence(fence.token, checkpoint.epoch);
        if replace_fence(&pinned, partition, &draining, &sealed).await? == FenceSwap::Mismatch
            && replace_fence(&pinned, partition, &sealed, &sealed).await? == FenceSwap::Mismatch
        {
            return Err(Error::FencedByOther(partition));
        }
        // Until now the fence named this outbox. Stop if MySQL still lacks a part of it.
        if marks.fence.outbox_epoch().is_some() && marks.seq > checkpoint.n {
            return Err(Error::OutboxNotDrained(partition));
        }
        self.wait_for_other_partitions().await?;

        let cleared =
            pinned.clear(partition, &sealed).await?.ok_or(Error::FencedByOther(partition))?;
        tracing::info!(
            %partition,
            cleared,
            checkpoint = checkpoint.n,
            "restoring a partition from MySQL"
        );
        let restore_count = sql::restore_count(&mut tx, partition).await?;
        let mut writer = FencedWriter::new(
            (&self.redis, &pinned),
            partition,
            checkpoint.n,
            sealed.clone(),
            restore_count,
        );
        restore::restore_all(&mut writer, &mut tx).await?;

        // First Redis, then MySQL: see the module's documentation for a crash in between.
        sql::record_restored(&mut tx, partition, fence.next_epoch).await?;
        checkpoint::set_epoch(&mut tx, partition, fence.next_epoch).await?;
        let epoch = fence.next_epoch.to_string();
        if replace_fence(&pinned, partition, &sealed, &epoch).await? == FenceSwap::Mismatch {
            return Err(Error::FencedByOther(partition));
        }
        failpoint!("recovery.before_commit");
        tx.commit().await?;
        self.redis.epochs().open(partition, fence.next_epoch);
        Ok(Some(writer.rows()))
    }

    /// Waits until MySQL has the events of all intact partitions: a payment that was confirmed
    /// there must be known here.
    async fn wait_for_other_partitions(&self) -> Result<(), Error> {
        let asked = Instant::now();
        let mut last_wait = self.other_partitions.lock().await;
        if last_wait.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let began = Instant::now();
        let states = self.states().await?;
        let serving: Vec<_> = states
            .into_iter()
            .filter(|(_, state)| {
                use FenceState::{Behind, Healing, Serving};
                matches!(state, Serving(_) | Behind(_) | Healing(_))
            })
            .map(|(partition, _)| partition)
            .collect();
        let timeout = OTHER_PARTITIONS_TIMEOUT;
        if !outbox::wait_until_written(&self.redis, &self.mysql, &self.writer, &serving, timeout)
            .await?
        {
            tracing::warn!("MySQL is behind; the reconciler repairs what it does not have yet");
        }
        *last_wait = Some(began);
        Ok(())
    }
}

/// Replaces the fence `expected` by `next`, which is another fence or an epoch.
pub(super) async fn replace_fence(
    pinned: &PinnedConnection,
    partition: Partition,
    expected: &str,
    next: &str,
) -> Result<FenceSwap, Error> {
    let mut args = ScriptArgs::new();
    args.text(next);
    let scope = KeyScope::partition(partition);
    let script = &scripts::RECOVERY_REPLACE_FENCE;
    match pinned.call_fenced(script, scope, expected, args, Vec::new()).await? {
        Some(_) => Ok(FenceSwap::Replaced),
        None => Ok(FenceSwap::Mismatch),
    }
}
