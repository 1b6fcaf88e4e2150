//! The SQL of users.

use std::sync::Arc;

use sqlx::{MySql, MySqlPool, QueryBuilder};
use uuid::Uuid;

use crate::ids::UserId;
use crate::mysql::Error;

/// The recorded strings of some keys.
pub(super) async fn texts(
    pool: &MySqlPool,
    users: &[UserId],
) -> Result<Vec<(UserId, Arc<str>)>, Error> {
    let mut select = QueryBuilder::new("SELECT user_id, name FROM users WHERE user_id IN (");
    let mut list = select.separated(", ");
    for user in users {
        list.push_bind(user.uuid());
    }
    let rows: Vec<(Uuid, String)> = select.push(")").build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(user, name)| (user.into(), name.into())).collect())
}

/// The recorded strings that begin with `prefix`, after the string `after`.
pub(super) async fn names(
    pool: &MySqlPool,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(UserId, Arc<str>)>, Error> {
    // Ids are visible ASCII, so no character of one is above the tilde.
    let end = format!("{prefix}\x7f");
    let mut select = QueryBuilder::new("SELECT user_id, name FROM users WHERE name >= ");
    select.push_bind(prefix).push(" AND name < ").push_bind(end);
    if let Some(after) = after {
        select.push(" AND name > ").push_bind(after);
    }
    select.push(" ORDER BY name LIMIT ").push_bind(u64::try_from(limit).unwrap_or(u64::MAX));
    let rows: Vec<(Uuid, String)> = select.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(user, name)| (user.into(), name.into())).collect())
}

/// The tables that name a user first in an index.
const TABLES_OF_USERS: [&str; 5] =
    ["wallets", "reservations", "coupon_issues", "reward_claims", "user_facts"];

/// The keys of users in a range that are UUIDs, after the key `after`.
pub(super) async fn keys(
    pool: &MySqlPool,
    lowest: Uuid,
    highest: Uuid,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Uuid>, Error> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut select = QueryBuilder::new("");
    for (at, table) in TABLES_OF_USERS.iter().enumerate() {
        if at > 0 {
            select.push(" UNION ");
        }
        select_keys(&mut select, table, (lowest, highest, after), limit);
    }
    select.push(" ORDER BY user_id LIMIT ").push_bind(limit);
    Ok(select.build_query_scalar().fetch_all(pool).await?)
}

/// Adds `SELECT` of the distinct users of a table within a range.
fn select_keys(
    select: &mut QueryBuilder<MySql>,
    table: &str,
    (lowest, highest, after): (Uuid, Uuid, Option<Uuid>),
    limit: u64,
) {
    select.push(format!("(SELECT DISTINCT user_id FROM {table} WHERE user_id >= "));
    select.push_bind(lowest).push(" AND user_id <= ").push_bind(highest);
    if let Some(after) = after {
        select.push(" AND user_id > ").push_bind(after);
    }
    // Version 8 marks the key of an id that is not a UUID.
    select.push(" AND SUBSTR(HEX(user_id), 13, 1) <> '8' ORDER BY user_id LIMIT ");
    select.push_bind(limit).push(")");
}
