//! Repeated inspections: a difference that disappears is no fault, a difference that remains is
//! one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::MySqlPool;
use tokio::time::{Instant, sleep};

use crate::ids::QueueId;
use crate::mysql::checkpoint;
use crate::partition::Partition;
use crate::redis::RedisClient;
use crate::store_error::StoreError;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The first and the longest pause before an inspection is repeated.
const REINSPECT_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// An inspection of some items. It returns the wrong ones, each with a description.
pub(super) trait AuditInspection<K>:
    Future<Output = Result<Vec<(K, String)>, StoreError>> + Send
{
}

impl<K, F: Future<Output = Result<Vec<(K, String)>, StoreError>> + Send> AuditInspection<K> for F {}

pub(super) struct Reinspection<'a> {
    redis: &'a RedisClient,
    mysql: &'a MySqlPool,
    queues: Vec<QueueId>,
    patience: Duration,
    /// Milliseconds spent on pauses so far.
    spent: AtomicU64,
}

impl<'a> Reinspection<'a> {
    pub(super) async fn new(
        redis: &'a RedisClient,
        mysql: &'a MySqlPool,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let queues: Vec<String> =
            sqlx::query_scalar("SELECT id FROM queues WHERE deleted_at IS NULL ORDER BY id")
                .fetch_all(mysql)
                .await?;
        let queues = queues.into_iter().filter_map(|queue| queue.parse().ok()).collect();
        Ok(Self { redis, mysql, queues, patience, spent: AtomicU64::new(0) })
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = (Partition, &QueueId)> {
        self.queues.iter().map(|queue| (self.redis.keys().partition(queue.slot()), queue))
    }

    /// The sequence of every partition, if MySQL has all entries and no payment is in progress;
    /// otherwise `None`. If two calls return equal values, nothing durable changed between them.
    pub(super) async fn quiescent_sequences(&self) -> Result<Option<Vec<u64>>, StoreError> {
        for (partition, queue) in self.queues() {
            // The sorted set holds every payment without a final state, with its due time as score.
            if self.redis.count_above(partition, &format!("q:{queue}:due"), 0).await? > 0 {
                return Ok(None);
            }
        }
        let partitions: Vec<_> = self.redis.keys().partitions().all().collect();
        let marks = self.redis.fence_marks(&partitions).await?;
        let checkpoints = checkpoint::load_all(self.mysql, self.redis.keys().partitions()).await?;
        let written =
            checkpoints.iter().zip(&marks).all(|(checkpoint, marks)| checkpoint.n == marks.seq);
        Ok(written.then(|| marks.iter().map(|marks| marks.seq).collect()))
    }

    /// Waits until nothing changes, for at most half of the patience, and returns
    /// [`Self::quiescent_sequences`]. The other half stays for repeated inspections, because under
    /// load there is always a change.
    pub(super) async fn wait_until_quiescent(&self) -> Result<Option<Vec<u64>>, StoreError> {
        let (mut pause, deadline) = (REINSPECT_PAUSES.0, Instant::now() + self.patience / 2);
        loop {
            let sequences = self.quiescent_sequences().await?;
            if sequences.is_some() || Instant::now() + pause > deadline {
                return Ok(sequences);
            }
            sleep(pause).await;
            pause = (pause * 2).min(REINSPECT_PAUSES.1);
        }
    }

    /// Inspects items, and repeats that for those that look wrong. Returns descriptions of what
    /// remains wrong.
    pub(super) async fn inspect_until_stable<K: Clone + Ord, F: AuditInspection<K>>(
        &self,
        ids: Vec<K>,
        inspect: &impl Fn(Vec<K>) -> F,
    ) -> Result<Vec<String>, StoreError> {
        let mut faults = inspect(ids).await?;
        let mut pause = REINSPECT_PAUSES.0;
        while !faults.is_empty() {
            let before = self.quiescent_sequences().await?;
            sleep(pause).await;
            let wrong: BTreeSet<K> = faults.into_iter().map(|(id, _)| id).collect();
            let wrong: Vec<K> = wrong.into_iter().collect();
            faults = inspect(wrong).await?;
            // Nothing changed during the pause, so the difference will not disappear either.
            let nothing_changed = before.is_some() && before == self.quiescent_sequences().await?;
            let spent = self.spent.fetch_add(millis(pause), Ordering::Relaxed);
            if nothing_changed || spent > millis(self.patience) {
                break;
            }
            pause = (pause * 2).min(REINSPECT_PAUSES.1);
        }
        Ok(faults.into_iter().map(|(_, fault)| fault).collect())
    }
}
