//! The coupon in a payment: taken before the debit, used up after the commit point, given back on every way back.
//!
//! It is the flow's third party, in the partition of the coupon. The payment's record names coupon and issue from the first step on, so
//! that whoever goes on with it knows what to give back or to use up. The discount is fixed by the take, which answers every repeat alike, and
//! comes into the record with the confirmation. `tests/model` takes `take`, `settle` and `give_back` (there `give_back_issue`) in every order. A confirmed payment stays on the sweep's list until its coupon is marked as used.

use super::record::{Payment, PaymentState};
use super::{PaymentService, store};
use crate::coupons::{CouponRedemption, Error, RedemptionOutcome};
use crate::money::Money;
use crate::redis;
use crate::store_error::StoreError;

/// The issue in this attempt, if there is one.
fn used(payment: &Payment) -> Option<CouponRedemption> {
    Some(CouponRedemption {
        coupon: payment.coupon.clone()?,
        issue: payment.issue?,
        user: payment.user,
        payment: payment.id,
        attempt: payment.attempt,
    })
}

/// Before the debit: fixes the discount, and keeps every other payment from the issue. Without an issue there is no discount.
pub(super) async fn take(
    on: &PaymentService,
    payment: &Payment,
) -> Result<RedemptionOutcome, redis::Error> {
    if payment.issue.is_none() {
        return Ok(RedemptionOutcome::Done(Money::ZERO));
    }
    let Some(used) = used(payment) else { return Ok(RedemptionOutcome::NotApplicable) };
    match on.coupons.take(&used, payment.amount).await {
        Ok(taken) => Ok(taken),
        Err(Error::NotFound) => Ok(RedemptionOutcome::NotApplicable),
        Err(Error::Store(StoreError::Redis(error))) => Err(error),
        Err(error) => Err(redis::Error::Unavailable(error.to_string())),
    }
}

/// Before an attempt ends as turned back, or a confirmed payment as refunded: the issue is unused again.
pub(super) async fn give_back(on: &PaymentService, payment: &Payment) -> Result<(), redis::Error> {
    match used(payment) {
        Some(used) => on.coupons.give_back(&used).await,
        None => Ok(()),
    }
}

/// After the commit point: marks the issue as used. Does nothing for a payment that is not confirmed.
pub(super) async fn settle(on: &PaymentService, payment: &Payment) -> Result<(), redis::Error> {
    if payment.state != PaymentState::Confirmed {
        return Ok(());
    }
    let Some(used) = used(payment) else { return Ok(()) };
    on.coupons.settle(&used, payment.discount).await?;
    store::finish_redemption(&on.redis, payment).await
}
