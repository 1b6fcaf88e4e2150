//! Concerts, their schedules and their seats, as the API and MySQL have them.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{ConcertId, QueueId, ScheduleId};
use crate::money::Money;

/// Consecutive seats with one name and one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeatSection {
    /// The name of the section, 1–64 characters.
    pub name: String,
    /// The number of the first seat.
    pub from: u32,
    /// The number of the last seat.
    pub to: u32,
    /// The price of one seat.
    pub price: Money,
}

/// A date of a concert, with its seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSchedule)]
pub struct ConcertSchedule {
    /// The id, unique among the schedules of all concerts.
    pub id: ScheduleId,
    /// The start of the show.
    pub starts_at: DateTime<Utc>,
    /// Seats can be held from this time on. Null means immediately.
    #[serde(default)]
    pub booking_opens_at: Option<DateTime<Utc>>,
    /// Seats can be held until this time. Null means until the show starts. A time after the start
    /// keeps the sale open, for example for late entry; `cancel_until` is then worth setting too.
    #[serde(default)]
    pub booking_closes_at: Option<DateTime<Utc>>,
    /// The sections. Together they cover the seat numbers 1…n without a gap.
    pub sections: Vec<SeatSection>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concert {
    pub id: ConcertId,
    /// The version of the definitions at the last change of this concert.
    pub version: u64,
    /// 1–255 characters.
    pub title: String,
    /// The queue that admits to it.
    pub queue: QueueId,
    /// How long a hold lasts, in seconds, 1…86,400.
    pub hold_seconds: u32,
    /// For how long an external payment waits for its provider, in seconds, 60…3,600.
    pub payment_seconds: u32,
    /// How many seats a user can hold and own in total, 1…100.
    pub max_seats_per_user: u32,
    /// Confirmed reservations can be cancelled until this time. `None`: until the show starts.
    pub cancel_until: Option<DateTime<Utc>>,
    /// The sale has ended, and Redis stores nothing of the concert.
    pub archived: bool,
    /// The schedules that are called off: nothing of them can be held.
    pub cancelled: BTreeSet<ScheduleId>,
    pub schedules: Vec<ConcertSchedule>,
}

/// A schedule together with its concert.
#[derive(Debug, Clone)]
pub struct ScheduledConcert {
    pub concert: Arc<Concert>,
    index: usize,
}

impl ScheduledConcert {
    /// All schedules of a concert, in order.
    pub fn all(concert: &Arc<Concert>) -> Vec<Self> {
        (0..concert.schedules.len()).map(|index| Self { concert: concert.clone(), index }).collect()
    }

    pub fn schedule(&self) -> &ConcertSchedule {
        &self.concert.schedules[self.index]
    }

    /// Whether it is called off.
    pub fn is_cancelled(&self) -> bool {
        self.concert.cancelled.contains(&self.schedule().id)
    }
}

impl ConcertSchedule {
    /// Seats can be held until this time.
    pub fn closes_at(&self) -> DateTime<Utc> {
        self.booking_closes_at.unwrap_or(self.starts_at)
    }

    /// The number of seats n. Their numbers are 1…n.
    pub fn seats(&self) -> u32 {
        self.sections.iter().map(|section| section.to).max().unwrap_or(0)
    }

    /// The section of a seat, or `None` if the seat does not exist.
    pub fn section_of(&self, number: u32) -> Option<&SeatSection> {
        self.sections.iter().find(|section| (section.from..=section.to).contains(&number))
    }
}

impl Concert {
    /// The number of seats of all schedules.
    pub fn seats(&self) -> u32 {
        self.schedules.iter().map(ConcertSchedule::seats).sum()
    }

    /// The version and the number of seats, as `catalogue/publish` stores them and a hold names
    /// them.
    pub fn published_version(&self) -> String {
        format!("{} {}", self.version, self.seats())
    }
}
