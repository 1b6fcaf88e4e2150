//! The admin routes of payments.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::http::{Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::PaymentService;
use super::cancel::NEVER_CLOSES;
use super::routes::{PaymentDto, dto};
use crate::http::idempotency::{OptionalIdempotencyKey, REPLAYED_HEADER, fingerprint};
use crate::http::path::PathParams;
use crate::http::recorded_change::RecordedChange;
use crate::http::{JsonBody, JsonBodyWithBytes, ProblemDetails, reason};
use crate::idempotency::KeyedRequest;
use crate::ids::{PaymentId, ReservationId, UserName};
use crate::seats::ReservationDto;
use crate::users::UserDirectory;

pub fn admin_router() -> OpenApiRouter<Arc<PaymentService>> {
    super::external_routes::admin_router().routes(routes!(show)).routes(routes!(cancel))
}

/// A payment with its user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminPayment)]
pub struct AdminPaymentDto {
    #[serde(flatten)]
    pub(super) payment: PaymentDto,
    pub(super) user_id: UserName,
}

/// Get a payment of any user
#[utoipa::path(
    get,
    path = "/admin/payments/{id}",
    operation_id = "getAnyPayment",
    tag = "payment",
    params(("id" = PaymentId, Path)),
    responses(
        (status = 200, body = AdminPaymentDto),
        (status = 404, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn show(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<PaymentId>,
    Extension(users): Extension<Arc<UserDirectory>>,
) -> Result<JsonBody<AdminPaymentDto>, ProblemDetails> {
    let found = payments.find_of(id, None).await?;
    let user = found.payment.user;
    let names = users.names(std::iter::once(user)).await?;
    let payment = dto(&payments, found);
    Ok(JsonBody(AdminPaymentDto { payment, user_id: names.of(user) }))
}

/// Why the organiser cancels a reservation, and which seats.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReservationCancellationRequest {
    /// Why, for the audit log: 1 to 500 characters.
    reason: String,
    /// The numbers of the seats. Null or omitted means all that are left.
    seats: Option<Vec<u32>>,
}

/// What the audit log keeps of a cancellation.
#[derive(Serialize)]
struct RecordedCancellation<'a> {
    #[serde(flatten)]
    reservation: &'a ReservationDto,
    reason: &'a str,
}

/// The key of a cancellation by an operator. It has a space, so no key of a user is equal to it,
/// and no more than 128 characters.
fn organisers_key(key: Option<&str>) -> String {
    let id = match key {
        Some(key) => {
            let digest: [u8; 32] = Sha256::digest(key).into();
            let mut start = [0; 16];
            start.copy_from_slice(&digest[..16]);
            Uuid::from_bytes(start)
        }
        None => Uuid::new_v4(),
    };
    format!("organiser {id}")
}

/// Cancel some or all seats of a confirmed reservation on behalf of the organiser
///
/// As the user's cancellation, whatever `cancel_until` says. The reason is in the audit log. An
/// `Idempotency-Key` counts for the user of the reservation. 202 means that the cancellation will
/// complete, but is in progress or not durable yet.
#[utoipa::path(
    post,
    path = "/admin/reservations/{id}/cancel",
    operation_id = "cancelAnyReservation",
    tag = "reservation",
    request_body = ReservationCancellationRequest,
    params(
        ("id" = ReservationId, Path),
        ("Idempotency-Key" = Option<String>, Header,
            description = "Optional, 1 to 128 visible ASCII characters. Makes the request repeatable."),
    ),
    responses(
        (status = 200, body = ReservationDto),
        (status = 202, body = ReservationDto),
        (status = 400, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`not_cancellable`: not confirmed, or a seat is already cancelled"),
        (status = 422, body = ProblemDetails,
            description = "`idempotency_key_reused` for a key of another request"),
    ),
    security(("admin" = []))
)]
async fn cancel(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<ReservationId>,
    OptionalIdempotencyKey(key): OptionalIdempotencyKey,
    OriginalUri(uri): OriginalUri,
    JsonBodyWithBytes { value: request, bytes }: JsonBodyWithBytes<ReservationCancellationRequest>,
) -> Result<Response, ProblemDetails> {
    reason::check(&request.reason)?;
    let (now, before) = payments.seats.find_any(id).await?;
    let keyed = KeyedRequest {
        user: before.user,
        key: organisers_key(key.as_ref().map(|key| key.as_str())),
        fingerprint: fingerprint(&Method::POST, uri.path(), &bytes),
    };
    let before = payments.seats.dto(before, now);
    let done = payments.cancel(id, request.seats, keyed, Some(NEVER_CLOSES)).await?;
    let is_final = done.is_done && done.is_durable;
    let status = if is_final { StatusCode::OK } else { StatusCode::ACCEPTED };
    let replayed = done.replayed.then_some((REPLAYED_HEADER, "true"));
    let reservation = payments.seats.dto(done.reservation, done.now);
    let after = RecordedCancellation { reservation: &reservation, reason: &request.reason };
    let change = Extension(RecordedChange::new(Some(&before), Some(&after)));
    Ok((status, AppendHeaders(replayed), change, JsonBody(reservation)).into_response())
}

/// Parses the request bodies of these routes, for `fuzz_tests`.
#[cfg(test)]
pub(super) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<ReservationCancellationRequest>(bytes);
}
