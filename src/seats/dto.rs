//! The JSON of reservations.

use serde::Serialize;
use utoipa::ToSchema;

use super::SeatService;
use super::reservation::{Reservation, ReservationStatus, ReservedSeat};
use crate::ids::{ConcertId, ReservationId, ScheduleId};
use crate::money::Money;
use crate::time::UnixMillis;

/// Seats of one schedule that one user holds or has bought.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reservation)]
pub struct ReservationDto {
    id: ReservationId,
    schedule_id: ScheduleId,
    concert_id: ConcertId,
    concert_title: String,
    /// When the show starts. Null when the schedule was removed.
    starts_at: Option<UnixMillis>,
    seats: Vec<ReservedSeat>,
    /// The total price.
    amount: Money,
    status: ReservationStatus,
    /// When the hold expires.
    held_until: UnixMillis,
    created_at: UnixMillis,
}

impl SeatService {
    /// The response for a reservation. `now` is in milliseconds since 1970.
    pub fn dto(&self, reservation: Reservation, now: i64) -> ReservationDto {
        let (concert_title, starts_at) = self.title_and_start(&reservation);
        ReservationDto {
            status: reservation.status_at(now),
            id: reservation.id,
            schedule_id: reservation.schedule,
            concert_id: reservation.concert,
            concert_title,
            starts_at,
            seats: reservation.seats,
            amount: reservation.amount,
            held_until: UnixMillis(reservation.held_until),
            created_at: UnixMillis(reservation.created_at),
        }
    }
}
