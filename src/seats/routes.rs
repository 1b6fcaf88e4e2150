//! The public routes of reservations, and the router of all public routes.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::ReservationDto;
use super::{Error, HeldReservation, SeatService};
use crate::http::idempotency::{
    IdempotencyKey, OptionalIdempotencyKey, REPLAYED_HEADER, fingerprint,
};
use crate::http::path::PathParams;
use crate::http::{JsonBody, JsonBodyWithBytes, ProblemDetails};
use crate::idempotency::KeyedRequest;
use crate::ids::{ReservationId, ScheduleId};
use crate::queue::{BuyerToken, Claims, RequestOwner, wrong_queue};

pub fn router() -> OpenApiRouter<Arc<SeatService>> {
    OpenApiRouter::new()
        .routes(routes!(super::schedule_routes::schedules))
        .routes(routes!(super::map_routes::layout))
        .routes(routes!(super::map_routes::seat_map))
        .routes(routes!(super::stream_routes::events))
        .routes(routes!(hold))
        .routes(routes!(hold_best))
        .routes(routes!(super::list_routes::mine))
        .routes(routes!(show, release))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewReservation {
    schedule_id: ScheduleId,
    /// The numbers of the seats. Either all of them are held or none.
    seats: Vec<u32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BestReservation {
    schedule_id: ScheduleId,
    /// The number of adjacent seats.
    #[schema(minimum = 1)]
    quantity: u32,
    /// The name of the section. Null means all sections.
    section: Option<String>,
}

/// Hold seats
///
/// Holds all of the seats or none. With an idempotency key, a repeated request returns the same
/// reservation in its current state, with the header `Idempotency-Replayed: true`.
#[utoipa::path(
    post,
    path = "/v1/reservations",
    operation_id = "holdSeats",
    tag = "reservation",
    request_body = NewReservation,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Optional, 1 to 128 visible ASCII characters. Makes the request repeatable.")),
    responses(
        (status = 201, body = ReservationDto),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`seat_taken` with `seats`, and `yours`: those of them that the caller holds"),
        (status = 410, body = ProblemDetails),
        (status = 422, body = ProblemDetails, description = "`idempotency_key_reused` for a key of another request"),
    ),
    security(("queue_token" = []))
)]
async fn hold(
    State(seats): State<Arc<SeatService>>,
    BuyerToken(claims): BuyerToken,
    OptionalIdempotencyKey(key): OptionalIdempotencyKey,
    OriginalUri(uri): OriginalUri,
    JsonBodyWithBytes { value: new, bytes }: JsonBodyWithBytes<NewReservation>,
) -> Result<Response, ProblemDetails> {
    let keyed = keyed_request(&claims, key, uri.path(), &bytes);
    let held = seats.hold(&claims, &new.schedule_id, &new.seats, keyed).await?;
    Ok(held_response(&seats, held))
}

/// Hold the best adjacent seats
///
/// Searches the sections in their order and holds the lowest adjacent numbers of the first section
/// with enough free seats. It avoids leaving a single free seat when the section allows it.
#[utoipa::path(
    post,
    path = "/v1/reservations/best",
    operation_id = "holdBestSeats",
    tag = "reservation",
    request_body = BestReservation,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Optional, 1 to 128 visible ASCII characters. Makes the request repeatable.")),
    responses(
        (status = 201, body = ReservationDto),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`not_enough_seats`"),
        (status = 410, body = ProblemDetails),
        (status = 422, body = ProblemDetails, description = "`idempotency_key_reused` for a key of another request"),
    ),
    security(("queue_token" = []))
)]
async fn hold_best(
    State(seats): State<Arc<SeatService>>,
    BuyerToken(claims): BuyerToken,
    OptionalIdempotencyKey(key): OptionalIdempotencyKey,
    OriginalUri(uri): OriginalUri,
    JsonBodyWithBytes { value: new, bytes }: JsonBodyWithBytes<BestReservation>,
) -> Result<Response, ProblemDetails> {
    let keyed = keyed_request(&claims, key, uri.path(), &bytes);
    let section = new.section.as_deref();
    let held = seats.hold_best(&claims, &new.schedule_id, new.quantity, section, keyed).await?;
    Ok(held_response(&seats, held))
}

fn keyed_request(
    claims: &Claims,
    key: Option<IdempotencyKey>,
    path: &str,
    body: &[u8],
) -> Option<KeyedRequest> {
    key.map(|key| KeyedRequest {
        user: claims.user,
        key: key.as_str().to_owned(),
        fingerprint: fingerprint(&Method::POST, path, body),
    })
}

fn held_response(seats: &SeatService, held: HeldReservation) -> Response {
    let replayed = held.replayed.then_some((REPLAYED_HEADER, "true"));
    let body = JsonBody(seats.dto(held.reservation, held.now));
    (StatusCode::CREATED, AppendHeaders(replayed), body).into_response()
}

/// Get a reservation of the user
#[utoipa::path(
    get,
    path = "/v1/reservations/{id}",
    operation_id = "getReservation",
    tag = "reservation",
    params(("id" = ReservationId, Path)),
    responses(
        (status = 200, body = ReservationDto),
        (status = 401, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
    ),
    security(("user" = []), ("queue_token" = []))
)]
async fn show(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ReservationId>,
    RequestOwner(user): RequestOwner,
) -> Result<JsonBody<ReservationDto>, ProblemDetails> {
    let (now, reservation) = seats.find(id, user).await?;
    Ok(JsonBody(seats.dto(reservation, now)))
}

/// Release a hold
///
/// The seats are free immediately. A hold that has already been released or has expired also
/// returns 204.
#[utoipa::path(
    delete,
    path = "/v1/reservations/{id}",
    operation_id = "releaseHold",
    tag = "reservation",
    params(("id" = ReservationId, Path)),
    responses(
        (status = 204),
        (status = 401, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`not_releasable`"),
    ),
    security(("user" = []), ("queue_token" = []))
)]
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
        let detail = error.to_string();
        match error {
            Error::NotFound => Self::not_found(),
            Error::WrongQueue => wrong_queue(),
            Error::InvalidField(field, message) => Self::invalid_field(field, message),
            Error::NotEnoughSeats => Self::new(StatusCode::CONFLICT, "not_enough_seats", detail),
            Error::SeatsTaken { seats, yours } => {
                Self::new(StatusCode::CONFLICT, "seat_taken", detail)
                    .with("seats", seats)
                    .with("yours", yours)
            }
            Error::LimitExceeded(limit) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "seat_limit_exceeded", detail)
                    .with("max_seats_per_user", limit)
            }
            Error::BookingNotOpen => Self::new(StatusCode::FORBIDDEN, "booking_not_open", detail),
            Error::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            Error::VisitOver => Self::new(StatusCode::FORBIDDEN, "visit_over", detail),
            Error::NotReleasable => Self::new(StatusCode::CONFLICT, "not_releasable", detail),
            Error::Queue(error) => error.into(),
            Error::Catalogue(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Parses all request bodies of this module, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<NewReservation>(bytes);
    crate::http::json::parse_as::<BestReservation>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn futures_of_frequent_handlers_are_small() {
        assert!(future_size::of(|| hold(any(), any(), any(), any(), any())) <= MAX_BYTES);
        assert!(future_size::of(|| hold_best(any(), any(), any(), any(), any())) <= MAX_BYTES);
    }
}
