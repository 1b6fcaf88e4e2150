//! The scores of the rank markers of a snapshot.

use super::snapshot::{SCORES_PER_SEGMENT, is_drawn_score};

/// The length of the shortest interval between markers in the lottery, whose scores are sparse:
/// with a million users, they are a million apart on average.
const MIN_LOTTERY_INTERVAL: u64 = 1 << 24;
/// The segment of the front needs at most 16 markers for each doubling of the distance: after a
/// loss of Redis, which skips 2^29 scores, 416. A draw behind it needs 272, and the arrivals after
/// that 58.
pub(super) const MAX_RANK_MARKERS: usize = 900;
/// The part of the distance that an interval takes in the segment of the front and in draws, …
pub(super) const NEAR_PART: u64 = 16;
/// … and among arrivals in later segments. If there are too many markers, also in later draws.
pub(super) const FAR_PART: u64 = 2;

/// The scores of the markers, given the front and the last score given to an arrival. They are the
/// bounds of aligned intervals whose lengths are powers of two, see [`interval_length`].
pub(super) fn marker_scores(front: u64, newest: u64) -> Vec<u64> {
    let scores = markers_with(front, newest, NEAR_PART);
    if scores.len() < MAX_RANK_MARKERS { scores } else { markers_with(front, newest, FAR_PART) }
}

fn markers_with(front: u64, newest: u64, drawn_part: u64) -> Vec<u64> {
    let mut at = front - front % min_interval(front);
    let mut scores = vec![at];
    // Arrivals are numbered across segments: no segment has more of them than the newest.
    let last_offset = (newest + 1) % SCORES_PER_SEGMENT;
    while scores.len() < MAX_RANK_MARKERS {
        let base = at - at % SCORES_PER_SEGMENT;
        let far_part = if is_drawn_score(at) { drawn_part } else { FAR_PART };
        let length = interval_length(at, front, NEAR_PART, far_part);
        at = at - at % length + length;
        if !is_drawn_score(at) && at % SCORES_PER_SEGMENT > last_offset.saturating_add(length) {
            at = base + SCORES_PER_SEGMENT;
        }
        // The count of a marker beyond the newest score would increase when users join.
        // Places of a draw are all assigned before the opening.
        if at > newest + 1 {
            break;
        }
        scores.push(at);
    }
    scores
}

/// The length of the interval that begins at a marker: in the segment of the front at most the
/// given part of the distance from the front, in a later segment at most the given part of the
/// distance from the beginning of the segment. It shrinks as the front comes closer.
pub(super) fn interval_length(at: u64, front: u64, near_part: u64, far_part: u64) -> u64 {
    let base = at - at % SCORES_PER_SEGMENT;
    let length =
        if front >= base { at.saturating_sub(front) / near_part } else { (at - base) / far_part };
    1 << length.max(min_interval(at)).ilog2()
}

pub(super) fn min_interval(score: u64) -> u64 {
    if is_drawn_score(score) { MIN_LOTTERY_INTERVAL } else { 1 }
}
