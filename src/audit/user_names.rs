//! Puts the ids of users into the descriptions of faults.

use std::collections::HashMap;

use sqlx::MySqlPool;
use uuid::Uuid;

use super::{AuditCheck, push_values};
use crate::store_error::StoreError;

const UUID_LENGTH: usize = 36;

/// Replaces the keys of users by the recorded ids. A check describes only its first faults, so this
/// is one statement with a few hundred keys at most.
pub(super) async fn name_users(
    mysql: &MySqlPool,
    checks: &mut [AuditCheck],
) -> Result<(), StoreError> {
    let keys: Vec<Uuid> = checks.iter().flat_map(|check| uuids(&check.detail)).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let mut query = sqlx::QueryBuilder::new("SELECT user_id, name FROM users WHERE user_id IN (");
    push_values(query.separated(", "), &keys);
    let names: HashMap<Uuid, String> =
        query.push(")").build_query_as().fetch_all(mysql).await?.into_iter().collect();
    for check in checks {
        for key in uuids(&check.detail) {
            if let Some(name) = names.get(&key) {
                check.detail = check.detail.replace(&key.to_string(), name);
            }
        }
    }
    Ok(())
}

fn uuids(text: &str) -> Vec<Uuid> {
    let words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    words.filter(|word| word.len() == UUID_LENGTH).filter_map(|word| word.parse().ok()).collect()
}
