//! Estimates when users joined, for the metric of how long they waited.
//!
//! Redis stores no join time: a place is only a number. Each call of the scheduler returns the
//! newest score. So a user joined between the first call that returned at least their score and the
//! call before, which is at most 250 ms earlier. The join time is unknown for users who joined
//! before the first call of this instance and for places of a lottery.

use std::collections::VecDeque;

use super::snapshot::is_drawn_score;

/// When there are more samples, every second one is removed: a long wait is measured less exactly.
const MAX_SAMPLES: usize = 4_096;

/// The join times of one queue.
#[derive(Debug, Default)]
pub(super) struct ArrivalTimes {
    /// The newest score at a time, in milliseconds of Redis' clock. Both increase.
    samples: VecDeque<(u64, i64)>,
}

impl ArrivalTimes {
    /// Records that `newest` was the newest score at `now`.
    pub(super) fn record(&mut self, newest: u64, now: i64) {
        match self.samples.back() {
            Some((known, _)) if *known == newest => return,
            // Redis lost writes, so these scores may be given to other users.
            Some((known, _)) if *known > newest => self.samples.clear(),
            _ => {}
        }
        self.samples.push_back((newest, now));
        if self.samples.len() > MAX_SAMPLES {
            let mut nth = 0;
            self.samples.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
        }
    }

    /// How long the user of a score has waited, in milliseconds. `None` when unknown.
    pub(super) fn waited(&self, score: u64, now: i64) -> Option<i64> {
        if is_drawn_score(score) {
            return None;
        }
        // Users up to the first sample joined at an unknown time before it.
        let index = self.samples.partition_point(|(newest, _)| *newest < score).checked_sub(1)? + 1;
        self.samples.get(index).map(|(_, at)| (now - at).max(0))
    }

    /// Removes samples before a score. Users are admitted in score order, so they are not needed
    /// any more.
    pub(super) fn remove_before(&mut self, score: u64) {
        while self.samples.get(1).is_some_and(|(newest, _)| *newest < score) {
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::SCORES_PER_SEGMENT as FIRST_ARRIVAL_SCORE;
    use super::*;

    #[test]
    fn wait_starts_at_the_first_sample_that_includes_the_score() {
        let mut arrivals = ArrivalTimes::default();
        assert_eq!(arrivals.waited(FIRST_ARRIVAL_SCORE, 0), None);
        for (newest, now) in [(9, 1_000), (9, 2_000), (19, 3_000), (29, 4_000)] {
            arrivals.record(FIRST_ARRIVAL_SCORE + newest, now);
        }
        let waited = |score, now| arrivals.waited(FIRST_ARRIVAL_SCORE + score, now);
        assert_eq!(waited(9, 5_000), None, "joined before the first sample");
        assert_eq!((waited(10, 5_000), waited(19, 5_000)), (Some(2_000), Some(2_000)));
        assert_eq!(waited(20, 5_000), Some(1_000));
        assert_eq!(waited(30, 5_000), None, "joined after the last sample");
        assert_eq!(arrivals.waited(17, 5_000), None, "a place of the lottery");
    }

    #[test]
    fn samples_are_dropped_when_the_newest_score_decreases() {
        let mut arrivals = ArrivalTimes::default();
        arrivals.record(FIRST_ARRIVAL_SCORE + 9, 1_000);
        arrivals.record(FIRST_ARRIVAL_SCORE + 19, 2_000);
        arrivals.record(FIRST_ARRIVAL_SCORE + 12, 3_000);
        assert_eq!(arrivals.waited(FIRST_ARRIVAL_SCORE + 11, 4_000), None);
    }

    #[test]
    fn samples_are_bounded_and_removed_after_admission() {
        let mut arrivals = ArrivalTimes::default();
        for n in 0..20_000_u32 {
            arrivals.record(FIRST_ARRIVAL_SCORE + u64::from(n), i64::from(n) * 250);
        }
        assert!(arrivals.samples.len() <= MAX_SAMPLES);
        let waited = arrivals.waited(FIRST_ARRIVAL_SCORE + 1_000, 5_000_000).unwrap();
        assert!((4_740_000..=4_750_000).contains(&waited), "{waited}");
        arrivals.remove_before(FIRST_ARRIVAL_SCORE + 19_000);
        assert!(arrivals.samples.len() <= 1_001);
        assert!(arrivals.waited(FIRST_ARRIVAL_SCORE + 19_000, 5_000_000).is_some());
    }
}
