//! What payments do with issues: take one before money moves, use it up once paid, give it back otherwise.
//!
//! Each step is one idempotent script in the coupon's partition, named by payment and attempt. `take` fixes the discount; `give_back` leaves a
//! tombstone under that name, so that a take which comes late is refused; `settle` comes after the commit point and is repeated until it went through.

use super::{CouponService, Error, store};
use crate::ids::{CouponId, IssueId, PaymentId, UserId};
use crate::money::Money;
use crate::redis;

/// An issue in a payment's attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponRedemption {
    /// Of which coupon.
    pub coupon: CouponId,
    /// Which issue.
    pub issue: IssueId,
    /// Who pays.
    pub user: UserId,
    /// The payment.
    pub payment: PaymentId,
    /// Which of its attempts.
    pub attempt: u32,
}

/// What came of taking an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedemptionOutcome {
    /// Taken, now or before; this much is off.
    Done(Money),
    /// Not the user's, in use, used, or the amount is too small.
    NotApplicable,
    /// The attempt gave it back before: it can't take it any more.
    Tombstone,
}

impl CouponService {
    /// The coupon of an issue that the user may have. An issue's id carries its coupon's slot, which few coupons share; where several
    /// do, Redis is asked whose it is.
    pub async fn coupon_of(
        &self,
        issue: IssueId,
        user: UserId,
    ) -> Result<Option<CouponId>, redis::Error> {
        let known = self.known.load_full();
        let mut same_slot = known.keys().filter(|coupon| coupon.slot() == issue.slot()).cloned();
        let (Some(first), second) = (same_slot.next(), same_slot.next()) else { return Ok(None) };
        if second.is_none() {
            return Ok(Some(first));
        }
        for coupon in [Some(first), second].into_iter().flatten().chain(same_slot) {
            let mine = self.mine.submit(coupon.clone(), user).await?;
            if mine.is_some_and(|mine| mine.id == issue) {
                return Ok(Some(coupon));
            }
        }
        Ok(None)
    }

    /// Takes the issue for an attempt that pays `amount`.
    pub async fn take(
        &self,
        used: &CouponRedemption,
        amount: Money,
    ) -> Result<RedemptionOutcome, Error> {
        self.with_settings(&used.coupon, || store::take(&self.redis, used, amount)).await
    }

    /// Marks the issue as used by a payment that is confirmed.
    pub async fn settle(
        &self,
        used: &CouponRedemption,
        discount: Money,
    ) -> Result<(), redis::Error> {
        if !store::settle(&self.redis, used, discount).await? {
            tracing::error!(issue = %used.issue, payment = %used.payment, "a confirmed payment's coupon is used by another");
        }
        self.nudge.poke();
        Ok(())
    }

    /// Gives back what the attempt took or used, if it did, and makes sure that it never will again.
    pub async fn give_back(&self, used: &CouponRedemption) -> Result<(), redis::Error> {
        store::give_back(&self.redis, used).await?;
        self.nudge.poke();
        Ok(())
    }
}
