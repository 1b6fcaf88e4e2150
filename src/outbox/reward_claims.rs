//! The reward claims of a batch: what is merged, and how it is written.
//!
//! A granted claim is a row. Refused claims of a user have one row per reward and reason, which
//! counts the attempts: a client that repeats a claim adds no rows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use chrono::{DateTime, Utc};
use sqlx::MySqlConnection;

use super::event::{ClaimStatus, RewardClaimEvent};
use super::sql::insert;
use crate::ids::{ClaimId, RewardCode, UserId};
use crate::money::Money;
use crate::mysql::Error;

#[derive(Default)]
pub(super) struct RewardClaimChanges {
    granted: Vec<RewardClaimEvent>,
    refused: BTreeMap<RefusalKey, RefusedClaims>,
    revoked: Vec<RewardClaimEvent>,
}

/// The user, the reward and the reason.
type RefusalKey = (UserId, RewardCode, String);

/// Refused claims with one key.
struct RefusedClaims {
    /// That of the first attempt.
    id: ClaimId,
    attempts: u32,
    latest: DateTime<Utc>,
}

impl RewardClaimChanges {
    pub(super) fn add(&mut self, claim: RewardClaimEvent) {
        match claim.status {
            ClaimStatus::Success => self.granted.push(claim),
            ClaimStatus::Revoked => self.revoked.push(claim),
            ClaimStatus::Failed => {
                let (id, latest) = (claim.id, claim.at);
                let key = (claim.user, claim.reward, claim.reason.unwrap_or_default());
                match self.refused.entry(key) {
                    Entry::Vacant(first) => {
                        first.insert(RefusedClaims { id, attempts: 1, latest });
                    }
                    Entry::Occupied(mut again) => {
                        let known = again.get_mut();
                        known.attempts += 1;
                        known.latest = known.latest.max(latest);
                    }
                }
            }
        }
    }

    /// The number of rows that change.
    pub(super) fn len(&self) -> usize {
        self.granted.len() + self.refused.len() + self.revoked.len()
    }

    /// Sorts the rows by their primary keys.
    pub(super) fn sort(&mut self) {
        self.granted.sort_unstable_by_key(|claim| claim.id);
        self.revoked.sort_unstable_by_key(|claim| claim.id);
    }

    pub(super) async fn write(&self, tx: &mut MySqlConnection) -> Result<(), Error> {
        let head = "INSERT INTO reward_claims (id, code, user_id, status, claimed_at, points, \
                    conditions) ";
        insert(tx, head, "", &self.granted, |row, claim| {
            row.push_bind(claim.id.uuid()).push_bind(claim.reward.as_str());
            row.push_bind(claim.user.uuid()).push_bind(claim.status.as_str()).push_bind(claim.at);
            row.push_bind(claim.points.map(Money::get)).push_bind(claim.conditions.as_deref());
        })
        .await?;
        self.write_refused(tx).await?;
        // After the grants: a claim may be granted and revoked within the batch.
        for revoked in &self.revoked {
            sqlx::query("UPDATE reward_claims SET status = ?, revoked_at = ? WHERE id = ?")
                .bind(revoked.status.as_str())
                .bind(revoked.at)
                .bind(revoked.id.uuid())
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }

    async fn write_refused(&self, tx: &mut MySqlConnection) -> Result<(), Error> {
        let head = "INSERT INTO reward_claims (id, code, user_id, status, reason, claimed_at, \
                    attempts) ";
        let tail = " ON DUPLICATE KEY UPDATE attempts = attempts + VALUES(attempts), \
                    claimed_at = GREATEST(claimed_at, VALUES(claimed_at))";
        let rows: Vec<_> = self.refused.iter().collect();
        insert(tx, head, tail, &rows, |row, ((user, code, reason), claims)| {
            row.push_bind(claims.id.uuid()).push_bind(code.as_str()).push_bind(user.uuid());
            row.push_bind(ClaimStatus::Failed.as_str()).push_bind(reason.as_str());
            row.push_bind(claims.latest).push_bind(claims.attempts);
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: u8, user: u8, reason: Option<&str>, at: i64) -> RewardClaimEvent {
        RewardClaimEvent {
            id: uuid::Uuid::from_bytes([id; 16]).into(),
            reward: "r".parse().unwrap(),
            user: uuid::Uuid::from_bytes([user; 16]).into(),
            status: if reason.is_some() { ClaimStatus::Failed } else { ClaimStatus::Success },
            reason: reason.map(str::to_owned),
            points: None,
            conditions: None,
            at: DateTime::from_timestamp_millis(at).unwrap(),
        }
    }

    #[test]
    fn refusals_with_one_reason_are_counted() {
        let mut changes = RewardClaimChanges::default();
        for (id, user, reason, at) in [
            (1, 1, Some("ended"), 10),
            (2, 1, Some("ended"), 30),
            (3, 1, Some("ended"), 20),
            (4, 1, Some("inactive"), 10),
            (5, 2, Some("ended"), 10),
            (6, 2, None, 10),
        ] {
            changes.add(claim(id, user, reason, at));
        }
        assert_eq!(changes.len(), 4);
        let counted = changes.refused.into_values().map(|claims| {
            (claims.id.as_bytes()[0], claims.attempts, claims.latest.timestamp_millis())
        });
        assert_eq!(counted.collect::<Vec<_>>(), [(1, 3, 30), (4, 1, 10), (5, 1, 10)]);
    }
}
