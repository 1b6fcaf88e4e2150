//! The call of `queue/list_busy`.

use crate::ids::QueueId;
use crate::redis::{PartitionNamesBatch, RedisClient, scripts};

/// `queue/list_busy`.
pub(super) fn busy_queues(redis: &RedisClient) -> PartitionNamesBatch<QueueId> {
    PartitionNamesBatch::new(redis, &scripts::QUEUE_LIST_BUSY)
}
