//! Which queues have something to do: users, holds, payments in progress, or a draw to come. All
//! others cost nothing, however many there are.
//!
//! The scripts keep the hash `busy` of each partition. `lua/queue/promote.lua` alone removes a queue
//! from it, in the call that finds nothing left to do. Every instance reads the hashes four times a
//! second, one call for each partition that has queues. The promoter and the sweeps visit only the
//! queues that were in them recently.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};

use super::{QueueService, busy_store as store};
use crate::ids::QueueId;
use crate::partition::Partition;
use crate::redis::{self, Coalescer, PartitionNamesBatch, RedisClient};

/// How long a queue is visited after it was busy: at least two rounds of each sweep, so that every
/// instance reports its last state.
const VISITED_AFTER: Duration = Duration::from_millis(1_200);

pub(super) struct BusyQueues {
    reads: Coalescer<PartitionNamesBatch<QueueId>>,
    /// When each queue was last known to be busy.
    last_seen: Mutex<HashMap<QueueId, Instant>>,
}

impl BusyQueues {
    pub(super) fn new(redis: &RedisClient, max_waiting_requests: usize) -> Self {
        let batch = store::busy_queues(redis);
        Self { reads: Coalescer::new(batch, max_waiting_requests), last_seen: Mutex::default() }
    }

    /// Called after a change of any definition, which can change what the sweeps report: all
    /// queues are visited once.
    pub(super) fn visit_all<'a>(&self, existing: impl Iterator<Item = &'a QueueId>) {
        let now = Instant::now();
        *self.lock() = existing.map(|queue| (queue.clone(), now)).collect();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueId, Instant>> {
        self.last_seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueService {
    /// Reads which queues are busy. A partition that does not answer keeps its last state.
    pub(super) async fn refresh_busy(&self) {
        let reads = self.partitions_with_queues().into_iter();
        let found = join_all(reads.map(|partition| self.busy.reads.submit(partition, ()))).await;
        let (mut last_seen, now) = (self.busy.lock(), Instant::now());
        for queue in found.iter().flatten().flat_map(|queues| queues.iter()) {
            if let Some(seen) = last_seen.get_mut(queue) {
                *seen = now;
            }
        }
    }

    /// The queues that were busy recently, sorted.
    pub fn recently_busy(&self) -> Vec<QueueId> {
        let mut ids: Vec<_> = self
            .busy
            .lock()
            .iter()
            .filter(|(_, seen)| seen.elapsed() < VISITED_AFTER)
            .map(|(queue, _)| queue.clone())
            .collect();
        ids.sort();
        ids
    }

    /// The queues that are busy now, as Redis says.
    pub async fn busy_now(&self) -> Result<Vec<QueueId>, redis::Error> {
        let reads = self.partitions_with_queues().into_iter();
        let found: Vec<Arc<Vec<QueueId>>> =
            try_join_all(reads.map(|partition| self.busy.reads.submit(partition, ()))).await?;
        Ok(found.iter().flat_map(|queues| queues.iter().cloned()).collect())
    }

    fn partitions_with_queues(&self) -> HashSet<Partition> {
        let keys = self.redis.keys();
        self.queues.load().keys().map(|queue| keys.partition(queue.slot())).collect()
    }
}
