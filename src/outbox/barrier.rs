//! Read-your-writes for lists that are read from MySQL.
//!
//! Such a list would lack the changes of the last milliseconds. So its reader first waits until
//! MySQL has what the outboxes hold now. The wait is bounded: while MySQL is far behind, a list
//! without its newest rows is better than none.

use std::time::Duration;

use sqlx::mysql::MySqlPool;
use tokio::time::{Instant, sleep};

use super::WriterHandle;
use crate::mysql::checkpoint;
use crate::partition::Partition;
use crate::redis::RedisClient;
use crate::store_error::StoreError;

/// The first and the longest pause between two reads of the checkpoints.
const POLL_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Waits at most `patience` until MySQL has what the partitions' outboxes hold at the time of the
/// call. Returns whether it has.
///
/// # Errors
/// When a store does not answer.
pub async fn wait_until_written(
    redis: &RedisClient,
    mysql: &MySqlPool,
    writer: &WriterHandle,
    partitions: &[Partition],
    patience: Duration,
) -> Result<bool, StoreError> {
    let marks = redis.fence_marks(partitions).await?;
    let deadline = Instant::now() + patience;
    let (mut pause, longest) = POLL_PAUSES;
    loop {
        let checkpoints = checkpoint::load_all(mysql, redis.keys().partitions()).await?;
        let reached = |partition: &Partition, seq: u64| {
            checkpoints
                .iter()
                .any(|checkpoint| checkpoint.partition == *partition && checkpoint.n >= seq)
        };
        if partitions.iter().zip(&marks).all(|(partition, marks)| reached(partition, marks.seq)) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        writer.wake();
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
