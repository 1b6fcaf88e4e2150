//! Changes the number of partitions while no instance serves.
//!
//! ```text
//! for each old partition: fence ─→ drain
//!   ─→ under the locks of all checkpoints: number, checkpoints, history ─→ commit
//!   ─→ restore every new partition
//! ```
//!
//! The number of partitions determines the partition of every entity, so nothing of the old layout
//! can be kept. Redis is restored from MySQL by the same code as after a loss, with the same gaps:
//! holds are lost, and users regain their queue positions with the tokens that they show within
//! `restore_seconds`.
//!
//! **The commit is the point of no return.** After a crash before it, the installation has the old
//! number and some fenced partitions. Instances with the old setting restore these automatically,
//! and the command starts again. After a crash after it, the installation has the new number and
//! partitions that are not restored yet. Instances with the new setting restore them automatically,
//! and the command continues.
//!
//! **An instance that is still running can do no harm.** Every old partition is fenced, and under
//! the locks each fence is still ours, so nothing was written since. Afterwards the epochs that the
//! instance knows do not exist any more, it finds another number of checkpoints than it has
//! partitions ([`checkpoint::load_all`]), and a recovery that it started checks the number under
//! the row lock.
//!
//! **Numbers continue.** Every new partition starts at the highest number of any old one, so the
//! history of a user or a queue keeps its order. Each new partition also inherits when its old
//! partitions were restored: restored queue positions come after those of every such time
//! ([`super::restore`]).

use std::time::Duration;

use sqlx::MySqlPool;
use tokio::time::sleep;

use super::restore_partition::{
    AcquiredFence, FenceOutcome, FenceSwap, PartitionRecovery, replace_fence,
};
use super::{Error, sql};
use crate::failpoint::failpoint;
use crate::mysql;
use crate::mysql::checkpoint::{self, Checkpoint};
use crate::partition::{Partition, PartitionCount};
use crate::redis::{self, FenceReading};

/// How often, and how long apart, to try to fence a partition whose checkpoint is locked.
const FENCE_ATTEMPTS: u32 = 30;
const FENCE_RETRY_PAUSE: Duration = Duration::from_millis(100);

impl PartitionRecovery {
    /// Fences every partition, waits until MySQL has their outboxes, and changes the number of
    /// partitions to `to`. A writer must be running. `on_fenced` is called for each partition.
    ///
    /// # Errors
    /// [`Error::DeadLetters`] when there are any; [`Error::FencedByOther`] when another recovery is
    /// running; and when a store fails. The number is then unchanged.
    pub async fn repartition(
        &self,
        to: PartitionCount,
        on_fenced: &(dyn Fn() + Sync),
    ) -> Result<(), Error> {
        let from = self.redis.keys().partitions();
        let letters = sql::dead_letters(&self.mysql).await?;
        if letters > 0 {
            return Err(Error::DeadLetters(letters));
        }
        let mut fences = Vec::with_capacity(usize::from(from.count()));
        for partition in from.all() {
            let fence = self.fence_with_retries(partition).await?;
            if let Err(error) = self.drain(partition).await {
                self.put_fence_back(partition, fence).await?;
                return Err(error);
            }
            fences.push(fence);
            on_fenced();
        }
        failpoint!("repartition.before_commit");

        let mut tx = self.mysql.begin().await?;
        mysql::migrate::check_count(&mut tx, from, true).await?;
        let checkpoints = checkpoint::lock_all(&mut tx, from).await?;
        for (checkpoint, fence) in checkpoints.iter().zip(fences) {
            self.seal_fence(checkpoint, fence).await?;
        }
        let n = checkpoints.iter().map(|checkpoint| checkpoint.n).max().unwrap_or(0);
        // Again under the locks: draining may have produced dead letters.
        let letters = sql::dead_letters(&mut *tx).await?;
        if letters > 0 {
            return Err(Error::DeadLetters(letters));
        }
        sql::inherit_restore_times(&mut tx, from, to).await?;
        mysql::migrate::replace_partitions(&mut tx, to, n).await?;
        tx.commit().await?;
        failpoint!("repartition.after_commit");
        Ok(())
    }

    async fn fence_with_retries(&self, partition: Partition) -> Result<AcquiredFence, Error> {
        for _ in 0..FENCE_ATTEMPTS {
            if let FenceOutcome::Fenced(fence) = self.fence_partition(partition, true).await? {
                return Ok(fence);
            }
            sleep(FENCE_RETRY_PAUSE).await;
        }
        Err(Error::FencedByOther(partition))
    }

    /// Changes our fence into one that says that MySQL must not read this outbox any more. The
    /// caller holds the row lock.
    async fn seal_fence(&self, checkpoint: &Checkpoint, fence: AcquiredFence) -> Result<(), Error> {
        let partition = checkpoint.partition;
        let pinned = self.redis.pin(partition).await?;
        let sealed = redis::recovery_fence(fence.token, None);
        let draining = redis::recovery_fence(fence.token, checkpoint.epoch);
        if replace_fence(&pinned, partition, &draining, &sealed).await? == FenceSwap::Mismatch
            && replace_fence(&pinned, partition, &sealed, &sealed).await? == FenceSwap::Mismatch
        {
            return Err(Error::FencedByOther(partition));
        }
        let marks = self.redis.fence_marks(&[partition]).await?[0];
        if checkpoint.epoch.is_some() && marks.seq > checkpoint.n {
            return Err(Error::OutboxNotDrained(partition));
        }
        Ok(())
    }

    /// Deletes everything but the fences from the partitions beyond the current number. Returns the
    /// number of deleted keys. The client must be connected with the highest number of partitions
    /// that there ever was ([`PartitionRecovery::max_partition_count`]).
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn drop_former(&self, current: PartitionCount) -> Result<u64, Error> {
        let mut deleted = 0;
        for partition in self.redis.keys().partitions().all().skip(usize::from(current.count())) {
            let Some(text) = self.redis.read_fence_text(partition).await? else { continue };
            if matches!(FenceReading::read(&text), FenceReading::Fenced { .. }) {
                let pinned = self.redis.pin(partition).await?;
                deleted +=
                    pinned.clear(partition, &text).await?.ok_or(Error::FencedByOther(partition))?;
            }
        }
        Ok(deleted)
    }

    /// The highest number of partitions that there ever was, as far as `recoveries` shows it.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn max_partition_count(mysql: &MySqlPool) -> Result<Option<PartitionCount>, Error> {
        Ok(sql::max_partition_count(mysql).await?.and_then(PartitionCount::new))
    }
}
