//! Reservations, as stored in Redis and MySQL.

use serde::{Deserialize, Serialize};

use crate::ids::{ConcertId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::Money;

/// The status of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ReservationStatus)]
pub enum ReservationStatus {
    /// The seats are held until `held_until`.
    Held,
    /// A payment is in progress.
    Paying,
    /// The seats are sold. A reservation that is being cancelled is still confirmed.
    #[serde(alias = "cancelling")]
    Confirmed,
    /// The user released the seats.
    Released,
    /// The hold expired.
    Expired,
    /// The reservation was confirmed and then cancelled.
    Cancelled,
}

/// A seat of a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ReservedSeat)]
pub struct ReservedSeat {
    pub number: u32,
    /// The name of the section.
    pub section: String,
    /// The price when the seat was held.
    pub price: Money,
}

/// Seats of one schedule that one user holds or has bought.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reservation {
    pub id: ReservationId,
    pub user: UserId,
    /// The queue determines the partition.
    pub queue: QueueId,
    pub concert: ConcertId,
    pub schedule: ScheduleId,
    /// The scripts store the seats as one JSON string.
    #[serde(rename = "detail", deserialize_with = "seats_from_text")]
    pub seats: Vec<ReservedSeat>,
    /// The total price.
    pub amount: Money,
    /// The stored status. Use [`Reservation::status_at`] for the current one.
    pub status: ReservationStatus,
    /// When the hold expires, in milliseconds since 1970.
    pub held_until: i64,
    /// In milliseconds since 1970.
    pub created_at: i64,
}

/// A reservation with the time of its last status change in milliseconds since 1970, or 0 while it
/// is held or being paid.
pub(super) type DatedReservation = (i64, Reservation);

impl Reservation {
    /// The status at a time in milliseconds since 1970. A hold expires at its deadline, also when
    /// no sweep has recorded it yet.
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
