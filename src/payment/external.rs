//! External payments: a provider takes the money, and the booking backend reports it.
//!
//! ```text
//! begin ─→ (reserve) ─→ count ─→ debit ─→ await      pending, until `due_at`
//!                                           │
//!      (reserve) ─→ debit ─→ claim ─→ confirm ─→ (redeem)            confirmed
//! ```
//!
//! An external payment has the steps of [`flow`], and stops after its debit: `await_external` fixes
//! what is due and until when. The event of that step makes the wait durable, so that a restore
//! brings the payment back with its seats.
//!
//! A confirmation repeats the steps before the commit point, because a restore may have lost them.
//! Then it claims the provider's reference in the partition of the reference, so that a reference
//! pays once. A claim whose payment was not confirmed with it is stale: [`claim`] finds that out
//! from the payment and replaces it. So no step has to give a claim back.
//!
//! After `due_at` nothing confirms the payment, and the sweep voids it. `tests/model` checks these
//! steps in every order.

use std::sync::Arc;

use super::external_store::{self as store, AttemptName};
use super::flow::{self, lost_payment};
use super::record::{Payment, PaymentState};
use super::rules::{self, ConfirmationStep, ProviderProof, REASON_OVERDUE};
use super::{Error, PaymentService, PaymentWithReservation, discount, sql};
use crate::coupons::RedemptionOutcome;
use crate::ids::{PaymentId, ReferenceKey, UserId};
use crate::money::Money;
use crate::redis;
use crate::seats::Reservation;
use crate::wallet::DebitOutcome;

/// A list of pending payments is full at most this often because of payments that have ended.
const MAX_COUNT_ATTEMPTS: usize = 3;
/// How often a stale claim is replaced while others replace it too.
const MAX_CLAIM_ATTEMPTS: usize = 3;

/// Whether the payment may be one of those that wait.
pub(super) async fn count(
    service: &PaymentService,
    payment: &Payment,
) -> Result<bool, redis::Error> {
    let mut ended = Vec::new();
    for _ in 0..MAX_COUNT_ATTEMPTS {
        let full = store::count_pending(&service.redis, payment, &ended).await?;
        let Some(entries) = full else { return Ok(true) };
        ended.clear();
        for name in entries {
            if !is_waiting(service, name).await? {
                ended.push(name);
            }
        }
        if ended.is_empty() {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Counts come after the begin of an attempt, so one that Redis does not have as pending has ended.
async fn is_waiting(service: &PaymentService, name: AttemptName) -> Result<bool, redis::Error> {
    let partition = service.redis.keys().partition(name.payment.slot());
    let found = service.read.submit(partition, name.payment).await?;
    Ok(found.is_some_and(|(payment, _)| {
        payment.attempt == name.attempt && payment.state == PaymentState::Pending
    }))
}

/// Takes the steps of a confirmation.
pub(super) async fn confirm(
    service: Arc<PaymentService>,
    id: PaymentId,
    owner: Option<UserId>,
    proof: ProviderProof,
) -> Result<PaymentWithReservation, Error> {
    let found = service.load(id, owner).await?;
    let step = rules::check_confirmation(&found.payment, &proof)?;
    if step == ConfirmationStep::NotYet {
        return Err(redis::Error::Unavailable("the payment does not wait yet".into()).into());
    }
    let (ConfirmationStep::Confirm, Some(reservation)) = (step, &found.reservation) else {
        return Ok(PaymentWithReservation { replayed: true, ..found });
    };
    let balance_after = match repeat_debit(&service, &found.payment).await? {
        Ok(balance) => balance,
        Err(reason) => return void_instead(&service, &found.payment, &proof, reason).await,
    };
    claim(&service, &found.payment, &proof).await?;
    let (redis, payment) = (&service.redis, &found.payment);
    match store::confirm_external(redis, payment, reservation, balance_after, &proof).await? {
        store::ExternalConfirmOutcome::Confirmed(confirmed) => {
            let (payment, reservation) = *confirmed;
            service.writer.wake();
            if let Err(error) = discount::redeem(&service, &payment).await {
                tracing::warn!(payment = %payment.id, %error, "the sweep will redeem the coupon");
            }
            super::count_payment(&payment);
            Ok(with_reservation(payment, Some(reservation)))
        }
        store::ExternalConfirmOutcome::TooLate(payment) => {
            void_instead(&service, &payment, &proof, REASON_OVERDUE).await
        }
        store::ExternalConfirmOutcome::Refused(payment) => {
            if matches!(payment.state, PaymentState::Declined | PaymentState::Voided) {
                // The debit above may have come after the refund, if the wallet lost the tombstone.
                flow::refund_lost(&service, &found.payment).await?;
            }
            settled(payment, Some(reservation.clone()), &proof)
        }
        store::ExternalConfirmOutcome::NotFound => Err(Error::NotFound),
    }
}

/// Repeats the steps before the commit point. Returns the balance after the debit, or the reason
/// why the payment can't be confirmed.
async fn repeat_debit(
    service: &PaymentService,
    payment: &Payment,
) -> Result<Result<Money, &'static str>, redis::Error> {
    match discount::reserve(service, payment).await? {
        RedemptionOutcome::Reserved(discount) if discount == payment.discount => {}
        RedemptionOutcome::Reserved(_)
        | RedemptionOutcome::NotApplicable
        | RedemptionOutcome::Expired => return Ok(Err(rules::REASON_COUPON_NOT_APPLICABLE)),
        RedemptionOutcome::Tombstone => return Ok(Err(REASON_OVERDUE)),
    }
    let amount = payment.wallet_amount();
    Ok(match service.wallet.debit(payment.operation(), amount).await? {
        DebitOutcome::Debited(balance) => Ok(balance),
        DebitOutcome::Insufficient => Err(rules::REASON_INSUFFICIENT_BALANCE),
        DebitOutcome::Tombstone => Err(REASON_OVERDUE),
    })
}

/// Voids a payment that can't be confirmed, unless another call has confirmed it meanwhile.
async fn void_instead(
    service: &PaymentService,
    payment: &Payment,
    proof: &ProviderProof,
    reason: &str,
) -> Result<PaymentWithReservation, Error> {
    let payment = flow::void(service, payment, reason).await?;
    let found = service.load(payment.id, None).await?;
    settled(payment, found.reservation, proof)
}

/// The answer of a payment that does not wait any more.
fn settled(
    payment: Payment,
    reservation: Option<Reservation>,
    proof: &ProviderProof,
) -> Result<PaymentWithReservation, Error> {
    match rules::check_confirmation(&payment, proof)? {
        ConfirmationStep::Repeated => {
            Ok(PaymentWithReservation { replayed: true, ..with_reservation(payment, reservation) })
        }
        ConfirmationStep::Confirm | ConfirmationStep::NotYet => {
            Err(redis::Error::Unavailable("the payment still waits".into()).into())
        }
    }
}

/// Claims the reference for this attempt.
async fn claim(
    service: &PaymentService,
    payment: &Payment,
    proof: &ProviderProof,
) -> Result<(), Error> {
    let key = ReferenceKey::of(&proof.provider, &proof.reference);
    let (own, mut stale) = (AttemptName::of(payment), None);
    for _ in 0..MAX_CLAIM_ATTEMPTS {
        let taken = store::claim_reference(&service.redis, key, own, stale).await?;
        let Some(other) = taken else { return Ok(()) };
        let is_stale = match service.load(other.payment, None).await {
            Ok(found) => rules::is_stale_claim(&found.payment, other.attempt, proof),
            // Nothing confirms a payment that neither store has.
            Err(Error::NotFound) => true,
            Err(error) => return Err(error),
        };
        if !is_stale {
            return Err(Error::ReferenceUsed);
        }
        stale = Some(other);
    }
    Err(redis::Error::Unavailable("others claim the reference".into()).into())
}

/// Voids a pending external payment. One that has ended without being paid reads as it is.
pub(super) async fn void(
    service: Arc<PaymentService>,
    id: PaymentId,
    owner: Option<UserId>,
    reason: String,
) -> Result<PaymentWithReservation, Error> {
    let found = service.load(id, owner).await?;
    let payment = match found.payment.state {
        PaymentState::Declined | PaymentState::Voided => return Ok(found),
        PaymentState::Pending | PaymentState::Voiding if found.payment.external.is_some() => {
            flow::void(&service, &found.payment, &reason).await?
        }
        _ => return Err(Error::NotVoidable),
    };
    match payment.state {
        PaymentState::Declined | PaymentState::Voided => {
            super::count_payment(&payment);
            let found = service.load(id, None).await?;
            Ok(with_reservation(payment, found.reservation))
        }
        PaymentState::Pending | PaymentState::Voiding => Err(lost_payment().into()),
        _ => Err(Error::NotVoidable),
    }
}

/// Records that the provider paid money back.
pub(super) async fn report_refund(
    service: Arc<PaymentService>,
    id: PaymentId,
    owner: Option<UserId>,
    reference: String,
    amount: Money,
) -> Result<PaymentWithReservation, Error> {
    let found = service.load(id, owner).await?;
    match store::report_refund(&service.redis, id, &reference, amount).await? {
        store::RefundReportOutcome::Reported(payment) => {
            service.writer.wake();
            Ok(with_reservation(payment, found.reservation))
        }
        store::RefundReportOutcome::Mismatch(payment) => {
            Err(Error::AmountMismatch(payment.refund_due()))
        }
        // Redis keeps a payment as long as a refund is due, so only a repetition is left.
        store::RefundReportOutcome::NotFound => {
            let external = found.payment.external.as_deref();
            let mut refunds = external.into_iter().flat_map(|external| &external.refunds);
            if refunds.any(|refund| refund.reference == reference && refund.amount == amount) {
                Ok(found)
            } else {
                Err(Error::AmountMismatch(found.payment.refund_due()))
            }
        }
    }
}

fn with_reservation(payment: Payment, reservation: Option<Reservation>) -> PaymentWithReservation {
    PaymentWithReservation { payment, reservation, replayed: false, is_durable: true }
}

impl PaymentService {
    /// A payment with its reservation, from Redis or MySQL. With an owner, only the owner's.
    pub(super) async fn load(
        &self,
        id: PaymentId,
        owner: Option<UserId>,
    ) -> Result<PaymentWithReservation, Error> {
        let partition = self.redis.keys().partition(id.slot());
        let (payment, reservation) = match self.read.submit(partition, id).await? {
            Some(found) => found,
            None => (sql::one(&self.mysql, id).await?.ok_or(Error::NotFound)?, None),
        };
        if owner.is_some_and(|owner| owner != payment.user) {
            return Err(Error::NotFound);
        }
        let reservation = match reservation {
            Some(reservation) => Some(reservation),
            None => self.seats.find_all(&[payment.reservation]).await?.pop(),
        };
        Ok(with_reservation(payment, reservation))
    }
}
