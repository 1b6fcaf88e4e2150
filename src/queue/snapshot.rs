//! A snapshot is a copy of a queue's shape in memory. Waiting users poll it, so the number of polls
//! does not affect the number of reads of Redis.
//!
//! A snapshot has the front (the lowest waiting score) and the *rank markers*: some scores, each
//! with the number of users who wait below it. A token carries its score, so a position is computed
//! in memory. Redis is asked only for scores below the front.
//!
//! # How exact a position is
//!
//! Let
//! - *s* be the score of a waiting user,
//! - *b(x)* the number of users who wait below the score *x*,
//! - *a* and *e* the markers next to *s*, with *a ≤ s < e*,
//! - *f* the front, with *b(f) = 0*.
//!
//! The true position of the user is *b(s) + 1*. Scores are integers and unique after the opening,
//! so at most *s − a* users wait from *a* up to, but not including, *s*. The user is one of the
//! *b(e)* users below *e*. And at most *s − f* users wait from *f* up to *s*. So each of these
//! three bounds is at least the true position, and the reported position is the lowest of
//! them:
//!
//! > *p(s) = min( b(a) + s − a + 1, b(e), s − f + 1 )*
//!
//! **Claim 1: a reported position is never lower than the true position.** It is exact when every
//! score from *a* to *s* is still waiting. Otherwise it exceeds the true position by at most the
//! number of places between the two markers that were given up. The distance between two markers is
//! at most *d*/16, where *d* is their distance from the front, or the minimum length of an
//! interval. Arrivals behind a draw whose entrants still wait have intervals of *d*/2, where *d* is
//! the distance from the first arrival.
//!
//! # Why a position never increases
//!
//! **Claim 2: for one user, a later report is never higher than an earlier one.**
//!
//! *With fixed markers.* After the opening, a new user always gets a higher score than every
//! waiting user. So *b(x)* never increases, for every *x* up to the newest score, and *f* never
//! decreases. Each of the three bounds therefore never increases.
//!
//! *When the markers change.* [`marker_scores`](super::rank_markers::marker_scores) divides the
//! scores into intervals that are aligned and whose lengths are powers of two. Two such intervals
//! are either nested or disjoint. The length allowed at a score shrinks as the front comes closer.
//! So an interval *[a, e)* around *s* is only ever replaced by an interval *[a', e') ⊆ [a, e)*.
//! Then
//! - *b(a') ≤ b(a) + a' − a*, so *b(a') + s − a' + 1 ≤ b(a) + s − a + 1*,
//! - *b(e') ≤ b(e)*,
//! - *s − f + 1* does not depend on the markers.
//!
//! So none of the bounds increases here either. The property test below checks both claims.
//!
//! *When polls reach different instances.* Instances take their snapshots at different times. A
//! snapshot in use is at most 250 ms old, and its markers come from a snapshot at most 500 ms
//! older. Clients poll after 900 ms at the earliest (`poll_after_ms`). So the next report comes
//! from a later snapshot with equal or finer markers. Claim 2 requires that clients respect
//! `poll_after_ms`.
//!
//! The same limit applies to admission: if one instance reports a user as active and another
//! instance is polled within 250 ms, that one may still report the user as waiting. Everything that
//! admission permits (holds, payments, the gate) asks Redis, so it is current on every instance.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::estimator::{AdmissionForecast, ForecastInput};
use super::settings::QueueMode;
use super::turnover_reading::TurnoverReading;

/// A younger snapshot is used without a refresh.
pub(super) const SNAPSHOT_REFRESH_AGE: Duration = Duration::from_millis(100);
/// An older snapshot is not used.
pub(super) const MAX_SNAPSHOT_AGE: Duration = Duration::from_millis(250);
/// Draw *d* has the segment 2*d*, arrivals after it have the segment 2*d* + 1.
pub(super) const SCORES_PER_SEGMENT: u64 = crate::redis::constants::SCORES_PER_SEGMENT as u64;
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// Redis' clock, in milliseconds since 1970.
    pub now: i64,
    /// The effective mode, which depends on the time.
    pub mode: QueueMode,
    pub waiting: u64,
    pub active: u64,
    /// Whether every seat of the queue's concerts is sold.
    pub sold_out: bool,
    pub before_opening: bool,
    /// Whether users who join now take part in a draw.
    pub lottery: bool,
    /// Whether Redis was lost and users still return to their places.
    pub restoring: bool,
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) taken_at: Instant,
    pub state: QueueState,
    /// Admissions since the queue was created.
    pub admitted_total: u64,
    /// The lowest waiting score.
    pub(super) front: Option<u64>,
    /// The last score given to an arrival.
    pub(super) newest: u64,
    /// Scores in ascending order, each with the number of users who wait below it.
    pub(super) rank_markers: Vec<(u64, u64)>,
    /// When the bounds were read from which the markers were chosen: Redis' clock, in milliseconds
    /// since 1970.
    pub(super) markers_at: i64,
    /// After a loss of Redis, lower scores are from before it. Only Redis knows whether their users
    /// have returned. 0 if there was no loss.
    pub(super) restore_below: u64,
    pub(super) turnover: TurnoverReading,
    /// Computed from `turnover` for the first user who asks.
    pub(super) forecast: OnceLock<AdmissionForecast>,
}

impl Snapshot {
    pub(super) fn age(&self) -> Duration {
        self.taken_at.elapsed()
    }

    /// Whether this snapshot was taken before `score` was given to a user, so that it lacks markers
    /// near it.
    pub(super) fn predates(&self, score: u64) -> bool {
        !is_drawn_score(score) && score > self.newest
    }

    /// Whether a score is at the front or behind it, and no question for Redis after a loss.
    pub(super) fn is_waiting(&self, score: u64) -> bool {
        score >= self.restore_below && self.front.is_some_and(|front| score >= front)
    }

    /// The position to report: none before the draw and while users return after a loss of Redis,
    /// because it could increase. A snapshot from before the draw was announced has no position
    /// either.
    pub(super) fn reported_position(&self, score: u64, front: Option<u64>) -> Option<u64> {
        let state = &self.state;
        let is_drawn = is_drawn_score(score);
        let is_undrawn =
            state.before_opening && (state.lottery || is_drawn) || is_drawn && score > self.newest;
        (!is_undrawn && !state.restoring).then(|| self.position(score, front))
    }

    /// When waiting users are admitted, as of this snapshot.
    pub(super) fn forecast(&self) -> &AdmissionForecast {
        let TurnoverReading { limits, restoring_until, recent_admissions, visits, counts } =
            &self.turnover;
        self.forecast.get_or_init(|| {
            AdmissionForecast::new(&ForecastInput {
                limits: *limits,
                now_ms: self.state.now,
                open: self.state.mode == QueueMode::Open,
                restoring_until_ms: *restoring_until,
                waiting: self.state.waiting,
                active: self.state.active,
                recent_admissions,
                visits,
                turnover: counts,
            })
        })
    }

    /// The 1-based position of a waiting score. The module documentation says how exact it is.
    /// `front` is the front as known from another reply. It never decreases, so the higher one is
    /// the later one.
    pub(super) fn position(&self, score: u64, front: Option<u64>) -> u64 {
        let after = self.rank_markers.partition_point(|(mark, _)| *mark <= score);
        let end = self.rank_markers.get(after).map(|(_, before)| *before);
        let start = after.checked_sub(1).map(|at| self.rank_markers[at]);
        let from_start = start.map(|(mark, before)| before + (score - mark) + 1);
        let from_front = front.max(self.front).map(|front| score.saturating_sub(front) + 1);
        from_start
            .into_iter()
            .chain(end)
            .chain(from_front)
            .min()
            .unwrap_or(self.state.waiting)
            .max(1)
    }
}

/// Whether a score was drawn, not given in order of arrival.
pub(super) fn is_drawn_score(score: u64) -> bool {
    (score / SCORES_PER_SEGMENT).is_multiple_of(2)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::rank_markers::{
        FAR_PART, MAX_RANK_MARKERS, NEAR_PART, marker_scores, min_interval,
    };
    use super::*;

    const FIRST_ARRIVAL_SCORE: u64 = SCORES_PER_SEGMENT;
    const FIRST_AFTER_DRAW: u64 = 3 * SCORES_PER_SEGMENT;

    /// A snapshot of these waiting scores, whose markers were computed from an earlier front.
    fn snapshot(waiting: &BTreeSet<u64>, marker_front: u64, newest: u64) -> Snapshot {
        let below = |score: u64| waiting.range(..score).count() as u64;
        let rank_markers = marker_scores(marker_front, newest)
            .into_iter()
            .map(|score| (score, below(score)))
            .collect();
        snapshot_with(waiting.first().copied(), newest, waiting.len() as u64, rank_markers)
    }

    pub(in crate::queue) fn snapshot_with(
        front: Option<u64>,
        newest: u64,
        waiting: u64,
        rank_markers: Vec<(u64, u64)>,
    ) -> Snapshot {
        let state = QueueState {
            now: 0,
            mode: QueueMode::Open,
            waiting,
            active: 0,
            sold_out: false,
            before_opening: false,
            lottery: false,
            restoring: false,
        };
        Snapshot {
            taken_at: Instant::now(),
            state,
            admitted_total: 0,
            front,
            newest,
            rank_markers,
            markers_at: 0,
            restore_below: 0,
            turnover: TurnoverReading::empty(),
            forecast: OnceLock::new(),
        }
    }

    #[test]
    fn markers_are_few_dense_near_the_front_and_cover_the_queue() {
        for (front, newest) in [
            (FIRST_ARRIVAL_SCORE + 1, FIRST_ARRIVAL_SCORE + 1),
            (FIRST_ARRIVAL_SCORE + 1, FIRST_ARRIVAL_SCORE + 1_000_000),
            (FIRST_ARRIVAL_SCORE + 777_777, FIRST_ARRIVAL_SCORE + 10_000_000),
            (2 * SCORES_PER_SEGMENT + 5, FIRST_AFTER_DRAW - 1),
            (2 * SCORES_PER_SEGMENT + (1 << 30), FIRST_AFTER_DRAW + 1_000_000),
            (FIRST_ARRIVAL_SCORE + 5, FIRST_AFTER_DRAW + 1_000_000),
            // After a loss of Redis, which skips scores.
            (FIRST_ARRIVAL_SCORE + 5, FIRST_AFTER_DRAW + (1 << 29)),
            (FIRST_ARRIVAL_SCORE + 5, FIRST_AFTER_DRAW + 4 * SCORES_PER_SEGMENT + (1 << 29)),
        ] {
            let markers = marker_scores(front, newest);
            assert!(
                markers.len() < MAX_RANK_MARKERS,
                "{} markers from {front} to {newest}",
                markers.len()
            );
            assert!(markers[0] <= front && *markers.last().unwrap() <= newest + 1);
            for pair in markers.windows(2) {
                let length = pair[1] - pair[0];
                // The scores between the last arrival and the next draw are not used.
                if pair[1] % SCORES_PER_SEGMENT == 0 {
                    continue;
                }
                let base = pair[0] - pair[0] % SCORES_PER_SEGMENT;
                let distance = pair[0].saturating_sub(front.max(base));
                let is_later_arrival = base > front && !is_drawn_score(base);
                let is_coarse = base > front && newest > FIRST_AFTER_DRAW + SCORES_PER_SEGMENT;
                let part = if is_later_arrival || is_coarse { FAR_PART } else { NEAR_PART };
                assert!(length.is_power_of_two() && pair[0] % length == 0, "{pair:?}");
                assert!(length <= min_interval(pair[0]).max(distance / part), "{pair:?}");
            }
        }
    }

    #[test]
    fn position_is_exact_without_gaps() {
        let waiting: BTreeSet<u64> = (0..5_000).map(|n| FIRST_ARRIVAL_SCORE + n).collect();
        let snapshot = snapshot(&waiting, FIRST_ARRIVAL_SCORE, FIRST_ARRIVAL_SCORE + 4_999);
        for n in 0..5_000 {
            assert_eq!(snapshot.position(FIRST_ARRIVAL_SCORE + n, None), n + 1);
        }
    }

    #[test]
    fn place_of_a_draw_that_the_snapshot_does_not_know_has_no_position() {
        let snapshot =
            snapshot(&[FIRST_ARRIVAL_SCORE].into(), FIRST_ARRIVAL_SCORE, FIRST_ARRIVAL_SCORE);
        assert_eq!(snapshot.reported_position(FIRST_ARRIVAL_SCORE, None), Some(1));
        assert_eq!(snapshot.reported_position(2 * SCORES_PER_SEGMENT + 7, None), None);
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

        /// Compares positions with the true rank and with earlier positions, under random joins,
        /// leaves and promotions, with lottery places at the front.
        #[test]
        fn positions_are_never_optimistic_and_never_increase(
            earlier in 0_u64..400,
            lottery in prop::collection::btree_set(0..SCORES_PER_SEGMENT, 0..300),
            steps in steps(),
        ) {
            // Users who waited before the draw, the entrants of the draw, then arrivals.
            let mut waiting: BTreeSet<u64> =
                lottery.into_iter().map(|offset| 2 * SCORES_PER_SEGMENT + offset).collect();
            waiting.extend((0..earlier).map(|nth| FIRST_ARRIVAL_SCORE + nth));
            let mut next = FIRST_AFTER_DRAW - 1 + earlier;
            let mut positions = std::collections::HashMap::new();
            let mut front_before = waiting.first().copied().unwrap_or(next + 1);
            for step in steps {
                match step {
                    RankStep::Join(count) => {
                        for _ in 0..count {
                            next += 1;
                            waiting.insert(next);
                        }
                    }
                    RankStep::Leave(index) => {
                        // Consecutive users leave, so that the gaps become wide.
                        let scores: Vec<u64> = waiting.iter().copied().collect();
                        if !scores.is_empty() {
                            let at = index.index(scores.len());
                            for score in scores.iter().skip(at).take(40) {
                                waiting.remove(score);
                            }
                        }
                    }
                    RankStep::Promote(count) => {
                        for _ in 0..count {
                            waiting.pop_first();
                        }
                    }
                }
                // Markers are computed from the front of the previous snapshot.
                let snapshot = snapshot(&waiting, front_before, next);
                for (rank, score) in waiting.iter().enumerate() {
                    let position = snapshot.position(*score, None);
                    prop_assert!(
                        position > rank as u64,
                        "position {position} of {score} is below the true {}",
                        rank + 1
                    );
                    let before = positions.insert(*score, position).unwrap_or(u64::MAX);
                    prop_assert!(
                        position <= before,
                        "position of {score} increased: {before}, {position}"
                    );
                }
                front_before = waiting.first().copied().unwrap_or(next + 1);
            }
        }
    }
}
