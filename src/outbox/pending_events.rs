//! Pending events: those in a partition's outbox that MySQL does not have yet.
//!
//! A list made of MySQL's rows and of pending events has no gap, because the checkpoint is read
//! first, the outbox second, and MySQL last. Whatever the writer does meanwhile, each event is in
//! the outbox after that checkpoint, or in MySQL, or in both; its position identifies it. Entries
//! that were trimmed between the first two reads appear as a gap in the numbers, and then the read
//! is repeated.
//!
//! While MySQL takes no writes, outboxes grow. So that lists burden neither Redis nor this instance,
//! a list reads only outboxes with unwritten entries, at most [`MAX_BYTES`] of them, decodes only
//! entries that mention what the list is about, and few lists read at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::MySqlPool;
use tokio::time::timeout;

use super::WriterHandle;
use super::event::{self, OutboxEvent};
use crate::mysql::checkpoint;
use crate::partition::Partition;
use crate::redis::{self, FenceMarks, RedisClient};
use crate::store_error::StoreError;

/// Entries in one read, so that one reply stays small: an entry has tens of kilobytes at most.
const ENTRIES_PER_READ: u32 = 64;
/// Bytes of entries that one list reads. When more are pending, MySQL is far behind and the caller
/// gets [`redis::Error::Overloaded`].
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Lists of this instance that read outboxes at the same time.
pub(super) const MAX_READERS: usize = 2;
/// How long a list waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(1);
/// Attempts when the outbox has a gap.
const MAX_ATTEMPTS: usize = 5;
/// The pause between two attempts. Short, because the trim follows its commit at once.
const RETRY_PAUSE: Duration = Duration::from_millis(3);

/// An event with its position in its partition's history: `n` × 256 + its index in the entry.
pub type PositionedEvent = (i64, OutboxEvent);

/// The events of a partition after its checkpoint, oldest first: all events of every entry that
/// contains the bytes `mentioned`.
///
/// # Errors
/// [`redis::Error::Overloaded`] while MySQL is too far behind.
pub async fn load(
    redis: &RedisClient,
    mysql: &MySqlPool,
    writer: &WriterHandle,
    partition: Partition,
    mentioned: &[u8],
) -> Result<Vec<PositionedEvent>, StoreError> {
    load_all(redis, mysql, writer, std::iter::once(partition), mentioned).await
}

async fn load_one(
    redis: &RedisClient,
    mysql: &MySqlPool,
    writer: &WriterHandle,
    partition: Partition,
    (mentioned, budget): (&[u8], &mut usize),
) -> Result<Vec<PositionedEvent>, StoreError> {
    for _ in 0..MAX_ATTEMPTS {
        let checkpoint = checkpoint::load(mysql, partition).await?;
        let read = read_after(redis, partition, checkpoint.n, (mentioned, &mut *budget));
        if let Some(events) = read.await? {
            return Ok(events);
        }
        writer.wake();
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(redis::Error::Overloaded.into())
}

/// As [`load`], of several partitions, each of which is read once however often it is named; the
/// oldest of each partition first. Only outboxes with unwritten entries are read.
///
/// # Errors
/// [`redis::Error::Overloaded`] while MySQL is too far behind.
pub async fn load_all(
    redis: &RedisClient,
    mysql: &MySqlPool,
    writer: &WriterHandle,
    partitions: impl Iterator<Item = Partition>,
    mentioned: &[u8],
) -> Result<Vec<PositionedEvent>, StoreError> {
    let partitions: Vec<_> = partitions.collect::<BTreeSet<_>>().into_iter().collect();
    let checkpoints = checkpoint::load_all(mysql, redis.keys().partitions()).await?;
    let marks = redis.fence_marks(&partitions).await?;
    let is_pending = |(partition, marks): &(Partition, FenceMarks)| {
        !checkpoints.iter().any(|known| known.partition == *partition && known.n >= marks.seq)
    };
    let pending: Vec<_> = partitions.into_iter().zip(marks).filter(is_pending).collect();
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let turn = timeout(TURN_PATIENCE, writer.pending_readers().acquire()).await;
    let Ok(Ok(_turn)) = turn else { return Err(redis::Error::Overloaded.into()) };
    let (mut budget, mut events) = (MAX_BYTES, Vec::new());
    for (partition, _) in pending {
        let read = load_one(redis, mysql, writer, partition, (mentioned, &mut budget));
        events.extend(read.await?);
    }
    Ok(events)
}

/// The events after entry `n`; `None` when there is a gap. `budget` is how many bytes may still be
/// read.
async fn read_after(
    redis: &RedisClient,
    partition: Partition,
    n: u64,
    (mentioned, budget): (&[u8], &mut usize),
) -> Result<Option<Vec<PositionedEvent>>, StoreError> {
    // An empty outbox does not prove that nothing is pending: its entries may just have been
    // trimmed. The sequence does.
    let newest = redis.fence_marks(&[partition]).await?.first().map_or(0, |marks| marks.seq);
    let (mut through, mut events) = (n, Vec::new());
    loop {
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
            let rest = budget.checked_sub(entry.payload.len());
            *budget = rest.ok_or(redis::Error::Overloaded)?;
            if !contains(&entry.payload, mentioned) {
                continue;
            }
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
}

fn contains(payload: &[u8], mentioned: &[u8]) -> bool {
    payload.windows(mentioned.len()).any(|window| window == mentioned)
}

fn position(n: u64, index: u64) -> i64 {
    i64::try_from(n.saturating_mul(256).saturating_add(index)).unwrap_or(i64::MAX)
}
