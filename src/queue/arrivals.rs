//! When places were dealt, so that it is known for how long those who are let in stood in line.
//!
//! Redis keeps no such moments: a place is a number. Each look of the scheduler tells the newest number, so a place was dealt before the first look that
//! told it and after the look before, a quarter of a second at most. Of places dealt before this instance's first look nothing is known, nor of those of a lottery.

use std::collections::VecDeque;

use super::snapshot::ARRIVALS;

/// Looks that are remembered. When there are more, every second one is forgotten, so a line that stands for a day is told less exactly.
const MOST: usize = 4_096;

/// The arrivals in one line.
#[derive(Debug, Default)]
pub(super) struct ArrivalTimes {
    /// The newest score at a moment, milliseconds of Redis' clock; both only grow.
    looks: VecDeque<(u64, i64)>,
}

impl ArrivalTimes {
    /// Notes which score was the newest at a moment.
    pub(super) fn note(&mut self, newest: u64, now: i64) {
        match self.looks.back() {
            Some((known, _)) if *known == newest => return,
            // Redis has gone back: what was noted may be dealt again.
            Some((known, _)) if *known > newest => self.looks.clear(),
            _ => {}
        }
        self.looks.push_back((newest, now));
        if self.looks.len() > MOST {
            let mut nth = 0;
            self.looks.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
        }
    }

    /// For how many milliseconds the holder of a score stands in line; `None` where that is not known.
    pub(super) fn waited(&self, score: u64, now: i64) -> Option<i64> {
        if score < ARRIVALS {
            return None;
        }
        // The first look of all says of the places before it only that they were there.
        let told = self.looks.partition_point(|(newest, _)| *newest < score).checked_sub(1)? + 1;
        self.looks.get(told).map(|(_, at)| (now - at).max(0))
    }

    /// Forgets what lies before a score; places are let in in order.
    pub(super) fn forget_before(&mut self, score: u64) {
        while self.looks.get(1).is_some_and(|(newest, _)| *newest < score) {
            self.looks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_was_dealt_before_the_look_that_told_it() {
        let mut arrivals = ArrivalTimes::default();
        assert_eq!(arrivals.waited(ARRIVALS, 0), None);
        for (newest, now) in [(9, 1_000), (9, 2_000), (19, 3_000), (29, 4_000)] {
            arrivals.note(ARRIVALS + newest, now);
        }
        let waited = |score, now| arrivals.waited(ARRIVALS + score, now);
        assert_eq!(waited(9, 5_000), None, "dealt before the first look");
        assert_eq!((waited(10, 5_000), waited(19, 5_000)), (Some(2_000), Some(2_000)));
        assert_eq!(waited(20, 5_000), Some(1_000));
        assert_eq!(waited(30, 5_000), None, "not told yet");
        assert_eq!(arrivals.waited(17, 5_000), None, "a place of the lottery");
    }

    #[test]
    fn nothing_is_known_of_a_line_that_went_back() {
        let mut arrivals = ArrivalTimes::default();
        arrivals.note(ARRIVALS + 9, 1_000);
        arrivals.note(ARRIVALS + 19, 2_000);
        arrivals.note(ARRIVALS + 12, 3_000);
        assert_eq!(arrivals.waited(ARRIVALS + 11, 4_000), None);
    }

    #[test]
    fn what_has_passed_is_forgotten_and_the_rest_bounded() {
        let mut arrivals = ArrivalTimes::default();
        for n in 0..20_000_u32 {
            arrivals.note(ARRIVALS + u64::from(n), i64::from(n) * 250);
        }
        assert!(arrivals.looks.len() <= MOST);
        let waited = arrivals.waited(ARRIVALS + 1_000, 5_000_000).unwrap();
        assert!((4_740_000..=4_750_000).contains(&waited), "{waited}");
        arrivals.forget_before(ARRIVALS + 19_000);
        assert!(arrivals.looks.len() <= 1_001);
        assert!(arrivals.waited(ARRIVALS + 19_000, 5_000_000).is_some());
    }
}
