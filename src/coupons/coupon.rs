//! Coupons and issues, as the API, Redis and MySQL know them.

use chrono::{DateTime, Utc};

use crate::ids::{CouponId, IssueId, UserId};
use crate::money::Money;

/// A coupon as an operator defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    /// Its name.
    pub id: CouponId,
    /// The definitions' version at its last change.
    pub version: u64,
    /// 1–255 characters.
    pub title: String,
    /// How many there are, 1…1,000,000,000; `None` is unlimited.
    pub total_quantity: Option<u64>,
    /// What it takes off a payment.
    pub discount_amount: Money,
    /// The smallest payment that it can be used for.
    pub min_available_amount: Money,
    /// Nothing is issued before.
    pub issue_starts_at: DateTime<Utc>,
    /// Nothing is issued from here on.
    pub issue_ends_at: DateTime<Utc>,
}

/// One coupon in one user's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponIssue {
    /// Its id.
    pub id: IssueId,
    /// Of which coupon.
    pub coupon: CouponId,
    /// Whose.
    pub user: UserId,
    /// When it was issued, milliseconds since 1970.
    pub issued_at: i64,
    /// When a payment used it, milliseconds since 1970.
    pub used_at: Option<i64>,
}

/// How a coupon stands, by Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponCounts {
    /// Redis' clock, milliseconds since 1970.
    pub now: i64,
    /// How many are issued.
    pub issued: u64,
    /// Renewed each time settings are laid, so that two layings can't be taken for one.
    pub(super) edition: String,
    /// The definitions' version as laid; 0 while a change is under way.
    pub(super) version: u64,
    /// When issuing ends as laid, milliseconds since 1970.
    pub(super) ends_at: i64,
    /// The quota as laid is used up: nobody gets one until settings are laid again.
    pub(super) sold_out: bool,
}
