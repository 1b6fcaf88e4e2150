//! The steps of a payment.
//!
//! A plain payment is made in one call ([`pay_in_one_call`]), which leaves what the steps leave. All
//! others take the steps.
//!
//! ```text
//! 1 begin ─→ (reserve) ─→ 2 debit ─→ 3 confirm ─→ (redeem)               confirmed
//!                │            │           │ refused: it is being voided
//!                ↓            ↓           ↓
//!             4 void ─────────────→ 5 refund ─→ (return) ─→ finish void  declined, voided
//! ```
//!
//! An external payment stops after its debit and waits for its provider ([`external`]).
//!
//! The steps in brackets change the coupon issue ([`discount`]), if the payment has one.
//!
//! Each step is one idempotent script on one partition. So any instance can take any step at
//! any time, repeatedly and late:
//! - `confirm` is the commit point. It compares and sets `pending → confirmed`. `void` compares
//!   and sets `pending → voiding`. Only one of them succeeds.
//! - The id of a debit consists of the payment and the attempt. A refund leaves a tombstone with
//!   this id, so a late debit is refused.
//! - The sweep finishes a payment that is overdue ([`finish_overdue`]).
//!
//! `tests/model` checks these steps in every order.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::record::{Payment, PaymentState};
use super::rules::{
    self, PaymentVerdict, REASON_AMOUNT_CHANGED, REASON_COUPON_EXPIRED,
    REASON_COUPON_NOT_APPLICABLE, REASON_INSUFFICIENT_BALANCE, REASON_NOTHING_DUE, REASON_OVERDUE,
    REASON_TOO_MANY_PENDING,
};
use super::{
    Error, PaymentOrder, PaymentService, PaymentWithReservation, discount, external,
    external_store, pay_store, store,
};
use crate::coupons::RedemptionOutcome;
use crate::idempotency::{BindOutcome, KeyedRequest};
use crate::ids::{CouponId, IssueId, PaymentId, ReservationId, UserId};
use crate::money::Money;
use crate::queue::Claims;
use crate::redis;
use crate::seats::{Reservation, ReservationStatus};
use crate::wallet::DebitOutcome;

/// The most schedules of a queue whose seats one call may name.
const MAX_SCHEDULES_IN_CALL: usize = 32;

/// Takes all steps of a payment, until a store fails. Sends the payment to `pending_sender` when it
/// is pending.
pub(super) async fn pay(
    service: Arc<PaymentService>,
    claims: Claims,
    order: PaymentOrder,
    keyed: KeyedRequest,
    pending_sender: oneshot::Sender<PaymentWithReservation>,
) -> Result<PaymentWithReservation, Error> {
    let new_id = PaymentId::new(order.reservation.slot());
    if let Some((payment, reservation)) =
        pay_in_one_call(&service, &claims, new_id, order, &keyed).await?
    {
        service.writer.wake();
        let reservation = Some(reservation);
        return Ok(PaymentWithReservation {
            payment,
            reservation,
            replayed: false,
            is_durable: true,
        });
    }
    // Bind the idempotency key to a payment id before anything happens under it.
    let bound = service.idempotency.bind(keyed.clone(), *new_id.as_bytes()).await?;
    let (payment, replayed) = match bound {
        BindOutcome::Bound => (new_id, false),
        BindOutcome::AlreadyBound(id) => (PaymentId::from_slice(&id).unwrap_or(new_id), true),
        BindOutcome::OtherRequest => return Err(Error::KeyReused),
    };
    match begin(&service, &claims, payment, order, &keyed).await {
        Ok((payment, reservation)) => {
            let replayed = replayed
                && matches!(
                    rules::verdict(&payment),
                    PaymentVerdict::Paid | PaymentVerdict::Awaited
                );
            // The receiver is gone when the request has timed out. The steps continue.
            let _ = pending_sender.send(PaymentWithReservation {
                payment: payment.clone(),
                reservation: Some(reservation.clone()),
                replayed,
                is_durable: true,
            });
            let (payment, reservation) =
                continue_payment(&service, payment, reservation, order.expected).await;
            let reservation = Some(reservation);
            Ok(PaymentWithReservation { payment, reservation, replayed, is_durable: true })
        }
        Err(refusal) => {
            // These errors are final: the key can never lead to a payment. Release it, so that
            // it can be used for another request.
            if matches!(
                refusal,
                Error::NotFound
                    | Error::WrongQueue
                    | Error::HoldExpired
                    | Error::NothingDue
                    | Error::AmountChanged(_)
            ) {
                service.idempotency.release(&keyed, *payment.as_bytes()).await?;
            }
            Err(refusal)
        }
    }
}

/// Binds the key, begins, debits and confirms in one call. `None` when nothing was changed and the
/// payment must be made in steps.
///
/// A lost reply is an error: the payment is confirmed, or nothing has happened. The next request
/// with the same key finds out which.
async fn pay_in_one_call(
    service: &PaymentService,
    claims: &Claims,
    payment: PaymentId,
    PaymentOrder { reservation, issue, expected, wallet_amount }: PaymentOrder,
    keyed: &KeyedRequest,
) -> Result<Option<(Payment, Reservation)>, redis::Error> {
    let partition = |slot| service.redis.keys().partition(slot);
    let schedules = service.seats.schedules_in_queue(&claims.queue);
    let is_plain = issue.is_none()
        && wallet_amount.is_none()
        && partition(reservation.slot()) == partition(claims.queue.slot())
        && service.redis.is_one_server()
        && (1..=MAX_SCHEDULES_IN_CALL).contains(&schedules.len());
    if !is_plain {
        return Ok(None);
    }
    let request =
        pay_store::PayRequest { payment, reservation, keyed: keyed.clone(), expected, schedules };
    service.pay.submit(claims.queue.clone(), request).await
}

/// Step 1. Returns a pending attempt, or a payment that has ended before.
async fn begin(
    service: &PaymentService,
    claims: &Claims,
    payment: PaymentId,
    PaymentOrder { reservation, issue, expected, wallet_amount, .. }: PaymentOrder,
    keyed: &KeyedRequest,
) -> Result<(Payment, Reservation), Error> {
    let partition = |slot| service.redis.keys().partition(slot);
    if partition(reservation.slot()) != partition(claims.queue.slot()) {
        // The reservation is in another queue than the token. Report this only to its user.
        service.seats.find(reservation, claims.user).await?;
        return Err(Error::WrongQueue);
    }
    let coupon = match issue {
        Some(issue) => service.coupons.coupon_of(issue, claims.user).await?,
        None => None,
    };
    if let Some(expected) = expected {
        let used = coupon.as_ref().zip(issue);
        let due = amount_due(service, reservation, claims.user, used).await?;
        if let Some(due) = due.filter(|due| *due != expected) {
            return Err(Error::AmountChanged(due));
        }
    }
    let request = store::BeginRequest {
        payment,
        reservation,
        user: claims.user,
        issue,
        coupon,
        keyed: keyed.clone(),
        wallet_amount,
    };
    match service.begin.submit(claims.queue.clone(), request).await? {
        store::BeginOutcome::Pending(payment, reservation)
        | store::BeginOutcome::Finished(payment, reservation) => Ok((payment, reservation)),
        store::BeginOutcome::HoldExpired => Err(Error::HoldExpired),
        store::BeginOutcome::NotPayable => Err(Error::NotPayable),
        store::BeginOutcome::WrongQueue => Err(Error::WrongQueue),
        store::BeginOutcome::NothingDue => Err(Error::NothingDue),
        // The reservation has ended and was pruned from Redis. `find` checks in MySQL whether it
        // belongs to the user.
        store::BeginOutcome::NotFound => {
            let (now, reservation) = service.seats.find(reservation, claims.user).await?;
            Err(if reservation.status_at(now) == ReservationStatus::Expired {
                Error::HoldExpired
            } else {
                Error::NotPayable
            })
        }
    }
}

/// What would be paid for a reservation. `None` when it can't be paid: the next steps say why. A
/// payment that is refused here leaves nothing.
async fn amount_due(
    service: &PaymentService,
    reservation: ReservationId,
    user: UserId,
    coupon: Option<(&CouponId, IssueId)>,
) -> Result<Option<Money>, redis::Error> {
    let Ok((now, reservation)) = service.seats.find(reservation, user).await else {
        return Ok(None);
    };
    let price = reservation.amount;
    let off = match coupon {
        Some((coupon, issue)) => {
            service.coupons.discount(coupon, (issue, user), price, now).await?
        }
        None => Some(Money::ZERO),
    };
    Ok(off.and_then(|off| Money::new(price.get() - off.get())))
}

/// Takes the steps 2 to 5 that are left. After a failed step, the sweep finishes the payment.
async fn continue_payment(
    service: &PaymentService,
    payment: Payment,
    reservation: Reservation,
    expected: Option<Money>,
) -> (Payment, Reservation) {
    let outcome = match payment.state {
        PaymentState::Pending if payment.is_awaited() => return (payment, reservation),
        PaymentState::Pending => debit_and_confirm(service, &payment, &reservation, expected).await,
        PaymentState::Voiding => {
            refund_and_finish(service, &payment).await.map(|payment| (payment, reservation.clone()))
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
        tracing::warn!(
            payment = %payment.id,
            %error,
            "a step failed, the sweep will finish the payment"
        );
        (payment, reservation)
    })
}

/// Steps 2 and 3, with the reservation of the coupon issue before and its redemption after.
async fn debit_and_confirm(
    service: &PaymentService,
    payment: &Payment,
    reservation: &Reservation,
    expected: Option<Money>,
) -> Result<(Payment, Reservation), redis::Error> {
    let void_with = async |reason| {
        void(service, payment, reason).await.map(|payment| (payment, reservation.clone()))
    };
    let discount = match discount::reserve(service, payment).await? {
        RedemptionOutcome::Reserved(discount) => discount,
        RedemptionOutcome::NotApplicable => return void_with(REASON_COUPON_NOT_APPLICABLE).await,
        RedemptionOutcome::Expired => return void_with(REASON_COUPON_EXPIRED).await,
        RedemptionOutcome::Tombstone => return void_with(REASON_OVERDUE).await,
    };
    let discounted = Payment { discount, ..payment.clone() };
    let to_pay = discounted.to_pay();
    if expected.is_some_and(|expected| expected != to_pay) {
        let voided = void(service, &discounted, REASON_AMOUNT_CHANGED).await?;
        return Ok((voided, reservation.clone()));
    }
    if payment.external.is_some() {
        if discounted.wallet_amount() >= to_pay {
            return void_with(REASON_NOTHING_DUE).await;
        }
        if !external::count(service, payment).await? {
            return void_with(REASON_TOO_MANY_PENDING).await;
        }
    }
    let amount = discounted.wallet_amount();
    // A debit counts as a purchase. Without a wallet part, that is left to the confirmation.
    let debit = if payment.external.is_some() && amount == Money::ZERO {
        DebitOutcome::Debited(Money::ZERO)
    } else {
        service.wallet.debit(payment.operation(), amount).await?
    };
    let balance_after = match debit {
        DebitOutcome::Debited(balance) => balance,
        DebitOutcome::Insufficient => return void_with(REASON_INSUFFICIENT_BALANCE).await,
        DebitOutcome::Tombstone => return void_with(REASON_OVERDUE).await,
    };
    let next = if payment.external.is_some() {
        let wait_ms = service.seats.payment_ms(reservation);
        let redis = &service.redis;
        external_store::await_external(redis, &discounted, reservation, balance_after, wait_ms)
            .await?
    } else {
        let scope = store::ConfirmScope {
            queue: reservation.queue.clone(),
            schedule: reservation.schedule.clone(),
        };
        let (id, attempt) = (payment.id, payment.attempt);
        let request = store::ConfirmRequest { payment: id, attempt, balance_after, discount };
        service.confirm.submit(scope, request).await?
    };
    let Some((payment, reservation)) = next else {
        return refund_lost(service, payment).await.map(|payment| (payment, reservation.clone()));
    };
    service.writer.wake();
    match payment.state {
        // The payment ended before this attempt was debited, and the wallet has lost the tombstone.
        PaymentState::Declined | PaymentState::Voided => {
            refund_lost(service, &payment).await.map(|payment| (payment, reservation))
        }
        PaymentState::Voiding => {
            refund_and_finish(service, &payment).await.map(|payment| (payment, reservation))
        }
        _ => {
            if let Err(error) = discount::redeem(service, &payment).await {
                // The payment is confirmed. Only the issue is not marked as used yet.
                tracing::warn!(payment = %payment.id, %error, "the sweep will redeem the coupon");
            }
            Ok((payment, reservation))
        }
    }
}

/// Refunds an attempt whose payment was lost with its partition, or had ended without a tombstone
/// in the wallet.
pub(super) async fn refund_lost(
    service: &PaymentService,
    payment: &Payment,
) -> Result<Payment, redis::Error> {
    service.wallet.refund(payment.operation()).await?;
    discount::return_issue(service, payment).await?;
    service.writer.wake();
    Ok(Payment { state: PaymentState::Voided, ..payment.clone() })
}

/// Finishes an overdue payment: voids it, or redeems its coupon if it is confirmed.
pub(super) async fn finish_overdue(
    service: &PaymentService,
    payment: &Payment,
) -> Result<Payment, redis::Error> {
    let payment = void(service, payment, REASON_OVERDUE).await?;
    discount::redeem(service, &payment).await?;
    Ok(payment)
}

/// Steps 4 and 5. A payment that was confirmed meanwhile stays confirmed.
pub(super) async fn void(
    service: &PaymentService,
    payment: &Payment,
    reason: &str,
) -> Result<Payment, redis::Error> {
    let payment = store::void(&service.redis, payment, reason).await?.ok_or_else(lost_payment)?;
    match payment.state {
        PaymentState::Voiding => refund_and_finish(service, &payment).await,
        _ => Ok(payment),
    }
}

/// Step 5: refunds the debit, returns the coupon issue and ends the payment.
async fn refund_and_finish(
    service: &PaymentService,
    payment: &Payment,
) -> Result<Payment, redis::Error> {
    service.wallet.refund(payment.operation()).await?;
    discount::return_issue(service, payment).await?;
    let payment = store::finish_void(&service.redis, payment).await?;
    service.writer.wake();
    payment.ok_or_else(lost_payment)
}

pub(super) fn lost_payment() -> redis::Error {
    redis::Error::Protocol("Redis has lost a payment in progress".into())
}
