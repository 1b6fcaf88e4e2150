//! SQL of the events.

use sqlx::{FromRow, MySqlPool};

use crate::mysql::Error;
use crate::partition::PartitionCount;

/// How far the events of a partition reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LogExtent {
    /// The position of the newest event.
    pub(super) position: u64,
    /// The position through which events are deleted.
    pub(super) deleted_through: u64,
}

/// A row of `events`.
#[derive(Debug, FromRow)]
pub(super) struct EventRow {
    pub(super) position: u64,
    pub(super) epoch: u64,
    pub(super) n: u64,
    pub(super) version: String,
    pub(super) applied: Option<String>,
    pub(super) payload: Vec<u8>,
}

/// When the installation was made, in milliseconds since 1970.
pub(super) async fn installation(pool: &MySqlPool) -> Result<u64, Error> {
    let select = "SELECT CAST(UNIX_TIMESTAMP(created_at) * 1000 AS UNSIGNED) FROM usher";
    Ok(sqlx::query_scalar(select).fetch_one(pool).await?)
}

/// The extents of all partitions, in order.
pub(super) async fn extents(
    pool: &MySqlPool,
    partitions: PartitionCount,
) -> Result<Vec<LogExtent>, Error> {
    let select = "SELECT partition_id, position, deleted_through FROM event_logs";
    let rows: Vec<(u16, u64, u64)> = sqlx::query_as(select).fetch_all(pool).await?;
    let mut extents = vec![LogExtent::default(); partitions.count().into()];
    for (partition, position, deleted_through) in rows {
        if let Some(extent) = extents.get_mut(usize::from(partition)) {
            *extent = LogExtent { position, deleted_through };
        }
    }
    Ok(extents)
}

/// The first rows of a partition after a position.
pub(super) async fn rows(
    pool: &MySqlPool,
    partition: u16,
    after: u64,
    limit: usize,
) -> Result<Vec<EventRow>, Error> {
    let select = "SELECT position, epoch, n, version, applied, payload FROM events \
                  WHERE partition_id = ? AND position > ? ORDER BY position LIMIT ?";
    let select = sqlx::query_as(select).bind(partition).bind(after);
    Ok(select.bind(u64::try_from(limit).unwrap_or(u64::MAX)).fetch_all(pool).await?)
}

/// The partitions with events, also those that no longer exist.
pub(super) async fn logged_partitions(pool: &MySqlPool) -> Result<Vec<u16>, Error> {
    Ok(sqlx::query_scalar("SELECT partition_id FROM event_logs").fetch_all(pool).await?)
}

/// Deletes the oldest rows of a partition that are older than `hours`, at most `limit`. Returns
/// their number.
pub(super) async fn delete_old(
    pool: &MySqlPool,
    partition: u16,
    hours: u32,
    limit: u32,
) -> Result<u64, Error> {
    // The rows of a partition are in the order of their times, so the first `limit` are enough.
    let last = "SELECT MAX(position) FROM (SELECT position, written_at FROM events \
                WHERE partition_id = ? ORDER BY position LIMIT ?) AS first \
                WHERE written_at < UTC_TIMESTAMP(3) - INTERVAL ? HOUR";
    let last = sqlx::query_scalar(last).bind(partition).bind(limit).bind(hours);
    let Some(last): Option<u64> = last.fetch_one(pool).await? else { return Ok(0) };
    let mut tx = pool.begin().await?;
    let update = "UPDATE event_logs SET deleted_through = GREATEST(deleted_through, ?) \
                  WHERE partition_id = ?";
    sqlx::query(update).bind(last).bind(partition).execute(&mut *tx).await?;
    let delete = "DELETE FROM events WHERE partition_id = ? AND position <= ?";
    let deleted = sqlx::query(delete).bind(partition).bind(last).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(deleted.rows_affected())
}
