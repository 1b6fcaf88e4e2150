//! When MySQL has it: what `USHER_ACK=durable` waits for.
//!
//! A call that has changed something waits until the checkpoints of the partitions it touched have passed the number that their outboxes had reached
//! after it. Whichever instance writes them: this instance's writer tells of its commits directly, and one watcher for all who wait reads MySQL's
//! checkpoints while others write.
//!
//! Redis may come back without its last events and number others alike, so a number means something only within one session: who has
//! seen a reconnection while waiting, another server, or another generation, does not know, and says so. The numbers are read again after the commit was seen, over
//! connections that must still be the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::MySqlPool;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::mysql::checkpoint;
use crate::partition::{Partition, PartitionCount};
use crate::redis::{FenceMarks, RedisClient};

/// How often MySQL is asked while somebody waits: less often than this instance's writer commits, which tells without being asked.
const CHECKPOINT_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The same after MySQL gave no answer.
const POLL_PAUSE_AFTER_ERROR: Duration = Duration::from_millis(250);

/// What the answers of an instance wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurabilitySettings {
    /// Whether they wait for MySQL at all.
    pub durable: bool,
    /// For so long at most.
    pub patience: Duration,
}

/// Who waits, and what is known of MySQL.
#[derive(Debug)]
pub(super) struct DurabilityTracker {
    patience: Duration,
    /// The checkpoints as far as this instance has heard of them, by partition.
    committed: Vec<AtomicU64>,
    /// Who has come since the watcher last looked.
    new_waiters: Mutex<Vec<DurabilityWaiter>>,
    changed: Notify,
}

#[derive(Debug)]
struct DurabilityWaiter {
    partitions: Vec<Partition>,
    /// How many doubts of Redis there had been when the waiter's call began.
    since: u64,
    /// What the partitions showed once the waiter's call was over.
    marks: BTreeMap<Partition, FenceMarks>,
    answer: oneshot::Sender<bool>,
}

impl DurabilityTracker {
    pub(super) fn new(partitions: PartitionCount, patience: Duration) -> Self {
        let committed = partitions.all().map(|_| AtomicU64::new(0)).collect();
        Self { patience, committed, new_waiters: Mutex::default(), changed: Notify::new() }
    }

    /// Waits until MySQL has what the partitions' outboxes hold now, in the session in which the call was made. Answers whether it is known to.
    pub(super) async fn wait_until_written(
        &self,
        redis: &RedisClient,
        since: u64,
        partitions: &[Partition],
    ) -> bool {
        if !partitions.iter().all(|partition| redis.is_unchanged_since(*partition, since)) {
            return false;
        }
        let (ear, heard) = oneshot::channel();
        let waiter = DurabilityWaiter {
            partitions: partitions.to_vec(),
            since,
            marks: BTreeMap::new(),
            answer: ear,
        };
        self.new_waiters.lock().unwrap_or_else(PoisonError::into_inner).push(waiter);
        self.changed.notify_one();
        matches!(timeout(self.patience, heard).await, Ok(Ok(true)))
    }

    /// Takes note of checkpoints that are committed.
    pub(super) fn committed(&self, through: impl IntoIterator<Item = (Partition, u64)>) {
        for (partition, n) in through {
            self.committed[usize::from(partition.get())].fetch_max(n, Ordering::AcqRel);
        }
        self.changed.notify_one();
    }

    /// Whether a partition's checkpoint is known to have come to an entry.
    pub(super) fn is_written(&self, partition: Partition, n: u64) -> bool {
        self.committed[usize::from(partition.get())].load(Ordering::Acquire) >= n
    }

    fn is_satisfied(&self, waiter: &DurabilityWaiter) -> bool {
        waiter.marks.iter().all(|(partition, marks)| self.is_written(*partition, marks.seq))
    }

    /// Serves those who wait, until `stop`.
    pub(super) async fn watch(
        self: Arc<Self>,
        redis: RedisClient,
        mysql: MySqlPool,
        stop: CancellationToken,
    ) {
        let mut waiting: Vec<DurabilityWaiter> = Vec::new();
        let mut look = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = sleep_until(look), if !waiting.is_empty() => {
                    let pause = if self.read_checkpoints(&redis, &mysql).await { CHECKPOINT_POLL_INTERVAL } else { POLL_PAUSE_AFTER_ERROR };
                    look = Instant::now() + pause;
                }
            }
            if waiting.is_empty() {
                look = look.max(Instant::now() + CHECKPOINT_POLL_INTERVAL);
            }
            waiting.extend(self.prepare_new_waiters(&redis).await);
            waiting.retain(|waiter| !waiter.answer.is_closed());
            let (done, rest) = waiting.into_iter().partition(|waiter| self.is_satisfied(waiter));
            waiting = rest;
            answer(&redis, done).await;
        }
    }

    /// Learns what those who have come wait for. Those whom Redis does not answer hear nothing, and give up.
    async fn prepare_new_waiters(&self, redis: &RedisClient) -> Vec<DurabilityWaiter> {
        let mut newcomers =
            std::mem::take(&mut *self.new_waiters.lock().unwrap_or_else(PoisonError::into_inner));
        let marks = read_marks(redis, &newcomers).await;
        newcomers.retain_mut(|waiter| {
            waiter.marks =
                waiter.partitions.iter().filter_map(|at| Some((*at, *marks.get(at)?))).collect();
            waiter.marks.len() == waiter.partitions.iter().collect::<BTreeSet<_>>().len()
        });
        newcomers
    }

    /// Asks MySQL for the checkpoints. Answers whether it told.
    async fn read_checkpoints(&self, redis: &RedisClient, mysql: &MySqlPool) -> bool {
        match checkpoint::load_all(mysql, redis.keys().partitions()).await {
            Ok(checkpoints) => {
                for checkpoint in checkpoints {
                    let known = &self.committed[usize::from(checkpoint.partition.get())];
                    known.fetch_max(checkpoint.n, Ordering::AcqRel);
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "asking MySQL for its checkpoints");
                false
            }
        }
    }
}

/// What the partitions of some waiters show now, as far as they can be read.
async fn read_marks(
    redis: &RedisClient,
    waiters: &[DurabilityWaiter],
) -> BTreeMap<Partition, FenceMarks> {
    let mut partitions: Vec<Partition> =
        waiters.iter().flat_map(|waiter| waiter.partitions.iter().copied()).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let marks = redis.fence_marks_each(&partitions).await;
    partitions
        .into_iter()
        .zip(marks)
        .filter_map(|(partition, marks)| Some((partition, marks.ok()?)))
        .collect()
}

/// Tells waiters whose checkpoints are passed, as far as Redis is still the one that numbered their events.
async fn answer(redis: &RedisClient, done: Vec<DurabilityWaiter>) {
    if done.is_empty() {
        return;
    }
    let now = read_marks(redis, &done).await;
    for waiter in done {
        let same = |(partition, before): (&Partition, &FenceMarks)| {
            now.get(partition)
                .is_some_and(|after| after.fence == before.fence && after.seq >= before.seq)
        };
        let unbroken = waiter.partitions.iter().all(|at| redis.is_unchanged_since(*at, waiter.since));
        let known = unbroken && waiter.marks.iter().all(same);
        // Whoever gave up is not listening.
        let _ = waiter.answer.send(known);
    }
}
