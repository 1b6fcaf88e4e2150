//! How payments use issues: reserve one before money moves, redeem it after the payment, return it
//! if the payment fails or is cancelled.
//!
//! Each step is one idempotent script in the coupon's partition, identified by payment and attempt.
//! [`CouponService::reserve`] fixes the discount. [`CouponService::return_issue`] leaves a
//! tombstone, so that a reservation that arrives late is refused. [`CouponService::redeem`] follows
//! the commit point of the payment and is repeated until it succeeds.

use super::{CouponRedemption, CouponService, RedemptionOutcome, store};
use crate::ids::{CouponId, IssueId, UserId};
use crate::money::Money;
use crate::redis;

impl CouponService {
    /// The coupon of an issue. The id of an issue contains the hash slot of its coupon, which is
    /// usually unique. If several coupons share it, the user's issues in Redis decide. If only one
    /// coupon has the slot, the user need not own the issue.
    pub async fn coupon_of(
        &self,
        issue: IssueId,
        user: UserId,
    ) -> Result<Option<CouponId>, redis::Error> {
        let coupons = self.coupons.load_full();
        let mut same_slot = coupons.keys().filter(|coupon| coupon.slot() == issue.slot()).cloned();
        let (Some(first), second) = (same_slot.next(), same_slot.next()) else { return Ok(None) };
        if second.is_none() {
            return Ok(Some(first));
        }
        for coupon in [Some(first), second].into_iter().flatten().chain(same_slot) {
            let mine = self.own_issue.submit(coupon.clone(), user).await?;
            if mine.is_some_and(|mine| mine.id == issue) {
                return Ok(Some(coupon));
            }
        }
        Ok(None)
    }

    /// What the issue takes off a price at a time in milliseconds since 1970. `None` when the user
    /// does not have it, or it can't be used for that price.
    pub async fn discount(
        &self,
        coupon: &CouponId,
        (issue, user): (IssueId, UserId),
        price: Money,
        now: i64,
    ) -> Result<Option<Money>, redis::Error> {
        let mine = self.own_issue.submit(coupon.clone(), user).await?;
        let mine = mine.filter(|mine| mine.id == issue);
        let valid = mine.filter(|mine| mine.terms.valid_until.is_none_or(|until| now < until));
        Ok(valid.and_then(|mine| mine.terms.discount.off(price)))
    }

    /// Reserves the issue for an attempt that pays `amount`. An issue that takes nothing off is not
    /// reserved.
    pub async fn reserve(
        &self,
        used: &CouponRedemption,
        amount: Money,
    ) -> Result<RedemptionOutcome, redis::Error> {
        store::reserve(&self.redis, used, amount).await
    }

    /// Marks the issue as used by a confirmed payment.
    pub async fn redeem(
        &self,
        used: &CouponRedemption,
        discount: Money,
    ) -> Result<(), redis::Error> {
        if !store::redeem(&self.redis, used, discount).await? {
            tracing::error!(
                issue = %used.issue,
                payment = %used.payment,
                "the coupon of a confirmed payment is used by another payment"
            );
        }
        self.writer.wake();
        Ok(())
    }

    /// Returns the issue if the attempt has reserved or used it, and prevents the attempt from
    /// reserving it later.
    pub async fn return_issue(&self, used: &CouponRedemption) -> Result<(), redis::Error> {
        store::return_issue(&self.redis, used).await?;
        self.writer.wake();
        Ok(())
    }
}
