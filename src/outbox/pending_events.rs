//! Pending events: those in a partition's outbox that MySQL does not have yet.
//!
//! A list made of MySQL's rows and of pending events has no gap, because the checkpoint is read
//! first, the outbox second, and MySQL last. Whatever the writer does meanwhile, each event is in
//! the outbox after that checkpoint, or in MySQL, or in both; its position identifies it. Entries
//! that were trimmed between the first two reads appear as a gap in the numbers, and then the read
//! is repeated.

use std::time::Duration;

use sqlx::MySqlPool;

use super::WriterHandle;
use super::event::{self, OutboxEvent};
use crate::mysql::checkpoint;
use crate::partition::Partition;
use crate::redis::{self, RedisClient};
use crate::store_error::StoreError;

/// Entries in one read.
const ENTRIES_PER_READ: u32 = 512;
/// Reads per attempt. When more entries are pending, MySQL is far behind and the caller gets
/// [`redis::Error::Overloaded`].
const MAX_READS: usize = 8;
/// Attempts when the outbox has a gap.
const MAX_ATTEMPTS: usize = 5;
/// The pause between two attempts. Short, because the trim follows its commit at once.
const RETRY_PAUSE: Duration = Duration::from_millis(3);

/// An event with its position in its partition's history: `n` × 256 + its index in the entry.
pub type PositionedEvent = (i64, OutboxEvent);

/// The events of a partition after its checkpoint, oldest first.
///
/// # Errors
/// [`redis::Error::Overloaded`] while MySQL is too far behind.
pub async fn load(
    redis: &RedisClient,
    mysql: &MySqlPool,
    writer: &WriterHandle,
    partition: Partition,
) -> Result<Vec<PositionedEvent>, StoreError> {
    for _ in 0..MAX_ATTEMPTS {
        let checkpoint = checkpoint::load(mysql, partition).await?;
        if let Some(events) = read_after(redis, partition, checkpoint.n).await? {
            return Ok(events);
        }
        writer.wake();
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(redis::Error::Overloaded.into())
}

/// The events of several partitions after their checkpoints; the oldest of each partition first.
/// Only outboxes with new entries are read.
///
/// # Errors
/// [`redis::Error::Overloaded`] while MySQL is too far behind.
pub async fn load_all(
    redis: &RedisClient,
    mysql: &MySqlPool,
    writer: &WriterHandle,
    partitions: &[Partition],
) -> Result<Vec<PositionedEvent>, StoreError> {
    let checkpoints = checkpoint::load_all(mysql, redis.keys().partitions()).await?;
    let marks = redis.fence_marks(partitions).await?;
    let mut events = Vec::new();
    for (partition, marks) in partitions.iter().zip(marks) {
        let written =
            checkpoints.iter().any(|known| known.partition == *partition && known.n >= marks.seq);
        if !written {
            events.extend(load(redis, mysql, writer, *partition).await?);
        }
    }
    Ok(events)
}

/// The events after entry `n`; `None` when there is a gap, or too much to read.
async fn read_after(
    redis: &RedisClient,
    partition: Partition,
    n: u64,
) -> Result<Option<Vec<PositionedEvent>>, StoreError> {
    // An empty outbox does not prove that nothing is pending: its entries may just have been
    // trimmed. The sequence does.
    let newest = redis.fence_marks(&[partition]).await?.first().map_or(0, |marks| marks.seq);
    let (mut through, mut events) = (n, Vec::new());
    for _ in 0..MAX_READS {
        let entries = redis
            .outbox_read(&[(partition, through)], ENTRIES_PER_READ)
            .await?
            .pop()
            .unwrap_or_default();
        for entry in &entries {
            if entry.n != through + 1 {
                return Ok(None);
            }
            through = entry.n;
            let read = event::decode(&entry.version, &entry.payload)
                .map_err(|error| redis::Error::Protocol(error.to_string()))?;
            events.extend((0..).zip(read).map(|(index, event)| (position(entry.n, index), event)));
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

fn position(n: u64, index: u64) -> i64 {
    i64::try_from(n.saturating_mul(256).saturating_add(index)).unwrap_or(i64::MAX)
}
