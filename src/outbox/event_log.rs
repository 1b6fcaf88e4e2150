//! The rows of `events`: outbox entries that other systems are told of, in the transaction that
//! applies them.
//!
//! A position is given under the row lock of the partition's checkpoint. So positions increase in
//! the order of the commits, and a reader who has seen one has seen all before it. A position jumps
//! to the time, `milliseconds since 1970` × 4096, when the epoch of the partition is new and when
//! MySQL went back: a reader who has read further than MySQL remembers misses nothing then.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::{MySqlConnection, QueryBuilder};

use super::event::OutboxEvent;
use super::event_type::EventType;
use super::sql;
use crate::mysql::Error;
use crate::mysql::checkpoint::Checkpoint;
use crate::partition::Partition;
use crate::redis::OutboxEntry;

/// More rows than a partition gets in a millisecond.
const POSITIONS_PER_MILLISECOND: u64 = 4096;

/// An outbox entry with events that are delivered.
#[derive(Debug)]
pub(super) struct LoggedEntry {
    partition: Partition,
    n: u64,
    version: String,
    payload: Bytes,
    /// The indexes of the events that MySQL has; `None` means all.
    applied: Option<Vec<u16>>,
}

impl LoggedEntry {
    /// `None` when nothing in the entry is delivered.
    pub(super) fn of(
        partition: Partition,
        entry: &OutboxEntry,
        events: &[(u16, i64, OutboxEvent)],
    ) -> Option<Self> {
        events.iter().any(|(_, _, event)| EventType::of(event).is_some()).then(|| Self {
            partition,
            n: entry.n,
            version: entry.version.clone(),
            payload: entry.payload.clone(),
            applied: None,
        })
    }

    /// The entry without the events that MySQL does not have.
    pub(super) fn only(self, applied: Vec<u16>) -> Option<Self> {
        (!applied.is_empty()).then_some(Self { applied: Some(applied), ..self })
    }
}

/// A checkpoint that is locked, and whether MySQL went back behind what Redis knows to be written.
pub(super) type LockedCheckpoint = (Checkpoint, bool);

struct LogEnd {
    position: u64,
    epoch: u64,
}

/// Appends entries, those of a partition in order.
pub(super) async fn append(
    tx: &mut MySqlConnection,
    locked: &[LockedCheckpoint],
    entries: &[LoggedEntry],
) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut select = QueryBuilder::new(
        "SELECT partition_id, position, epoch, CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED) \
         FROM (SELECT 0 AS one) AS always LEFT JOIN event_logs ON partition_id IN (",
    );
    let mut list = select.separated(", ");
    // Repeating a partition is harmless, so the list is padded, and the statement stays prepared.
    for (checkpoint, _) in locked.iter().cycle().take(locked.len().next_power_of_two()) {
        list.push_bind(checkpoint.partition.get());
    }
    type EndRow = (Option<u16>, Option<u64>, Option<u64>, u64);
    let rows: Vec<EndRow> = select.push(")").build_query_as().fetch_all(&mut *tx).await?;
    let now = rows.first().map_or(0, |row| row.3).saturating_mul(POSITIONS_PER_MILLISECOND);
    let known: HashMap<u16, (u64, u64)> = rows
        .into_iter()
        .filter_map(|(partition, position, epoch, _)| Some((partition?, (position?, epoch?))))
        .collect();
    let mut ends: HashMap<Partition, LogEnd> = HashMap::new();
    for (checkpoint, went_back) in locked {
        let epoch = checkpoint.epoch.unwrap_or_default();
        let position = match known.get(&checkpoint.partition.get()) {
            Some((position, same)) if *same == epoch && !went_back => *position,
            Some((position, _)) => (*position).max(now),
            None => now,
        };
        ends.insert(checkpoint.partition, LogEnd { position, epoch });
    }
    let mut rows = Vec::with_capacity(entries.len());
    let mut changed: Vec<Partition> = Vec::new();
    for entry in entries {
        let Some(end) = ends.get_mut(&entry.partition) else { continue };
        end.position += 1;
        rows.push((end.position, end.epoch, entry));
        if changed.last() != Some(&entry.partition) {
            changed.push(entry.partition);
        }
    }
    let head = "INSERT INTO events (partition_id, position, epoch, n, version, applied, payload, \
                written_at) ";
    sql::insert(tx, head, "", &rows, |row, (position, epoch, entry)| {
        row.push_bind(entry.partition.get()).push_bind(*position).push_bind(*epoch);
        row.push_bind(entry.n).push_bind(entry.version.as_str());
        row.push_bind(entry.applied.as_ref().map(|applied| format!("{applied:?}")));
        row.push_bind(&entry.payload[..]).push("UTC_TIMESTAMP(3)");
    })
    .await?;
    let moved: Vec<(Partition, &LogEnd)> =
        changed.iter().filter_map(|partition| Some((*partition, ends.get(partition)?))).collect();
    let head = "INSERT INTO event_logs (partition_id, position, epoch) ";
    let tail = " ON DUPLICATE KEY UPDATE position = VALUES(position), epoch = VALUES(epoch)";
    sql::insert(tx, head, tail, &moved, |row, (partition, end)| {
        row.push_bind(partition.get()).push_bind(end.position).push_bind(end.epoch);
    })
    .await
}
