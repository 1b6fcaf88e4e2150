//! Payments over HTTP.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::record::PaymentState;
use super::{Error, PaymentService, PaymentWithReservation};
use crate::http::idempotency::{IdempotencyKey, REPLAYED_HEADER, fingerprint};
use crate::http::path::PathParams;
use crate::http::{JsonBody, JsonBodyWithBytes, ProblemDetails};
use crate::idempotency::KeyedRequest;
use crate::ids::{PaymentId, ReservationId};
use crate::money::Money;
use crate::queue::{RequestOwner, TokenHolder, wrong_queue};
use crate::seats::ReservedSeat;
use crate::time::UnixMillis;

/// The routes of payments.
pub fn router() -> OpenApiRouter<Arc<PaymentService>> {
    OpenApiRouter::new()
        .routes(routes!(pay))
        .routes(routes!(show))
        .routes(routes!(super::cancel_routes::cancel))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPayment {
    /// The reservation to pay for. Its id is opaque: what can't be one is not found.
    reservation_id: String,
    /// The issue of a coupon to be used. Opaque too: what can't be one is not applicable.
    coupon_issue_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PaymentStatus {
    Pending,
    Confirmed,
    Declined,
    Voided,
    Refunded,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
struct PaymentDto {
    id: PaymentId,
    reservation_id: ReservationId,
    concert_title: String,
    starts_at: Option<UnixMillis>,
    seats: Vec<ReservedSeat>,
    amount: Money,
    discount: Money,
    paid: Money,
    status: PaymentStatus,
    balance_after: Option<Money>,
    created_at: UnixMillis,
    settled_at: Option<UnixMillis>,
}

fn dto(payments: &PaymentService, settlement: PaymentWithReservation) -> PaymentDto {
    let PaymentWithReservation { payment, reservation, written, .. } = settlement;
    let (concert_title, starts_at) = payments.seats.title_and_start(&reservation);
    let status = match payment.state {
        _ if !written => PaymentStatus::Pending,
        PaymentState::Pending | PaymentState::Voiding => PaymentStatus::Pending,
        PaymentState::Confirmed | PaymentState::Refunding => PaymentStatus::Confirmed,
        PaymentState::Declined => PaymentStatus::Declined,
        PaymentState::Voided => PaymentStatus::Voided,
        PaymentState::Refunded => PaymentStatus::Refunded,
    };
    let was_paid = matches!(status, PaymentStatus::Confirmed | PaymentStatus::Refunded);
    PaymentDto {
        id: payment.id,
        reservation_id: payment.reservation,
        concert_title,
        starts_at,
        seats: reservation.seats,
        amount: payment.amount,
        discount: payment.discount,
        paid: if was_paid { payment.to_pay() } else { Money::ZERO },
        status,
        balance_after: payment.balance_after,
        created_at: UnixMillis(payment.created_at),
        settled_at: (status != PaymentStatus::Pending).then_some(UnixMillis(payment.at)),
    }
}

/// Pays for a held reservation.
#[utoipa::path(post, path = "/v1/payments", tag = "payment", request_body = NewPayment, params(("Idempotency-Key" = String, Header)),
    responses((status = 201, body = PaymentDto), (status = 202, body = PaymentDto, description = "The outcome is not known yet, or not yet known to be durable."),
        (status = 400, body = ProblemDetails), (status = 401, body = ProblemDetails),
        (status = 402, body = ProblemDetails, description = "`insufficient_balance`"), (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails, description = "`not_payable`"),
        (status = 410, body = ProblemDetails, description = "`hold_expired`"),
        (status = 422, body = ProblemDetails, description = "`coupon_not_applicable`")), security(("queue_token" = [])))]
async fn pay(
    State(payments): State<Arc<PaymentService>>,
    TokenHolder { claims, .. }: TokenHolder,
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
    let fingerprint = fingerprint(&Method::POST, uri.path(), &new.bytes);
    let keyed = KeyedRequest { user: claims.user, key: key.as_str().to_owned(), fingerprint };
    match payments.pay(claims, super::PaymentOrder { reservation, issue }, keyed).await {
        Ok(settlement) => {
            let status =
                if settlement.written { StatusCode::CREATED } else { StatusCode::ACCEPTED };
            let replayed = settlement.replayed.then_some((REPLAYED_HEADER, "true"));
            Ok((status, AppendHeaders(replayed), JsonBody(dto(&payments, settlement)))
                .into_response())
        }
        Err(Error::Unfinished(settlement)) => {
            Ok((StatusCode::ACCEPTED, JsonBody(dto(&payments, *settlement))).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// One's own payment.
#[utoipa::path(get, path = "/v1/payments/{id}", tag = "payment", params(("id" = PaymentId, Path)),
    responses((status = 200, body = PaymentDto), (status = 401, body = ProblemDetails), (status = 404, body = ProblemDetails)),
    security(("user" = []), ("queue_token" = [])))]
async fn show(
    State(payments): State<Arc<PaymentService>>,
    PathParams(id): PathParams<PaymentId>,
    RequestOwner(user): RequestOwner,
) -> Result<JsonBody<PaymentDto>, ProblemDetails> {
    let settlement = payments.find(id, user).await?;
    Ok(JsonBody(dto(&payments, settlement)))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound => Self::not_found(),
            Error::WrongQueue => wrong_queue(),
            Error::InsufficientBalance => {
                Self::new(StatusCode::PAYMENT_REQUIRED, "insufficient_balance", text)
            }
            Error::CouponNotApplicable => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "coupon_not_applicable", text)
            }
            Error::HoldExpired => Self::new(StatusCode::GONE, "hold_expired", text),
            Error::NotPayable => Self::new(StatusCode::CONFLICT, "not_payable", text),
            Error::NotCancellable => Self::new(StatusCode::CONFLICT, "not_cancellable", text),
            Error::CancellationClosed => {
                Self::new(StatusCode::FORBIDDEN, "cancellation_closed", text)
            }
            Error::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", text)
            }
            Error::TurnedBack | Error::Unfinished(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", text)
            }
            Error::Seats(error) => error.into(),
            Error::Queue(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Reads bodies of the kinds that this room takes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::try_as::<NewPayment>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn busy_handlers_are_light() {
        assert!(future_size::of(|| pay(any(), any(), any(), any(), any())) <= MAX_BYTES);
    }
}
