//! SQL of queues: the tables `queues`, `pass_keys` and `promotions`.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, MySqlConnection};

use super::settings::{PublishedQueue, QueueMode, QueueOrder, QueueSettings, VisitKind};
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
    draw: u32,
    message: Option<String>,
    visit: String,
    visit_limit_seconds: Option<u32>,
    page: Option<String>,
    arrivals: u64,
    abandon_after_seconds: Option<u32>,
    private: bool,
}

const COLUMNS: &str = "id, version, mode, promote_per_interval, interval_ms, max_active, \
     active_seconds, claim_seconds, max_waiting, opens_at, closes_at, prequeue_starts_at, \
     placement, seed, restore_seconds, draw, message, visit, visit_limit_seconds, page, arrivals, \
     abandon_after_seconds, private";

pub(super) async fn all(
    connection: &mut MySqlConnection,
) -> Result<Vec<(QueueId, PublishedQueue)>, mysql::Error> {
    let sql = format!("SELECT {COLUMNS} FROM queues WHERE deleted_at IS NULL ORDER BY id");
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

pub(super) async fn one(
    connection: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<Option<PublishedQueue>, mysql::Error> {
    select(connection, queue, "deleted_at IS NULL").await
}

/// The last settings of a deleted queue.
pub(super) async fn deleted(
    connection: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<Option<PublishedQueue>, mysql::Error> {
    select(connection, queue, "deleted_at IS NOT NULL").await
}

async fn select(
    connection: &mut MySqlConnection,
    queue: &QueueId,
    condition: &'static str,
) -> Result<Option<PublishedQueue>, mysql::Error> {
    let sql = format!("SELECT {COLUMNS} FROM queues WHERE id = ? AND {condition}");
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(queue.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.and_then(read).map(|(_, published)| published))
}

/// Marks a queue as deleted.
pub(super) async fn delete(
    connection: &mut MySqlConnection,
    queue: &QueueId,
    version: u64,
    arrivals: u64,
) -> Result<(), mysql::Error> {
    sqlx::query(
        "UPDATE queues SET deleted_at = UTC_TIMESTAMP(3), version = ?, arrivals = ? WHERE id = ?",
    )
    .bind(version)
    .bind(arrivals)
    .bind(queue.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// At most `limit` concerts that name the queue. An archived concert does not need it any more: it
/// can't be held or cancelled, and its seats and reservations are in MySQL.
pub(super) async fn concerts(
    connection: &mut MySqlConnection,
    queue: &QueueId,
    limit: usize,
) -> Result<Vec<String>, mysql::Error> {
    let list = "SELECT id FROM concerts WHERE queue_id = ? AND archived_at IS NULL \
                ORDER BY id LIMIT ?";
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let ids = sqlx::query_scalar(list).bind(queue.as_str()).bind(limit);
    Ok(ids.fetch_all(connection).await?)
}

/// Inserts or replaces the settings of a queue, also of a deleted one.
pub(super) async fn put(
    connection: &mut MySqlConnection,
    queue: &QueueId,
    published: &PublishedQueue,
) -> Result<(), mysql::Error> {
    let settings = &published.settings;
    let placeholders = ["?"; 23].join(", ");
    let updates = COLUMNS
        .split(", ")
        .filter(|c| *c != "id")
        .map(|c| format!("{c} = VALUES({c})"))
        .collect::<Vec<_>>();
    let sql = format!(
        "INSERT INTO queues ({COLUMNS}) VALUES ({placeholders}) ON DUPLICATE KEY UPDATE {}, \
         deleted_at = NULL",
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
        .bind(published.draw)
        .bind(settings.message.as_ref().and_then(|message| serde_json::to_string(message).ok()))
        .bind(settings.visit.as_str())
        .bind(settings.visit_limit_seconds)
        .bind(settings.page.as_ref().and_then(|page| serde_json::to_string(page).ok()))
        .bind(published.arrivals)
        .bind(settings.abandon_after_seconds)
        .bind(settings.private)
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
        message: row.message.and_then(|json| serde_json::from_str(&json).ok()),
        visit: VisitKind::from_word(&row.visit)?,
        visit_limit_seconds: row.visit_limit_seconds,
        page: row.page.and_then(|json| serde_json::from_str(&json).ok()),
        abandon_after_seconds: row.abandon_after_seconds,
        private: row.private,
    };
    let Row { version, seed, draw, arrivals, .. } = row;
    Some((row.id.parse().ok()?, PublishedQueue { settings, version, seed, draw, arrivals }))
}

/// A row of `queue_draws`.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct StoredDraw {
    /// From 1.
    pub(super) draw: u32,
    pub(super) seed: String,
    /// The planned opening. `None` when the operator opens the queue.
    pub(super) opens_at: Option<DateTime<Utc>>,
    /// The opening that took place.
    pub(super) drawn_at: Option<DateTime<Utc>>,
    /// How many users took part. `None` until it is known.
    pub(super) entrants: Option<u64>,
}

/// The draws of a queue, oldest first.
pub(super) async fn draws(
    connection: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<Vec<StoredDraw>, mysql::Error> {
    let list = "SELECT draw, seed, opens_at, drawn_at, entrants FROM queue_draws \
                WHERE queue_id = ? ORDER BY draw";
    Ok(sqlx::query_as(list).bind(queue.as_str()).fetch_all(connection).await?)
}

/// Moves the opening of all draws that have not taken place at `now`. Without a planned opening
/// and with `is_open`, they take place now.
pub(super) async fn move_open_draws(
    connection: &mut MySqlConnection,
    queue: &QueueId,
    opens_at: Option<DateTime<Utc>>,
    drawn_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), mysql::Error> {
    sqlx::query(
        "UPDATE queue_draws SET opens_at = ?, drawn_at = ? WHERE queue_id = ? \
         AND drawn_at IS NULL AND entrants IS NULL AND (opens_at IS NULL OR opens_at > ?)",
    )
    .bind(opens_at.map(datetime))
    .bind(drawn_at.map(datetime))
    .bind(queue.as_str())
    .bind(datetime(now))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn add_draw(
    connection: &mut MySqlConnection,
    queue: &QueueId,
    draw: &StoredDraw,
) -> Result<(), mysql::Error> {
    sqlx::query("INSERT INTO queue_draws (queue_id, draw, seed, opens_at) VALUES (?, ?, ?, ?)")
        .bind(queue.as_str())
        .bind(draw.draw)
        .bind(&draw.seed)
        .bind(draw.opens_at.map(datetime))
        .execute(connection)
        .await?;
    Ok(())
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
    /// The limit that was in force: at most `limit` users in `interval_ms`.
    pub(super) limit: u32,
    pub(super) interval_ms: u32,
}

/// All promotions of a queue in the order in which they were made.
pub(super) async fn promotions(
    connection: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<Vec<StoredPromotion>, mysql::Error> {
    let rows: Vec<(i64, i64, u32, DateTime<Utc>, u32, u32)> = sqlx::query_as(
        "SELECT from_score, to_score, count, promoted_at, \
           COALESCE(rate_limit, q.promote_per_interval), \
           COALESCE(rate_interval_ms, q.interval_ms) \
         FROM promotions JOIN queues q ON q.id = queue_id WHERE queue_id = ? \
         ORDER BY n, partition_id, idx",
    )
    .bind(queue.as_str())
    .fetch_all(connection)
    .await?;
    let promotions = rows.into_iter().map(|(from, to, count, at, limit, interval_ms)| {
        let at = at.timestamp_millis();
        StoredPromotion { from, to, count, at, limit, interval_ms }
    });
    Ok(promotions.collect())
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
