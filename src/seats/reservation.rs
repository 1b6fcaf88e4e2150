//! Reservations, as stored in Redis and MySQL.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::ids::{ConcertId, PaymentId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::outbox::event::SeatCancellation;

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

impl ReservationStatus {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Paying => "paying",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
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
    /// All seats that were held, also those that are cancelled. The scripts store them as one JSON
    /// string.
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
    /// The title of the concert when the seats were held.
    #[serde(default)]
    pub title: Option<String>,
    /// The start of the show when the seats were held, in milliseconds since 1970.
    #[serde(default)]
    pub starts_at: Option<i64>,
    /// The payment that pays or paid for it.
    #[serde(default)]
    pub payment: Option<PaymentId>,
    /// The amount that the payment debited, once confirmed.
    #[serde(default)]
    pub paid: Option<Money>,
    #[serde(default)]
    pub discount: Option<Money>,
    /// What was cancelled of it, in order.
    #[serde(default)]
    pub cancellations: Vec<SeatCancellation>,
}

/// A reservation with the time of its last status change in milliseconds since 1970, or 0 while it
/// is held or being paid.
pub(super) type DatedReservation = (i64, Reservation);

impl Reservation {
    /// The numbers of the cancelled seats.
    fn cancelled_numbers(&self) -> impl Iterator<Item = u32> {
        self.cancellations.iter().flat_map(|cancellation| cancellation.seats.iter().copied())
    }

    /// The seats that are not cancelled, and those that are, each in the order of the hold.
    pub fn split_seats(&self) -> (Vec<ReservedSeat>, Vec<ReservedSeat>) {
        let cancelled: HashSet<u32> = self.cancelled_numbers().collect();
        self.seats.iter().cloned().partition(|seat| !cancelled.contains(&seat.number))
    }

    /// Whether a cancellation under this idempotency key is done.
    pub fn is_cancelled_by(&self, key: &str) -> bool {
        self.cancellations.iter().any(|cancellation| cancellation.key == key)
    }

    /// The reservation as the cancellation under this key left it, whatever was cancelled later.
    pub fn as_left_by(mut self, key: &str) -> Self {
        if let Some(at) = self.cancellations.iter().position(|it| it.key == key) {
            self.cancellations.truncate(at + 1);
            let is_all = self.cancelled_numbers().count() == self.seats.len();
            self.status =
                if is_all { ReservationStatus::Cancelled } else { ReservationStatus::Confirmed };
        }
        self
    }

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
