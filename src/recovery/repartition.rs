//! Another count of partitions, while no instance serves.
//!
//! ```text
//! for each old partition: bar ─→ drain      ─→ all checkpoints locked: count, checkpoints, history ─→ commit      ─→ lay every new partition back
//! ```
//!
//! The count decides which partition everything lives in, so nothing of the old layout can be kept: Redis is laid anew from MySQL by the same code as after a loss,
//! with the same gaps. Holds are gone, and places in line stand up again from the tokens that are shown within `restore_seconds`.
//!
//! **The commit is the point of no return.** Killed before it, the installation is of the old count with some partitions barred: instances of the old
//! setting lay these back by themselves, and the command begins anew. Killed after it, it is of the new count with partitions that are not laid yet: instances of the
//! new setting lay them back by themselves, and the command goes on where it stopped.
//!
//! **An instance that was forgotten can do no harm.** Every old partition is barred, and under the locks each bar is still ours, so nothing was written
//! behind them. Afterwards no generation that the instance knows exists, it finds another number of checkpoints than it has partitions
//! ([`checkpoint::load_all`]), and a recovery that it has begun looks at the count under the row's lock.
//!
//! **Numbers go on.** Every new partition begins at the highest number that any old one had, so that a user's or a queue's history keeps its order. And each takes over
//! when the old partitions that feed it were laid back: places in line are dealt behind those of every such time ([`super::restore`]).

use std::time::Duration;

use sqlx::MySqlPool;
use tokio::time::sleep;

use super::recover::{PartitionRecovery, replace_fence};
use super::{Error, sql};
use crate::failpoint::failpoint;
use crate::mysql;
use crate::mysql::checkpoint::{self, Checkpoint};
use crate::partition::{Partition, PartitionCount};
use crate::redis::{self, FenceReading};

/// How often, and how long apart, it is tried to lock a partition that a writer is at work on.
const FENCE_ATTEMPTS: u32 = 30;
const FENCE_RETRY_PAUSE: Duration = Duration::from_millis(100);

impl PartitionRecovery {
    /// Bars every partition, waits until MySQL has what stood behind the bars, and makes `to` the count. A writer must be running. `barred` hears of each partition.
    ///
    /// # Errors
    /// [`Error::DeadLetters`] while some are kept, for they are known by their partitions; [`Error::Overtaken`] when somebody else works on a partition;
    /// and when a store fails. Then the count is as it was.
    pub async fn repartition(
        &self,
        to: PartitionCount,
        barred: &(dyn Fn() + Sync),
    ) -> Result<(), Error> {
        let from = self.redis.keys().partitions();
        let letters = sql::dead_letters(&self.mysql).await?;
        if letters > 0 {
            return Err(Error::DeadLetters(letters));
        }
        let mut tokens = Vec::with_capacity(usize::from(from.count()));
        for partition in from.all() {
            tokens.push(self.fence_with_retries(partition).await?);
            self.drain(partition).await?;
            barred();
        }
        failpoint!("repartition.before_commit");
        let mut tx = self.mysql.begin().await?;
        mysql::migrate::check_count(&mut tx, from, true).await?;
        let checkpoints = checkpoint::lock_all(&mut tx, from).await?;
        for (checkpoint, token) in checkpoints.iter().zip(tokens) {
            self.seal_fence(checkpoint, token).await?;
        }
        let n = checkpoints.iter().map(|checkpoint| checkpoint.n).max().unwrap_or(0);
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

    /// Bars a partition, also while a writer is at work on it. Gives the bar's token.
    async fn fence_with_retries(&self, partition: Partition) -> Result<u64, Error> {
        for _ in 0..FENCE_ATTEMPTS {
            match self.fence_partition(partition, true).await? {
                Some((token, _)) if token != 0 => return Ok(token),
                Some(_) | None => sleep(FENCE_RETRY_PAUSE).await,
            }
        }
        Err(Error::FencedByOther(partition))
    }

    /// Makes a bar of ours one behind which there is nothing, under the row's lock.
    async fn seal_fence(&self, checkpoint: &Checkpoint, token: u64) -> Result<(), Error> {
        let partition = checkpoint.partition;
        let pinned = self.redis.pin(partition).await?;
        let bar = redis::recovery_fence(token, None);
        let ours = replace_fence(&pinned, partition, &redis::recovery_fence(token, checkpoint.epoch), &bar)
            .await?
            || replace_fence(&pinned, partition, &bar, &bar).await?;
        if !ours {
            return Err(Error::FencedByOther(partition));
        }
        let marks = self.redis.fence_marks(&[partition]).await?[0];
        if checkpoint.epoch.is_some() && marks.seq > checkpoint.n {
            return Err(Error::OutboxNotDrained(partition));
        }
        Ok(())
    }

    /// Drops what partitions beyond the present count have left in Redis, all but their bars. Gives how many keys. The client must know as many partitions as there
    /// ever were ([`PartitionRecovery::ever`]).
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn drop_former(&self, present: PartitionCount) -> Result<u64, Error> {
        let mut dropped = 0;
        for partition in self.redis.keys().partitions().all().skip(usize::from(present.count())) {
            let Some(text) = self.redis.read_fence_text(partition).await? else { continue };
            if matches!(FenceReading::read(&text), FenceReading::Fenced(_)) {
                let pinned = self.redis.pin(partition).await?;
                dropped +=
                    pinned.clear(partition, &text).await?.ok_or(Error::FencedByOther(partition))?;
            }
        }
        Ok(dropped)
    }

    /// The highest count of partitions that there has been, as far as some of them were ever barred.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn max_partition_count(mysql: &MySqlPool) -> Result<Option<PartitionCount>, Error> {
        Ok(sql::max_partition_count(mysql).await?.and_then(PartitionCount::new))
    }
}
