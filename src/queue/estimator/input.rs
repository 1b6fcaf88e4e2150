//! What a forecast is computed from: limits, active users, and how earlier visits ended.

use super::age_bins::{AGE_BINS, seconds};
use crate::redis::constants;

/// The half-life of counts before any was written.
const MIN_HALF_LIFE_SECONDS: f64 = 300.0;
/// Active users with the earliest deadlines, all of which a snapshot samples.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const NEAREST_VISITS: usize = constants::NEAREST_VISITS as usize;
/// The number of active users that a snapshot samples at most.
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(super) const MAX_SAMPLED_VISITS: usize = constants::MAX_SAMPLED_VISITS as usize;

/// The settings of a queue that bound its admissions.
#[derive(Debug, Clone, Copy)]
pub(in crate::queue) struct AdmissionLimits {
    pub(in crate::queue) per_interval: u64,
    pub(in crate::queue) interval_ms: u64,
    pub(in crate::queue) max_active: u64,
    pub(in crate::queue) active_ms: u64,
    pub(in crate::queue) claim_ms: u64,
    /// Whether use moves the end of a visit.
    pub(in crate::queue) sliding: bool,
    /// The longest visit, without a hold.
    pub(in crate::queue) visit_limit_ms: Option<u64>,
}

/// One active user of the snapshot's sample.
#[derive(Debug, Clone, Copy)]
pub(in crate::queue) struct VisitSample {
    /// How many active users this one represents.
    pub(in crate::queue) weight: f64,
    /// The moment at which the slot lapses, holds included.
    pub(in crate::queue) deadline_ms: i64,
    /// The moment of the show-up; of the promotion while the user has not shown up.
    pub(in crate::queue) start_ms: i64,
    /// The moment at which the visit lapses without holds; `None` while the user has not shown up.
    pub(in crate::queue) base_ms: Option<i64>,
}

impl VisitSample {
    pub(super) fn age(&self, now_ms: i64) -> f64 {
        seconds(now_ms - self.start_ms).max(0.0)
    }
}

/// Counts of ended visits. Redis keeps them, and each visit's weight halves every `half_life`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::queue) struct TurnoverCounts {
    pub(in crate::queue) half_life_seconds: f64,
    /// Visits that have ended since the opening, without decay.
    pub(in crate::queue) ended: u64,
    /// The value of `ended` when the queue filled for the first time since its opening.
    pub(in crate::queue) ended_when_filled: Option<u64>,
    /// Promoted users who showed up, by seconds since their promotion.
    pub(in crate::queue) shown: Vec<f64>,
    /// Promoted users who did not.
    pub(in crate::queue) no_shows: f64,
    /// Visits that ended before their own deadline, by age.
    pub(in crate::queue) early: Vec<f64>,
    /// Visits that lapsed at their own deadline, by age.
    pub(in crate::queue) lapsed: Vec<f64>,
    /// Visits that a hold extended, by the time between their own deadline and their end.
    pub(in crate::queue) extended: Vec<f64>,
}

impl TurnoverCounts {
    pub(in crate::queue) fn new(half_life_seconds: f64) -> Self {
        let none = vec![0.0; AGE_BINS];
        Self {
            half_life_seconds,
            ended: 0,
            ended_when_filled: None,
            shown: none.clone(),
            no_shows: 0.0,
            early: none.clone(),
            lapsed: none.clone(),
            extended: none,
        }
    }

    /// Reads the fields of `q:turnover`, whose counts are scaled by the weight of `now_ms`
    /// (`lua/lib/turnover.lua`). `None` when a field is malformed.
    pub(in crate::queue) fn from_fields(fields: &[(String, String)], now_ms: i64) -> Option<Self> {
        let number = |wanted: &str| {
            let found = fields.iter().find(|(field, _)| field == wanted);
            found.map(|(_, value)| value.parse::<f64>()).transpose().ok()
        };
        let half_life = number("half_life")?.unwrap_or(MIN_HALF_LIFE_SECONDS).max(1.0);
        let origin = number("t0")?.unwrap_or(now_ms as f64);
        let weight = ((now_ms as f64 - origin) / 1_000.0 / half_life).exp2();
        let mut turnover = Self::new(half_life);
        for (field, value) in fields {
            match field.as_str() {
                "t0" | "half_life" => {}
                "ended" => turnover.ended = value.parse().ok()?,
                "filled" => turnover.ended_when_filled = Some(value.parse().ok()?),
                "n" => turnover.no_shows = value.parse::<f64>().ok()? / weight,
                _ => {
                    let counts = match field.split_at_checked(1)?.0 {
                        "s" => &mut turnover.shown,
                        "e" => &mut turnover.early,
                        "l" => &mut turnover.lapsed,
                        "x" => &mut turnover.extended,
                        _ => return None,
                    };
                    let count = counts.get_mut(field[1..].parse::<usize>().ok()?)?;
                    *count = value.parse::<f64>().ok()? / weight;
                }
            }
        }
        Some(turnover)
    }

    /// Whether slots have become free since the queue was full, or before it ever was.
    pub(super) fn is_known(&self) -> bool {
        self.ended > self.ended_when_filled.unwrap_or(0)
    }
}

/// What a forecast is computed from: the state of a queue at one moment.
#[derive(Debug, Clone)]
pub(in crate::queue) struct ForecastInput<'a> {
    pub(in crate::queue) limits: AdmissionLimits,
    pub(in crate::queue) now_ms: i64,
    /// Whether users are admitted now; false while the queue is paused, closed or in pre-queue.
    pub(in crate::queue) open: bool,
    /// No user is admitted before this moment, while places are restored after a loss of Redis.
    pub(in crate::queue) restoring_until_ms: i64,
    pub(in crate::queue) waiting: u64,
    pub(in crate::queue) active: u64,
    /// Admissions of the last interval: moment and count, in ascending order.
    pub(in crate::queue) recent_admissions: &'a [(i64, u64)],
    pub(in crate::queue) visits: &'a [VisitSample],
    pub(in crate::queue) turnover: &'a TurnoverCounts,
}

/// The ranks by deadline of the active users that a snapshot samples. `lua/queue/snapshot.lua`
/// computes the same.
#[cfg(test)]
pub(super) fn sampled_ranks(active: usize) -> Vec<usize> {
    if active <= MAX_SAMPLED_VISITS {
        return (0..active).collect();
    }
    let rest = MAX_SAMPLED_VISITS - NEAREST_VISITS;
    let spread = |i: usize| NEAREST_VISITS + (2 * i + 1) * (active - NEAREST_VISITS) / (2 * rest);
    (0..NEAREST_VISITS).chain((0..rest).map(spread)).collect()
}

/// How many active users the sampled user at an index represents.
pub(in crate::queue) fn sample_weight(index: usize, sampled: usize, active: u64) -> f64 {
    if active <= sampled as u64 || index < NEAREST_VISITS || sampled <= NEAREST_VISITS {
        return 1.0;
    }
    (active - NEAREST_VISITS as u64) as f64 / (sampled - NEAREST_VISITS) as f64
}
