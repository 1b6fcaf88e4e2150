//! Durability wait: with `USHER_ACK=durable` an answer waits until MySQL has what the call changed.
//!
//! A call that changed something waits until the checkpoint of each partition it touched reaches
//! the outbox number that the partition had after the call. Any instance may write it: the writer
//! of this instance reports its commits directly, and one watcher polls MySQL's checkpoints for all
//! waiters.
//!
//! Invariant: an outbox number identifies an event only within one session. A Redis that restarts
//! without its last events gives their numbers to other events. So after a reconnection, a new
//! owner or a new epoch the outcome is unknown, and the wait reports that. The numbers are read a
//! second time after the commit was seen.

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

/// How often the checkpoints are read while a call waits. Commits of this instance are reported
/// without polling.
const CHECKPOINT_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The pause after MySQL did not answer.
const POLL_PAUSE_AFTER_ERROR: Duration = Duration::from_millis(250);

/// Whether, and for how long, answers wait for MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurabilitySettings {
    pub durable: bool,
    /// The longest wait.
    pub patience: Duration,
}

/// The waiting calls, and the checkpoints known to be committed.
#[derive(Debug)]
pub(super) struct DurabilityTracker {
    patience: Duration,
    /// By partition: the highest outbox number that is known to be in MySQL.
    committed: Vec<AtomicU64>,
    /// Waiters that the watcher has not taken over yet.
    new_waiters: Mutex<Vec<DurabilityWaiter>>,
    changed: Notify,
}

#[derive(Debug)]
struct DurabilityWaiter {
    partitions: Vec<Partition>,
    /// The value of [`RedisClient::session_start`] when the call began.
    since: u64,
    /// The fences and outbox numbers after the call.
    marks: BTreeMap<Partition, FenceMarks>,
    answer: oneshot::Sender<bool>,
}

impl DurabilityTracker {
    pub(super) fn new(partitions: PartitionCount, patience: Duration) -> Self {
        let committed = partitions.all().map(|_| AtomicU64::new(0)).collect();
        Self { patience, committed, new_waiters: Mutex::default(), changed: Notify::new() }
    }

    /// Waits until MySQL has what the partitions' outboxes hold now. Returns whether that is known:
    /// `false` after the timeout and after a change of session.
    pub(super) async fn wait_until_written(
        &self,
        redis: &RedisClient,
        since: u64,
        partitions: &[Partition],
    ) -> bool {
        if !partitions.iter().all(|partition| redis.is_unchanged_since(*partition, since)) {
            return false;
        }
        let (answer, answered) = oneshot::channel();
        let waiter = DurabilityWaiter {
            partitions: partitions.to_vec(),
            since,
            marks: BTreeMap::new(),
            answer,
        };
        self.new_waiters.lock().unwrap_or_else(PoisonError::into_inner).push(waiter);
        self.changed.notify_one();
        matches!(timeout(self.patience, answered).await, Ok(Ok(true)))
    }

    /// Records committed checkpoints and wakes the watcher.
    pub(super) fn record_committed(&self, through: impl IntoIterator<Item = (Partition, u64)>) {
        for (partition, n) in through {
            self.committed[usize::from(partition.get())].fetch_max(n, Ordering::AcqRel);
        }
        self.changed.notify_one();
    }

    /// Whether MySQL is known to have a partition's outbox up to entry `n`.
    pub(super) fn is_written(&self, partition: Partition, n: u64) -> bool {
        self.committed[usize::from(partition.get())].load(Ordering::Acquire) >= n
    }

    fn is_satisfied(&self, waiter: &DurabilityWaiter) -> bool {
        waiter.marks.iter().all(|(partition, marks)| self.is_written(*partition, marks.seq))
    }

    /// Answers the waiters until `stop`.
    pub(super) async fn watch(
        self: Arc<Self>,
        redis: RedisClient,
        mysql: MySqlPool,
        stop: CancellationToken,
    ) {
        let mut waiting: Vec<DurabilityWaiter> = Vec::new();
        let mut next_poll = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = sleep_until(next_poll), if !waiting.is_empty() => {
                    let pause = match self.read_checkpoints(&redis, &mysql).await {
                        true => CHECKPOINT_POLL_INTERVAL,
                        false => POLL_PAUSE_AFTER_ERROR,
                    };
                    next_poll = Instant::now() + pause;
                }
            }
            if waiting.is_empty() {
                next_poll = next_poll.max(Instant::now() + CHECKPOINT_POLL_INTERVAL);
            }
            waiting.extend(self.prepare_new_waiters(&redis).await);
            waiting.retain(|waiter| !waiter.answer.is_closed());
            let (done, rest) = waiting.into_iter().partition(|waiter| self.is_satisfied(waiter));
            waiting = rest;
            notify_waiters(&redis, done).await;
        }
    }

    /// Reads the outbox numbers that new waiters wait for. A waiter whose partition can't be read
    /// gets no answer and times out.
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

    /// Reads the checkpoints from MySQL. Returns whether it answered.
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
                tracing::debug!(%error, "could not read the checkpoints from MySQL");
                false
            }
        }
    }
}

/// Reads the fences of the waiters' partitions and leaves out those that can't be read.
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

/// Answers the waiters whose checkpoints are reached: `true` only where Redis is still the one that
/// numbered their events.
async fn notify_waiters(redis: &RedisClient, done: Vec<DurabilityWaiter>) {
    if done.is_empty() {
        return;
    }
    let now = read_marks(redis, &done).await;
    for waiter in done {
        let same = |(partition, before): (&Partition, &FenceMarks)| {
            now.get(partition)
                .is_some_and(|after| after.fence == before.fence && after.seq >= before.seq)
        };
        let is_unchanged =
            waiter.partitions.iter().all(|at| redis.is_unchanged_since(*at, waiter.since));
        let known = is_unchanged && waiter.marks.iter().all(same);
        // The receiver is gone when the call gave up.
        let _ = waiter.answer.send(known);
    }
}
