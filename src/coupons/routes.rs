//! Coupons over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rules::{self, CouponStatus};
use super::{Coupon, CouponCounts, CouponIssue, CouponService, Error};
use crate::http::cache::CachedForOneSecond;
use crate::http::identity::AuthenticatedUser;
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::problem::FieldError;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{CouponId, IssueId, UserId};
use crate::money::Money;
use crate::time::UnixMillis;

/// The routes of coupons.
pub fn router() -> OpenApiRouter<Arc<CouponService>> {
    OpenApiRouter::new().routes(routes!(mine)).routes(routes!(show)).routes(routes!(issue))
}

/// How a coupon is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CouponType)]
pub(super) enum CouponType {
    FirstComeFirstServed,
}

/// A coupon as everybody may see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Coupon)]
pub(super) struct CouponDto {
    id: CouponId,
    title: String,
    r#type: CouponType,
    /// Null is unlimited.
    total_quantity: Option<u64>,
    issued_quantity: u64,
    discount_amount: Money,
    /// The smallest payment that it can be used for.
    min_available_amount: Money,
    issue_starts_at: UnixMillis,
    issue_ends_at: UnixMillis,
    status: CouponStatus,
}

impl CouponDto {
    pub(super) fn new(coupon: &Coupon, counts: &CouponCounts) -> Self {
        Self {
            id: coupon.id.clone(),
            title: coupon.title.clone(),
            r#type: CouponType::FirstComeFirstServed,
            total_quantity: coupon.total_quantity,
            issued_quantity: counts.issued,
            discount_amount: coupon.discount_amount,
            min_available_amount: coupon.min_available_amount,
            issue_starts_at: coupon.issue_starts_at.into(),
            issue_ends_at: coupon.issue_ends_at.into(),
            status: rules::status(coupon, counts.issued, counts.now),
        }
    }
}

/// One coupon in one user's hands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CouponIssue)]
pub(super) struct CouponIssueDto {
    id: IssueId,
    coupon_id: CouponId,
    user_id: UserId,
    issued_at: UnixMillis,
    /// Null until a payment has used it.
    used_at: Option<UnixMillis>,
}

impl From<CouponIssue> for CouponIssueDto {
    fn from(issue: CouponIssue) -> Self {
        Self {
            id: issue.id,
            coupon_id: issue.coupon,
            user_id: issue.user,
            issued_at: UnixMillis(issue.issued_at),
            used_at: issue.used_at.map(UnixMillis),
        }
    }
}

/// A page of issues, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CouponIssues)]
pub(super) struct CouponIssuesDto {
    items: Vec<CouponIssueDto>,
    /// For `before`, when there is more.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

impl From<(Vec<CouponIssue>, Option<PageCursor>)> for CouponIssuesDto {
    fn from((items, next): (Vec<CouponIssue>, Option<PageCursor>)) -> Self {
        Self { items: items.into_iter().map(CouponIssueDto::from).collect(), next }
    }
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct CouponIssuesQuery {
    /// 1…500, 50 if left out.
    #[serde(default)]
    pub(super) limit: PageLimit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    pub(super) before: Option<PageCursor>,
}

impl CouponIssuesQuery {
    pub(super) fn before(&self) -> PageCursor {
        self.before.unwrap_or(PageCursor::START)
    }
}

/// A coupon and how many are issued, one second old at most.
#[utoipa::path(get, path = "/v1/coupons/{coupon}", tag = "coupon", params(("coupon" = CouponId, Path)),
    responses((status = 200, body = CouponDto), (status = 404, body = ProblemDetails)))]
async fn show(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
) -> Result<CachedForOneSecond<JsonBody<CouponDto>>, ProblemDetails> {
    let (coupon, counts) = coupons.find(&id).await?;
    Ok(CachedForOneSecond(JsonBody(CouponDto::new(&coupon, &counts))))
}

/// Gives the user a coupon, or the one that they have already.
#[utoipa::path(post, path = "/v1/coupons/{coupon}/issues", tag = "coupon", params(("coupon" = CouponId, Path)),
    responses((status = 201, body = CouponIssueDto), (status = 200, body = CouponIssueDto),
        (status = 202, body = CouponIssueDto, description = "Issued, and not yet known to be durable."), (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "`not_started`, `ended`"), (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`sold_out`")), security(("user" = [])))]
async fn issue(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
    AuthenticatedUser(user): AuthenticatedUser,
) -> Result<(StatusCode, JsonBody<CouponIssueDto>), ProblemDetails> {
    let given = coupons.issue(&id, user).await?;
    let status = match (given.written, given.fresh) {
        (false, _) => StatusCode::ACCEPTED,
        (true, true) => StatusCode::CREATED,
        (true, false) => StatusCode::OK,
    };
    Ok((status, JsonBody(given.issue.into())))
}

/// One's own issues, newest first.
#[utoipa::path(get, path = "/v1/coupons/issues/mine", tag = "coupon", params(CouponIssuesQuery),
    responses((status = 200, body = CouponIssuesDto), (status = 401, body = ProblemDetails), (status = 422, body = ProblemDetails)),
    security(("user" = [])))]
async fn mine(
    State(coupons): State<Arc<CouponService>>,
    AuthenticatedUser(user): AuthenticatedUser,
    QueryParams(page): QueryParams<CouponIssuesQuery>,
) -> Result<JsonBody<CouponIssuesDto>, ProblemDetails> {
    Ok(JsonBody(coupons.issues_of(user, page.before(), page.limit).await?.into()))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound => Self::not_found(),
            Error::SoldOut => Self::new(StatusCode::CONFLICT, "sold_out", text),
            Error::NotStarted => Self::new(StatusCode::FORBIDDEN, "not_started", text),
            Error::Ended => Self::new(StatusCode::FORBIDDEN, "ended", text),
            Error::Unsound(flaws) => Self::invalid_request(
                flaws
                    .into_iter()
                    .map(|(field, message)| FieldError { field: field.into(), message })
                    .collect(),
            ),
            Error::InUse(issued) => {
                Self::new(StatusCode::CONFLICT, "in_use", text).with("issued_quantity", issued)
            }
            Error::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn busy_handlers_are_light() {
        assert!(future_size::of(|| issue(any(), any(), any())) <= MAX_BYTES);
    }
}
