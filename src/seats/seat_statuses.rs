//! The status of every seat of a schedule, one letter a seat.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalogue::SeatSection;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SeatStatus {
    Available,
    Held,
    Sold,
}

/// One letter for each seat, in the order of numbers: `a` available, `h` held, `s` sold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SeatStatuses(String);

impl SeatStatuses {
    /// `None` when a letter is unknown.
    pub(super) fn parse(letters: String) -> Option<Self> {
        letters.bytes().all(|letter| b"ahs".contains(&letter)).then_some(Self(letters))
    }

    /// Of a schedule with this number of seats, when none is held.
    pub(super) fn of_sold(seats: u32, sold: &[u32]) -> Self {
        let mut letters = vec![b'a'; seats as usize];
        for number in sold {
            if let Some(letter) =
                (*number as usize).checked_sub(1).and_then(|at| letters.get_mut(at))
            {
                *letter = b's';
            }
        }
        Self(letters.into_iter().map(char::from).collect())
    }

    /// `None` for a seat that does not exist.
    pub(super) fn get(&self, number: u32) -> Option<SeatStatus> {
        let letter = self.0.as_bytes().get((number as usize).checked_sub(1)?)?;
        Some(status_of(*letter))
    }

    /// The letters of the seats of some sections.
    pub(super) fn of_sections(&self, sections: &[&SeatSection]) -> String {
        let letters = |section: &&SeatSection| {
            self.0.get(section.from.saturating_sub(1) as usize..section.to as usize)
        };
        sections.iter().filter_map(letters).collect()
    }

    /// The seats whose status differs from an earlier one, also those that are new.
    pub(super) fn changes_since(&self, earlier: &Self) -> Vec<(u32, SeatStatus)> {
        let earlier = earlier.0.bytes().map(Some).chain(std::iter::repeat(None));
        let pairs = (1..).zip(self.0.bytes().zip(earlier));
        pairs
            .filter(|(_, (letter, earlier))| Some(*letter) != *earlier)
            .map(|(number, (letter, _))| (number, status_of(letter)))
            .collect()
    }

    pub(super) fn as_letters(&self) -> &str {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn status_of(letter: u8) -> SeatStatus {
    match letter {
        b'h' => SeatStatus::Held,
        b's' => SeatStatus::Sold,
        _ => SeatStatus::Available,
    }
}
