//! The part of a snapshot from which the wait is forecast.

use super::estimator::{AdmissionLimits, TurnoverCounts, VisitSample, sample_weight};
use super::snapshot::QueueState;
use crate::redis::{Error, ReplyReader};

/// What a forecast needs besides the state of the queue.
#[derive(Debug, Clone)]
pub(super) struct TurnoverReading {
    pub(super) limits: AdmissionLimits,
    /// No user is admitted before this moment, while places are restored after a loss of Redis.
    pub(super) restoring_until: i64,
    /// The admissions of the last interval: moment and count, in ascending order.
    pub(super) recent_admissions: Vec<(i64, u64)>,
    pub(super) visits: Vec<VisitSample>,
    pub(super) counts: TurnoverCounts,
}

#[cfg(test)]
impl TurnoverReading {
    pub(super) fn empty() -> Self {
        let limits = AdmissionLimits {
            per_interval: 1,
            interval_ms: 1_000,
            max_active: 1,
            active_ms: 1_000,
            claim_ms: 1_000,
            sliding: false,
            visit_limit_ms: None,
        };
        Self {
            limits,
            restoring_until: 0,
            recent_admissions: Vec::new(),
            visits: Vec::new(),
            counts: TurnoverCounts::new(300.0),
        }
    }
}

/// The end of a reply of `queue/snapshot`.
pub(super) fn read_turnover(
    reply: &mut ReplyReader,
    state: &QueueState,
    restoring_until: i64,
) -> Result<TurnoverReading, Error> {
    let mut words = reply.word()?.words()?;
    let limits = AdmissionLimits {
        per_interval: words.count()?,
        interval_ms: words.count()?,
        max_active: words.count()?,
        active_ms: words.count()?,
        claim_ms: words.count()?,
        sliding: words.flag()?,
        visit_limit_ms: u64::try_from(words.int()?).ok(),
    };
    let recent_admissions = recent_admissions(&reply.text()?, state.now, limits.interval_ms);
    let mut words = reply.word()?.words()?;
    let mut fields = Vec::new();
    while !words.is_empty() {
        fields.push((words.text()?, words.text()?));
    }
    let counts = TurnoverCounts::from_fields(&fields, state.now)
        .ok_or_else(|| Error::Protocol("malformed turnover".into()))?;
    let words = reply.word()?.words()?.rest();
    let sampled = words.len() / 2;
    let mut words = words.enumerate();
    let mut visits = Vec::with_capacity(sampled);
    while let (Some((at, deadline)), Some((_, slot))) = (words.next(), words.next()) {
        let weight = sample_weight(at / 2, sampled, state.active);
        let slot = slot.bytes()?;
        visits.extend(visit_sample(&slot, deadline.int()?, weight));
    }
    Ok(TurnoverReading { limits, restoring_until, recent_admissions, visits, counts })
}

/// Reads "time:count" words as `lua/lib/bucket.lua` does.
fn recent_admissions(log: &str, now: i64, interval_ms: u64) -> Vec<(i64, u64)> {
    let interval = i64::try_from(interval_ms).unwrap_or(i64::MAX);
    let words = log.split(' ').filter_map(|word| word.split_once(':'));
    words
        .filter_map(|(time, count)| Some((time.parse::<i64>().ok()?.min(now), count.parse().ok()?)))
        .filter(|(time, _)| now.saturating_sub(*time) < interval)
        .collect()
}

/// Reads "score base start". `None` for a user without a slot.
fn visit_sample(slot: &[u8], deadline_ms: i64, weight: f64) -> Option<VisitSample> {
    let mut words = std::str::from_utf8(slot).ok()?.split(' ').skip(1).map(str::parse::<i64>);
    let (base, start_ms) = (words.next()?.ok()?, words.next()?.ok()?);
    Some(VisitSample { weight, deadline_ms, start_ms, base_ms: (base > 0).then_some(base) })
}
