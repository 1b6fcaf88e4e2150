//! What MySQL does not have yet: the events that stand in a partition's outbox after its checkpoint.
//!
//! A list that is read from MySQL and from here has no gap: the checkpoint is read first, the outbox after it, and MySQL last. Whatever the writer does
//! meanwhile, an event stands after that checkpoint or is in MySQL, perhaps both: an event's position tells. Entries that were trimmed
//! between the first two steps show as a hole, and then it is looked again.

use std::time::Duration;

use sqlx::MySqlPool;

use super::WriterHandle;
use super::event::{self, OutboxEvent};
use crate::mysql::{self, generation};
use crate::partition::Partition;
use crate::redis::{self, RedisClient};

/// Entries read at once, and how many reads one look takes at most. Beyond that MySQL is far behind, and the reader is asked to come back.
const ENTRIES: u32 = 512;
const READS: usize = 8;
/// How often it is looked again for a hole, and the pause before it: a trim follows its commit at once.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(3);

/// Why the tail can't be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis did not answer, too much stands in the outbox, or an entry is not of a schema that this release knows.
    #[error(transparent)]
    Redis(#[from] redis::Error),
    /// MySQL did not answer.
    #[error(transparent)]
    Mysql(#[from] mysql::Error),
}

/// An event with its position in its partition's history: `n` × 256 + its place in the entry.
pub type PositionedEvent = (i64, OutboxEvent);

/// The events of a partition after its checkpoint, oldest first.
///
/// # Errors
/// [`redis::Error::Overloaded`] while MySQL is too far behind.
pub async fn tail(
    redis: &RedisClient,
    mysql: &MySqlPool,
    nudge: &WriterHandle,
    partition: Partition,
) -> Result<Vec<PositionedEvent>, Error> {
    for _ in 0..LOOKS {
        let checkpoint = generation::checkpoint(mysql, partition).await?;
        if let Some(events) = after(redis, partition, checkpoint.n).await? {
            return Ok(events);
        }
        nudge.poke();
        tokio::time::sleep(PAUSE).await;
    }
    Err(redis::Error::Overloaded.into())
}

/// The events of several partitions after their checkpoints; each partition's oldest first. Only outboxes that hold something new are read.
///
/// # Errors
/// [`redis::Error::Overloaded`] while MySQL is too far behind.
pub async fn tails(
    redis: &RedisClient,
    mysql: &MySqlPool,
    nudge: &WriterHandle,
    partitions: &[Partition],
) -> Result<Vec<PositionedEvent>, Error> {
    let checkpoints = generation::load(mysql, redis.keys().partitions()).await?;
    let marks = redis.marks(partitions).await?;
    let mut events = Vec::new();
    for (partition, marks) in partitions.iter().zip(marks) {
        let written =
            checkpoints.iter().any(|known| known.partition == *partition && known.n >= marks.seq);
        if !written {
            events.extend(tail(redis, mysql, nudge, *partition).await?);
        }
    }
    Ok(events)
}

/// The events after entry `n`; `None` when there is a hole, or too much to read.
async fn after(
    redis: &RedisClient,
    partition: Partition,
    n: u64,
) -> Result<Option<Vec<PositionedEvent>>, Error> {
    // An outbox that is empty now is only known to have been so when nothing was numbered beyond the checkpoint.
    let newest = redis.marks(&[partition]).await?.first().map_or(0, |marks| marks.seq);
    let (mut through, mut events) = (n, Vec::new());
    for _ in 0..READS {
        let entries =
            redis.outbox_read(&[(partition, through)], ENTRIES).await?.pop().unwrap_or_default();
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
