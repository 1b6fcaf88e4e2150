//! SQL of webhooks.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::sender::DeliveryOutcome;
use crate::ids::WebhookId;
use crate::mysql::Error;

/// How long an instance may deliver without renewing its lease.
pub(super) const LEASE_SECONDS: u32 = 5;
/// For how many hours the old secret signs after a rotation.
const OLD_SECRET_HOURS: u32 = 24;
/// Attempts that are kept of each webhook.
const KEPT_DELIVERIES: u32 = 1_000;
const MAX_ERROR_CHARACTERS: usize = 200;

/// A row of `webhooks`.
#[derive(Debug, Clone, FromRow)]
pub(super) struct StoredWebhook {
    pub(super) id: String,
    pub(super) version: u64,
    pub(super) url: String,
    pub(super) types: String,
    pub(super) active: bool,
    pub(super) secret: String,
    /// Null when it does not sign any more.
    pub(super) old_secret: Option<String>,
    pub(super) read_cursor: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) delivered_at: Option<DateTime<Utc>>,
    pub(super) attempts: u32,
    pub(super) failing_since: Option<DateTime<Utc>>,
    pub(super) next_attempt_at: Option<DateTime<Utc>>,
    pub(super) disabled_reason: Option<String>,
    /// MySQL's clock.
    pub(super) now: DateTime<Utc>,
}

const SELECT: &str = "SELECT id, version, url, types, active, secret, \
    IF(old_secret_until > UTC_TIMESTAMP(3), old_secret, NULL) AS old_secret, read_cursor, \
    created_at, delivered_at, attempts, failing_since, next_attempt_at, disabled_reason, \
    UTC_TIMESTAMP(3) AS now FROM webhooks ";

pub(super) async fn one(pool: &MySqlPool, id: &str) -> Result<Option<StoredWebhook>, Error> {
    let select = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = ?"));
    Ok(sqlx::query_as(select).bind(id).fetch_optional(pool).await?)
}

pub(super) async fn all(pool: &MySqlPool) -> Result<Vec<StoredWebhook>, Error> {
    let select = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    Ok(sqlx::query_as(select).fetch_all(pool).await?)
}

pub(super) async fn count(pool: &MySqlPool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM webhooks").fetch_one(pool).await?)
}

/// What an operator defines.
pub(super) struct WebhookChange<'a> {
    pub(super) id: &'a WebhookId,
    pub(super) url: &'a str,
    pub(super) types: &'a str,
    pub(super) active: bool,
    pub(super) secret: &'a str,
    pub(super) read_cursor: &'a str,
}

/// Creates or replaces a webhook. Ends its failure, and the lease of the instance that delivers by
/// the old definition.
pub(super) async fn put(pool: &MySqlPool, change: &WebhookChange<'_>) -> Result<(), Error> {
    let insert = "INSERT INTO webhooks (id, version, url, types, active, secret, read_cursor, \
                  created_at) VALUES (?, 1, ?, ?, ?, ?, ?, UTC_TIMESTAMP(3)) \
                  ON DUPLICATE KEY UPDATE version = version + 1, url = VALUES(url), \
                  types = VALUES(types), active = VALUES(active), secret = VALUES(secret), \
                  read_cursor = VALUES(read_cursor), attempts = 0, failing_since = NULL, \
                  next_attempt_at = NULL, disabled_reason = NULL";
    let insert = sqlx::query(insert).bind(change.id.as_str()).bind(change.url);
    let insert = insert.bind(change.types).bind(change.active).bind(change.secret);
    insert.bind(change.read_cursor).execute(pool).await?;
    Ok(())
}

pub(super) async fn delete(pool: &MySqlPool, id: &str) -> Result<bool, Error> {
    let delete = "DELETE FROM webhooks WHERE id = ?";
    let deleted = sqlx::query(delete).bind(id).execute(pool).await?.rows_affected() > 0;
    let deliveries = "DELETE FROM webhook_deliveries WHERE webhook_id = ?";
    sqlx::query(deliveries).bind(id).execute(pool).await?;
    Ok(deleted)
}

pub(super) async fn rotate(pool: &MySqlPool, id: &str, secret: &str) -> Result<bool, Error> {
    let update = "UPDATE webhooks SET version = version + 1, old_secret = secret, \
                  old_secret_until = UTC_TIMESTAMP(3) + INTERVAL ? HOUR, secret = ? WHERE id = ?";
    let update = sqlx::query(update).bind(OLD_SECRET_HOURS).bind(secret).bind(id);
    Ok(update.execute(pool).await?.rows_affected() > 0)
}

pub(super) async fn replay(pool: &MySqlPool, id: &str, cursor: &str) -> Result<bool, Error> {
    let update = "UPDATE webhooks SET version = version + 1, read_cursor = ?, attempts = 0, \
                  failing_since = NULL, next_attempt_at = NULL WHERE id = ?";
    let update = sqlx::query(update).bind(cursor).bind(id);
    Ok(update.execute(pool).await?.rows_affected() > 0)
}

/// Takes the leases of active webhooks that no instance delivers.
pub(super) async fn claim(
    pool: &MySqlPool,
    owner: Uuid,
    limit: usize,
) -> Result<Vec<String>, Error> {
    let free = "active AND (lease_until IS NULL OR lease_until < UTC_TIMESTAMP(3))";
    let select = format!("SELECT id FROM webhooks WHERE {free} ORDER BY lease_until, id LIMIT ?");
    let select = sqlx::query_scalar(sqlx::AssertSqlSafe(select));
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let found: Vec<String> = select.bind(limit).fetch_all(pool).await?;
    let mut claimed = Vec::new();
    for id in found {
        let update = format!(
            "UPDATE webhooks SET lease_owner = ?, \
             lease_until = UTC_TIMESTAMP(3) + INTERVAL ? SECOND WHERE id = ? AND {free}"
        );
        let update = sqlx::query(sqlx::AssertSqlSafe(update)).bind(owner).bind(LEASE_SECONDS);
        if update.bind(&id).execute(pool).await?.rows_affected() == 1 {
            claimed.push(id);
        }
    }
    Ok(claimed)
}

/// The lease of an instance on one version of a webhook.
#[derive(Debug, Clone)]
pub(super) struct WebhookLease {
    pub(super) id: String,
    pub(super) version: u64,
    pub(super) owner: Uuid,
}

/// A change that the holder of a lease makes.
const OF_LEASE: &str = "WHERE id = ? AND version = ? AND lease_owner = ? AND active";

impl WebhookLease {
    /// Returns false when another instance has it, or an operator changed the webhook.
    pub(super) async fn renew(&self, pool: &MySqlPool) -> Result<bool, Error> {
        let set = format!(
            "UPDATE webhooks SET lease_until = UTC_TIMESTAMP(3) + INTERVAL {LEASE_SECONDS} SECOND \
             {OF_LEASE}"
        );
        self.execute(pool, sqlx::query(sqlx::AssertSqlSafe(set))).await
    }

    pub(super) async fn release(&self, pool: &MySqlPool) -> Result<bool, Error> {
        let set = "UPDATE webhooks SET lease_owner = NULL, lease_until = NULL \
                   WHERE id = ? AND version >= ? AND lease_owner = ?";
        self.execute(pool, sqlx::query(set)).await
    }

    /// Everything before the cursor is delivered.
    pub(super) async fn advance(
        &self,
        pool: &MySqlPool,
        cursor: &str,
        delivered: bool,
    ) -> Result<bool, Error> {
        let set = format!(
            "UPDATE webhooks SET read_cursor = ?, \
             delivered_at = IF(?, UTC_TIMESTAMP(3), delivered_at), attempts = 0, \
             failing_since = NULL, next_attempt_at = NULL, \
             lease_until = UTC_TIMESTAMP(3) + INTERVAL {LEASE_SECONDS} SECOND {OF_LEASE}"
        );
        let set = sqlx::query(sqlx::AssertSqlSafe(set)).bind(cursor).bind(delivered);
        self.execute(pool, set).await
    }

    /// An attempt has failed; the next one follows after a pause.
    pub(super) async fn fail(&self, pool: &MySqlPool, pause_ms: u64) -> Result<bool, Error> {
        let set = format!(
            "UPDATE webhooks SET attempts = attempts + 1, \
             failing_since = COALESCE(failing_since, UTC_TIMESTAMP(3)), \
             next_attempt_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, \
             lease_until = UTC_TIMESTAMP(3) + INTERVAL {LEASE_SECONDS} SECOND {OF_LEASE}"
        );
        self.execute(pool, sqlx::query(sqlx::AssertSqlSafe(set)).bind(pause_ms)).await
    }

    pub(super) async fn disable(&self, pool: &MySqlPool, reason: &str) -> Result<bool, Error> {
        let set = format!(
            "UPDATE webhooks SET active = FALSE, disabled_reason = ?, next_attempt_at = NULL, \
             lease_owner = NULL, lease_until = NULL {OF_LEASE}"
        );
        self.execute(pool, sqlx::query(sqlx::AssertSqlSafe(set)).bind(reason)).await
    }

    async fn execute(
        &self,
        pool: &MySqlPool,
        query: sqlx::query::Query<'_, sqlx::MySql, sqlx::mysql::MySqlArguments>,
    ) -> Result<bool, Error> {
        let query = query.bind(&self.id).bind(self.version).bind(self.owner);
        // The driver counts rows that were found, not rows that have changed.
        Ok(query.execute(pool).await?.rows_affected() == 1)
    }
}

/// An attempt, as it is stored.
#[derive(Debug, Clone)]
pub(super) struct NewDelivery {
    pub(super) event_id: String,
    pub(super) event_type: &'static str,
    pub(super) outcome: DeliveryOutcome,
    pub(super) duration_ms: u32,
}

#[derive(Debug, Clone, FromRow)]
pub(super) struct StoredDelivery {
    pub(super) id: u64,
    pub(super) event_id: String,
    pub(super) event_type: String,
    pub(super) status_code: Option<u16>,
    pub(super) error: Option<String>,
    pub(super) duration_ms: u32,
    pub(super) at: DateTime<Utc>,
}

/// Adds attempts, and deletes the oldest ones above the number that is kept.
pub(super) async fn add_deliveries(
    pool: &MySqlPool,
    webhook: &str,
    deliveries: &[NewDelivery],
) -> Result<(), Error> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let mut insert = QueryBuilder::new(
        "INSERT INTO webhook_deliveries (webhook_id, event_id, event_type, status_code, error, \
         duration_ms, at) ",
    );
    insert.push_values(deliveries, |mut row, delivery| {
        let (status, error) = match &delivery.outcome {
            DeliveryOutcome::Answered(status) => (Some(*status), None),
            DeliveryOutcome::Failed(error) => {
                (None, Some(error.chars().take(MAX_ERROR_CHARACTERS).collect::<String>()))
            }
        };
        row.push_bind(webhook).push_bind(&delivery.event_id).push_bind(delivery.event_type);
        row.push_bind(status).push_bind(error).push_bind(delivery.duration_ms);
        row.push("UTC_TIMESTAMP(3)");
    });
    insert.build().execute(pool).await?;
    let last = "SELECT id FROM webhook_deliveries WHERE webhook_id = ? ORDER BY id DESC \
                LIMIT 1 OFFSET ?";
    let last = sqlx::query_scalar(last).bind(webhook).bind(KEPT_DELIVERIES);
    let last: Option<u64> = last.fetch_optional(pool).await?;
    if let Some(last) = last {
        let delete = "DELETE FROM webhook_deliveries WHERE webhook_id = ? AND id <= ?";
        sqlx::query(delete).bind(webhook).bind(last).execute(pool).await?;
    }
    Ok(())
}

/// The attempts with a smaller id, newest first.
pub(super) async fn deliveries(
    pool: &MySqlPool,
    webhook: &str,
    before: u64,
    limit: usize,
) -> Result<Vec<StoredDelivery>, Error> {
    let select = "SELECT id, event_id, event_type, status_code, error, duration_ms, at \
                  FROM webhook_deliveries WHERE webhook_id = ? AND id < ? ORDER BY id DESC LIMIT ?";
    let select = sqlx::query_as(select).bind(webhook).bind(before);
    Ok(select.bind(u64::try_from(limit).unwrap_or(u64::MAX)).fetch_all(pool).await?)
}
