//! The definition of a coupon, as the admin API takes and returns it.

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::routes::CouponType;
use super::{Coupon, rules};
use crate::coupon_terms::{CouponDiscount, DiscountKind};
use crate::definition::{AdminDefinition, DefinitionViolation};
use crate::ids::CouponId;
use crate::money::Money;

/// A coupon as an operator defines it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "title": "15 % off in spring", "total_quantity": 500,
    "discount_kind": "percent", "discount_percent": 15, "discount_limit": 3000,
    "min_available_amount": 5000, "valid_seconds": 604800,
    "issue_starts_at": "2026-03-01T00:00:00Z", "issue_ends_at": "2026-06-01T00:00:00Z",
}))]
pub struct CouponDefinition {
    /// If present, must equal the id in the path.
    #[serde(skip_serializing)]
    pub id: Option<CouponId>,
    /// The type, of which there is only one. Can be omitted.
    #[serde(skip_serializing)]
    pub r#type: Option<CouponType>,
    /// 1–255 characters.
    pub title: String,
    /// The quota, 1…1,000,000,000. Null or omitted means unlimited.
    pub total_quantity: Option<u64>,
    /// How the discount is computed. Default: `amount`.
    #[serde(default)]
    pub discount_kind: DiscountKind,
    /// The discount on a payment, at least 1. For the kind `amount` only.
    pub discount_amount: Option<Money>,
    /// The discount in percent of the price, 1…100, rounded down. For the kind `percent` only.
    pub discount_percent: Option<u32>,
    /// The largest discount of the kind `percent`, at least 1. Null or omitted means no limit.
    pub discount_limit: Option<Money>,
    /// The smallest price that the coupon can be used for. Default: 0.
    #[serde(default)]
    pub min_available_amount: Money,
    /// How long a coupon can be used after it was issued, 1…315,360,000 seconds. Null or omitted
    /// means no limit.
    pub valid_seconds: Option<u32>,
    /// Until when coupons can be used, instead of `valid_seconds`. None is issued after it.
    pub valid_until: Option<DateTime<Utc>>,
    /// Coupons are issued from this time on.
    pub issue_starts_at: DateTime<Utc>,
    /// Coupons are issued until this time. A time in the past ends the coupon immediately.
    pub issue_ends_at: DateTime<Utc>,
}

impl AdminDefinition for CouponDefinition {
    const KIND: &'static str = "coupons";
}

impl CouponDefinition {
    /// The definition with every default in its place, as the admin API returns it.
    ///
    /// # Errors
    /// The rules that the definition breaks.
    pub fn normal_form(self, id: &CouponId) -> Result<Self, Vec<DefinitionViolation>> {
        self.validate(id).map(|coupon| Self::from(&coupon))
    }

    /// # Errors
    /// The rules that the definition breaks.
    pub(super) fn validate(self, id: &CouponId) -> Result<Coupon, Vec<DefinitionViolation>> {
        let coupon = self.into_coupon(id).map_err(|found| vec![found])?;
        let violations = rules::violations(&coupon);
        if violations.is_empty() { Ok(coupon) } else { Err(violations) }
    }

    /// The coupon, with times in milliseconds as MySQL stores them.
    fn into_coupon(self, id: &CouponId) -> Result<Coupon, DefinitionViolation> {
        if self.id.is_some_and(|other| other != *id) {
            return Err(DefinitionViolation::new("id", "must equal the id in the path"));
        }
        Ok(Coupon {
            id: id.clone(),
            version: 0,
            title: self.title,
            total_quantity: self.total_quantity,
            discount: CouponDiscount {
                kind: self.discount_kind,
                amount: self.discount_amount,
                percent: self.discount_percent,
                limit: self.discount_limit,
                min_available_amount: self.min_available_amount,
            },
            valid_seconds: self.valid_seconds,
            valid_until: self.valid_until.map(|time| time.trunc_subsecs(3)),
            issue_starts_at: self.issue_starts_at.trunc_subsecs(3),
            issue_ends_at: self.issue_ends_at.trunc_subsecs(3),
        })
    }
}

impl From<&Coupon> for CouponDefinition {
    fn from(coupon: &Coupon) -> Self {
        let CouponDiscount { kind, amount, percent, limit, min_available_amount } = coupon.discount;
        Self {
            id: None,
            r#type: None,
            title: coupon.title.clone(),
            total_quantity: coupon.total_quantity,
            discount_kind: kind,
            discount_amount: amount,
            discount_percent: percent,
            discount_limit: limit,
            min_available_amount,
            valid_seconds: coupon.valid_seconds,
            valid_until: coupon.valid_until,
            issue_starts_at: coupon.issue_starts_at,
            issue_ends_at: coupon.issue_ends_at,
        }
    }
}
