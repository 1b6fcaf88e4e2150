//! Checks afterwards whether a queue was fair.
//!
//! MySQL stores every promotion: its scores, its count and its time. The audit checks that
//! promotions follow each other in score order and that no interval admitted more users than the
//! settings of that time allow. Places of a draw are derived from a seed. Its hash is public before
//! the opening, the seed itself after it. For every user still in Redis, the audit derives the
//! score again and compares it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::snapshot::{SCORES_PER_SEGMENT, is_drawn_score};
use super::sql::{self, StoredDraw, StoredPromotion};
use super::{Error, QueueService, store};
use crate::ids::{QueueId, UserId};
use crate::mysql;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueAuditReport {
    /// Promotions checked.
    pub promotions: u64,
    /// Users admitted by these promotions.
    pub admitted: u64,
    /// Draws of the lottery.
    pub draws: u64,
    /// Waiting users whose lottery score was checked.
    pub lottery_scores: u64,
    /// One sentence each, at most [`MAX_VIOLATIONS`]. Empty when the queue was fair.
    pub violations: Vec<String>,
}

const MAX_VIOLATIONS: usize = 20;
const MAX_DRAWS_AGE: Duration = Duration::from_secs(1);
/// Users read from Redis in one call.
const WAITING_PAGE_SIZE: i64 = 500;

impl QueueService {
    /// Checks the order and the rate of all promotions in MySQL, and the lottery scores in Redis.
    ///
    /// Promotions that are not in MySQL yet are not checked.
    pub async fn audit(&self, id: &QueueId) -> Result<QueueAuditReport, Error> {
        self.find_settings(id).await?;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let promotions = sql::promotions(&mut connection, id).await?;
        let draws = sql::draws(&mut connection, id).await?;
        let partition = self.redis().keys().partition(id.slot());
        let losses = sql::losses(&mut connection, partition).await?;
        let mut report = check_promotions(&promotions, &losses);
        report.draws = draws.len() as u64;
        if losses.is_empty() {
            report.violations.extend(check_draws(&draws, &promotions));
        }
        let mut from = 0;
        loop {
            let members = store::list_waiting(self.redis(), id, from, WAITING_PAGE_SIZE).await?;
            for (user, score) in &members {
                if !is_drawn_score(*score) {
                    continue;
                }
                report.lottery_scores += 1;
                let draw = draws.iter().find(|draw| draw.segment() == score / SCORES_PER_SEGMENT);
                let expected = draw.map(|draw| {
                    draw.segment() * SCORES_PER_SEGMENT + lottery_offset(&draw.seed, *user)
                });
                if expected != Some(*score) {
                    report.violations.push(format!(
                        "The score {score} of user {user} does not follow from the seed."
                    ));
                }
            }
            from += WAITING_PAGE_SIZE;
            if members.is_empty() {
                report.violations.truncate(MAX_VIOLATIONS);
                return Ok(report);
            }
        }
    }

    /// The draws of a queue, oldest first, at most one second old.
    pub(super) async fn draws(&self, id: &QueueId) -> Result<Arc<Vec<StoredDraw>>, Error> {
        self.settings(id).ok_or(Error::NotFound)?;
        // The lock makes concurrent requests share one read.
        let mut cached = self.draws.lock().await;
        if let Some((read_at, draws)) = cached.get(id)
            && read_at.elapsed() < MAX_DRAWS_AGE
        {
            return Ok(draws.clone());
        }
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let draws = Arc::new(sql::draws(&mut connection, id).await?);
        cached.retain(|_, (read_at, _)| read_at.elapsed() < MAX_DRAWS_AGE);
        cached.insert(id.clone(), (Instant::now(), draws.clone()));
        Ok(draws)
    }
}

impl StoredDraw {
    /// The segment of the scores of this draw.
    fn segment(&self) -> u64 {
        2 * u64::from(self.draw)
    }

    /// When the draw took place, if that was before `now`. Milliseconds since 1970.
    pub(super) fn drawn_at(&self, now: i64) -> Option<i64> {
        let planned = self.opens_at.filter(|opens_at| opens_at.timestamp_millis() <= now);
        planned.or(self.drawn_at).map(|at| at.timestamp_millis())
    }
}

/// The offset of a user's score in the segment of the draw: the first 40 bits of SHA-1 over seed
/// and user id, as in `lua/queue/join.lua`.
fn lottery_offset(seed: &str, user: UserId) -> u64 {
    use sha1::Digest as _;
    let digest = sha1::Sha1::new().chain_update(seed).chain_update(user.as_bytes()).finalize();
    digest[..5].iter().fold(0, |score, byte| score << 8 | u64::from(*byte))
}

/// The SHA-256 of a seed in hexadecimal, which is public before the opening.
pub(super) fn seed_hash(seed: &str) -> String {
    Sha256::digest(seed).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that no draw admitted more users than took part.
fn check_draws(draws: &[StoredDraw], promotions: &[StoredPromotion]) -> Vec<String> {
    let mut violations = Vec::new();
    for draw in draws {
        let segment_of = |score: i64| u64::try_from(score).unwrap_or(0) / SCORES_PER_SEGMENT;
        let of_draw = |it: &&StoredPromotion| {
            segment_of(it.from) == draw.segment() && segment_of(it.to) == draw.segment()
        };
        let admitted: u64 = promotions.iter().filter(of_draw).map(|it| u64::from(it.count)).sum();
        if let Some(entrants) = draw.entrants.filter(|entrants| *entrants < admitted) {
            let number = draw.draw;
            violations.push(format!(
                "Draw {number} had {entrants} entrants, but {admitted} users were admitted."
            ));
        }
    }
    violations
}

/// Checks promotions, which are in the order in which they were made, for score order and rate.
///
/// Each promotion is judged by the limit that was in force then. A longer interval does not bring
/// back promotions that had left the shorter one before it.
///
/// After a loss of Redis, users return with their tokens, also those who were active before. So
/// the order is checked only between two losses. Where Redis' clock went back, the promotions
/// before and after it have no common time, so the rate is checked only between two steps.
fn check_promotions(promotions: &[StoredPromotion], losses: &[i64]) -> QueueAuditReport {
    let mut violations = Vec::new();
    let (mut last, mut oldest, mut in_interval) = (-1, 0, 0);
    let mut losses = losses.iter().peekable();
    for (nth, promotion) in promotions.iter().enumerate() {
        if nth > 0 && promotion.at < promotions[nth - 1].at {
            (oldest, in_interval) = (nth, 0);
        }
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
        while promotions[oldest].at + i64::from(promotion.interval_ms) <= promotion.at {
            in_interval -= u64::from(promotions[oldest].count);
            oldest += 1;
        }
        if in_interval > u64::from(promotion.limit) {
            violations.push(format!(
                "{in_interval} users were admitted in the {} ms before {}.",
                promotion.interval_ms, promotion.at
            ));
        }
    }
    let admitted = promotions.iter().map(|promotion| u64::from(promotion.count)).sum();
    QueueAuditReport {
        promotions: promotions.len() as u64,
        admitted,
        draws: 0,
        lottery_scores: 0,
        violations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promotion(from: i64, to: i64, count: u32, at: i64) -> StoredPromotion {
        StoredPromotion { from, to, count, at, limit: 8, interval_ms: 1_000 }
    }

    fn violations(promotions: &[StoredPromotion], losses: &[i64]) -> usize {
        check_promotions(promotions, losses).violations.len()
    }

    #[test]
    fn fair_promotions_have_no_violations() {
        let fair = [promotion(1, 5, 5, 0), promotion(6, 9, 3, 400), promotion(11, 20, 5, 1_000)];
        let report = check_promotions(&fair, &[]);
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
    fn each_promotion_is_judged_by_the_limit_of_its_time() {
        let with = |limit, interval_ms, at| StoredPromotion {
            from: at + 1,
            to: at + 10,
            count: 10,
            at,
            limit,
            interval_ms,
        };
        let raised_and_back = [with(10, 1_000, 0), with(100, 1_000, 500), with(10, 1_000, 1_500)];
        assert_eq!(violations(&raised_and_back, &[]), 0);
        let longer = [with(10, 100, 0), with(10, 100, 500), with(20, 60_000, 700)];
        assert_eq!(violations(&longer, &[]), 0, "the promotion at 0 had left the interval");
        let longer = [with(10, 100, 0), with(10, 100, 500), with(19, 60_000, 700)];
        assert_eq!(violations(&longer, &[]), 1, "the promotion at 500 had not");
    }

    #[test]
    fn rate_is_checked_only_between_two_steps_of_the_clock() {
        let back = [promotion(1, 8, 8, 60_000), promotion(9, 16, 8, 59_500)];
        assert_eq!(violations(&back, &[]), 0);
        let too_many =
            [promotion(1, 8, 8, 60_000), promotion(9, 16, 8, 0), promotion(17, 17, 1, 9)];
        assert_eq!(violations(&too_many, &[]), 1);
    }

    #[test]
    fn draw_admits_at_most_its_entrants() {
        let base = 2 * SCORES_PER_SEGMENT as i64;
        let draw = |entrants| StoredDraw {
            draw: 1,
            seed: "00ff".into(),
            opens_at: None,
            drawn_at: None,
            entrants,
        };
        let promotions = [promotion(base, base + 9, 5, 0), promotion(3 * base, 3 * base, 1, 5)];
        assert_eq!(check_draws(&[draw(Some(5)), draw(None)], &promotions).len(), 0);
        assert_eq!(check_draws(&[draw(Some(4))], &promotions).len(), 1);
    }

    #[test]
    fn lottery_offset_depends_on_seed_and_user() {
        let user: UserId = uuid::Uuid::from_u128(7).into();
        let offset = lottery_offset("00ff", user);
        assert!(offset < SCORES_PER_SEGMENT);
        assert_eq!(offset, lottery_offset("00ff", user));
        assert_ne!(offset, lottery_offset("01ff", user));
    }
}
