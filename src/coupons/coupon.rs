//! Coupons and issues, as the API, Redis and MySQL have them.

use chrono::{DateTime, Utc};

use crate::coupon_terms::{CouponDiscount, CouponTerms};
use crate::ids::{CouponId, IssueId, PaymentId, UserId};
use crate::money::Money;

/// A coupon as an operator defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    pub id: CouponId,
    /// The version of the definitions at the last change of this coupon.
    pub version: u64,
    /// 1–255 characters.
    pub title: String,
    /// The quota, 1…1,000,000,000. `None` means unlimited.
    pub total_quantity: Option<u64>,
    pub discount: CouponDiscount,
    /// How long an issue can be used after it was issued. `None` means without a limit, as long as
    /// `valid_until` is `None` too.
    pub valid_seconds: Option<u32>,
    /// Until when issues can be used. Never set together with `valid_seconds`.
    pub valid_until: Option<DateTime<Utc>>,
    /// Coupons are issued from this time on.
    pub issue_starts_at: DateTime<Utc>,
    /// Coupons are issued until this time.
    pub issue_ends_at: DateTime<Utc>,
}

impl Coupon {
    /// The end of the window. Nothing is issued that could not be used any more.
    pub(super) fn last_issue_before(&self) -> DateTime<Utc> {
        self.valid_until.map_or(self.issue_ends_at, |until| until.min(self.issue_ends_at))
    }
}

/// A coupon that was issued to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponIssue {
    pub id: IssueId,
    pub coupon: CouponId,
    pub user: UserId,
    /// The terms of the coupon when it was issued.
    pub terms: CouponTerms,
    /// Milliseconds since 1970.
    pub issued_at: i64,
    /// Milliseconds since 1970. `None` until a payment has used it.
    pub used_at: Option<i64>,
}

/// The state of a coupon in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponCounts {
    /// Redis' clock, in milliseconds since 1970.
    pub now: i64,
    /// The number of issues.
    pub issued: u64,
    /// A new random value at each publication of the settings.
    pub(super) edition: String,
    /// The version of the published settings, or 0 while a change is in progress.
    pub(super) version: u64,
    /// The end of the window in the published settings, in milliseconds since 1970.
    pub(super) ends_at: i64,
    /// The published quota is used up. No more are issued until settings are published again.
    pub(super) sold_out: bool,
}

/// An issue that an attempt of a payment uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponRedemption {
    pub coupon: CouponId,
    pub issue: IssueId,
    pub user: UserId,
    pub payment: PaymentId,
    pub attempt: u32,
}

/// The result of reserving an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedemptionOutcome {
    /// Reserved, by this call or an earlier one, with this discount.
    Reserved(Money),
    /// The issue belongs to another user, is reserved or used by another payment, or the amount is
    /// too small.
    NotApplicable,
    /// The issue is not valid any more.
    Expired,
    /// The attempt has returned the issue and can no longer reserve it.
    Tombstone,
}
