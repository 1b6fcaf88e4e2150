//! The handle on the writer that all domains hold: wakes the writer, and waits until MySQL has what
//! a call changed.

use std::sync::Arc;

use sqlx::MySqlPool;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::durability::{DurabilitySettings, DurabilityTracker};
use super::pending_events;
use crate::partition::Partition;
use crate::redis::RedisClient;

/// Wakes the writer after a script emitted events, so that it does not wait for its next poll.
/// Cheap to clone and to call; several calls during one flush count as one.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    wake_signal: Arc<Notify>,
    pending_readers: Arc<Semaphore>,
    redis: RedisClient,
    durability: Option<Arc<DurabilityTracker>>,
}

/// Created before the first script of a call that may change something, and awaited before its
/// answer.
#[derive(Debug)]
pub struct DurabilityWait {
    writer: WriterHandle,
    since: u64,
}

impl WriterHandle {
    pub(super) fn new(redis: RedisClient, settings: DurabilitySettings) -> Self {
        let partitions = redis.keys().partitions();
        let durability = settings
            .durable
            .then(|| Arc::new(DurabilityTracker::new(partitions, settings.patience)));
        let pending_readers = Arc::new(Semaphore::new(pending_events::MAX_READERS));
        Self { wake_signal: Arc::default(), pending_readers, redis, durability }
    }

    /// Starts a flush, or one more after the current one.
    pub fn wake(&self) {
        self.wake_signal.notify_one();
    }

    /// Whether MySQL is known to have a partition's outbox up to entry `n`. Reads memory only.
    /// Always `true` when answers do not wait for MySQL.
    pub fn is_written(&self, partition: Partition, n: u64) -> bool {
        self.durability.as_ref().is_none_or(|durability| durability.is_written(partition, n))
    }

    /// Call this before the first script of a call: a change of session after this point is
    /// detected.
    pub fn start_durability_wait(&self) -> DurabilityWait {
        DurabilityWait { writer: self.clone(), since: self.redis.session_start() }
    }

    /// Answers durability waits until `stop`.
    pub async fn run_durability_watcher(self, mysql: MySqlPool, stop: CancellationToken) {
        if let Some(durability) = self.durability {
            durability.watch(self.redis, mysql, stop).await;
        }
    }

    /// The turns of lists that read outboxes.
    pub(super) fn pending_readers(&self) -> &Semaphore {
        &self.pending_readers
    }

    pub(super) async fn woken(&self) {
        self.wake_signal.notified().await;
    }

    pub(super) fn record_committed(&self, through: impl IntoIterator<Item = (Partition, u64)>) {
        if let Some(durability) = &self.durability {
            durability.record_committed(through);
        }
    }
}

impl DurabilityWait {
    /// Whether the answer may be given as final. Returns `true` at once when answers do not wait
    /// for MySQL, otherwise once MySQL has what the partitions' outboxes hold now. `false` means
    /// that this is not known in time: the change is made and will reach MySQL, unless Redis loses
    /// it first.
    pub async fn wait_until_written(&self, partitions: &[Partition]) -> bool {
        let Some(durability) = &self.writer.durability else { return true };
        self.writer.wake();
        durability.wait_until_written(&self.writer.redis, self.since, partitions).await
    }
}
