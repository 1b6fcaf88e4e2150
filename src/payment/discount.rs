//! The coupon issue of a payment: reserved before the debit, redeemed after the commit point, and
//! returned when the payment is voided or refunded.
//!
//! The issue is in the partition of the coupon. The payment contains coupon and issue from the
//! first step on, so any instance can continue it. The reservation determines the discount,
//! and every repetition returns the same one. The confirmation stores it in the payment. The sweep
//! repeats the redemption of a confirmed payment until it has succeeded.
//!
//! `tests/model` checks these steps in every order.

use super::record::{Payment, PaymentState};
use super::{PaymentService, store};
use crate::coupons::{CouponRedemption, RedemptionOutcome};
use crate::money::Money;
use crate::redis;

fn redemption(payment: &Payment) -> Option<CouponRedemption> {
    Some(CouponRedemption {
        coupon: payment.coupon.clone()?,
        issue: payment.issue?,
        user: payment.user,
        payment: payment.id,
        attempt: payment.attempt,
    })
}

/// Before the debit: determines the discount and reserves the issue for this payment. Without an
/// issue, the discount is 0. A discount of 0 reserves nothing, and the confirmation then removes
/// the issue from the payment.
pub(super) async fn reserve(
    service: &PaymentService,
    payment: &Payment,
) -> Result<RedemptionOutcome, redis::Error> {
    if payment.issue.is_none() {
        return Ok(RedemptionOutcome::Reserved(Money::ZERO));
    }
    let Some(redemption) = redemption(payment) else { return Ok(RedemptionOutcome::NotApplicable) };
    service.coupons.reserve(&redemption, payment.amount).await
}

/// Before a payment ends as voided or refunded: makes the issue usable again.
pub(super) async fn return_issue(
    service: &PaymentService,
    payment: &Payment,
) -> Result<(), redis::Error> {
    match redemption(payment) {
        Some(redemption) => service.coupons.return_issue(&redemption).await,
        None => Ok(()),
    }
}

/// After the commit point: marks the issue as used. Does nothing if the payment is not confirmed.
pub(super) async fn redeem(
    service: &PaymentService,
    payment: &Payment,
) -> Result<(), redis::Error> {
    if payment.state != PaymentState::Confirmed {
        return Ok(());
    }
    let Some(redemption) = redemption(payment) else { return Ok(()) };
    service.coupons.redeem(&redemption, payment.discount).await?;
    store::finish_redemption(&service.redis, payment).await
}
