//! What is for sale: concerts, their dates and their seats.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{ConcertId, QueueId, ScheduleId};
use crate::money::Money;

/// A run of seats with one name and one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeatSection {
    /// What the section is called, 1–64 characters.
    pub name: String,
    /// The first seat's number.
    pub from: u32,
    /// The last seat's number.
    pub to: u32,
    /// The price of one seat.
    pub price: Money,
}

/// One date of a concert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSchedule)]
pub struct ConcertSchedule {
    /// Its name, unique over all concerts.
    pub id: ScheduleId,
    /// When the show starts.
    pub starts_at: DateTime<Utc>,
    /// Seats can be held from here on; null is at once.
    #[serde(default)]
    pub booking_opens_at: Option<DateTime<Utc>>,
    /// Seats can be held until here; null is without end.
    #[serde(default)]
    pub booking_closes_at: Option<DateTime<Utc>>,
    /// The sections, which cover the numbers 1…n without a gap.
    pub sections: Vec<SeatSection>,
}

/// One concert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concert {
    /// Its name.
    pub id: ConcertId,
    /// The definitions' version at its last change.
    pub version: u64,
    /// Its title, 1–255 characters.
    pub title: String,
    /// The queue that admits to it.
    pub queue: QueueId,
    /// How long a hold lasts, 1…86,400.
    pub hold_seconds: u32,
    /// How many seats a user may hold and own, 1…100.
    pub max_seats_per_user: u32,
    /// Confirmed reservations can be cancelled until here; null is until the show starts.
    pub cancel_until: Option<DateTime<Utc>>,
    /// Its sale is over, and Redis holds nothing of it any more.
    pub archived: bool,
    /// Its dates.
    pub schedules: Vec<ConcertSchedule>,
}

/// A date together with its concert.
#[derive(Debug, Clone)]
pub struct ScheduledConcert {
    /// The concert.
    pub concert: Arc<Concert>,
    index: usize,
}

impl ScheduledConcert {
    /// All dates of a concert, in order.
    pub fn all_of(concert: &Arc<Concert>) -> Vec<Self> {
        (0..concert.schedules.len()).map(|index| Self { concert: concert.clone(), index }).collect()
    }

    /// The date itself.
    pub fn schedule(&self) -> &ConcertSchedule {
        &self.concert.schedules[self.index]
    }
}

impl ConcertSchedule {
    /// How many seats there are; their numbers are 1…n.
    pub fn seats(&self) -> u32 {
        self.sections.iter().map(|section| section.to).max().unwrap_or(0)
    }

    /// The section of a seat, if there is such a seat.
    pub fn section_of(&self, number: u32) -> Option<&SeatSection> {
        self.sections.iter().find(|section| (section.from..=section.to).contains(&number))
    }
}

impl Concert {
    /// How many seats there are over all dates.
    pub fn seats(&self) -> u32 {
        self.schedules.iter().map(ConcertSchedule::seats).sum()
    }

    /// The version and the seats, as Redis is told them and a hold names them.
    pub fn laid(&self) -> String {
        format!("{} {}", self.version, self.seats())
    }
}
