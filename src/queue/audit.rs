//! Checks afterwards whether a queue was fair.
//!
//! MySQL stores every promotion: its scores, its count and its time. The audit checks that
//! promotions follow each other in score order and that no interval admitted more users than the
//! settings allow. Places of the lottery are derived from a seed. Its hash is public before the
//! opening, the seed itself after it. For every user still in Redis, the audit derives the score
//! again and compares it.

use sha2::{Digest, Sha256};

use super::sql::{self, StoredPromotion};
use super::{Error, QueueService, store};
use crate::ids::{QueueId, UserId};
use crate::mysql;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueAuditReport {
    /// Promotions checked.
    pub promotions: u64,
    /// Users admitted by these promotions.
    pub admitted: u64,
    /// Waiting users whose lottery score was checked.
    pub lottery_scores: u64,
    /// One sentence each, at most [`MAX_VIOLATIONS`]. Empty when the queue was fair.
    pub violations: Vec<String>,
}

const MAX_VIOLATIONS: usize = 20;
/// Users read from Redis in one call.
const WAITING_PAGE_SIZE: i64 = 500;

impl QueueService {
    /// Checks the order and the rate of all promotions in MySQL, and the lottery scores in Redis.
    ///
    /// The rate is compared with the current settings, so run the audit before you change them.
    /// Promotions that are not in MySQL yet are not checked.
    pub async fn audit(&self, id: &QueueId) -> Result<QueueAuditReport, Error> {
        let published = self.find_settings(id).await?;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let promotions = sql::promotions(&mut connection, id).await?;
        let partition = self.redis().keys().partition(id.slot());
        let losses = sql::losses(&mut connection, partition).await?;
        let settings = &published.settings;
        let limit = RateLimit {
            interval_ms: settings.interval_ms.into(),
            max_admissions: settings.promote_per_interval.into(),
        };
        let mut report = check_promotions(&promotions, &losses, limit);
        let mut from = 0;
        loop {
            let members = store::list_waiting(self.redis(), id, from, WAITING_PAGE_SIZE).await?;
            for (user, score) in &members {
                if *score < super::snapshot::FIRST_ARRIVAL_SCORE {
                    report.lottery_scores += 1;
                    if lottery_score(&published.seed, *user) != *score {
                        report.violations.push(format!(
                            "The score {score} of user {user} does not follow from the seed."
                        ));
                    }
                }
            }
            from += WAITING_PAGE_SIZE;
            if members.is_empty() {
                report.violations.truncate(MAX_VIOLATIONS);
                return Ok(report);
            }
        }
    }
}

/// The lottery score of a user: the first 40 bits of SHA-1 over seed and user id, as in
/// `lua/queue/join.lua`.
fn lottery_score(seed: &str, user: UserId) -> u64 {
    use sha1::Digest as _;
    let digest = sha1::Sha1::new().chain_update(seed).chain_update(user.as_bytes()).finalize();
    digest[..5].iter().fold(0, |score, byte| score << 8 | u64::from(*byte))
}

/// The SHA-256 of a seed in hexadecimal, which is public before the opening.
pub(super) fn seed_hash(seed: &str) -> String {
    Sha256::digest(seed).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// At most `max_admissions` in any span of `interval_ms`.
#[derive(Debug, Clone, Copy)]
struct RateLimit {
    interval_ms: i64,
    max_admissions: u64,
}

/// Checks promotions, which are in the order in which they were made, for score order and rate.
///
/// After a loss of Redis, users return with their tokens, also those who were active before. So
/// the order is checked only between two losses.
fn check_promotions(
    promotions: &[StoredPromotion],
    losses: &[i64],
    limit: RateLimit,
) -> QueueAuditReport {
    let mut violations = Vec::new();
    let (mut last, mut oldest, mut in_interval) = (-1, 0, 0);
    let mut losses = losses.iter().peekable();
    for promotion in promotions {
        while losses.next_if(|lost| **lost <= promotion.at).is_some() {
            last = -1;
        }
        if promotion.from <= last || promotion.to < promotion.from {
            let StoredPromotion { from, to, at, .. } = promotion;
            violations.push(format!(
                "The promotion of the scores {from} to {to} at {at} does not follow {last}."
            ));
        }
        last = promotion.to;
        // A sliding window over the promotions of the last interval.
        in_interval += u64::from(promotion.count);
        while promotions[oldest].at + limit.interval_ms <= promotion.at {
            in_interval -= u64::from(promotions[oldest].count);
            oldest += 1;
        }
        if in_interval > limit.max_admissions {
            violations.push(format!(
                "{in_interval} users were admitted in the {} ms before {}.",
                limit.interval_ms, promotion.at
            ));
        }
    }
    let admitted = promotions.iter().map(|promotion| u64::from(promotion.count)).sum();
    QueueAuditReport {
        promotions: promotions.len() as u64,
        admitted,
        lottery_scores: 0,
        violations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promotion(from: i64, to: i64, count: u32, at: i64) -> StoredPromotion {
        StoredPromotion { from, to, count, at }
    }

    const LIMIT: RateLimit = RateLimit { interval_ms: 1_000, max_admissions: 8 };

    fn violations(promotions: &[StoredPromotion], losses: &[i64]) -> usize {
        check_promotions(promotions, losses, LIMIT).violations.len()
    }

    #[test]
    fn fair_promotions_have_no_violations() {
        let fair = [promotion(1, 5, 5, 0), promotion(6, 9, 3, 400), promotion(11, 20, 5, 1_000)];
        let report = check_promotions(&fair, &[], LIMIT);
        assert_eq!((report.promotions, report.admitted, report.violations), (3, 13, vec![]));
    }

    #[test]
    fn wrong_order_and_high_rate_are_violations() {
        assert_eq!(violations(&[promotion(6, 9, 3, 0), promotion(1, 5, 5, 5_000)], &[]), 1);
        assert_eq!(violations(&[promotion(1, 5, 5, 0), promotion(6, 9, 4, 999)], &[]), 1);
        assert_eq!(violations(&[promotion(1, 9, 9, 0)], &[]), 1);
    }

    #[test]
    fn order_is_checked_only_between_losses() {
        let all = [promotion(6, 9, 3, 0), promotion(1, 5, 5, 5_000), promotion(2, 3, 2, 9_000)];
        assert_eq!(violations(&all, &[3_000]), 1);
        assert_eq!(violations(&all, &[3_000, 9_000]), 0);
    }

    #[test]
    fn lottery_score_depends_on_seed_and_user() {
        let user: UserId = uuid::Uuid::from_u128(7).into();
        let score = lottery_score("00ff", user);
        assert!(score < super::super::snapshot::FIRST_ARRIVAL_SCORE);
        assert_eq!(score, lottery_score("00ff", user));
        assert_ne!(score, lottery_score("01ff", user));
    }
}
