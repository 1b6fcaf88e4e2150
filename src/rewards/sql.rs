//! Statements on `rewards`, and queries of `reward_claims`, which the outbox writer fills.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{FromRow, MySqlConnection, MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::reward::{Reward, RewardClaim, RewardCondition, RewardKind};
use crate::http::page::{PageCursor, PageLimit};
use crate::ids::{ClaimId, RewardCode, UserId};
use crate::mysql;
use crate::outbox::event::ClaimStatus;
use crate::time::datetime;

#[derive(FromRow)]
struct Row {
    code: String,
    version: u64,
    title: String,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    active: bool,
    conditions: Json<Vec<RewardCondition>>,
    reward: Json<RewardKind>,
    revocable: bool,
}

/// All rewards, sorted by code.
pub(super) async fn load_all(
    connection: &mut MySqlConnection,
) -> Result<Vec<Reward>, mysql::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT code, version, title, starts_at, ends_at, active, conditions, reward, \
         revocable FROM rewards ORDER BY code",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

pub(super) async fn load(
    connection: &mut MySqlConnection,
    code: &RewardCode,
) -> Result<Option<Reward>, mysql::Error> {
    let select = "SELECT code, version, title, starts_at, ends_at, active, conditions, reward, \
                  revocable FROM rewards WHERE code = ?";
    let row: Option<Row> =
        sqlx::query_as(select).bind(code.as_str()).fetch_optional(connection).await?;
    Ok(row.and_then(read))
}

pub(super) async fn delete(
    connection: &mut MySqlConnection,
    code: &RewardCode,
) -> Result<(), mysql::Error> {
    let delete = sqlx::query("DELETE FROM rewards WHERE code = ?").bind(code.as_str());
    delete.execute(connection).await?;
    Ok(())
}

/// The oldest granted claims of a reward, at most `limit`.
pub(super) async fn first_granted(
    connection: &mut MySqlConnection,
    code: &RewardCode,
    limit: usize,
) -> Result<Vec<ClaimId>, mysql::Error> {
    let select = "SELECT id FROM reward_claims WHERE code = ? AND once = 1 \
                  ORDER BY claimed_at, id LIMIT ?";
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let ids: Vec<Uuid> =
        sqlx::query_scalar(select).bind(code.as_str()).bind(limit).fetch_all(connection).await?;
    Ok(ids.into_iter().map(ClaimId::from).collect())
}

/// The number of granted claims of each of the rewards that has any attempt.
pub(super) async fn granted_counts(
    pool: &MySqlPool,
    codes: &[&RewardCode],
) -> Result<HashMap<RewardCode, u64>, mysql::Error> {
    if codes.is_empty() {
        return Ok(HashMap::new());
    }
    let mut select = QueryBuilder::new(
        "SELECT code, CAST(COUNT(once) AS UNSIGNED) FROM reward_claims WHERE code IN (",
    );
    let mut list = select.separated(", ");
    for code in codes {
        list.push_bind(code.as_str());
    }
    select.push(") GROUP BY code");
    let rows: Vec<(String, u64)> =
        select.build_query_as().persistent(false).fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(|(code, count)| Some((code.parse().ok()?, count))).collect())
}

pub(super) async fn version(
    connection: &mut MySqlConnection,
    code: &RewardCode,
) -> Result<Option<u64>, mysql::Error> {
    let sql = "SELECT version FROM rewards WHERE code = ?";
    Ok(sqlx::query_scalar(sql).bind(code.as_str()).fetch_optional(connection).await?)
}

/// Inserts or updates a reward.
pub(super) async fn save(
    connection: &mut MySqlConnection,
    reward: &Reward,
) -> Result<(), mysql::Error> {
    sqlx::query(
        "INSERT INTO rewards (code, version, title, starts_at, ends_at, active, conditions, \
         reward, revocable) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE version = VALUES(version), title = VALUES(title), \
         starts_at = VALUES(starts_at), ends_at = VALUES(ends_at), active = VALUES(active), \
         conditions = VALUES(conditions), reward = VALUES(reward), \
         revocable = VALUES(revocable)",
    )
    .bind(reward.code.as_str())
    .bind(reward.version)
    .bind(&reward.title)
    .bind(datetime(reward.starts_at))
    .bind(datetime(reward.ends_at))
    .bind(reward.active)
    .bind(Json(&reward.conditions))
    .bind(Json(&reward.gift))
    .bind(reward.revocable)
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct RewardClaimRow {
    id: Uuid,
    user_id: Uuid,
    status: String,
    reason: Option<String>,
    attempts: u32,
    claimed_at: DateTime<Utc>,
}

/// Which attempts of the history to read.
pub(super) struct ClaimFilter {
    pub(super) user: Option<UserId>,
    pub(super) status: Option<ClaimStatus>,
    pub(super) before: PageCursor,
    pub(super) limit: PageLimit,
}

/// Attempts to claim a reward, newest first: one more than the page has, to show whether another
/// page follows.
pub(super) async fn claims(
    pool: &MySqlPool,
    code: &RewardCode,
    filter: &ClaimFilter,
) -> Result<Vec<RewardClaim>, mysql::Error> {
    let at = datetime(DateTime::from_timestamp_millis(filter.before.at).unwrap_or_default());
    let mut select = QueryBuilder::new(
        "SELECT id, user_id, status, reason, attempts, claimed_at FROM reward_claims WHERE code = ",
    );
    select.push_bind(code.as_str());
    if let Some(user) = filter.user {
        select.push(" AND user_id = ").push_bind(user.uuid());
    }
    if let Some(status) = filter.status {
        select.push(" AND status = ").push_bind(status.as_str());
    }
    // The index serves the first comparison. The second breaks ties within one millisecond.
    select.push(" AND claimed_at <= ").push_bind(at).push(" AND (claimed_at < ").push_bind(at);
    select
        .push(" OR id < ")
        .push_bind(filter.before.id)
        .push(") ORDER BY claimed_at DESC, id DESC LIMIT ");
    select.push_bind(u64::try_from(filter.limit.get() + 1).unwrap_or(u64::MAX));
    let rows: Vec<RewardClaimRow> = select.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(read_claim).collect())
}

#[derive(FromRow)]
struct CodedClaimRow {
    code: String,
    #[sqlx(flatten)]
    claim: RewardClaimRow,
}

/// The newest attempts of a user to claim any reward.
pub(super) async fn claims_of_user(
    pool: &MySqlPool,
    user: UserId,
    limit: usize,
) -> Result<Vec<(RewardCode, RewardClaim)>, mysql::Error> {
    let select = "SELECT code, id, user_id, status, reason, attempts, claimed_at FROM reward_claims \
                  WHERE user_id = ? ORDER BY claimed_at DESC, id DESC LIMIT ?";
    let rows: Vec<CodedClaimRow> = sqlx::query_as(select)
        .bind(user.uuid())
        .bind(u64::try_from(limit).unwrap_or(u64::MAX))
        .fetch_all(pool)
        .await?;
    let read = |row: CodedClaimRow| Some((row.code.parse().ok()?, read_claim(row.claim)?));
    Ok(rows.into_iter().filter_map(read).collect())
}

/// The number of granted claims of all rewards.
pub(super) async fn granted_total(pool: &MySqlPool) -> Result<u64, mysql::Error> {
    let count = "SELECT CAST(COUNT(once) AS UNSIGNED) FROM reward_claims";
    Ok(sqlx::query_scalar(count).fetch_one(pool).await?)
}

fn read_claim(row: RewardClaimRow) -> Option<RewardClaim> {
    Some(RewardClaim {
        id: row.id.into(),
        user: row.user_id.into(),
        status: serde_json::from_value(serde_json::Value::String(row.status)).ok()?,
        reason: row.reason,
        attempts: row.attempts,
        claimed_at: row.claimed_at.timestamp_millis(),
    })
}

fn read(row: Row) -> Option<Reward> {
    Some(Reward {
        code: row.code.parse().ok()?,
        version: row.version,
        title: row.title,
        starts_at: row.starts_at,
        ends_at: row.ends_at,
        active: row.active,
        conditions: row.conditions.0,
        gift: row.reward.0,
        revocable: row.revocable,
    })
}
