//! The routes of payments.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::record::PaymentState;
use super::{Error, PaymentService, PaymentWithReservation};
use crate::http::idempotency::{IdempotencyKey, REPLAYED_HEADER, fingerprint};
use crate::http::identity::AuthenticatedUser;
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, JsonBodyWithBytes, ProblemDetails};
use crate::idempotency::KeyedRequest;
use crate::ids::{PaymentId, ReservationId};
use crate::money::{CurrencyCode, Money};
use crate::queue::{BuyerToken, RequestOwner, wrong_queue};
use crate::seats::ReservedSeat;
use crate::time::UnixMillis;

pub fn router() -> OpenApiRouter<Arc<PaymentService>> {
    OpenApiRouter::new()
        .routes(routes!(pay, list))
        .routes(routes!(show))
        .routes(routes!(super::cancel_routes::cancel))
        .merge(super::external_routes::router())
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPayment {
    /// The reservation to pay for. A malformed id is answered with `not_found`.
    reservation_id: String,
    /// Who takes the money: the wallet, or a provider that the booking backend calls. The default
    /// is `wallet`.
    #[serde(default)]
    method: PaymentMethod,
    /// Only with the method `external`: the part that the wallet pays. It must leave something for
    /// the provider. The default is 0.
    wallet_amount: Option<Money>,
    /// The coupon issue to redeem. A malformed id is answered with `coupon_not_applicable`.
    coupon_issue_id: Option<String>,
    /// What the user expects to pay after the discount, by wallet and provider together. When it
    /// differs, nothing is paid and the answer is `amount_changed`.
    expected_amount: Option<Money>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PaymentMethod {
    #[default]
    Wallet,
    External,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PaymentStatus {
    Pending,
    Confirmed,
    Declined,
    Voided,
    /// Some or all seats are cancelled, and the provider has to pay money back.
    RefundDue,
    Refunded,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentDto {
    id: PaymentId,
    reservation_id: ReservationId,
    method: PaymentMethod,
    concert_title: String,
    /// The start of the show when the seats were held. Null when it is not known.
    starts_at: Option<UnixMillis>,
    /// The seats, also those that are cancelled. Empty when the hold was lost after the payment had
    /// failed.
    seats: Vec<ReservedSeat>,
    /// The price of the seats.
    amount: Money,
    /// The discount of the coupon.
    discount: Money,
    /// What wallet and provider took together. 0 unless confirmed or refunded.
    paid: Money,
    /// The part that the wallet pays or paid.
    wallet_amount: Money,
    /// What is left for the provider. Null for a payment by wallet.
    due_amount: Option<Money>,
    /// Until when the payment waits for its provider. Null unless it does.
    due_at: Option<UnixMillis>,
    /// Who took `due_amount`. Null until then.
    provider: Option<String>,
    /// The provider's name of its payment.
    reference: Option<String>,
    /// The sum of what cancelled seats gave back.
    refunded: Money,
    /// What the provider has to pay back of it.
    refund_due_amount: Money,
    currency: CurrencyCode,
    /// `refunded` once all seats are cancelled, and `refund_due` while the provider has to pay
    /// money back.
    status: PaymentStatus,
    /// Why the payment was declined or voided.
    reason: Option<String>,
    /// The balance of the wallet after the debit. Null unless debited.
    balance_after: Option<Money>,
    created_at: UnixMillis,
    /// When the payment reached its status, or was last refunded in part. Null while pending.
    settled_at: Option<UnixMillis>,
}

pub(super) fn dto(payments: &PaymentService, outcome: PaymentWithReservation) -> PaymentDto {
    let PaymentWithReservation { payment, reservation, is_durable, .. } = outcome;
    let (concert_title, starts_at) = reservation
        .as_ref()
        .map_or_else(Default::default, |reservation| payments.seats.title_and_start(reservation));
    let status = match payment.state {
        // An outcome that is not durable yet could still be lost.
        _ if !is_durable => PaymentStatus::Pending,
        PaymentState::Pending | PaymentState::Voiding => PaymentStatus::Pending,
        _ if payment.refund_due() > Money::ZERO => PaymentStatus::RefundDue,
        PaymentState::Confirmed | PaymentState::Refunding => PaymentStatus::Confirmed,
        PaymentState::Declined => PaymentStatus::Declined,
        PaymentState::Voided => PaymentStatus::Voided,
        PaymentState::Refunded => PaymentStatus::Refunded,
    };
    let was_paid = matches!(
        status,
        PaymentStatus::Confirmed | PaymentStatus::RefundDue | PaymentStatus::Refunded
    );
    let external = payment.external.as_deref().cloned();
    let waits = |_: &i64| status == PaymentStatus::Pending;
    PaymentDto {
        method: if external.is_some() { PaymentMethod::External } else { PaymentMethod::Wallet },
        wallet_amount: payment.wallet_amount(),
        refund_due_amount: if was_paid { payment.refund_due() } else { Money::ZERO },
        id: payment.id,
        reservation_id: payment.reservation,
        concert_title,
        starts_at,
        seats: reservation.map_or_else(Vec::new, |reservation| reservation.seats),
        amount: payment.amount,
        discount: payment.discount,
        paid: if was_paid { payment.to_pay() } else { Money::ZERO },
        refunded: if was_paid { payment.refunded } else { Money::ZERO },
        currency: payments.seats.currency(),
        status,
        balance_after: payment.balance_after,
        created_at: UnixMillis(payment.created_at),
        due_amount: external.as_ref().and_then(|external| external.due_amount),
        due_at: external.as_ref().and_then(|it| it.due_at).filter(waits).map(UnixMillis),
        provider: external.as_ref().and_then(|external| external.provider.clone()),
        reference: external.and_then(|external| external.reference),
        reason: payment.reason,
        settled_at: (status != PaymentStatus::Pending).then_some(UnixMillis(payment.at)),
    }
}

/// Pay for a held reservation
///
/// Debits the wallet and confirms the reservation. After 202, get the payment until its status is
/// not `pending`. With the method `external` the payment stays `pending` until `due_at`: the seats
/// stay held, and the booking backend confirms the payment when the provider has taken
/// `due_amount`.
#[utoipa::path(
    post,
    path = "/v1/payments",
    operation_id = "createPayment",
    tag = "payment",
    request_body = NewPayment,
    params(("Idempotency-Key" = String, Header)),
    responses(
        (status = 201, body = PaymentDto),
        (status = 202, body = PaymentDto,
            description = "The outcome is not known yet, or not durable yet."),
        (status = 400, body = ProblemDetails),
        (status = 401, body = ProblemDetails),
        (status = 402, body = ProblemDetails, description = "`insufficient_balance`"),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`not_payable`; `amount_changed` with `amount`, what would be paid; \
                `too_many_pending`: three external payments of the user wait"),
        (status = 410, body = ProblemDetails, description = "`hold_expired`"),
        (status = 422, body = ProblemDetails,
            description = "`coupon_not_applicable`, `coupon_expired`"),
    ),
    security(("queue_token" = []))
)]
async fn pay(
    State(payments): State<Arc<PaymentService>>,
    BuyerToken(claims): BuyerToken,
    key: IdempotencyKey,
    OriginalUri(uri): OriginalUri,
    new: JsonBodyWithBytes<NewPayment>,
) -> Result<Response, ProblemDetails> {
    let reservation = new.value.reservation_id.parse().map_err(|_| ProblemDetails::not_found())?;
    let issue = new
        .value
        .coupon_issue_id
        .map(|id| id.parse().map_err(|_| Error::CouponNotApplicable))
        .transpose()?;
    let wallet_amount = match (new.value.method, new.value.wallet_amount) {
        (PaymentMethod::Wallet, None) => None,
        (PaymentMethod::Wallet, Some(_)) => {
            let message = "requires the method `external`";
            return Err(ProblemDetails::invalid_field("wallet_amount", message));
        }
        (PaymentMethod::External, amount) => Some(amount.unwrap_or(Money::ZERO)),
    };
    let fingerprint = fingerprint(&Method::POST, uri.path(), &new.bytes);
    let keyed = KeyedRequest { user: claims.user, key: key.as_str().to_owned(), fingerprint };
    let expected = new.value.expected_amount;
    let order = super::PaymentOrder { reservation, issue, expected, wallet_amount };
    match payments.pay(claims, order, keyed).await {
        Ok(outcome) => {
            let status =
                if outcome.is_durable { StatusCode::CREATED } else { StatusCode::ACCEPTED };
            let replayed = outcome.replayed.then_some((REPLAYED_HEADER, "true"));
            Ok((status, AppendHeaders(replayed), JsonBody(dto(&payments, outcome))).into_response())
        }
        Err(Error::OutcomePending(pending)) => {
            Ok((StatusCode::ACCEPTED, JsonBody(dto(&payments, *pending))).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PaymentsQuery {
    /// The maximum number of payments, 1…500. The default is 50.
    #[serde(default)]
    pub(super) limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    pub(super) before: Option<PageCursor>,
}

/// A page of payments, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payments)]
struct PaymentsDto {
    items: Vec<PaymentDto>,
    /// The value of `before` for the next page. Null on the last page.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

/// List the user's payments, newest first
///
/// The list has payments in progress and payments that have ended, in any status.
#[utoipa::path(
    get,
    path = "/v1/payments",
    operation_id = "listPayments",
    tag = "payment",
    params(PaymentsQuery),
    responses(
        (status = 200, body = PaymentsDto),
        (status = 401, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("user" = []))
)]
async fn list(
    State(payments): State<Arc<PaymentService>>,
    AuthenticatedUser(user): AuthenticatedUser,
    QueryParams(page): QueryParams<PaymentsQuery>,
) -> Result<JsonBody<PaymentsDto>, ProblemDetails> {
    let before = page.before.unwrap_or(PageCursor::START);
    let (items, next) = payments.list_own(user, page.limit, before).await?;
    let items = items.into_iter().map(|payment| dto(&payments, payment)).collect();
    Ok(JsonBody(PaymentsDto { items, next }))
}

/// Get a payment of the user
#[utoipa::path(
    get,
    path = "/v1/payments/{id}",
    operation_id = "getPayment",
    tag = "payment",
    params(("id" = PaymentId, Path)),
    responses(
        (status = 200, body = PaymentDto),
        (status = 401, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
    ),
    security(("user" = []), ("queue_token" = []))
)]
async fn show(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<PaymentId>,
    RequestOwner(user): RequestOwner,
) -> Result<JsonBody<PaymentDto>, ProblemDetails> {
    let payment = payments.find(id, user).await?;
    Ok(JsonBody(dto(&payments, payment)))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::NotFound => Self::not_found(),
            Error::WrongQueue => wrong_queue(),
            Error::InsufficientBalance => {
                Self::new(StatusCode::PAYMENT_REQUIRED, "insufficient_balance", detail)
            }
            Error::CouponNotApplicable => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "coupon_not_applicable", detail)
            }
            Error::AmountChanged(amount) => {
                Self::new(StatusCode::CONFLICT, "amount_changed", detail).with("amount", amount)
            }
            Error::CouponExpired => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "coupon_expired", detail)
            }
            Error::NothingDue => Self::invalid_field("wallet_amount", detail),
            Error::TooManyPending => Self::new(StatusCode::CONFLICT, "too_many_pending", detail),
            Error::PaymentVoided => Self::new(StatusCode::CONFLICT, "payment_voided", detail),
            Error::AlreadyConfirmed => Self::new(StatusCode::CONFLICT, "already_confirmed", detail),
            Error::ReferenceUsed => Self::new(StatusCode::CONFLICT, "reference_used", detail),
            Error::AmountMismatch(due) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "amount_mismatch", detail)
                    .with("due_amount", due)
            }
            Error::NotExternal => Self::new(StatusCode::CONFLICT, "not_external", detail),
            Error::NotVoidable => Self::new(StatusCode::CONFLICT, "not_voidable", detail),
            Error::HoldExpired => Self::new(StatusCode::GONE, "hold_expired", detail),
            Error::NotPayable => Self::new(StatusCode::CONFLICT, "not_payable", detail),
            Error::NotCancellable => Self::new(StatusCode::CONFLICT, "not_cancellable", detail),
            Error::InvalidSeats(message) => Self::invalid_field("seats", message),
            Error::CancellationClosed => {
                Self::new(StatusCode::FORBIDDEN, "cancellation_closed", detail)
            }
            Error::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            Error::Voided | Error::OutcomePending(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
            }
            Error::Seats(error) => error.into(),
            Error::Queue(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Parses all request bodies of this module, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<NewPayment>(bytes);
    crate::http::json::parse_as::<super::cancel_routes::CancelledSeats>(bytes);
    super::admin_routes::read_bodies(bytes);
    super::external_routes::read_bodies(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn futures_of_frequent_handlers_are_small() {
        assert!(future_size::of(|| pay(any(), any(), any(), any(), any())) <= MAX_BYTES);
    }
}
