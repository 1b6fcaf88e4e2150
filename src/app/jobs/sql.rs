//! SQL of jobs.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, MySqlConnection, MySqlPool};
use uuid::Uuid;

use crate::http::page::PageCursor;
use crate::ids::{JobId, ScheduleId};
use crate::mysql::Error;
use crate::time::datetime;

/// How long an instance may work without renewing its lease.
const LEASE_SECONDS: u32 = 5;

/// A row of `jobs`.
#[derive(Debug, Clone, FromRow)]
pub(super) struct StoredJob {
    pub(super) id: Uuid,
    pub(super) kind: String,
    pub(super) object: String,
    pub(super) reason: String,
    pub(super) status: String,
    pub(super) done: u32,
    pub(super) total: u32,
    pub(super) failures: u32,
    pub(super) started_at: DateTime<Utc>,
    pub(super) ended_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str =
    "id, kind, object, reason, status, done, total, failures, started_at, ended_at";

/// The job that cancels a schedule: a new one, the one that there is, or the failed one, which
/// runs again.
pub(super) async fn start_cancellation(
    connection: &mut MySqlConnection,
    schedule: &ScheduleId,
    reason: &str,
) -> Result<JobId, Error> {
    let insert = "INSERT INTO jobs (id, kind, object, reason, status, done, total, failures, \
                  started_at) VALUES (?, 'cancel_schedule', ?, ?, 'running', 0, 0, 0, \
                  UTC_TIMESTAMP(3)) ON DUPLICATE KEY UPDATE \
                  failures = IF(status = 'failed', 0, failures), \
                  ended_at = IF(status = 'failed', NULL, ended_at), \
                  status = IF(status = 'failed', 'running', status)";
    sqlx::query(insert)
        .bind(JobId::new(schedule.slot()).uuid())
        .bind(schedule.as_str())
        .bind(reason)
        .execute(&mut *connection)
        .await?;
    let select = "SELECT id FROM jobs WHERE kind = 'cancel_schedule' AND object = ?";
    let id: Uuid = sqlx::query_scalar(select).bind(schedule.as_str()).fetch_one(connection).await?;
    Ok(id.into())
}

pub(super) async fn one(pool: &MySqlPool, id: JobId) -> Result<Option<StoredJob>, Error> {
    let select = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?");
    let select = sqlx::query_as(sqlx::AssertSqlSafe(select)).bind(id.uuid());
    Ok(select.fetch_optional(pool).await?)
}

/// Jobs before a cursor, newest first: one more than the page has.
pub(super) async fn page(
    pool: &MySqlPool,
    before: PageCursor,
    limit: usize,
) -> Result<Vec<StoredJob>, Error> {
    let at = datetime(DateTime::from_timestamp_millis(before.at).unwrap_or_default());
    let select = format!(
        "SELECT {COLUMNS} FROM jobs WHERE started_at <= ? AND (started_at < ? OR id < ?) \
         ORDER BY started_at DESC, id DESC LIMIT ?"
    );
    let select = sqlx::query_as(sqlx::AssertSqlSafe(select)).bind(at).bind(at).bind(before.id);
    let one_more = u64::try_from(limit + 1).unwrap_or(u64::MAX);
    Ok(select.bind(one_more).fetch_all(pool).await?)
}

/// Takes the lease of a running job that no instance works on.
pub(super) async fn claim(pool: &MySqlPool, owner: Uuid) -> Result<Option<StoredJob>, Error> {
    let free = "status = 'running' AND (lease_until IS NULL OR lease_until < UTC_TIMESTAMP(3))";
    let select = format!("SELECT {COLUMNS} FROM jobs WHERE {free} ORDER BY started_at LIMIT 1");
    let job: Option<StoredJob> =
        sqlx::query_as(sqlx::AssertSqlSafe(select)).fetch_optional(pool).await?;
    let Some(job) = job else { return Ok(None) };
    let update = format!(
        "UPDATE jobs SET lease_owner = ?, lease_until = UTC_TIMESTAMP(3) + INTERVAL ? SECOND \
         WHERE id = ? AND {free}"
    );
    let update = sqlx::query(sqlx::AssertSqlSafe(update)).bind(owner).bind(LEASE_SECONDS);
    let claimed = update.bind(job.id).execute(pool).await?.rows_affected() == 1;
    Ok(claimed.then_some(job))
}

/// Records progress and renews the lease. Returns false when another instance has taken it.
pub(super) async fn record_progress(
    pool: &MySqlPool,
    id: JobId,
    owner: Uuid,
    (done, total, failures): (u32, u32, u32),
) -> Result<bool, Error> {
    let update = "UPDATE jobs SET done = ?, total = ?, failures = ?, \
                  lease_until = UTC_TIMESTAMP(3) + INTERVAL ? SECOND \
                  WHERE id = ? AND lease_owner = ? AND status = 'running'";
    let update = sqlx::query(update).bind(done).bind(total).bind(failures);
    let update = update.bind(LEASE_SECONDS).bind(id.uuid()).bind(owner);
    // The driver counts rows that were found, not rows that have changed.
    Ok(update.execute(pool).await?.rows_affected() == 1)
}

pub(super) async fn end(
    pool: &MySqlPool,
    id: JobId,
    owner: Uuid,
    status: &str,
) -> Result<(), Error> {
    let update = "UPDATE jobs SET status = ?, ended_at = UTC_TIMESTAMP(3), lease_owner = NULL, \
                  lease_until = NULL WHERE id = ? AND lease_owner = ?";
    sqlx::query(update).bind(status).bind(id.uuid()).bind(owner).execute(pool).await?;
    Ok(())
}
