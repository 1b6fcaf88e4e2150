//! The admin routes of coupons.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::{CouponDto, CouponIssuesDto, CouponIssuesQuery, CouponType};
use super::{Coupon, CouponService};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::CouponId;
use crate::money::Money;

pub fn router() -> OpenApiRouter<Arc<CouponService>> {
    OpenApiRouter::new().routes(routes!(put)).routes(routes!(issues))
}

/// A coupon as an operator defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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
    /// The discount on a payment, at least 1.
    discount_amount: Money,
    /// The smallest payment that the coupon can be used for. Default: 0.
    #[serde(default)]
    min_available_amount: Money,
    /// Coupons are issued from this time on.
    issue_starts_at: DateTime<Utc>,
    /// Coupons are issued until this time. A time in the past ends the coupon immediately.
    issue_ends_at: DateTime<Utc>,
}

/// Create a coupon or replace its definition
///
/// A quota below the number of issued coupons is refused with `in_use`. All instances apply the
/// change when the response arrives.
#[utoipa::path(
    put,
    path = "/admin/coupons/{coupon}",
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
        discount_amount: new.discount_amount,
        min_available_amount: new.min_available_amount,
        issue_starts_at: new.issue_starts_at,
        issue_ends_at: new.issue_ends_at,
    };
    coupons.put(coupon).await?;
    let (coupon, counts) = coupons.find(&id).await?;
    Ok(JsonBody(CouponDto::new(&coupon, &counts)))
}

/// List the issues of a coupon
///
/// The newest issue comes first.
#[utoipa::path(
    get,
    path = "/admin/coupons/{coupon}/issues",
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
    QueryParams(page): QueryParams<CouponIssuesQuery>,
) -> Result<JsonBody<CouponIssuesDto>, ProblemDetails> {
    Ok(JsonBody(coupons.issues(&id, page.before(), page.limit).await?.into()))
}

/// Parses the request bodies of these routes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<CouponDefinition>(bytes);
}
