//! The rooms' handle on the writer: wakes it, and waits for what it commits.

use std::sync::Arc;

use sqlx::MySqlPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ack::{DurabilitySettings, DurabilityTracker};
use crate::partition::Partition;
use crate::redis::RedisClient;

/// Tells the writer that a script has just emitted events, so that it needn't wait for its next look. Cheap to clone and to poke; pokes
/// during a pass add up to one.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    writer: Arc<Notify>,
    redis: RedisClient,
    ack: Option<Arc<DurabilityTracker>>,
}

/// What a call that may change something holds from before it until its answer.
#[derive(Debug)]
pub struct DurabilityWait {
    nudge: WriterHandle,
    since: u64,
}

impl WriterHandle {
    pub(super) fn new(redis: RedisClient, settings: DurabilitySettings) -> Self {
        let partitions = redis.keys().partitions();
        let ack = settings
            .durable
            .then(|| Arc::new(DurabilityTracker::new(partitions, settings.patience)));
        Self { writer: Arc::default(), redis, ack }
    }

    /// Wakes the writer, or has it look once more when it is at work.
    pub fn poke(&self) {
        self.writer.notify_one();
    }

    /// Whether MySQL is known to have a partition's outbox up to an entry. Asks nobody; always so where answers don't wait for MySQL.
    pub fn has(&self, partition: Partition, n: u64) -> bool {
        self.ack.as_ref().is_none_or(|ack| ack.has(partition, n))
    }

    /// To be called before the first script of a call.
    pub fn follow(&self) -> DurabilityWait {
        DurabilityWait { nudge: self.clone(), since: self.redis.moment() }
    }

    /// Serves those who follow, until `stop`.
    pub async fn watch(self, mysql: MySqlPool, stop: CancellationToken) {
        if let Some(ack) = self.ack {
            ack.watch(self.redis, mysql, stop).await;
        }
    }

    pub(super) async fn poked(&self) {
        self.writer.notified().await;
    }

    pub(super) fn committed(&self, through: impl IntoIterator<Item = (Partition, u64)>) {
        if let Some(ack) = &self.ack {
            ack.committed(through);
        }
    }
}

impl DurabilityWait {
    /// Whether the answer may be given as final: at once where answers don't wait for MySQL, else once MySQL has what the partitions' outboxes hold
    /// now. `false` when that is not known within the time that is set: what was done stands, and will be in MySQL.
    pub async fn written(&self, partitions: &[Partition]) -> bool {
        let Some(ack) = &self.nudge.ack else { return true };
        self.nudge.poke();
        ack.written(&self.nudge.redis, self.since, partitions).await
    }
}
