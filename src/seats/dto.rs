//! The JSON of reservations.

use serde::Serialize;
use utoipa::ToSchema;

use super::SeatService;
use super::reservation::{Reservation, ReservationStatus, ReservedSeat};
use crate::ids::{ConcertId, PaymentId, ReservationId, ScheduleId};
use crate::money::{CurrencyCode, Money};
use crate::time::UnixMillis;

/// Seats of one schedule that one user holds or has bought.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reservation)]
pub struct ReservationDto {
    id: ReservationId,
    schedule_id: ScheduleId,
    concert_id: ConcertId,
    /// The title of the concert when the seats were held.
    concert_title: String,
    /// The start of the show when the seats were held. Null for a reservation of an older release
    /// whose schedule was removed.
    starts_at: Option<UnixMillis>,
    /// The seats, without those that are cancelled.
    seats: Vec<ReservedSeat>,
    /// The seats that were bought and then cancelled.
    cancelled_seats: Vec<ReservedSeat>,
    /// The total price, also of cancelled seats.
    amount: Money,
    /// The discount of a coupon. 0 until the reservation is confirmed.
    discount: Money,
    /// The amount debited from the wallet. 0 until the reservation is confirmed.
    paid: Money,
    currency: CurrencyCode,
    /// The payment that is in progress or paid for the seats.
    payment_id: Option<PaymentId>,
    status: ReservationStatus,
    /// When the hold expires.
    held_until: UnixMillis,
    created_at: UnixMillis,
}

impl SeatService {
    /// The title of a reservation's concert and the start of its show when the seats were held. A
    /// record of an older release has neither and reads as its concert does today.
    pub fn title_and_start(&self, reservation: &Reservation) -> (String, Option<UnixMillis>) {
        if let Some(title) = &reservation.title {
            return (title.clone(), reservation.starts_at.map(UnixMillis));
        }
        let title = self
            .catalogue
            .concert(&reservation.concert)
            .map(|concert| concert.title.clone())
            .unwrap_or_default();
        let scheduled = self.catalogue.schedule(&reservation.schedule);
        (title, scheduled.map(|scheduled| scheduled.schedule().starts_at.into()))
    }

    pub fn currency(&self) -> CurrencyCode {
        self.currency
    }

    /// The response for a reservation. `now` is in milliseconds since 1970.
    pub fn dto(&self, reservation: Reservation, now: i64) -> ReservationDto {
        let (concert_title, starts_at) = self.title_and_start(&reservation);
        let (seats, cancelled_seats) = reservation.split_seats();
        ReservationDto {
            status: reservation.status_at(now),
            id: reservation.id,
            schedule_id: reservation.schedule,
            concert_id: reservation.concert,
            concert_title,
            starts_at,
            seats,
            cancelled_seats,
            amount: reservation.amount,
            discount: reservation.discount.unwrap_or(Money::ZERO),
            paid: reservation.paid.unwrap_or(Money::ZERO),
            currency: self.currency,
            payment_id: reservation.payment,
            held_until: UnixMillis(reservation.held_until),
            created_at: UnixMillis(reservation.created_at),
        }
    }
}
