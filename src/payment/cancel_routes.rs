//! Cancelling over HTTP.

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

/// Cancels what was bought: the money is back in the wallet, the seats are free. 202 when that is certain but not done yet, or not yet known to be durable.
#[utoipa::path(post, path = "/v1/reservations/{id}/cancel", tag = "reservation",
    params(("id" = ReservationId, Path), ("Idempotency-Key" = String, Header)),
    responses((status = 200, body = ReservationDto), (status = 202, body = ReservationDto), (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails), (status = 403, body = ProblemDetails, description = "`cancellation_closed`"), (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`not_cancellable`"), (status = 422, body = ProblemDetails)), security(("user" = [])))]
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
    let cancelling = payments.cancel(id, keyed).await?;
    let status = if cancelling.is_done() && cancelling.written {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let replayed = cancelling.replayed.then_some((REPLAYED_HEADER, "true"));
    let reservation = payments.seats.dto(cancelling.reservation, cancelling.now);
    Ok((status, AppendHeaders(replayed), JsonBody(reservation)).into_response())
}
