//! The steps of a payment: try, confirm, cancel.
//!
//! ```text
//! begin ─→ (take) ─→ debit ─→ confirm ─→ (settle)      (paid)
//!             │        │         │ refused: the attempt is being turned back
//!             ↓        ↓         ↓
//!           void ──→ refund ─→ (give back) ─→ voided   (declined, voided)
//! ```
//!
//! The steps in brackets are a coupon's ([`discount`]), where the payment uses one.
//!
//! Each step is one idempotent script on one partition, so any instance may take any step at any time, twice or late. `confirm` is the commit point: it
//! compares and sets `pending → confirmed`, as `void` does `pending → voiding`; one of them wins. The debit is named by payment and
//! attempt, and a refund leaves a tombstone under that name, so a debit that comes after it is refused. A payment that is past its due time is driven
//! to an end by the sweep ([`finish`]). `tests/model` takes these steps, under these names, in every order.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::record::{Payment, PaymentState};
use super::rules::{INSUFFICIENT, NOT_APPLICABLE, OVERDUE};
use super::{Error, PaymentOrder, PaymentService, PaymentWithReservation, discount, store};
use crate::coupons::RedemptionOutcome;
use crate::idempotency::{BindOutcome, KeyedRequest};
use crate::ids::PaymentId;
use crate::queue::Claims;
use crate::redis;
use crate::seats::{Reservation, ReservationStatus};
use crate::wallet::DebitOutcome;

/// Pays a reservation, from the key to an end, or as far as the stores answer. `begun` hears of the payment as soon as it is pending.
pub(super) async fn pay(
    on: Arc<PaymentService>,
    claims: Claims,
    order: PaymentOrder,
    keyed: KeyedRequest,
    begun: oneshot::Sender<PaymentWithReservation>,
) -> Result<PaymentWithReservation, Error> {
    let fresh = PaymentId::new(order.reservation.slot());
    let (payment, replayed) = match on.idempotency.bind(keyed.clone(), *fresh.as_bytes()).await? {
        BindOutcome::Now => (fresh, false),
        BindOutcome::Before(id) => (PaymentId::from_slice(&id).unwrap_or(fresh), true),
        BindOutcome::Elsewhere => return Err(Error::KeyReused),
    };
    match begin(&on, &claims, payment, order, &keyed).await {
        Ok((payment, reservation)) => {
            let replayed = replayed && payment.state == PaymentState::Confirmed;
            // Nobody may be listening any more; the flow goes on all the same.
            let _ = begun.send(PaymentWithReservation {
                payment: payment.clone(),
                reservation: reservation.clone(),
                replayed,
                written: true,
            });
            let (payment, reservation) = drive(&on, payment, reservation).await;
            Ok(PaymentWithReservation { payment, reservation, replayed, written: true })
        }
        Err(refusal) => {
            // What is not there, not the user's or lapsed stays so: the key made nothing and never can, so it may serve another request.
            if matches!(refusal, Error::NotFound | Error::WrongQueue | Error::HoldExpired) {
                on.idempotency.release(&keyed, *payment.as_bytes()).await?;
            }
            Err(refusal)
        }
    }
}

/// Step 1. A pending attempt, or the end that was reached before.
async fn begin(
    on: &PaymentService,
    claims: &Claims,
    payment: PaymentId,
    PaymentOrder { reservation, issue }: PaymentOrder,
    keyed: &KeyedRequest,
) -> Result<(Payment, Reservation), Error> {
    let partition = |slot| on.redis.keys().partition(slot);
    if partition(reservation.slot()) != partition(claims.queue.slot()) {
        // The reservation can't be of this token's queue. Whether it is the user's decides how to say so.
        on.seats.find(reservation, claims.user).await?;
        return Err(Error::WrongQueue);
    }
    let coupon = match issue {
        Some(issue) => on.coupons.coupon_of(issue, claims.user).await?,
        None => None,
    };
    let beginning = store::BeginRequest {
        payment,
        reservation,
        user: claims.user,
        issue,
        coupon,
        keyed: keyed.clone(),
    };
    match on.begin.submit(claims.queue.clone(), beginning).await? {
        store::BeginOutcome::Pending(payment, reservation)
        | store::BeginOutcome::Past(payment, reservation) => Ok((payment, reservation)),
        store::BeginOutcome::HoldExpired => Err(Error::HoldExpired),
        store::BeginOutcome::NotPayable => Err(Error::NotPayable),
        store::BeginOutcome::WrongQueue => Err(Error::WrongQueue),
        // Redis keeps what has ended only for a while; MySQL says whose it was.
        store::BeginOutcome::NotFound => {
            let (now, reservation) = on.seats.find(reservation, claims.user).await?;
            Err(if reservation.status_at(now) == ReservationStatus::Expired {
                Error::HoldExpired
            } else {
                Error::NotPayable
            })
        }
    }
}

/// Steps 2 to 5, from wherever the payment stands. A step that gets no answer leaves the rest to the sweep.
async fn drive(
    on: &PaymentService,
    payment: Payment,
    reservation: Reservation,
) -> (Payment, Reservation) {
    let outcome = match payment.state {
        PaymentState::Pending => debit_and_confirm(on, &payment, &reservation).await,
        PaymentState::Voiding => {
            refund_and_end(on, &payment).await.map(|payment| (payment, reservation.clone()))
        }
        PaymentState::Confirmed
        | PaymentState::Declined
        | PaymentState::Voided
        | PaymentState::Refunding
        | PaymentState::Refunded => {
            return (payment, reservation);
        }
    };
    outcome.unwrap_or_else(|error| {
        tracing::warn!(payment = %payment.id, %error, "a payment is left to the sweep");
        (payment, reservation)
    })
}

/// Steps 2 and 3.
async fn debit_and_confirm(
    on: &PaymentService,
    payment: &Payment,
    reservation: &Reservation,
) -> Result<(Payment, Reservation), redis::Error> {
    let back = async |reason| {
        turn_back(on, payment, reason).await.map(|payment| (payment, reservation.clone()))
    };
    let discount = match discount::take(on, payment).await? {
        RedemptionOutcome::Done(discount) => discount,
        RedemptionOutcome::NotApplicable => return back(NOT_APPLICABLE).await,
        RedemptionOutcome::Tombstone => return back(OVERDUE).await,
    };
    let to_pay = Payment { discount, ..payment.clone() }.to_pay();
    let balance_after =
        match on.wallet.debit(payment.user, payment.id, payment.attempt, to_pay).await? {
            DebitOutcome::Done(balance) => balance,
            DebitOutcome::Insufficient => return back(INSUFFICIENT).await,
            DebitOutcome::Tombstone => return back(OVERDUE).await,
        };
    let hall = store::ConfirmScope {
        queue: reservation.queue.clone(),
        schedule: reservation.schedule.clone(),
    };
    let (id, attempt) = (payment.id, payment.attempt);
    let confirmation = store::ConfirmRequest { payment: id, attempt, balance_after, discount };
    let Some((payment, reservation)) = on.confirm.submit(hall, confirmation).await? else {
        return gone(on, payment).await.map(|payment| (payment, reservation.clone()));
    };
    on.nudge.poke();
    match payment.state {
        PaymentState::Declined | PaymentState::Voided => {
            gone(on, &payment).await.map(|payment| (payment, reservation))
        }
        PaymentState::Voiding => {
            refund_and_end(on, &payment).await.map(|payment| (payment, reservation))
        }
        _ => {
            if let Err(error) = discount::settle(on, &payment).await {
                tracing::warn!(payment = %payment.id, %error, "a paid coupon is left to the sweep");
            }
            Ok((payment, reservation))
        }
    }
}

/// What began was lost with its partition, or came to an end of which the wallet lost its record. What was taken since then goes back.
async fn gone(on: &PaymentService, payment: &Payment) -> Result<Payment, redis::Error> {
    on.wallet.refund(payment.user, payment.id, payment.attempt).await?;
    discount::give_back(on, payment).await?;
    on.nudge.poke();
    Ok(Payment { state: PaymentState::Voided, ..payment.clone() })
}

/// Drives an overdue payment to its end: turns it back, unless it is confirmed and only its coupon is not yet marked as used.
pub(super) async fn finish(
    on: &PaymentService,
    payment: &Payment,
) -> Result<Payment, redis::Error> {
    let payment = turn_back(on, payment, OVERDUE).await?;
    discount::settle(on, &payment).await?;
    Ok(payment)
}

/// Step 4, and with it the end. An attempt that was confirmed meanwhile stays confirmed.
async fn turn_back(
    on: &PaymentService,
    payment: &Payment,
    reason: &str,
) -> Result<Payment, redis::Error> {
    let after = store::void(&on.redis, payment, reason).await?;
    let payment =
        after.ok_or_else(|| redis::Error::Protocol("a payment that began is gone".into()))?;
    match payment.state {
        PaymentState::Voiding => refund_and_end(on, &payment).await,
        _ => Ok(payment),
    }
}

/// Step 5: gives back what the attempt debited and took, then ends it.
async fn refund_and_end(on: &PaymentService, payment: &Payment) -> Result<Payment, redis::Error> {
    on.wallet.refund(payment.user, payment.id, payment.attempt).await?;
    discount::give_back(on, payment).await?;
    let after = store::finish_void(&on.redis, payment).await?;
    on.nudge.poke();
    after.ok_or_else(|| redis::Error::Protocol("a payment that began is gone".into()))
}
