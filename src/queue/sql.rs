//! SQL of queues: the tables `queues`, `pass_keys` and `promotions`.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, MySqlConnection};

use super::settings::{PublishedQueue, QueueMode, QueueOrder, QueueSettings};
use crate::ids::QueueId;
use crate::mysql;
use crate::partition::Partition;
use crate::time::datetime;

#[derive(FromRow)]
struct Row {
    id: String,
    version: u64,
    mode: String,
    promote_per_interval: u32,
    interval_ms: u32,
    max_active: u32,
    active_seconds: u32,
    claim_seconds: u32,
    max_waiting: Option<u32>,
    opens_at: Option<DateTime<Utc>>,
    closes_at: Option<DateTime<Utc>>,
    prequeue_starts_at: Option<DateTime<Utc>>,
    placement: String,
    seed: String,
    restore_seconds: u32,
}

const COLUMNS: &str = "id, version, mode, promote_per_interval, interval_ms, max_active, \
     active_seconds, claim_seconds, max_waiting, opens_at, closes_at, prequeue_starts_at, \
     placement, seed, restore_seconds";

pub(super) async fn all(
    connection: &mut MySqlConnection,
) -> Result<Vec<(QueueId, PublishedQueue)>, mysql::Error> {
    let sql = format!("SELECT {COLUMNS} FROM queues ORDER BY id");
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

pub(super) async fn one(
    connection: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<Option<PublishedQueue>, mysql::Error> {
    let sql = format!("SELECT {COLUMNS} FROM queues WHERE id = ?");
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(queue.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.and_then(read).map(|(_, published)| published))
}

/// Inserts or replaces the settings of a queue.
pub(super) async fn put(
    connection: &mut MySqlConnection,
    queue: &QueueId,
    published: &PublishedQueue,
) -> Result<(), mysql::Error> {
    let settings = &published.settings;
    let placeholders = ["?"; 15].join(", ");
    let updates = COLUMNS
        .split(", ")
        .filter(|c| *c != "id")
        .map(|c| format!("{c} = VALUES({c})"))
        .collect::<Vec<_>>();
    let sql = format!(
        "INSERT INTO queues ({COLUMNS}) VALUES ({placeholders}) ON DUPLICATE KEY UPDATE {}",
        updates.join(", ")
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(queue.as_str())
        .bind(published.version)
        .bind(settings.mode.as_str())
        .bind(settings.promote_per_interval)
        .bind(settings.interval_ms)
        .bind(settings.max_active)
        .bind(settings.active_seconds)
        .bind(settings.claim_seconds)
        .bind(settings.max_waiting)
        .bind(settings.opens_at.map(datetime))
        .bind(settings.closes_at.map(datetime))
        .bind(settings.prequeue_starts_at.map(datetime))
        .bind(settings.order.as_str())
        .bind(&published.seed)
        .bind(settings.restore_seconds)
        .execute(connection)
        .await?;
    Ok(())
}

fn read(row: Row) -> Option<(QueueId, PublishedQueue)> {
    let settings = QueueSettings {
        mode: QueueMode::from_word(&row.mode)?,
        promote_per_interval: row.promote_per_interval,
        interval_ms: row.interval_ms,
        max_active: row.max_active,
        active_seconds: row.active_seconds,
        claim_seconds: row.claim_seconds,
        max_waiting: row.max_waiting,
        opens_at: row.opens_at,
        closes_at: row.closes_at,
        prequeue_starts_at: row.prequeue_starts_at,
        order: QueueOrder::from_word(&row.placement)?,
        restore_seconds: row.restore_seconds,
    };
    Some((row.id.parse().ok()?, PublishedQueue { settings, version: row.version, seed: row.seed }))
}

/// A row of `pass_keys`.
pub(super) struct StoredPassKey {
    pub(super) kid: String,
    /// PKCS #8.
    pub(super) pkcs8: Vec<u8>,
    /// Whether it has been published long enough to sign.
    pub(super) may_sign: bool,
}

/// The published keys of passes, newest first.
pub(super) async fn pass_keys(
    connection: &mut MySqlConnection,
) -> Result<Vec<StoredPassKey>, mysql::Error> {
    let rows: Vec<(String, Vec<u8>, bool)> = sqlx::query_as(
        "SELECT kid, pkcs8, created_at <= UTC_TIMESTAMP(3) - INTERVAL 2 MINUTE FROM pass_keys \
         WHERE retired_at IS NULL OR retired_at > UTC_TIMESTAMP(3) - INTERVAL 2 DAY \
         ORDER BY created_at DESC, kid",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(kid, pkcs8, may_sign)| StoredPassKey { kid, pkcs8, may_sign })
        .collect())
}

/// Adds a key of passes and retires the others.
pub(super) async fn add_pass_key(
    connection: &mut MySqlConnection,
    key: StoredPassKey,
) -> Result<(), mysql::Error> {
    sqlx::query("UPDATE pass_keys SET retired_at = UTC_TIMESTAMP(3) WHERE retired_at IS NULL")
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO pass_keys (kid, pkcs8, created_at) VALUES (?, ?, UTC_TIMESTAMP(3))")
        .bind(key.kid)
        .bind(key.pkcs8)
        .execute(connection)
        .await?;
    Ok(())
}

/// A row of `promotions`: the lowest and the highest admitted score, and the number of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredPromotion {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) count: u32,
    /// Milliseconds since 1970.
    pub(super) at: i64,
}

/// All promotions of a queue in the order in which they were made.
pub(super) async fn promotions(
    connection: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<Vec<StoredPromotion>, mysql::Error> {
    let rows: Vec<(i64, i64, u32, DateTime<Utc>)> = sqlx::query_as(
        "SELECT from_score, to_score, count, promoted_at FROM promotions WHERE queue_id = ? \
         ORDER BY n, partition_id, idx",
    )
    .bind(queue.as_str())
    .fetch_all(connection)
    .await?;
    let promotion = |(from, to, count, at): (i64, i64, u32, DateTime<Utc>)| StoredPromotion {
        from,
        to,
        count,
        at: at.timestamp_millis(),
    };
    Ok(rows.into_iter().map(promotion).collect())
}

/// When a partition was restored after a loss of Redis, in milliseconds since 1970, oldest first.
pub(super) async fn losses(
    connection: &mut MySqlConnection,
    partition: Partition,
) -> Result<Vec<i64>, mysql::Error> {
    let list = "SELECT began_at FROM recoveries \
                WHERE partition_id = ? AND laid_at IS NOT NULL ORDER BY began_at";
    let rows: Vec<DateTime<Utc>> =
        sqlx::query_scalar(list).bind(partition.get()).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|at| at.timestamp_millis()).collect())
}

/// The time of MySQL.
pub(super) async fn now(connection: &mut MySqlConnection) -> Result<DateTime<Utc>, mysql::Error> {
    Ok(sqlx::query_scalar("SELECT CAST(UTC_TIMESTAMP(3) AS DATETIME(3))")
        .fetch_one(connection)
        .await?)
}
