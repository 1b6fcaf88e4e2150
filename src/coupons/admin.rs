//! The admin routes of coupons.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::{CouponIssueDto, CouponIssuesDto, CouponIssuesQuery};
use super::rules::{self, CouponStatus};
use super::{Coupon, CouponCounts, CouponDefinition, CouponService, Error};
use crate::definition::{ChangedDefinition, DefinitionEtag};
use crate::http::definition_page::{DefinitionsQuery, NameCursor};
use crate::http::merge_patch::{DefinitionChange, MergePatch};
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::preconditions::{DefinitionBody, DeletedDefinition, Preconditions};
use crate::http::query::QueryParams;
use crate::http::recorded_change::RecordedChange;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{CouponId, UserName};
use crate::users::UserDirectory;

pub fn router() -> OpenApiRouter<Arc<CouponService>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, put, patch, delete))
        .routes(routes!(issues))
}

/// The definition of a coupon and how many are issued.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminCoupon)]
struct AdminCouponDto {
    id: CouponId,
    definition: CouponDefinition,
    issued_quantity: u64,
    status: CouponStatus,
}

/// A page of coupons, sorted by their id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminCoupons)]
struct AdminCouponsDto {
    items: Vec<AdminCouponDto>,
    #[schema(value_type = Option<String>)]
    next: Option<NameCursor>,
}

impl AdminCouponDto {
    fn new(coupon: &Coupon, counts: &CouponCounts) -> Self {
        Self {
            id: coupon.id.clone(),
            definition: coupon.into(),
            issued_quantity: counts.issued,
            status: rules::status(coupon, counts.issued, counts.now),
        }
    }
}

async fn changed(
    coupons: &CouponService,
    id: &CouponId,
    changed: ChangedDefinition<CouponDefinition>,
) -> Result<DefinitionBody<AdminCouponDto>, ProblemDetails> {
    let etag = DefinitionEtag::of(id.as_str(), &changed.after);
    let change = RecordedChange::new(changed.before.as_ref(), Some(&changed.after));
    let (coupon, counts) = coupons.find(id).await?;
    // A later change may have been made since.
    let body =
        AdminCouponDto { definition: changed.after, ..AdminCouponDto::new(&coupon, &counts) };
    Ok(DefinitionBody { etag, body, change: Some(change) })
}

/// List all coupons with their definitions
///
/// They are sorted by their id.
#[utoipa::path(
    get,
    path = "/admin/coupons",
    operation_id = "listCouponDefinitions",
    tag = "coupon",
    params(DefinitionsQuery),
    responses((status = 200, body = AdminCouponsDto), (status = 422, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn list(
    State(coupons): State<Arc<CouponService>>,
    QueryParams(query): QueryParams<DefinitionsQuery>,
) -> Result<JsonBody<AdminCouponsDto>, ProblemDetails> {
    let (page, next) = query.cut(coupons.all(), |coupon| coupon.id.as_str());
    let mut items = Vec::new();
    for found in futures::future::join_all(page.iter().map(|it| coupons.find(&it.id))).await {
        match found {
            Ok((coupon, counts)) => items.push(AdminCouponDto::new(&coupon, &counts)),
            // It was deleted meanwhile.
            Err(Error::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(JsonBody(AdminCouponsDto { items, next }))
}

/// Get the definition of a coupon and the number of issues
#[utoipa::path(
    get,
    path = "/admin/coupons/{coupon}",
    operation_id = "getCouponDefinition",
    tag = "coupon",
    params(("coupon" = CouponId, Path)),
    responses(
        (status = 200, body = AdminCouponDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 404, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn show(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
) -> Result<DefinitionBody<AdminCouponDto>, ProblemDetails> {
    let (coupon, counts) = coupons.find(&id).await?;
    let body = AdminCouponDto::new(&coupon, &counts);
    let etag = DefinitionEtag::of(id.as_str(), &body.definition);
    Ok(DefinitionBody { etag, body, change: None })
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
    params(
        ("coupon" = CouponId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body = CouponDefinition,
    responses(
        (status = 200, body = AdminCouponDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 409, body = ProblemDetails, description = "`in_use` with `issued_quantity`"),
        (status = 412, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn put(
    State(coupons): State<Arc<CouponService>>,
    NewPathParams(id): NewPathParams<CouponId>,
    Preconditions(preconditions): Preconditions,
    JsonBody(definition): JsonBody<CouponDefinition>,
) -> Result<DefinitionBody<AdminCouponDto>, ProblemDetails> {
    let change = DefinitionChange::Replace(definition);
    let definition = coupons.change(&id, change, &preconditions).await?;
    changed(&coupons, &id, definition).await
}

/// Change some fields of a coupon
///
/// A JSON Merge Patch (RFC 7396): an omitted field stays as it is, and `null` resets one to its
/// default.
#[utoipa::path(
    patch,
    path = "/admin/coupons/{coupon}",
    operation_id = "patchCoupon",
    tag = "coupon",
    params(
        ("coupon" = CouponId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body(
        content((Object = "application/merge-patch+json", example = json!({"total_quantity": 600})),
            (Object = "application/json", example = json!({"total_quantity": 600}))),
        description = "The fields of the definition that change.",
    ),
    responses(
        (status = 200, body = AdminCouponDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`in_use` with `issued_quantity`"),
        (status = 412, body = ProblemDetails),
        (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn patch(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
    Preconditions(preconditions): Preconditions,
    patch: MergePatch,
) -> Result<DefinitionBody<AdminCouponDto>, ProblemDetails> {
    let change = DefinitionChange::Patch(patch);
    let definition = coupons.change(&id, change, &preconditions).await?;
    changed(&coupons, &id, definition).await
}

/// Delete a coupon of which none is issued
#[utoipa::path(
    delete,
    path = "/admin/coupons/{coupon}",
    operation_id = "deleteCoupon",
    tag = "coupon",
    params(
        ("coupon" = CouponId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    responses(
        (status = 204, description = "The coupon is deleted."),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`in_use` when coupons were issued. `in_use` lists the first 20 as \
                `{kind: \"issue\", id}`. End the window instead."),
        (status = 412, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn delete(
    State(coupons): State<Arc<CouponService>>,
    PathParams(id): PathParams<CouponId>,
    Preconditions(preconditions): Preconditions,
) -> Result<DeletedDefinition, ProblemDetails> {
    let deleted = coupons.delete(&id, &preconditions).await?;
    Ok((StatusCode::NO_CONTENT, RecordedChange::deleted(&deleted)))
}

impl CouponService {
    /// The newest issues of a user.
    pub async fn recent_issues(
        &self,
        user: &UserName,
        limit: PageLimit,
    ) -> Result<Vec<CouponIssueDto>, Error> {
        let (issues, _) = self.issues_of_user(user.key(), PageCursor::START, limit).await?;
        let dto = |issue| CouponIssueDto::new(issue, user.clone());
        Ok(issues.into_iter().map(dto).collect())
    }

    /// The number of issues of all coupons.
    pub async fn issued_total(&self) -> Result<u64, Error> {
        let all = self.all();
        let mut total = 0;
        for found in futures::future::join_all(all.iter().map(|it| self.find(&it.id))).await {
            match found {
                Ok((_, counts)) => total += counts.issued,
                Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }
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
