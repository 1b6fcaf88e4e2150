//! Coupons for operators.

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

/// The operators' routes of coupons.
pub fn router() -> OpenApiRouter<Arc<CouponService>> {
    OpenApiRouter::new().routes(routes!(put)).routes(routes!(issues))
}

/// A coupon as an operator defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CouponDefinition {
    /// If given, the id of the path.
    id: Option<CouponId>,
    /// If given, the only type there is.
    #[expect(dead_code, reason = "reading it is what checks it")]
    r#type: Option<CouponType>,
    /// 1–255 characters.
    title: String,
    /// 1…1,000,000,000; null or left out is unlimited.
    total_quantity: Option<u64>,
    /// What it takes off a payment, at least 1.
    discount_amount: Money,
    /// The smallest payment that it can be used for; default 0.
    #[serde(default)]
    min_available_amount: Money,
    /// Nothing is issued before.
    issue_starts_at: DateTime<Utc>,
    /// Nothing is issued from here on; a moment that has passed ends the coupon at once.
    issue_ends_at: DateTime<Utc>,
}

/// Makes a coupon or changes it. The quota can't go below what is issued.
#[utoipa::path(put, path = "/admin/coupons/{coupon}", tag = "coupon", params(("coupon" = CouponId, Path)), request_body = CouponDefinition,
    responses((status = 200, body = CouponDto), (status = 409, body = ProblemDetails, description = "`in_use`"),
        (status = 422, body = ProblemDetails)), security(("admin" = [])))]
async fn put(
    State(coupons): State<Arc<CouponService>>,
    NewPathParams(id): NewPathParams<CouponId>,
    JsonBody(new): JsonBody<CouponDefinition>,
) -> Result<JsonBody<CouponDto>, ProblemDetails> {
    if new.id.is_some_and(|other| other != id) {
        return Err(ProblemDetails::invalid_field("id", "must be the id of the path"));
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

/// A coupon's issues, newest first.
#[utoipa::path(get, path = "/admin/coupons/{coupon}/issues", tag = "coupon", params(("coupon" = CouponId, Path), CouponIssuesQuery),
    responses((status = 200, body = CouponIssuesDto), (status = 404, body = ProblemDetails), (status = 422, body = ProblemDetails)),
    security(("admin" = [])))]
async fn issues(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
    QueryParams(page): QueryParams<CouponIssuesQuery>,
) -> Result<JsonBody<CouponIssuesDto>, ProblemDetails> {
    Ok(JsonBody(coupons.issues(&id, page.before(), page.limit).await?.into()))
}

/// Reads bodies of the kinds that this room takes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::try_as::<CouponDefinition>(bytes);
}
