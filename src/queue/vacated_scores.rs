//! Places behind the front that users have given up.

use std::collections::HashSet;

/// More than this are not kept in memory. Half a million users who leave need about 8 MB.
const MAX_VACATED_SCORES: usize = 500_000;

/// Places behind the front that users have given up.
#[derive(Debug, Default)]
pub(super) struct VacatedScores {
    pub(super) scores: HashSet<u64>,
    /// Places up to this score may have been given up. Only Redis knows.
    pub(super) forgotten_to: u64,
    /// The stream id up to which `q:left` was read.
    pub(super) cursor: Option<String>,
}

impl VacatedScores {
    /// Adds scores and removes those below the front, which needs Redis to answer. Before the
    /// opening a draw may give a lower score to the next user, so the front can move back.
    pub(super) fn add(
        &mut self,
        scores: impl IntoIterator<Item = u64>,
        front: Option<u64>,
        before_opening: bool,
    ) {
        self.scores.extend(scores);
        match front {
            _ if before_opening => {}
            Some(front) => self.scores.retain(|score| *score >= front),
            None => self.scores.clear(),
        }
        if self.scores.len() > MAX_VACATED_SCORES {
            self.forgotten_to = self.scores.drain().max().unwrap_or(0).max(self.forgotten_to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::SCORES_PER_SEGMENT;
    use super::*;

    #[test]
    fn place_that_was_given_up_before_a_draw_stays_vacated_when_the_front_moves_back() {
        let score = 2 * SCORES_PER_SEGMENT + 500;
        let mut vacated = VacatedScores::default();
        vacated.add([score], Some(score + 100), true);
        vacated.add([], Some(score - 100), true);
        assert!(vacated.scores.contains(&score));
        vacated.add([], Some(score + 100), false);
        assert!(vacated.scores.is_empty());
    }
}
