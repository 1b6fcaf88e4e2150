//! The rooms' handle on the writer: wakes it, and waits for what it commits.

use std::sync::Arc;

use sqlx::MySqlPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::durability::{DurabilitySettings, DurabilityTracker};
use crate::partition::Partition;
use crate::redis::RedisClient;

/// Tells the writer that a script has just emitted events, so that it needn't wait for its next look. Cheap to clone and to poke; pokes
/// during a pass add up to one.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    wake_signal: Arc<Notify>,
    redis: RedisClient,
    durability: Option<Arc<DurabilityTracker>>,
}

/// What a call that may change something holds from before it until its answer.
#[derive(Debug)]
pub struct DurabilityWait {
    writer: WriterHandle,
    since: u64,
}

impl WriterHandle {
    pub(super) fn new(redis: RedisClient, settings: DurabilitySettings) -> Self {
        let partitions = redis.keys().partitions();
        let ack = settings
            .durable
            .then(|| Arc::new(DurabilityTracker::new(partitions, settings.patience)));
        Self { wake_signal: Arc::default(), redis, durability: ack }
    }

    /// Wakes the writer, or has it look once more when it is at work.
    pub fn wake(&self) {
        self.wake_signal.notify_one();
    }

    /// Whether MySQL is known to have a partition's outbox up to an entry. Asks nobody; always so where answers don't wait for MySQL.
    pub fn is_written(&self, partition: Partition, n: u64) -> bool {
        self.durability.as_ref().is_none_or(|ack| ack.is_written(partition, n))
    }

    /// To be called before the first script of a call.
    pub fn start_durability_wait(&self) -> DurabilityWait {
        DurabilityWait { writer: self.clone(), since: self.redis.session_start() }
    }

    /// Serves those who follow, until `stop`.
    pub async fn run_durability_watcher(self, mysql: MySqlPool, stop: CancellationToken) {
        if let Some(ack) = self.durability {
            ack.watch(self.redis, mysql, stop).await;
        }
    }

    pub(super) async fn woken(&self) {
        self.wake_signal.notified().await;
    }

    pub(super) fn record_committed(&self, through: impl IntoIterator<Item = (Partition, u64)>) {
        if let Some(ack) = &self.durability {
            ack.committed(through);
        }
    }
}

impl DurabilityWait {
    /// Whether the answer may be given as final: at once where answers don't wait for MySQL, else once MySQL has what the partitions' outboxes hold
    /// now. `false` when that is not known within the time that is set: what was done stands, and will be in MySQL.
    pub async fn wait_until_written(&self, partitions: &[Partition]) -> bool {
        let Some(ack) = &self.writer.durability else { return true };
        self.writer.wake();
        ack.wait_until_written(&self.writer.redis, self.since, partitions).await
    }
}
