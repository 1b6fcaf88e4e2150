//! The public routes of coupons.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rules::{self, CouponStatus};
use super::{Coupon, CouponCounts, CouponIssue, CouponService, Error};
use crate::coupon_terms::{CouponDiscount, CouponTerms, DiscountKind};
use crate::http::cache::CachedForOneSecond;
use crate::http::identity::NamedUser;
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{CouponId, IssueId, UserId, UserName};
use crate::money::{CurrencyCode, Money};
use crate::time::UnixMillis;

pub fn router() -> OpenApiRouter<Arc<CouponService>> {
    OpenApiRouter::new().routes(routes!(mine)).routes(routes!(show)).routes(routes!(issue))
}

/// How coupons are issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CouponType)]
pub enum CouponType {
    FirstComeFirstServed,
}

/// The public description of a coupon.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Coupon)]
pub(super) struct CouponDto {
    id: CouponId,
    title: String,
    r#type: CouponType,
    /// The quota. Null means unlimited.
    total_quantity: Option<u64>,
    issued_quantity: u64,
    /// How the discount is computed.
    discount_kind: DiscountKind,
    /// The discount on a payment. Null for the kind `percent`.
    discount_amount: Option<Money>,
    /// The discount in percent of the price, rounded down. Null for the kind `amount`.
    discount_percent: Option<u32>,
    /// The largest discount of the kind `percent`. Null means no limit.
    discount_limit: Option<Money>,
    /// The smallest price that the coupon can be used for.
    min_available_amount: Money,
    currency: CurrencyCode,
    /// How long a coupon can be used after it was issued. Null means no such limit.
    valid_seconds: Option<u32>,
    /// Until when coupons can be used. Null means no such limit.
    valid_until: Option<UnixMillis>,
    /// Coupons are issued from this time on.
    issue_starts_at: UnixMillis,
    /// Coupons are issued until this time.
    issue_ends_at: UnixMillis,
    status: CouponStatus,
}

impl CouponDto {
    pub(super) fn new(coupon: &Coupon, counts: &CouponCounts, currency: CurrencyCode) -> Self {
        let CouponDiscount { kind, amount, percent, limit, min_available_amount } = coupon.discount;
        Self {
            id: coupon.id.clone(),
            title: coupon.title.clone(),
            r#type: CouponType::FirstComeFirstServed,
            total_quantity: coupon.total_quantity,
            issued_quantity: counts.issued,
            discount_kind: kind,
            discount_amount: amount,
            discount_percent: percent,
            discount_limit: limit,
            min_available_amount,
            valid_seconds: coupon.valid_seconds,
            valid_until: coupon.valid_until.map(UnixMillis::from),
            currency,
            issue_starts_at: coupon.issue_starts_at.into(),
            issue_ends_at: coupon.issue_ends_at.into(),
            status: rules::status(coupon, counts.issued, counts.now),
        }
    }
}

/// A coupon that was issued to a user, with the terms that the coupon had then.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CouponIssue)]
pub struct CouponIssueDto {
    id: IssueId,
    coupon_id: CouponId,
    user_id: UserName,
    /// How the discount is computed.
    discount_kind: DiscountKind,
    /// The discount on a payment. Null for the kind `percent`.
    discount_amount: Option<Money>,
    /// The discount in percent of the price, rounded down. Null for the kind `amount`.
    discount_percent: Option<u32>,
    /// The largest discount of the kind `percent`. Null means no limit.
    discount_limit: Option<Money>,
    /// The smallest price that the coupon can be used for.
    min_available_amount: Money,
    /// From this time on, a payment with this coupon is refused with `coupon_expired`. Null means
    /// no limit.
    valid_until: Option<UnixMillis>,
    issued_at: UnixMillis,
    /// Null until a payment has used the coupon.
    used_at: Option<UnixMillis>,
}

impl CouponIssueDto {
    pub fn new(issue: CouponIssue, user_id: UserName) -> Self {
        let CouponTerms { discount, valid_until } = issue.terms;
        let CouponDiscount { kind, amount, percent, limit, min_available_amount } = discount;
        Self {
            id: issue.id,
            coupon_id: issue.coupon,
            user_id,
            discount_kind: kind,
            discount_amount: amount,
            discount_percent: percent,
            discount_limit: limit,
            min_available_amount,
            valid_until: valid_until.map(UnixMillis),
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
    /// The value of `before` for the next page. Null on the last page.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

impl CouponIssuesDto {
    pub(super) fn new(
        (items, next): (Vec<CouponIssue>, Option<PageCursor>),
        name_of: impl Fn(UserId) -> UserName,
    ) -> Self {
        let items = items.into_iter().map(|issue| {
            let user_id = name_of(issue.user);
            CouponIssueDto::new(issue, user_id)
        });
        Self { items: items.collect(), next }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CouponIssuesQuery {
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    pub(super) limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    pub(super) before: Option<PageCursor>,
}

impl CouponIssuesQuery {
    pub(super) fn before(&self) -> PageCursor {
        self.before.unwrap_or(PageCursor::START)
    }
}

/// Get a coupon and the number of issues
///
/// The response is at most one second old.
#[utoipa::path(
    get,
    path = "/v1/coupons/{coupon}",
    operation_id = "getCoupon",
    tag = "coupon",
    params(("coupon" = CouponId, Path)),
    responses((status = 200, body = CouponDto), (status = 404, body = ProblemDetails))
)]
async fn show(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
) -> Result<CachedForOneSecond<JsonBody<CouponDto>>, ProblemDetails> {
    let (coupon, counts) = coupons.find(&id).await?;
    Ok(CachedForOneSecond(JsonBody(CouponDto::new(&coupon, &counts, coupons.currency))))
}

/// Get a coupon issued
///
/// Returns 201 with a new issue, or 200 with the existing one when the user has the coupon already.
#[utoipa::path(
    post,
    path = "/v1/coupons/{coupon}/issues",
    operation_id = "issueCoupon",
    tag = "coupon",
    params(("coupon" = CouponId, Path)),
    responses(
        (status = 201, body = CouponIssueDto),
        (status = 200, body = CouponIssueDto),
        (status = 202, body = CouponIssueDto,
            description = "The coupon is issued, but not yet confirmed as durable."),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "`not_started`, `ended`"),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`sold_out`"),
    ),
    security(("user" = []))
)]
async fn issue(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
    NamedUser(name): NamedUser,
) -> Result<(StatusCode, JsonBody<CouponIssueDto>), ProblemDetails> {
    let issued = coupons.issue(&id, name.key()).await?;
    let status = match (issued.durable, issued.is_new) {
        (false, _) => StatusCode::ACCEPTED,
        (true, true) => StatusCode::CREATED,
        (true, false) => StatusCode::OK,
    };
    Ok((status, JsonBody(CouponIssueDto::new(issued.issue, name))))
}

/// List the caller's issues of all coupons
///
/// The newest issue comes first.
#[utoipa::path(
    get,
    path = "/v1/coupons/issues/mine",
    operation_id = "listCouponIssues",
    tag = "coupon",
    params(CouponIssuesQuery),
    responses(
        (status = 200, body = CouponIssuesDto),
        (status = 401, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("user" = []))
)]
async fn mine(
    State(coupons): State<Arc<CouponService>>,
    NamedUser(name): NamedUser,
    QueryParams(page): QueryParams<CouponIssuesQuery>,
) -> Result<JsonBody<CouponIssuesDto>, ProblemDetails> {
    let issues = coupons.issues_of_user(name.key(), page.before(), page.limit).await?;
    Ok(JsonBody(CouponIssuesDto::new(issues, |_| name.clone())))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::not_found(),
            Error::SoldOut => {
                Self::new(StatusCode::CONFLICT, "sold_out", "This coupon is sold out.")
            }
            Error::NotStarted => {
                Self::new(StatusCode::FORBIDDEN, "not_started", "This coupon is not issued yet.")
            }
            Error::Ended => {
                Self::new(StatusCode::FORBIDDEN, "ended", "This coupon is no longer issued.")
            }
            Error::Invalid(violations) => Self::invalid_definition(violations),
            Error::QuotaTooSmall(issued) => Self::new(
                StatusCode::CONFLICT,
                "in_use",
                format!("{issued} coupons are already issued, more than the new quota."),
            )
            .with("issued_quantity", issued),
            Error::InUse(items) => Self::in_use("Coupons of this definition are issued.", &items),
            Error::PreconditionFailed => Self::precondition_failed(),
            Error::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn futures_of_frequent_handlers_are_small() {
        assert!(future_size::of(|| issue(any(), any(), any())) <= MAX_BYTES);
    }
}
