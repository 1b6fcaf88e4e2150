//! The routes of external payments, for the booking backend and for operators.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::record::Payment;
use super::routes::{PaymentDto, PaymentsQuery, dto};
use super::rules::{REASON_REQUESTED, SERVICE_REASONS};
use super::{Error, PaymentService, PaymentWithReservation, ProviderProof, sql};
use crate::http::identity::ServiceCaller;
use crate::http::page::{self, PageCursor};
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, OptionalJsonBody, ProblemDetails};
use crate::ids::{PaymentId, ReservationId, UserId, UserName};
use crate::money::{CurrencyCode, Money};
use crate::queue::RequestOwner;
use crate::time::UnixMillis;
use crate::users::UserDirectory;

const MAX_PROVIDER_LENGTH: usize = 64;
const MAX_REFERENCE_LENGTH: usize = 255;
const MAX_REASON_LENGTH: usize = 64;

pub(super) fn router() -> OpenApiRouter<Arc<PaymentService>> {
    OpenApiRouter::new()
        .routes(routes!(confirm))
        .routes(routes!(void))
        .routes(routes!(report_refund))
}

pub(super) fn admin_router() -> OpenApiRouter<Arc<PaymentService>> {
    OpenApiRouter::new().routes(routes!(list_refunds_due))
}

/// What the provider has taken.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PaymentConfirmation {
    /// The provider, 1 to 64 visible ASCII characters without spaces.
    provider: String,
    /// The provider's name of its payment, 1 to 255 visible ASCII characters without spaces. It
    /// pays once.
    reference: String,
    /// The amount that the provider took: `due_amount`, in the smallest unit of the currency.
    amount: Money,
}

/// Why a payment is voided.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PaymentVoid {
    /// The reason, 1 to 64 characters. The default is `requested`.
    reason: Option<String>,
}

/// What the provider has paid back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefundReport {
    /// The provider's name of its refund, 1 to 255 visible ASCII characters without spaces.
    reference: String,
    /// The amount that the provider paid back, at most what is due.
    amount: Money,
}

/// Who may void a payment: a service, or the user who pays.
pub(super) struct VoidingCaller(Option<UserId>);

impl<S: Send + Sync> FromRequestParts<S> for VoidingCaller {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        match ServiceCaller::identify(parts)? {
            Some(ServiceCaller(user)) => Ok(Self(user)),
            None => {
                let RequestOwner(user) = RequestOwner::from_request_parts(parts, state).await?;
                Ok(Self(Some(user)))
            }
        }
    }
}

fn check_name(field: &str, text: &str, longest: usize) -> Result<(), ProblemDetails> {
    let valid = (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    valid.then_some(()).ok_or_else(|| {
        let message = format!("must be 1 to {longest} visible ASCII characters without spaces");
        ProblemDetails::invalid_field(field, message)
    })
}

fn check_reason(reason: Option<String>) -> Result<String, ProblemDetails> {
    let Some(reason) = reason else { return Ok(REASON_REQUESTED.to_owned()) };
    let length = reason.chars().count();
    if !(1..=MAX_REASON_LENGTH).contains(&length) || reason.chars().any(char::is_control) {
        let message = "must be 1 to 64 characters without control characters";
        return Err(ProblemDetails::invalid_field("reason", message));
    }
    if SERVICE_REASONS.contains(&reason.as_str()) {
        return Err(ProblemDetails::invalid_field("reason", "is a reason of the service itself"));
    }
    Ok(reason)
}

fn answer(payments: &PaymentService, outcome: PaymentWithReservation) -> Response {
    let status = if outcome.is_durable { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, JsonBody(dto(payments, outcome))).into_response()
}

/// Confirm that the provider has taken the money of an external payment
///
/// Only with a service key; `Usher-User` is not needed. The seats are sold. The same call again
/// gets the same answer. In every error but 503 nothing moves. After `payment_voided` and
/// `not_found`, cancel the payment at the provider.
#[utoipa::path(
    post,
    path = "/v1/payments/{id}/confirm",
    operation_id = "confirmPayment",
    tag = "payment",
    request_body = PaymentConfirmation,
    params(("id" = PaymentId, Path)),
    responses(
        (status = 200, body = PaymentDto),
        (status = 202, body = PaymentDto,
            description = "Confirmed, but not durable yet. Repeat the call."),
        (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`payment_voided`: too late; `already_confirmed` with another reference; \
                `reference_used` by another payment; `not_external`"),
        (status = 422, body = ProblemDetails,
            description = "`amount_mismatch` with `due_amount`; `invalid_request`"),
    ),
    security(("service_key" = []))
)]
async fn confirm(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<PaymentId>,
    ServiceCaller(owner): ServiceCaller,
    JsonBody(body): JsonBody<PaymentConfirmation>,
) -> Result<Response, ProblemDetails> {
    check_name("provider", &body.provider, MAX_PROVIDER_LENGTH)?;
    check_name("reference", &body.reference, MAX_REFERENCE_LENGTH)?;
    let proof =
        ProviderProof { provider: body.provider, reference: body.reference, amount: body.amount };
    let outcome = payments.confirm_external(id, owner, proof).await;
    super::count_confirmation(&outcome);
    Ok(answer(&payments, outcome?))
}

/// Void an external payment that waits for its provider
///
/// With a service key, or by the user. The coupon and the wallet part are given back, and the seats
/// are held again until the hold ends. A payment that is voided already reads as it is.
#[utoipa::path(
    post,
    path = "/v1/payments/{id}/void",
    operation_id = "voidPayment",
    tag = "payment",
    request_body = Option<PaymentVoid>,
    params(("id" = PaymentId, Path)),
    responses(
        (status = 200, body = PaymentDto),
        (status = 202, body = PaymentDto),
        (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`not_voidable`: confirmed, or paid by wallet"),
        (status = 422, body = ProblemDetails),
    ),
    security(("service_key" = []), ("user" = []), ("queue_token" = []))
)]
async fn void(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<PaymentId>,
    VoidingCaller(owner): VoidingCaller,
    body: OptionalJsonBody<PaymentVoid>,
) -> Result<Response, ProblemDetails> {
    let reason = check_reason(body.value.reason)?;
    Ok(answer(&payments, payments.void_external(id, owner, reason).await?))
}

/// Report that the provider has paid money back
///
/// Only with a service key. A cancellation gives back the wallet part first, and what is left is
/// due from the provider: the payment reads `refund_due` with `refund_due_amount` until the backend
/// has reported all of it. The same call again gets the same answer.
#[utoipa::path(
    post,
    path = "/v1/payments/{id}/refunded",
    operation_id = "reportRefund",
    tag = "payment",
    request_body = RefundReport,
    params(("id" = PaymentId, Path)),
    responses(
        (status = 200, body = PaymentDto),
        (status = 202, body = PaymentDto),
        (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 422, body = ProblemDetails,
            description = "`amount_mismatch` with `due_amount`: more than is due, or another amount with \
                the same reference; `invalid_request`"),
    ),
    security(("service_key" = []))
)]
async fn report_refund(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<PaymentId>,
    ServiceCaller(owner): ServiceCaller,
    JsonBody(body): JsonBody<RefundReport>,
) -> Result<Response, ProblemDetails> {
    check_name("reference", &body.reference, MAX_REFERENCE_LENGTH)?;
    if body.amount == Money::ZERO {
        return Err(ProblemDetails::invalid_field("amount", "must be at least 1"));
    }
    let outcome = payments.report_refund(id, owner, body.reference, body.amount).await?;
    Ok(answer(&payments, outcome))
}

/// A payment whose provider has to pay money back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefundDue)]
struct RefundDueDto {
    payment_id: PaymentId,
    reservation_id: ReservationId,
    user_id: UserName,
    provider: Option<String>,
    /// The provider's name of its payment.
    reference: Option<String>,
    refund_due_amount: Money,
    currency: CurrencyCode,
    /// Since when the refund is due.
    due_since: UnixMillis,
}

/// A page of payments with a refund due, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefundsDue)]
struct RefundsDueDto {
    items: Vec<RefundDueDto>,
    /// The value of `before` for the next page. Null on the last page.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

/// List the payments whose provider has to pay money back, newest first
///
/// The list is as of the last flush to MySQL, usually less than a second ago.
#[utoipa::path(
    get,
    path = "/admin/refunds-due",
    operation_id = "listRefundsDue",
    tag = "payment",
    params(PaymentsQuery),
    responses(
        (status = 200, body = RefundsDueDto),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn list_refunds_due(
    State(payments): State<Arc<PaymentService>>,
    Extension(users): Extension<Arc<UserDirectory>>,
    QueryParams(page): QueryParams<PaymentsQuery>,
) -> Result<JsonBody<RefundsDueDto>, ProblemDetails> {
    let before = page.before.unwrap_or(PageCursor::START);
    let due = sql::with_refund_due(&payments.mysql, before, page.limit.get() + 1).await;
    let (due, next) = page::cut(due.map_err(Error::from)?, page.limit, |payment| PageCursor {
        at: due_since(payment),
        id: payment.id.uuid(),
    });
    let names = users.names(due.iter().map(|payment| payment.user)).await?;
    let items = due.into_iter().map(|payment| {
        let external = payment.external.as_deref();
        RefundDueDto {
            user_id: names.of(payment.user),
            payment_id: payment.id,
            reservation_id: payment.reservation,
            provider: external.and_then(|external| external.provider.clone()),
            reference: external.and_then(|external| external.reference.clone()),
            refund_due_amount: payment.refund_due(),
            currency: payments.seats.currency(),
            due_since: UnixMillis(due_since(&payment)),
        }
    });
    Ok(JsonBody(RefundsDueDto { items: items.collect(), next }))
}

fn due_since(payment: &Payment) -> i64 {
    payment.external.as_ref().and_then(|external| external.refund_due_since).unwrap_or_default()
}

/// Parses all request bodies of these routes, for `fuzz_tests`.
#[cfg(test)]
pub(super) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<PaymentConfirmation>(bytes);
    crate::http::json::parse_as::<PaymentVoid>(bytes);
    crate::http::json::parse_as::<RefundReport>(bytes);
}
