//! The marks of the line document, from which clients compute their positions.
//!
//! They are a part of the rank markers of a snapshot, coarser the farther they are from the front.
//! `docs/line.md` has the arithmetic of the clients and its proof. What the proof needs from here:
//!
//! - Marks are bounds of aligned intervals whose lengths are powers of two, so the intervals of a
//!   later document are parts of the intervals of an earlier one.
//! - No mark is above the score after the newest arrival, so the number of users below a mark never
//!   increases.
//! - A mark is left out only where no user waits between it and the next one. Both have the same
//!   number of users below them then, so no position changes.

use super::rank_markers::interval_length;
use super::snapshot::{SCORES_PER_SEGMENT, Snapshot, is_drawn_score};

/// More marks would not fit into 8 KiB. Beyond this, segments behind that of the front have one
/// mark each.
const MAX_MARKS: usize = 290;
/// The length of an interval in the segment of the front is at most this part of its distance.
const NEAR_PART: u64 = 8;
/// The same in later segments, where the distance is that from the beginning of the segment.
const FAR_PART: u64 = 2;

/// The front and the marks of a lane. Without a front while it is empty, before the draw, and while
/// users return after a loss of Redis: a position could increase then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LineShape {
    pub(super) front: Option<u64>,
    /// Scores in ascending order, each with the number of users who wait below it.
    pub(super) marks: Vec<(u64, u64)>,
}

impl LineShape {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let state = &snapshot.state;
        let markers = &snapshot.rank_markers;
        let is_undrawn =
            state.before_opening && (state.lottery || has_drawn_users(markers, state.waiting));
        match snapshot.front {
            Some(front) if !is_undrawn && !state.restoring => {
                Self { front: Some(front), marks: marks(markers) }
            }
            _ => Self::default(),
        }
    }
}

/// Whether users wait with scores of a draw.
fn has_drawn_users(markers: &[(u64, u64)], waiting: u64) -> bool {
    markers.iter().enumerate().any(|(at, (score, below))| {
        let below_next = markers.get(at + 1).map_or(waiting, |(_, below)| *below);
        is_drawn_score(*score) && below_next > *below
    })
}

fn marks(markers: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let all = select(markers, Some(FAR_PART));
    if all.len() <= MAX_MARKS { all } else { select(markers, None) }
}

/// Without `far_part`, segments behind that of the front have one mark each.
fn select(markers: &[(u64, u64)], far_part: Option<u64>) -> Vec<(u64, u64)> {
    let mut selected: Vec<(u64, u64)> = Vec::new();
    let Some(&(origin, _)) = markers.first() else { return selected };
    let mut next = origin;
    for &(score, below) in markers {
        if score < next {
            continue;
        }
        let is_later = origin < score - score % SCORES_PER_SEGMENT;
        let length = match far_part {
            None if is_later => SCORES_PER_SEGMENT,
            part => interval_length(score, origin, NEAR_PART, part.unwrap_or(FAR_PART)),
        };
        next = score - score % length + length;
        match selected.last_mut() {
            // No user waits between the two.
            Some(last) if last.1 == below => *last = (score, below),
            _ => selected.push((score, below)),
        }
    }
    selected
}

#[cfg(test)]
mod tests;
