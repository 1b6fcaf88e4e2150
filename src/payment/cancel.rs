//! The steps of a cancellation: some or all seats of a confirmed reservation are refunded and
//! become free.
//!
//! ```text
//! 1 begin_cancel ─→ 2 refund ─→ 3 finish_cancel
//! ```
//!
//! `begin_cancel` is the commit point. It compares and sets the reservation `confirmed →
//! cancelling` and the payment `confirmed → refunding`, and fixes the seats and their refund. After
//! it, any instance can take any step, repeatedly and late: the wallet refunds up to the total that
//! the cancellation names, so once. The seats become free only after it. Another cancellation of
//! the same reservation finishes the one in progress first. The sweep finishes a cancellation that
//! is overdue ([`finish_overdue`]).
//!
//! The wallet part of an external payment is refunded first. What is left is due from the provider:
//! `finish_cancel` records it, and [`super::external`] how the backend reports it as paid back.
//!
//! Each cancellation stays in the record of its reservation with its key, so a repeated request
//! reads what its cancellation left, whatever was cancelled later.
//!
//! `tests/model` checks these steps in every order.

use std::sync::Arc;

use super::flow::lost_payment;
use super::record::{Payment, PaymentState, PendingCancellation};
use super::{Error, PaymentService, cancel_store as store, discount, rules, sql};
use crate::idempotency::{BindOutcome, KeyedRequest};
use crate::ids::ReservationId;
use crate::money::Money;
use crate::redis;
use crate::seats::{Reservation, ReservationStatus};
use crate::wallet::CancellationRefund;

/// The end of the year 9999, in milliseconds since 1970. An organiser may always cancel.
pub(super) const NEVER_CLOSES: i64 = 253_402_300_799_999;
/// A reservation has at most 100 seats, each of which another request may be cancelling.
const MAX_CANCELLATIONS_IN_THE_WAY: usize = 100;

/// A cancellation after its commit point.
#[derive(Debug)]
pub(super) struct PaymentCancellation {
    /// Redis' clock, in milliseconds since 1970.
    pub(super) now: i64,
    /// As the cancellation leaves it, whatever is cancelled later.
    pub(super) reservation: Reservation,
    /// The payment of the reservation, if Redis has it.
    pub(super) payment: Option<Payment>,
    /// Whether the money is refunded and the seats are free.
    pub(super) is_done: bool,
    /// Whether this repeats the outcome of an earlier request with the same idempotency key.
    pub(super) replayed: bool,
    /// Whether the outcome is as durable as configured.
    pub(super) is_durable: bool,
}

/// Takes all steps of a cancellation, until a store fails after the commit point. No `seats` means
/// all that are left. `closes_at` replaces the time until which the user could cancel.
pub(super) async fn cancel(
    service: Arc<PaymentService>,
    id: ReservationId,
    seats: Option<Vec<u32>>,
    keyed: KeyedRequest,
    closes_at: Option<i64>,
) -> Result<PaymentCancellation, Error> {
    let replayed = match service.idempotency.bind(keyed.clone(), *id.as_bytes()).await? {
        BindOutcome::Bound => false,
        BindOutcome::AlreadyBound(_) => true,
        BindOutcome::OtherRequest => return Err(Error::KeyReused),
    };
    let outcome = run_steps(&service, id, seats.as_deref(), &keyed, replayed, closes_at).await;
    // These errors are final, so the key can be used for another request.
    if let Err(
        Error::NotFound
        | Error::NotCancellable
        | Error::CancellationClosed
        | Error::InvalidSeats(_),
    ) = outcome
    {
        service.idempotency.release(&keyed, *id.as_bytes()).await?;
    }
    outcome
}

/// Cancels all seats that are left of a reservation on behalf of the organiser, whatever the
/// concert's `cancel_until` says. Calls with one key have one effect. Returns whether the money is
/// refunded and the seats are free.
pub(super) async fn cancel_for_organiser(
    service: &PaymentService,
    reservation: &Reservation,
    key: &str,
) -> Result<bool, Error> {
    let (user, key) = (reservation.user, key.to_owned());
    let keyed = KeyedRequest { user, key, fingerprint: [0; 16] };
    let outcome =
        run_steps(service, reservation.id, None, &keyed, false, Some(NEVER_CLOSES)).await?;
    Ok(outcome.is_done)
}

async fn run_steps(
    service: &PaymentService,
    id: ReservationId,
    seats: Option<&[u32]>,
    keyed: &KeyedRequest,
    replayed: bool,
    closes_at: Option<i64>,
) -> Result<PaymentCancellation, Error> {
    let cancellation = |now, reservation: Reservation, payment| PaymentCancellation {
        now,
        is_done: reservation.is_cancelled_by(&keyed.key),
        reservation: reservation.as_left_by(&keyed.key),
        payment,
        replayed,
        is_durable: true,
    };
    for _ in 0..MAX_CANCELLATIONS_IN_THE_WAY {
        let (now, reservation) = service.seats.find(id, keyed.user).await?;
        let refund = match seats {
            Some(seats) => rules::refund_of_seats(&reservation, seats)?,
            None => Money::ZERO,
        };
        let request = store::CancelRequest {
            reservation: &reservation,
            keyed,
            closes_at: closes_at
                .unwrap_or_else(|| service.seats.cancel_until(&reservation).unwrap_or(0)),
            seats: seats.unwrap_or_default(),
            refund,
        };
        return match begin_cancel(service, &request).await? {
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
            store::BeginCancelOutcome::Cancelled(now, payment, reservation) => {
                Ok(cancellation(now, reservation, payment))
            }
            store::BeginCancelOutcome::InTheWay(payment, reservation) => {
                finish(service, &payment, &reservation).await?;
                continue;
            }
            store::BeginCancelOutcome::NotInRedis if reservation.is_cancelled_by(&keyed.key) => {
                Ok(cancellation(now, reservation, None))
            }
            store::BeginCancelOutcome::NotConfirmed | store::BeginCancelOutcome::NotInRedis => {
                Err(Error::NotCancellable)
            }
            store::BeginCancelOutcome::CancellationClosed => Err(Error::CancellationClosed),
        };
    }
    Err(redis::Error::Overloaded.into())
}

/// Step 1, the commit point. When the reservation was pruned from Redis, takes its payment from
/// MySQL.
async fn begin_cancel(
    service: &PaymentService,
    request: &store::CancelRequest<'_>,
) -> Result<store::BeginCancelOutcome, Error> {
    match store::begin_cancel(&service.redis, request, None).await? {
        store::BeginCancelOutcome::NotInRedis
            if request.reservation.status == ReservationStatus::Confirmed =>
        {
            let paid = sql::confirmed_of(&service.mysql, request.reservation.id).await?;
            let Some(payment) = paid else {
                return Ok(store::BeginCancelOutcome::NotInRedis);
            };
            Ok(store::begin_cancel(&service.redis, request, Some(&payment)).await?)
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
    let cancellation = payment.cancelling.as_ref().ok_or_else(lost_payment)?;
    refund(service, payment, cancellation).await?;
    let (now, payment, reservation) =
        store::finish_cancel(&service.redis, payment, cancellation, reservation)
            .await?
            .ok_or_else(lost_payment)?;
    service.writer.wake();
    if payment.state == PaymentState::Refunded {
        super::count_payment(&payment);
    }
    Ok((now, reservation))
}

/// Step 2: returns the coupon issue with the last seats, and refunds the wallet, each with its own
/// operation id.
async fn refund(
    service: &PaymentService,
    payment: &Payment,
    cancellation: &PendingCancellation,
) -> Result<(), redis::Error> {
    if cancellation.last {
        discount::return_issue(service, payment).await?;
    }
    let refund = CancellationRefund {
        total: payment.wallet_refund(cancellation.total),
        last: cancellation.last,
        seats: &cancellation.seats,
    };
    let (operation, began) = (payment.operation(), payment.created_at);
    if service.wallet.refund_cancelled(operation, began, &refund).await? {
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
