//! The route that cancels a reservation.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};

use super::PaymentService;
use crate::http::idempotency::{IdempotencyKey, REPLAYED_HEADER, fingerprint};
use crate::http::identity::AuthenticatedUser;
use crate::http::path::PathParams;
use crate::http::{JsonBody, ProblemDetails, UncheckedBody};
use crate::idempotency::KeyedRequest;
use crate::ids::ReservationId;
use crate::seats::ReservationDto;

/// Cancel a confirmed reservation
///
/// The money is refunded to the wallet, a redeemed coupon becomes usable again, and the seats
/// become free. 202 means that the cancellation will complete, but is in progress or not durable
/// yet.
#[utoipa::path(
    post,
    path = "/v1/reservations/{id}/cancel",
    operation_id = "cancelReservation",
    tag = "reservation",
    params(("id" = ReservationId, Path), ("Idempotency-Key" = String, Header)),
    responses(
        (status = 200, body = ReservationDto),
        (status = 202, body = ReservationDto),
        (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "`cancellation_closed`"),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`not_cancellable`"),
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
    UncheckedBody(body): UncheckedBody,
) -> Result<Response, ProblemDetails> {
    let fingerprint = fingerprint(&Method::POST, uri.path(), &body);
    let keyed = KeyedRequest { user, key: key.as_str().to_owned(), fingerprint };
    let cancellation = payments.cancel(id, keyed).await?;
    let status = if cancellation.is_done() && cancellation.is_durable {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let replayed = cancellation.replayed.then_some((REPLAYED_HEADER, "true"));
    let reservation = payments.seats.dto(cancellation.reservation, cancellation.now);
    Ok((status, AppendHeaders(replayed), JsonBody(reservation)).into_response())
}
