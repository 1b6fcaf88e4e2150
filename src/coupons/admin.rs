//! The admin routes of coupons.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::{CouponDto, CouponIssuesDto, CouponIssuesQuery, CouponType};
use super::{Coupon, CouponService};
use crate::coupon_terms::{CouponDiscount, DiscountKind};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::CouponId;
use crate::money::Money;
use crate::users::UserDirectory;

pub fn router() -> OpenApiRouter<Arc<CouponService>> {
    OpenApiRouter::new().routes(routes!(put)).routes(routes!(issues))
}

/// A coupon as an operator defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "title": "15 % off in spring", "total_quantity": 500,
    "discount_kind": "percent", "discount_percent": 15, "discount_limit": 3000,
    "min_available_amount": 5000, "valid_seconds": 604800,
    "issue_starts_at": "2026-03-01T00:00:00Z", "issue_ends_at": "2026-06-01T00:00:00Z",
}))]
struct CouponDefinition {
    /// If present, must equal the id in the path.
    id: Option<CouponId>,
    /// The type, of which there is only one. Can be omitted.
    #[expect(dead_code, reason = "parsing it is the check")]
    r#type: Option<CouponType>,
    /// 1–255 characters.
    title: String,
    /// The quota, 1…1,000,000,000. Null or omitted means unlimited.
    total_quantity: Option<u64>,
    /// How the discount is computed. Default: `amount`.
    #[serde(default)]
    discount_kind: DiscountKind,
    /// The discount on a payment, at least 1. For the kind `amount` only.
    discount_amount: Option<Money>,
    /// The discount in percent of the price, 1…100, rounded down. For the kind `percent` only.
    discount_percent: Option<u32>,
    /// The largest discount of the kind `percent`, at least 1. Null or omitted means no limit.
    discount_limit: Option<Money>,
    /// The smallest price that the coupon can be used for. Default: 0.
    #[serde(default)]
    min_available_amount: Money,
    /// How long a coupon can be used after it was issued, 1…315,360,000 seconds. Null or omitted
    /// means no limit.
    valid_seconds: Option<u32>,
    /// Until when coupons can be used, instead of `valid_seconds`. None is issued after it.
    valid_until: Option<DateTime<Utc>>,
    /// Coupons are issued from this time on.
    issue_starts_at: DateTime<Utc>,
    /// Coupons are issued until this time. A time in the past ends the coupon immediately.
    issue_ends_at: DateTime<Utc>,
}

/// Create a coupon or replace its definition
///
/// A quota below the number of issued coupons is refused with `in_use`. All instances apply the
/// change when the response arrives. Issued coupons keep the terms with which they were issued.
#[utoipa::path(
    put,
    path = "/admin/coupons/{coupon}",
    operation_id = "putCoupon",
    tag = "coupon",
    params(("coupon" = CouponId, Path)),
    request_body = CouponDefinition,
    responses(
        (status = 200, body = CouponDto),
        (status = 409, body = ProblemDetails, description = "`in_use` with `issued_quantity`"),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn put(
    State(coupons): State<Arc<CouponService>>,
    NewPathParams(id): NewPathParams<CouponId>,
    JsonBody(new): JsonBody<CouponDefinition>,
) -> Result<JsonBody<CouponDto>, ProblemDetails> {
    if new.id.is_some_and(|other| other != id) {
        return Err(ProblemDetails::invalid_field("id", "must equal the id in the path"));
    }
    let coupon = Coupon {
        id: id.clone(),
        version: 0,
        title: new.title,
        total_quantity: new.total_quantity,
        discount: CouponDiscount {
            kind: new.discount_kind,
            amount: new.discount_amount,
            percent: new.discount_percent,
            limit: new.discount_limit,
            min_available_amount: new.min_available_amount,
        },
        valid_seconds: new.valid_seconds,
        valid_until: new.valid_until,
        issue_starts_at: new.issue_starts_at,
        issue_ends_at: new.issue_ends_at,
    };
    coupons.put(coupon).await?;
    let (coupon, counts) = coupons.find(&id).await?;
    Ok(JsonBody(CouponDto::new(&coupon, &counts, coupons.currency)))
}

/// List the issues of a coupon
///
/// The newest issue comes first.
#[utoipa::path(
    get,
    path = "/admin/coupons/{coupon}/issues",
    operation_id = "listCouponIssuesOfCoupon",
    tag = "coupon",
    params(("coupon" = CouponId, Path), CouponIssuesQuery),
    responses(
        (status = 200, body = CouponIssuesDto),
        (status = 404, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn issues(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
    Extension(users): Extension<Arc<UserDirectory>>,
    QueryParams(page): QueryParams<CouponIssuesQuery>,
) -> Result<JsonBody<CouponIssuesDto>, ProblemDetails> {
    let issues = coupons.issues(&id, page.before(), page.limit).await?;
    let names = users.names(issues.0.iter().map(|issue| issue.user)).await?;
    Ok(JsonBody(CouponIssuesDto::new(issues, |user| names.of(user))))
}

/// Parses the request bodies of these routes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<CouponDefinition>(bytes);
}
