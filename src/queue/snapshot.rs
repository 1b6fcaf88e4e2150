//! Snapshots: the line at a glance, so that ten thousand users who ask «how long yet?» do not cost Redis ten thousand reads.
//!
//! A snapshot holds the front of the line and, for some scores (the *marks*), how many stand before each. A token carries its score, so a
//! position is computed from memory. Only a score that has passed the front is a question for Redis.
//!
//! # How exact a position is
//!
//! Let *b(x)* be how many stand in line below score *x*, and let *a ≤ s < e* be the marks around the score *s*. At most *s − a* places lie between *a* and
//! *s*, and *s* itself lies before *e*, so the true position *b(s) + 1* is at most
//!
//! > *p(s) = min( b(a) + s − a + 1, b(e), s − f + 1 )*,
//!
//! where *f* is the front, before which nobody stands.
//!
//! That is the position told. It is never too low. It is exact when every score from *a* to *s* is still in line, and too high by no more than the places
//! given up between the two marks. Marks lie close together near the front and farther apart behind: from a distance *d* behind the front on, they are no more
//! than *d*/16 apart.
//!
//! # Why a position never goes up
//!
//! After the opening nobody is put before anybody: *b(x)* only falls, for every *x* up to the newest score, and the front only rises. So for fixed marks *p* only falls.
//! The marks change as the front rises, but only by refinement: they cut the scores into aligned intervals whose lengths are powers of two
//! (as [`marks`] makes them), such intervals are either nested or disjoint, and the length allowed at a score falls with its distance from the front, so an
//! interval around *s* is only ever replaced by one inside it. Within *[a', e') ⊆ [a, e)*, *b(a') ≤ b(a) + a' − a* gives
//! *b(a') + s − a' ≤ b(a) + s − a*, and *b(e') ≤ b(e)*; hence *p* falls here too, and *s − f + 1* falls as *f* rises. The tests below check both claims at random.
//!
//! Two instances may look at different moments. A snapshot in use is at most 250 ms old, its marks come from a look at most 500 ms before it, and users are
//! asked to come back no sooner than after 900 ms; so each answer comes from a later look, and finer marks, than the one before. The same holds for the
//! word that a user is in: who is told so by one instance and asks another within 250 ms may hear once more that they wait; what admission opens (holds,
//! payments, the gate) is Redis' word at once, on every instance.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::settings::QueueMode;

/// Younger than this a snapshot is used as it is.
pub(super) const FRESH: Duration = Duration::from_millis(100);
/// Older than this it is not used at all.
pub(super) const STALE: Duration = Duration::from_millis(250);
/// Where scores of the lottery end and arrivals begin.
pub(super) const ARRIVALS: u64 = 1 << 40;
/// Scores of the lottery are sparse: a million of them lie a million apart.
const SPARSE: u64 = 1 << 24;
/// Marks at most. Sixteen for each doubling of the distance, over the twenty doublings of a million places and the sixteen of the lottery.
const MOST_MARKS: usize = 900;

/// How the line looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// Redis' clock, milliseconds since 1970.
    pub now: i64,
    /// The mode that holds.
    pub mode: QueueMode,
    /// How many wait.
    pub waiting: u64,
    /// How many are active.
    pub active: u64,
    /// Admissions of the last 30 seconds.
    pub recent: u64,
    /// The most admissions of any 30 seconds since the settings last changed.
    pub peak: u64,
    /// Whether every seat of the queue's concerts is sold.
    pub sold_out: bool,
}

/// The line at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) taken: Instant,
    /// The counts.
    pub line: QueueState,
    /// How many were let in so far.
    pub admitted: u64,
    /// The lowest score in line.
    pub(super) front: Option<u64>,
    /// The last score that was dealt to an arrival.
    pub(super) newest: u64,
    /// Scores in ascending order, each with how many stand before it.
    pub(super) marks: Vec<(u64, u64)>,
    /// After a loss: places below were dealt before it, and whether such a place has stood up again only Redis can say. 0 without one.
    pub(super) asks_below: u64,
}

impl Snapshot {
    pub(super) fn age(&self) -> Duration {
        self.taken.elapsed()
    }

    /// Whether it was taken before a place was dealt, and so can't tell its position well.
    pub(super) fn is_older_than(&self, score: u64) -> bool {
        score >= ARRIVALS && score > self.newest
    }

    /// Whether a score is known to stand in line, behind the front or at it.
    pub(super) fn is_in_line(&self, score: u64) -> bool {
        score >= self.asks_below && self.front.is_some_and(|front| score >= front)
    }

    /// The 1-based position of a score that stands in line; see the module's text for how exact it is.
    /// `front` is the front as known from elsewhere: since it only rises, the later of the two counts.
    pub(super) fn position(&self, score: u64, front: Option<u64>) -> u64 {
        let after = self.marks.partition_point(|(mark, _)| *mark <= score);
        let end = self.marks.get(after).map(|(_, before)| *before);
        let start = after.checked_sub(1).map(|at| self.marks[at]);
        let from_start = start.map(|(mark, before)| before + (score - mark) + 1);
        let from_front = front.max(self.front).map(|front| score.saturating_sub(front) + 1);
        from_start
            .into_iter()
            .chain(end)
            .chain(from_front)
            .min()
            .unwrap_or(self.line.waiting)
            .max(1)
    }
}

/// The marks for a line, given its front and the last score that was dealt to an arrival (2^40 − 1 before the first): aligned intervals, each a power of two long, and no longer than a sixteenth of
/// its distance from the front.
pub(super) fn marks(front: u64, newest: u64) -> Vec<u64> {
    let mut at = front - front % least(front);
    let mut marks = vec![at];
    while marks.len() < MOST_MARKS {
        let length = (at.saturating_sub(front) / 16).max(least(at));
        let length = 1 << length.ilog2();
        at = at - at % length + length;
        // Whoever joins stands before a mark that is beyond the newest score, so such a mark's count would grow. Places of the lottery are all
        // dealt before the opening.
        if at > newest + 1 {
            break;
        }
        marks.push(at);
    }
    marks
}

/// The shortest interval at a score.
fn least(score: u64) -> u64 {
    if score < ARRIVALS { SPARSE } else { 1 }
}

/// Places that were given up and that the front has not passed yet.
#[derive(Debug, Default)]
pub(super) struct VacatedScores {
    pub(super) scores: HashSet<u64>,
    /// Up to where `q:left` was read.
    pub(super) cursor: Option<String>,
}

impl VacatedScores {
    /// Adds some, and forgets those that the front has passed.
    pub(super) fn add(&mut self, scores: impl IntoIterator<Item = u64>, front: Option<u64>) {
        self.scores.extend(scores);
        match front {
            Some(front) => self.scores.retain(|score| *score >= front),
            None => self.scores.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::rules::estimated_wait_seconds;
    use super::super::settings::QueueSettings;
    use super::*;

    fn snapshot(line: &BTreeSet<u64>, marked_by: u64, newest: u64) -> Snapshot {
        let before = |score: u64| line.range(..score).count() as u64;
        let marks = marks(marked_by, newest).into_iter().map(|mark| (mark, before(mark))).collect();
        let counts = QueueState {
            now: 0,
            mode: QueueMode::Open,
            waiting: line.len() as u64,
            active: 0,
            recent: 0,
            peak: 0,
            sold_out: false,
        };
        Snapshot {
            taken: Instant::now(),
            line: counts,
            admitted: 0,
            front: line.first().copied(),
            newest,
            marks,
            asks_below: 0,
        }
    }

    #[test]
    fn marks_are_few_close_to_the_front_and_cover_the_line() {
        for (front, newest) in [
            (ARRIVALS + 1, ARRIVALS + 1),
            (ARRIVALS + 1, ARRIVALS + 1_000_000),
            (ARRIVALS + 777_777, ARRIVALS + 10_000_000),
            (5, ARRIVALS - 1),
            (1 << 30, ARRIVALS + 1_000_000),
        ] {
            let marks = marks(front, newest);
            assert!(marks.len() < 600, "{} marks from {front} to {newest}", marks.len());
            assert!(marks[0] <= front && *marks.last().unwrap() <= newest + 1);
            for pair in marks.windows(2) {
                let length = pair[1] - pair[0];
                assert!(length.is_power_of_two() && pair[0] % length == 0, "{pair:?}");
                assert!(
                    length <= least(pair[0]).max(pair[0].saturating_sub(front) / 16),
                    "{pair:?}"
                );
            }
        }
    }

    #[test]
    fn a_line_without_gaps_is_told_exactly() {
        let line: BTreeSet<u64> = (0..5_000).map(|n| ARRIVALS + n).collect();
        let snapshot = snapshot(&line, ARRIVALS, ARRIVALS + 4_999);
        for n in 0..5_000 {
            assert_eq!(snapshot.position(ARRIVALS + n, None), n + 1);
        }
    }

    #[derive(Debug, Clone)]
    enum RankStep {
        Join(u16),
        Leave(prop::sample::Index),
        Promote(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<RankStep>> {
        let step = prop_oneof![
            2 => (1_u16..400).prop_map(RankStep::Join),
            3 => any::<prop::sample::Index>().prop_map(RankStep::Leave),
            2 => any::<u8>().prop_map(RankStep::Promote),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Positions against the true rank, and over time, under random joins, leaves and promotions; with places of the lottery before those that arrive.
        /// Estimates over time, too, at any pace: all that is asked of it is that the best one so far does not fall.
        #[test]
        fn positions_are_never_too_low_and_neither_they_nor_estimates_go_up(
            lottery in prop::collection::btree_set(0..ARRIVALS, 0..300),
            steps in steps(),
            paces in prop::collection::vec(0_u64..600, 60),
            promote_per_interval in 1_u32..50,
        ) {
            let settings = QueueSettings { promote_per_interval, ..QueueSettings::default() };
            let mut waits = std::collections::HashMap::new();
            let mut peak = 0;
            let mut line: BTreeSet<u64> = lottery;
            let mut next = ARRIVALS - 1;
            let mut told = std::collections::HashMap::new();
            let mut front_before = line.first().copied().unwrap_or(ARRIVALS);
            for (step, recent) in steps.into_iter().zip(paces) {
                match step {
                    RankStep::Join(count) => {
                        for _ in 0..count {
                            next += 1;
                            line.insert(next);
                        }
                    }
                    RankStep::Leave(index) => {
                        // Whole runs leave, so that gaps grow wide.
                        let scores: Vec<u64> = line.iter().copied().collect();
                        if !scores.is_empty() {
                            let at = index.index(scores.len());
                            for score in scores.iter().skip(at).take(40) {
                                line.remove(score);
                            }
                        }
                    }
                    RankStep::Promote(count) => {
                        for _ in 0..count {
                            line.pop_first();
                        }
                    }
                }
                // Marks come from the front of the look before.
                let mut snapshot = snapshot(&line, front_before, next);
                peak = recent.max(peak);
                (snapshot.line.recent, snapshot.line.peak) = (recent, peak);
                for (rank, score) in line.iter().enumerate() {
                    let position = snapshot.position(*score, None);
                    prop_assert!(position > rank as u64, "{score} stands at {} and is told {position}", rank + 1);
                    let before = told.insert(*score, position).unwrap_or(u64::MAX);
                    prop_assert!(position <= before, "{score} was told {before}, then {position}");
                    let Some(wait) = estimated_wait_seconds(position, &snapshot.line, &settings) else { continue };
                    let before = waits.insert(*score, wait).unwrap_or(u64::MAX);
                    prop_assert!(wait <= before, "{score} was told {before} s, then {wait} s");
                }
                front_before = line.first().copied().unwrap_or(next + 1);
            }
        }
    }
}
