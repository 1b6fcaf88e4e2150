//! The SQL of users.

use std::sync::Arc;

use sqlx::{MySqlPool, QueryBuilder};
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
