//! What MySQL does not have yet: the events that stand in a partition's outbox after its checkpoint.
//!
//! A list that is read from MySQL and from here has no gap: the checkpoint is read first, the outbox after it, and MySQL last. Whatever the writer does
//! meanwhile, an event stands after that checkpoint or is in MySQL, perhaps both: an event's position tells. Entries that were trimmed
//! between the first two steps show as a hole, and then it is looked again.

use std::time::Duration;

use sqlx::MySqlPool;

use super::WriterHandle;
use super::event::{self, OutboxEvent};
use crate::mysql::checkpoint;
use crate::partition::Partition;
use crate::redis::{self, RedisClient};
use crate::store_error::StoreError;

/// Entries read at once, and how many reads one look takes at most. Beyond that MySQL is far behind, and the reader is asked to come back.
const ENTRIES_PER_READ: u32 = 512;
const MAX_READS: usize = 8;
/// How often it is looked again for a hole, and the pause before it: a trim follows its commit at once.
const MAX_ATTEMPTS: usize = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(3);

/// An event with its position in its partition's history: `n` × 256 + its place in the entry.
pub type PositionedEvent = (i64, OutboxEvent);

/// The events of a partition after its checkpoint, oldest first.
///
/// # Errors
/// [`redis::Error::Overloaded`] while MySQL is too far behind.
pub async fn load(
    redis: &RedisClient,
    mysql: &MySqlPool,
    nudge: &WriterHandle,
    partition: Partition,
) -> Result<Vec<PositionedEvent>, StoreError> {
    for _ in 0..MAX_ATTEMPTS {
        let checkpoint = checkpoint::load(mysql, partition).await?;
        if let Some(events) = read_after(redis, partition, checkpoint.n).await? {
            return Ok(events);
        }
        nudge.wake();
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(redis::Error::Overloaded.into())
}

/// The events of several partitions after their checkpoints; each partition's oldest first. Only outboxes that hold something new are read.
///
/// # Errors
/// [`redis::Error::Overloaded`] while MySQL is too far behind.
pub async fn load_all(
    redis: &RedisClient,
    mysql: &MySqlPool,
    nudge: &WriterHandle,
    partitions: &[Partition],
) -> Result<Vec<PositionedEvent>, StoreError> {
    let checkpoints = checkpoint::load_all(mysql, redis.keys().partitions()).await?;
    let marks = redis.fence_marks(partitions).await?;
    let mut events = Vec::new();
    for (partition, marks) in partitions.iter().zip(marks) {
        let written =
            checkpoints.iter().any(|known| known.partition == *partition && known.n >= marks.seq);
        if !written {
            events.extend(load(redis, mysql, nudge, *partition).await?);
        }
    }
    Ok(events)
}

/// The events after entry `n`; `None` when there is a hole, or too much to read.
async fn read_after(
    redis: &RedisClient,
    partition: Partition,
    n: u64,
) -> Result<Option<Vec<PositionedEvent>>, StoreError> {
    // An outbox that is empty now is only known to have been so when nothing was numbered beyond the checkpoint.
    let newest = redis.fence_marks(&[partition]).await?.first().map_or(0, |marks| marks.seq);
    let (mut through, mut events) = (n, Vec::new());
    for _ in 0..MAX_READS {
        let entries =
            redis.outbox_read(&[(partition, through)], ENTRIES_PER_READ).await?.pop().unwrap_or_default();
        for entry in &entries {
            if entry.n != through + 1 {
                return Ok(None);
            }
            through = entry.n;
            let read = event::decode(&entry.version, &entry.payload)
                .map_err(|error| redis::Error::Protocol(error.to_string()))?;
            events.extend((0..).zip(read).map(|(place, event)| (position(entry.n, place), event)));
        }
        if through >= newest {
            return Ok(Some(events));
        }
        if entries.is_empty() {
            return Ok(None);
        }
    }
    Ok(None)
}

fn position(n: u64, place: u64) -> i64 {
    i64::try_from(n.saturating_mul(256).saturating_add(place)).unwrap_or(i64::MAX)
}
