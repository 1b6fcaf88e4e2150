//! Whether a line was fair, from what it left behind.
//!
//! Every promotion is in MySQL: which scores, how many, when. So anybody can check that they follow each other in score order, and that no span of the interval
//! let in more than the settings allow. Places of the lottery are derived from a seed whose hash is public before the opening and which is public after it;
//! for everybody who is still in Redis, the score is derived again and compared.

use sha2::{Digest, Sha256};

use super::sql::{self, StoredPromotion};
use super::{Error, QueueService, store};
use crate::ids::{QueueId, UserId};
use crate::mysql;

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueAuditReport {
    /// Promotions looked at.
    pub promotions: u64,
    /// Users let in by them.
    pub admitted: u64,
    /// Users in Redis whose place in the lottery was derived again.
    pub derived: u64,
    /// What is wrong, in words; empty when the line was fair.
    pub faults: Vec<String>,
}

/// Faults told at most; the first are enough to begin with.
const MOST_FAULTS: usize = 20;
/// Members that one reading of a line gives.
const CHUNK: i64 = 500;

impl QueueService {
    /// Checks the order and the rate of all promotions in MySQL, and the places of the lottery in Redis. The rate is held against the settings of now, so
    /// audit before they are changed; what is not yet in MySQL is not looked at.
    pub async fn audit(&self, id: &QueueId) -> Result<QueueAuditReport, Error> {
        let laid = self.settings(id).ok_or(Error::NotFound)?;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let promotions = sql::promotions(&mut connection, id).await?;
        let partition = self.redis().keys().partition(id.slot());
        let losses = sql::losses(&mut connection, partition).await?;
        let limit =
            (i64::from(laid.settings.interval_ms), u64::from(laid.settings.promote_per_interval));
        let mut audit = judge(&promotions, &losses, limit);
        let mut from = 0;
        loop {
            let members = store::members(self.redis(), id, from, CHUNK).await?;
            for (user, score) in &members {
                if *score < super::snapshot::ARRIVALS {
                    audit.derived += 1;
                    if lottery_score(&laid.seed, *user) != *score {
                        audit.faults.push(format!(
                            "user {user} stands at {score}, which the seed does not give"
                        ));
                    }
                }
            }
            from += CHUNK;
            if members.is_empty() {
                audit.faults.truncate(MOST_FAULTS);
                return Ok(audit);
            }
        }
    }
}

/// The place that a seed deals to a user: the first forty bits of SHA-1 over both, as `lua/queue/join.lua` takes them.
fn lottery_score(seed: &str, user: UserId) -> u64 {
    use sha1::Digest as _;
    let digest = sha1::Sha1::new().chain_update(seed).chain_update(user.as_bytes()).finalize();
    digest[..5].iter().fold(0, |score, byte| score << 8 | u64::from(*byte))
}

/// What is published of a seed before the opening: its SHA-256, in hexadecimal.
pub(super) fn seed_hash(seed: &str) -> String {
    Sha256::digest(seed).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Promotions in the order in which they were made, against `limit`: milliseconds, and how many in any such span. After a loss the line stands up again from its
/// tokens, also from those of users who were inside, so order is held between two losses.
fn judge(
    promotions: &[StoredPromotion],
    losses: &[i64],
    (interval, most): (i64, u64),
) -> QueueAuditReport {
    let mut faults = Vec::new();
    let (mut last, mut oldest, mut in_span, mut losses) = (-1, 0, 0, losses.iter().peekable());
    for promotion in promotions {
        while losses.next_if(|lost| **lost <= promotion.at).is_some() {
            last = -1;
        }
        if promotion.from <= last || promotion.to < promotion.from {
            faults.push(format!("{promotion:?} does not come after {last}"));
        }
        last = promotion.to;
        in_span += u64::from(promotion.count);
        while promotions[oldest].at + interval <= promotion.at {
            in_span -= u64::from(promotions[oldest].count);
            oldest += 1;
        }
        if in_span > most {
            faults.push(format!(
                "{in_span} were let in within {interval} ms before {}",
                promotion.at
            ));
        }
    }
    let admitted = promotions.iter().map(|promotion| u64::from(promotion.count)).sum();
    QueueAuditReport { promotions: promotions.len() as u64, admitted, derived: 0, faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promotion(from: i64, to: i64, count: u32, at: i64) -> StoredPromotion {
        StoredPromotion { from, to, count, at }
    }

    #[test]
    fn a_fair_line_has_no_faults() {
        let line = [promotion(1, 5, 5, 0), promotion(6, 9, 3, 400), promotion(11, 20, 5, 1_000)];
        let audit = judge(&line, &[], (1_000, 8));
        assert_eq!((audit.promotions, audit.admitted, audit.faults), (3, 13, vec![]));
    }

    #[test]
    fn order_and_rate_are_faults() {
        assert_eq!(
            judge(&[promotion(6, 9, 3, 0), promotion(1, 5, 5, 5_000)], &[], (1_000, 8))
                .faults
                .len(),
            1
        );
        assert_eq!(
            judge(&[promotion(1, 5, 5, 0), promotion(6, 9, 4, 999)], &[], (1_000, 8)).faults.len(),
            1
        );
        assert_eq!(judge(&[promotion(1, 9, 9, 0)], &[], (1_000, 8)).faults.len(), 1);
    }

    #[test]
    fn a_loss_begins_the_order_anew() {
        let line = [promotion(6, 9, 3, 0), promotion(1, 5, 5, 5_000), promotion(2, 3, 2, 9_000)];
        assert_eq!(judge(&line, &[3_000], (1_000, 8)).faults.len(), 1);
        assert_eq!(judge(&line, &[3_000, 9_000], (1_000, 8)).faults.len(), 0);
    }

    #[test]
    fn the_lottery_is_a_function_of_seed_and_user() {
        let user: UserId = uuid::Uuid::from_u128(7).into();
        let score = lottery_score("00ff", user);
        assert!(score < super::super::snapshot::ARRIVALS);
        assert_eq!(score, lottery_score("00ff", user));
        assert_ne!(score, lottery_score("01ff", user));
    }
}
