//! Dates, seats and reservations over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::reservation::{Reservation, ReservationStatus, ReservedSeat};
use super::{Error, SeatService};
use crate::catalogue::ScheduledConcert;
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, ReservationId, ScheduleId};
use crate::money::Money;
use crate::queue::{RequestOwner, TokenHolder, wrong_queue};
use crate::time::UnixMillis;

/// The routes of the seats.
pub fn router() -> OpenApiRouter<Arc<SeatService>> {
    OpenApiRouter::new()
        .routes(routes!(schedules))
        .routes(routes!(seat_map))
        .routes(routes!(hold))
        .routes(routes!(hold_best))
        .routes(routes!(super::list_routes::mine))
        .routes(routes!(show, release))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
struct ScheduleDto {
    id: ScheduleId,
    concert_id: ConcertId,
    starts_at: UnixMillis,
    booking_opens_at: Option<UnixMillis>,
    booking_closes_at: Option<UnixMillis>,
    total_seats: u32,
    available_seats: u32,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedules)]
struct SchedulesDto {
    items: Vec<ScheduleDto>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SeatStatus {
    Available,
    Held,
    Sold,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Seat)]
struct SeatDto {
    number: u32,
    section: String,
    price: Money,
    status: SeatStatus,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeatMap)]
struct SeatMapDto {
    schedule_id: ScheduleId,
    items: Vec<SeatDto>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct SeatFilter {
    /// Only seats of this status.
    status: Option<SeatStatus>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewReservation {
    /// The date.
    schedule_id: ScheduleId,
    /// The numbers of the seats, all of them or none.
    seats: Vec<u32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BestReservation {
    /// The date.
    schedule_id: ScheduleId,
    /// How many seats side by side.
    #[schema(minimum = 1)]
    quantity: u32,
    /// Only in this section.
    section: Option<String>,
}

/// Some seats of one date, held or owned by one user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reservation)]
pub struct ReservationDto {
    id: ReservationId,
    schedule_id: ScheduleId,
    concert_id: ConcertId,
    concert_title: String,
    starts_at: Option<UnixMillis>,
    seats: Vec<ReservedSeat>,
    amount: Money,
    status: ReservationStatus,
    held_until: UnixMillis,
    created_at: UnixMillis,
}

impl SeatService {
    /// A reservation with its concert's title and date.
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

/// The bookable dates of a concert.
#[utoipa::path(get, path = "/v1/concerts/{concert}/schedules", tag = "catalogue", params(("concert" = ConcertId, Path)),
    responses((status = 200, body = SchedulesDto), (status = 401, body = ProblemDetails), (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails), (status = 410, body = ProblemDetails)), security(("queue_token" = [])))]
async fn schedules(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ConcertId>,
    TokenHolder { claims, .. }: TokenHolder,
) -> Result<JsonBody<SchedulesDto>, ProblemDetails> {
    let dates = seats.dates(&claims, &id).await?;
    let reads = dates.iter().map(async |date| schedule_dto(date, seats.taken(date).await?.len()));
    let items = futures::future::try_join_all(reads).await?;
    Ok(JsonBody(SchedulesDto { items }))
}

fn schedule_dto(date: &ScheduledConcert, taken: usize) -> Result<ScheduleDto, Error> {
    let schedule = date.schedule();
    let total_seats = schedule.seats();
    Ok(ScheduleDto {
        id: schedule.id.clone(),
        concert_id: date.concert.id.clone(),
        starts_at: schedule.starts_at.into(),
        booking_opens_at: schedule.booking_opens_at.map(UnixMillis::from),
        booking_closes_at: schedule.booking_closes_at.map(UnixMillis::from),
        total_seats,
        available_seats: total_seats.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX)),
    })
}

/// The seats of a date, by number.
#[utoipa::path(get, path = "/v1/schedules/{schedule}/seats", tag = "catalogue", params(("schedule" = ScheduleId, Path), SeatFilter),
    responses((status = 200, body = SeatMapDto), (status = 401, body = ProblemDetails), (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails), (status = 410, body = ProblemDetails), (status = 422, body = ProblemDetails)), security(("queue_token" = [])))]
async fn seat_map(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ScheduleId>,
    TokenHolder { claims, .. }: TokenHolder,
    QueryParams(filter): QueryParams<SeatFilter>,
) -> Result<JsonBody<SeatMapDto>, ProblemDetails> {
    let date = seats.admitted_date(&claims, &id).await?;
    let taken = seats.taken(&date).await?;
    let mut taken = taken.iter().peekable();
    let mut items = Vec::new();
    for number in 1..=date.schedule().seats() {
        let status = match taken.next_if(|seat| seat.number == number) {
            None => SeatStatus::Available,
            Some(seat) if seat.sold => SeatStatus::Sold,
            Some(_) => SeatStatus::Held,
        };
        let wanted = filter.status.is_none_or(|wanted| wanted == status);
        if let Some(section) = date.schedule().section_of(number).filter(|_| wanted) {
            items.push(SeatDto {
                number,
                section: section.name.clone(),
                price: section.price,
                status,
            });
        }
    }
    Ok(JsonBody(SeatMapDto { schedule_id: id, items }))
}

/// Holds all the seats or none.
#[utoipa::path(post, path = "/v1/reservations", tag = "reservation", request_body = NewReservation,
    responses((status = 201, body = ReservationDto), (status = 401, body = ProblemDetails), (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails, description = "`seat_taken` with `seats`"),
        (status = 410, body = ProblemDetails), (status = 422, body = ProblemDetails)), security(("queue_token" = [])))]
async fn hold(
    State(seats): State<Arc<SeatService>>,
    TokenHolder { claims, .. }: TokenHolder,
    JsonBody(new): JsonBody<NewReservation>,
) -> Result<(StatusCode, JsonBody<ReservationDto>), ProblemDetails> {
    let reservation = seats.hold(&claims, &new.schedule_id, &new.seats).await?;
    let now = reservation.created_at;
    Ok((StatusCode::CREATED, JsonBody(seats.dto(reservation, now))))
}

/// Holds the best seats side by side: in the earliest section that has them, leaving no single seat alone where that can be avoided, the lowest numbers.
#[utoipa::path(post, path = "/v1/reservations/best", tag = "reservation", request_body = BestReservation,
    responses((status = 201, body = ReservationDto), (status = 401, body = ProblemDetails), (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails, description = "`not_enough_seats`"),
        (status = 410, body = ProblemDetails), (status = 422, body = ProblemDetails)), security(("queue_token" = [])))]
async fn hold_best(
    State(seats): State<Arc<SeatService>>,
    TokenHolder { claims, .. }: TokenHolder,
    JsonBody(new): JsonBody<BestReservation>,
) -> Result<(StatusCode, JsonBody<ReservationDto>), ProblemDetails> {
    let section = new.section.as_deref();
    let reservation = seats.hold_best(&claims, &new.schedule_id, new.quantity, section).await?;
    let now = reservation.created_at;
    Ok((StatusCode::CREATED, JsonBody(seats.dto(reservation, now))))
}

/// One's own reservation.
#[utoipa::path(get, path = "/v1/reservations/{id}", tag = "reservation", params(("id" = ReservationId, Path)),
    responses((status = 200, body = ReservationDto), (status = 401, body = ProblemDetails), (status = 404, body = ProblemDetails)),
    security(("user" = []), ("queue_token" = [])))]
async fn show(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ReservationId>,
    RequestOwner(user): RequestOwner,
) -> Result<JsonBody<ReservationDto>, ProblemDetails> {
    let (now, reservation) = seats.find(id, user).await?;
    Ok(JsonBody(seats.dto(reservation, now)))
}

/// Gives a hold back at once.
#[utoipa::path(delete, path = "/v1/reservations/{id}", tag = "reservation", params(("id" = ReservationId, Path)),
    responses((status = 204), (status = 401, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`not_releasable`")), security(("user" = []), ("queue_token" = [])))]
async fn release(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ReservationId>,
    RequestOwner(user): RequestOwner,
) -> Result<StatusCode, ProblemDetails> {
    seats.release(id, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound => Self::not_found(),
            Error::WrongQueue => wrong_queue(),
            Error::Unsound(field, why) => Self::invalid_field(field, why),
            Error::NotEnough => Self::new(StatusCode::CONFLICT, "not_enough_seats", text),
            Error::Taken(seats) => {
                Self::new(StatusCode::CONFLICT, "seat_taken", text).with("seats", seats)
            }
            Error::LimitExceeded(most) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "seat_limit_exceeded", text)
                    .with("max_seats_per_user", most)
            }
            Error::BookingNotOpen => Self::new(StatusCode::FORBIDDEN, "booking_not_open", text),
            Error::NotReleasable => Self::new(StatusCode::CONFLICT, "not_releasable", text),
            Error::Queue(error) => error.into(),
            Error::Catalogue(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Reads bodies of the kinds that this room takes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::try_as::<NewReservation>(bytes);
    crate::http::json::try_as::<BestReservation>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn busy_handlers_are_light() {
        assert!(future_size::of(|| hold(any(), any(), any())) <= MAX_BYTES);
        assert!(future_size::of(|| hold_best(any(), any(), any())) <= MAX_BYTES);
    }
}
