//! The steps of a cancellation: a confirmed reservation is refunded and its seats become free.
//!
//! ```text
//! 1 begin_cancel ─→ 2 refund ─→ 3 finish_cancel
//! ```
//!
//! `begin_cancel` is the commit point. It compares and sets the reservation `confirmed →
//! cancelling` and the payment `confirmed → refunding`. After it, any instance can take any step,
//! repeatedly and late: the refund has its own operation id in the wallet, so it happens once. The
//! seats become free only after it. The sweep finishes a cancellation that is overdue
//! ([`finish_overdue`]).
//!
//! `tests/model` checks these steps in every order.

use std::sync::Arc;

use super::flow::lost_payment;
use super::record::{Payment, PaymentState};
use super::{Error, PaymentService, cancel_store as store, discount, sql};
use crate::idempotency::{BindOutcome, KeyedRequest};
use crate::ids::ReservationId;
use crate::redis;
use crate::seats::{Reservation, ReservationStatus};

/// A cancellation after its commit point.
#[derive(Debug)]
pub(super) struct PaymentCancellation {
    /// Redis' clock, in milliseconds since 1970.
    pub(super) now: i64,
    pub(super) reservation: Reservation,
    /// The payment of the reservation, if Redis has it.
    pub(super) payment: Option<Payment>,
    /// Whether this repeats the outcome of an earlier request with the same idempotency key.
    pub(super) replayed: bool,
    /// Whether the outcome is as durable as configured.
    pub(super) is_durable: bool,
}

impl PaymentCancellation {
    /// Whether the money is refunded and the seats are free.
    pub(super) fn is_done(&self) -> bool {
        self.reservation.status == ReservationStatus::Cancelled
    }
}

/// Takes all steps of a cancellation, until a store fails after the commit point.
pub(super) async fn cancel(
    service: Arc<PaymentService>,
    id: ReservationId,
    keyed: KeyedRequest,
) -> Result<PaymentCancellation, Error> {
    let replayed = match service.idempotency.bind(keyed.clone(), *id.as_bytes()).await? {
        BindOutcome::Bound => false,
        BindOutcome::AlreadyBound(_) => true,
        BindOutcome::OtherRequest => return Err(Error::KeyReused),
    };
    let outcome = run_steps(&service, id, &keyed, replayed).await;
    // These errors are final, so the key can be used for another request.
    if let Err(Error::NotFound | Error::NotCancellable | Error::CancellationClosed) = outcome {
        service.idempotency.release(&keyed, *id.as_bytes()).await?;
    }
    outcome
}

async fn run_steps(
    service: &PaymentService,
    id: ReservationId,
    keyed: &KeyedRequest,
    replayed: bool,
) -> Result<PaymentCancellation, Error> {
    let cancellation = |now, reservation, payment| PaymentCancellation {
        now,
        reservation,
        payment,
        replayed,
        is_durable: true,
    };
    let (now, reservation) = service.seats.find(id, keyed.user).await?;
    match begin_cancel(service, &reservation, keyed).await? {
        store::BeginCancelOutcome::Pending(now, payment, reservation) => {
            let finished = finish(service, &payment, &reservation).await;
            let (now, reservation) = finished.unwrap_or_else(|error| {
                tracing::warn!(
                    payment = %payment.id,
                    %error,
                    "a step failed, the sweep will finish the cancellation"
                );
                (now, reservation)
            });
            Ok(cancellation(now, reservation, Some(payment)))
        }
        // Cancelled by an earlier request with the same key.
        store::BeginCancelOutcome::Cancelled(now, payment, reservation) => {
            Ok(cancellation(now, reservation, payment))
        }
        store::BeginCancelOutcome::NotInRedis
            if replayed && reservation.status == ReservationStatus::Cancelled =>
        {
            Ok(cancellation(now, reservation, None))
        }
        store::BeginCancelOutcome::NotConfirmed | store::BeginCancelOutcome::NotInRedis => {
            Err(Error::NotCancellable)
        }
        store::BeginCancelOutcome::CancellationClosed => Err(Error::CancellationClosed),
    }
}

/// Step 1, the commit point. When the reservation was pruned from Redis, takes its payment from
/// MySQL.
async fn begin_cancel(
    service: &PaymentService,
    reservation: &Reservation,
    keyed: &KeyedRequest,
) -> Result<store::BeginCancelOutcome, Error> {
    let closes_at = service.seats.cancel_until(reservation).unwrap_or(0);
    match store::begin_cancel(&service.redis, reservation, closes_at, keyed, None).await? {
        store::BeginCancelOutcome::NotInRedis
            if reservation.status == ReservationStatus::Confirmed =>
        {
            let Some(payment) = sql::confirmed_of(&service.mysql, reservation.id).await? else {
                return Ok(store::BeginCancelOutcome::NotInRedis);
            };
            Ok(store::begin_cancel(&service.redis, reservation, closes_at, keyed, Some(&payment))
                .await?)
        }
        outcome => Ok(outcome),
    }
}

/// Steps 2 and 3.
async fn finish(
    service: &PaymentService,
    payment: &Payment,
    reservation: &Reservation,
) -> Result<(i64, Reservation), redis::Error> {
    refund(service, payment).await?;
    let (now, payment, reservation) = store::finish_cancel(&service.redis, payment, reservation)
        .await?
        .ok_or_else(lost_payment)?;
    service.writer.wake();
    super::count_payment(&payment);
    Ok((now, reservation))
}

/// Step 2: returns the coupon issue and refunds the wallet, each with its own operation id.
async fn refund(service: &PaymentService, payment: &Payment) -> Result<(), redis::Error> {
    discount::return_issue(service, payment).await?;
    let attempt = (payment.id, payment.attempt);
    if service
        .wallet
        .refund_cancelled(payment.user, attempt, payment.created_at, payment.to_pay())
        .await?
    {
        Ok(())
    } else {
        Err(redis::Error::Unavailable("the wallet can't be credited yet".into()))
    }
}

/// Finishes an overdue cancellation.
pub(super) async fn finish_overdue(
    service: &PaymentService,
    payment: &Payment,
) -> Result<Payment, redis::Error> {
    let partition = service.redis.keys().partition(payment.id.slot());
    let (payment, reservation) =
        service.read.submit(partition, payment.id).await?.ok_or_else(lost_payment)?;
    if payment.state == PaymentState::Refunding {
        finish(service, &payment, &reservation.ok_or_else(lost_payment)?).await?;
    }
    Ok(payment)
}
