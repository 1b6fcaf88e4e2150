//! Pure functions of coupons: which definitions are valid, and the status at a time.

use serde::Serialize;

use super::coupon::Coupon;
use crate::coupon_terms::{CouponDiscount, DiscountKind};
use crate::definition::DefinitionViolation;
use crate::money::Money;
use crate::time::{MUST_BE_STORABLE, is_storable};

/// The largest quota.
const MAX_QUANTITY: u64 = 1_000_000_000;
/// The largest `valid_seconds`, ten years.
const MAX_VALID_SECONDS: u32 = 315_360_000;

/// The status of a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CouponStatus)]
pub enum CouponStatus {
    /// Before `issue_starts_at`.
    Scheduled,
    /// Coupons are issued.
    Open,
    /// All coupons are issued.
    SoldOut,
    /// From `issue_ends_at` or `valid_until` on, whichever is earlier.
    Ended,
}

/// The status at `now` (in milliseconds since 1970). The window includes its start and excludes its
/// end.
pub(super) fn status(coupon: &Coupon, issued: u64, now: i64) -> CouponStatus {
    if now >= coupon.last_issue_before().timestamp_millis() {
        CouponStatus::Ended
    } else if now < coupon.issue_starts_at.timestamp_millis() {
        CouponStatus::Scheduled
    } else if coupon.total_quantity.is_some_and(|total| issued >= total) {
        CouponStatus::SoldOut
    } else {
        CouponStatus::Open
    }
}

/// Checks the fields of a coupon against their ranges and against each other.
pub(super) fn violations(coupon: &Coupon) -> Vec<DefinitionViolation> {
    let mut violations = Vec::new();
    let mut check = |valid: bool, field: &str, message: &str| {
        if !valid {
            violations.push(DefinitionViolation::new(field, message));
        }
    };
    let title = &coupon.title;
    let is_text =
        (1..=255).contains(&title.chars().count()) && !title.chars().any(char::is_control);
    check(is_text, "title", "must have 1 to 255 characters");
    let quantity = coupon.total_quantity.is_none_or(|total| (1..=MAX_QUANTITY).contains(&total));
    check(quantity, "total_quantity", "must be from 1 to 1000000000, or null for unlimited");
    let CouponDiscount { kind, amount, percent, limit, .. } = coupon.discount;
    match kind {
        DiscountKind::Amount => {
            let is_positive = amount.is_some_and(|amount| amount > Money::ZERO);
            check(is_positive, "discount_amount", "must be at least 1");
            check(percent.is_none(), "discount_percent", "needs the discount_kind percent");
            check(limit.is_none(), "discount_limit", "needs the discount_kind percent");
        }
        DiscountKind::Percent => {
            let is_share = percent.is_some_and(|percent| (1..=100).contains(&percent));
            check(is_share, "discount_percent", "must be from 1 to 100");
            check(amount.is_none(), "discount_amount", "needs the discount_kind amount");
            let has_room = limit.is_none_or(|limit| limit > Money::ZERO);
            check(has_room, "discount_limit", "must be at least 1, or null for no limit");
        }
    }
    let seconds = coupon.valid_seconds;
    check(
        seconds.is_none_or(|seconds| (1..=MAX_VALID_SECONDS).contains(&seconds)),
        "valid_seconds",
        "must be from 1 to 315360000, or null for no limit",
    );
    if let Some(until) = coupon.valid_until {
        check(is_storable(until), "valid_until", MUST_BE_STORABLE);
        check(until > coupon.issue_starts_at, "valid_until", "must be after issue_starts_at");
        check(seconds.is_none(), "valid_until", "can't be set together with valid_seconds");
    }
    let (starts, ends) = (coupon.issue_starts_at, coupon.issue_ends_at);
    check(is_storable(starts), "issue_starts_at", MUST_BE_STORABLE);
    check(is_storable(ends), "issue_ends_at", MUST_BE_STORABLE);
    check(
        starts.timestamp_millis() < ends.timestamp_millis(),
        "issue_ends_at",
        "must be after issue_starts_at",
    );
    violations
}

/// Whether the quota of `after` is larger than that of `before`.
pub(super) fn raises_quota(before: &Coupon, after: &Coupon) -> bool {
    match (before.total_quantity, after.total_quantity) {
        (Some(before), Some(after)) => after > before,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    fn coupon() -> Coupon {
        Coupon {
            id: "spring".parse().unwrap(),
            version: 1,
            title: "Spring".into(),
            total_quantity: Some(500),
            discount: CouponDiscount {
                kind: DiscountKind::Amount,
                amount: Money::new(2_000),
                percent: None,
                limit: None,
                min_available_amount: Money::ZERO,
            },
            valid_seconds: None,
            valid_until: None,
            issue_starts_at: at(1_000),
            issue_ends_at: at(2_000),
        }
    }

    fn fields(coupon: &Coupon) -> Vec<String> {
        violations(coupon).into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn window_includes_its_start_and_excludes_its_end() {
        let coupon = coupon();
        for (now, issued, expected) in [
            (999, 0, CouponStatus::Scheduled),
            (999, 500, CouponStatus::Scheduled),
            (1_000, 0, CouponStatus::Open),
            (1_999, 499, CouponStatus::Open),
            (1_999, 500, CouponStatus::SoldOut),
            (1_999, 501, CouponStatus::SoldOut),
            (2_000, 0, CouponStatus::Ended),
            (2_000, 500, CouponStatus::Ended),
        ] {
            assert_eq!(status(&coupon, issued, now), expected, "{issued} at {now}");
        }
        let unlimited = Coupon { total_quantity: None, ..coupon };
        assert_eq!(status(&unlimited, u64::MAX, 1_000), CouponStatus::Open);
    }

    #[test]
    fn values_out_of_range_are_violations() {
        assert!(violations(&coupon()).is_empty());
        let good = coupon();
        for title in ["", "x\ny", &"가".repeat(256)] {
            assert_eq!(fields(&Coupon { title: title.into(), ..good.clone() }), ["title"]);
        }
        for total in [0, MAX_QUANTITY + 1, u64::MAX] {
            let bad = Coupon { total_quantity: Some(total), ..good.clone() };
            assert_eq!(fields(&bad), ["total_quantity"]);
        }
        let early = at(0) - TimeDelta::milliseconds(1);
        assert_eq!(fields(&Coupon { issue_starts_at: early, ..good.clone() }), ["issue_starts_at"]);
        let late = at(253_402_300_800_000);
        assert_eq!(fields(&Coupon { issue_ends_at: late, ..good.clone() }), ["issue_ends_at"]);
        assert_eq!(fields(&Coupon { issue_ends_at: at(1_000), ..good }), ["issue_ends_at"]);
    }

    #[test]
    fn nothing_is_issued_that_is_not_valid_any_more() {
        let coupon = Coupon { valid_until: Some(at(1_500)), ..coupon() };
        assert!(violations(&coupon).is_empty());
        assert_eq!(status(&coupon, 0, 1_499), CouponStatus::Open);
        assert_eq!(status(&coupon, 0, 1_500), CouponStatus::Ended);
    }

    #[test]
    fn discount_fits_its_kind() {
        let one = Money::new(1);
        for (kind, amount, percent, limit, expected) in [
            (DiscountKind::Amount, one, None, None, vec![]),
            (DiscountKind::Amount, None, None, None, vec!["discount_amount"]),
            (DiscountKind::Amount, Some(Money::ZERO), None, None, vec!["discount_amount"]),
            (DiscountKind::Amount, one, Some(5), one, vec!["discount_percent", "discount_limit"]),
            (DiscountKind::Percent, None, Some(1), None, vec![]),
            (DiscountKind::Percent, None, Some(100), one, vec![]),
            (DiscountKind::Percent, None, None, None, vec!["discount_percent"]),
            (DiscountKind::Percent, None, Some(0), None, vec!["discount_percent"]),
            (DiscountKind::Percent, None, Some(101), None, vec!["discount_percent"]),
            (DiscountKind::Percent, one, Some(5), None, vec!["discount_amount"]),
            (DiscountKind::Percent, None, Some(5), Some(Money::ZERO), vec!["discount_limit"]),
        ] {
            let min_available_amount = Money::ZERO;
            let discount = CouponDiscount { kind, amount, percent, limit, min_available_amount };
            assert_eq!(fields(&Coupon { discount, ..coupon() }), expected, "{discount:?}");
        }
    }

    #[test]
    fn validity_is_a_duration_or_a_time() {
        let with =
            |valid_seconds, valid_until| fields(&Coupon { valid_seconds, valid_until, ..coupon() });
        assert_eq!(with(Some(1), None), [""; 0]);
        assert_eq!(with(Some(MAX_VALID_SECONDS), None), [""; 0]);
        assert_eq!(with(Some(0), None), ["valid_seconds"]);
        assert_eq!(with(Some(MAX_VALID_SECONDS + 1), None), ["valid_seconds"]);
        assert_eq!(with(None, Some(at(1_000))), ["valid_until"]);
        assert_eq!(with(None, Some(at(253_402_300_800_000))), ["valid_until"]);
        assert_eq!(with(Some(1), Some(at(1_500))), ["valid_until"]);
    }

    #[test]
    fn window_must_last_at_least_a_millisecond() {
        let starts = at(1_000);
        let ends = starts + TimeDelta::microseconds(900);
        assert_eq!(
            fields(&Coupon { issue_starts_at: starts, issue_ends_at: ends, ..coupon() }),
            ["issue_ends_at"]
        );
    }

    #[test]
    fn unlimited_is_more_than_any_quota() {
        let quota = |total_quantity| Coupon { total_quantity, ..coupon() };
        assert!(raises_quota(&quota(Some(5)), &quota(Some(6))));
        assert!(raises_quota(&quota(Some(5)), &quota(None)));
        assert!(!raises_quota(&quota(Some(5)), &quota(Some(5))));
        assert!(!raises_quota(&quota(None), &quota(Some(5))));
        assert!(!raises_quota(&quota(None), &quota(None)));
    }
}
