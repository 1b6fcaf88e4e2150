//! Reservations, as Redis and MySQL keep them.

use serde::{Deserialize, Serialize};

use crate::ids::{ConcertId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::Money;

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ReservationStatus)]
pub enum ReservationStatus {
    /// The seats are the user's until `held_until`.
    Held,
    /// A payment is under way.
    Paying,
    /// The seats are sold. They still are while the reservation is being cancelled.
    #[serde(alias = "cancelling")]
    Confirmed,
    /// Given back by the user.
    Released,
    /// The hold lapsed.
    Expired,
    /// Cancelled after it was confirmed.
    Cancelled,
}

/// A seat of a reservation, at the price at which it was held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ReservedSeat)]
pub struct ReservedSeat {
    /// Its number.
    pub number: u32,
    /// Its section.
    pub section: String,
    /// Its price.
    pub price: Money,
}

/// Some seats of one schedule, held or owned by one user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// Whose it is.
    pub user: UserId,
    /// The queue whose partition it lives in.
    pub queue: QueueId,
    /// The concert.
    pub concert: ConcertId,
    /// The date.
    pub schedule: ScheduleId,
    /// The seats; the scripts carry them as one JSON text.
    #[serde(rename = "detail", deserialize_with = "seats_from_text")]
    pub seats: Vec<ReservedSeat>,
    /// What all the seats cost.
    pub amount: Money,
    /// Where it stands as written; see [`Reservation::status_at`].
    pub status: ReservationStatus,
    /// When the hold lapses, milliseconds since 1970.
    pub held_until: i64,
    /// When it was made, milliseconds since 1970.
    pub created_at: i64,
}

impl Reservation {
    /// Where it stands at a moment: a hold has lapsed when its moment has come, whether or not a sweep has written it down.
    pub fn status_at(&self, now: i64) -> ReservationStatus {
        if self.status == ReservationStatus::Held && self.held_until <= now {
            ReservationStatus::Expired
        } else {
            self.status
        }
    }
}

fn seats_from_text<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Vec<ReservedSeat>, D::Error> {
    let text = String::deserialize(from)?;
    serde_json::from_str(&text).map_err(serde::de::Error::custom)
}
