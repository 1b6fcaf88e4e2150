//! Reading in MySQL what was just answered from Redis.
//!
//! A list that comes from MySQL alone would lack what happened in the last milliseconds. So its reader first waits until MySQL
//! has what stands in the outboxes now. The wait is bounded: while MySQL is far behind, a list that lacks its head is better than none.

use std::time::Duration;

use sqlx::mysql::MySqlPool;
use tokio::time::{Instant, sleep};

use super::WriterHandle;
use crate::mysql::{self, generation};
use crate::partition::Partition;
use crate::redis::{self, RedisClient};

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Why a reader can't know how far MySQL is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis did not answer.
    #[error(transparent)]
    Redis(#[from] redis::Error),
    /// MySQL did not answer.
    #[error(transparent)]
    Mysql(#[from] mysql::Error),
}

/// Waits until MySQL has all that the partitions' outboxes hold at the time of the call, at most for `patience`. Answers whether it has.
///
/// # Errors
/// When a store does not answer.
pub async fn written(
    redis: &RedisClient,
    mysql: &MySqlPool,
    nudge: &WriterHandle,
    partitions: &[Partition],
    patience: Duration,
) -> Result<bool, Error> {
    let marks = redis.marks(partitions).await?;
    let deadline = Instant::now() + patience;
    let (mut pause, longest) = PAUSES;
    loop {
        let checkpoints = generation::load(mysql, redis.keys().partitions()).await?;
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
        nudge.poke();
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
