//! The route that cancels a reservation.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::PaymentService;
use crate::http::idempotency::{IdempotencyKey, REPLAYED_HEADER, fingerprint};
use crate::http::identity::AuthenticatedUser;
use crate::http::path::PathParams;
use crate::http::{JsonBody, OptionalJsonBody, ProblemDetails};
use crate::idempotency::KeyedRequest;
use crate::ids::ReservationId;
use crate::seats::ReservationDto;

/// The seats to cancel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CancelledSeats, example = json!({"seats": [3]}))]
pub(super) struct CancelledSeats {
    /// The numbers of the seats. Null or omitted means all that are left.
    seats: Option<Vec<u32>>,
}

/// Cancel some or all seats of a confirmed reservation
///
/// The seats become free, and their share of what was paid is refunded to the wallet: paid × price
/// of these seats ÷ price of all seats, rounded down. The last seats get the rest, and with them a
/// redeemed coupon becomes usable again. A repeated request gets the reservation as its
/// cancellation left it. 202 means that the cancellation will complete, but is in progress or not
/// durable yet.
#[utoipa::path(
    post,
    path = "/v1/reservations/{id}/cancel",
    operation_id = "cancelReservation",
    tag = "reservation",
    request_body = Option<CancelledSeats>,
    params(("id" = ReservationId, Path), ("Idempotency-Key" = String, Header)),
    responses(
        (status = 200, body = ReservationDto),
        (status = 202, body = ReservationDto),
        (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "`cancellation_closed`"),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`not_cancellable`: not confirmed, or a seat is already cancelled"),
        (status = 422, body = ProblemDetails),
    ),
    security(("user" = []))
)]
pub(super) async fn cancel(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<ReservationId>,
    AuthenticatedUser(user): AuthenticatedUser,
    key: IdempotencyKey,
    OriginalUri(uri): OriginalUri,
    body: OptionalJsonBody<CancelledSeats>,
) -> Result<Response, ProblemDetails> {
    let fingerprint = fingerprint(&Method::POST, uri.path(), &body.bytes);
    let keyed = KeyedRequest { user, key: key.as_str().to_owned(), fingerprint };
    let cancellation = payments.cancel(id, body.value.seats, keyed, None).await?;
    let status = if cancellation.is_done && cancellation.is_durable {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let replayed = cancellation.replayed.then_some((REPLAYED_HEADER, "true"));
    let reservation = payments.seats.dto(cancellation.reservation, cancellation.now);
    Ok((status, AppendHeaders(replayed), JsonBody(reservation)).into_response())
}
