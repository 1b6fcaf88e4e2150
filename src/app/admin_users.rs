//! The admin routes of users: search, and everything about one user.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::domain_services::DomainServices;
use crate::coupons::CouponIssueDto;
use crate::http::page::PageLimit;
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{UserId, UserName};
use crate::money::{CurrencyCode, Money};
use crate::payment::PaymentDto;
use crate::queue::UserPlaceDto;
use crate::rewards::{AdminClaimDto, UserFacts};
use crate::seats::ReservationDto;

/// The longest id of a user.
const MAX_PREFIX_LENGTH: usize = 128;

pub(super) fn router() -> OpenApiRouter<DomainServices> {
    OpenApiRouter::new().routes(routes!(search)).routes(routes!(show))
}

/// Everything about one user. Lists have the newest 50 items, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminUser)]
struct AdminUserDto {
    user_id: UserName,
    balance: Money,
    currency: CurrencyCode,
    /// The facts that operators have set, by name.
    #[schema(value_type = std::collections::HashMap<String, i64>, example = json!({"login_days": 7}))]
    facts: UserFacts,
    /// The places in queues, waiting or active.
    places: Vec<UserPlaceDto>,
    /// The reservations, also held ones.
    reservations: Vec<ReservationDto>,
    /// The payments, also pending ones.
    payments: Vec<PaymentDto>,
    /// The coupons that were issued to the user.
    coupon_issues: Vec<CouponIssueDto>,
    /// The attempts to claim rewards.
    claims: Vec<AdminClaimDto>,
}

/// A user whose id matches.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FoundUser)]
struct FoundUserDto {
    user_id: UserName,
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FoundUsers)]
struct FoundUsersDto {
    items: Vec<FoundUserDto>,
    /// The value of `before` for the next page. Null on the last page.
    #[schema(value_type = Option<String>)]
    next: Option<UserName>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UserSearchQuery {
    /// The beginning of the id, up to 128 visible ASCII characters. Omitted or empty: all users.
    #[serde(default)]
    q: String,
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<UserName>,
}

/// Find users by the beginning of their id
///
/// The list has users who own something: a wallet, a reservation, a coupon, a claim or facts, and
/// all users with an id that is not a UUID. Upper and lower case differ, except in UUIDs. UUIDs
/// follow other ids.
#[utoipa::path(
    get,
    path = "/admin/users",
    operation_id = "listUsers",
    tag = "admin",
    params(UserSearchQuery),
    responses((status = 200, body = FoundUsersDto), (status = 422, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn search(
    State(services): State<DomainServices>,
    QueryParams(query): QueryParams<UserSearchQuery>,
) -> Result<JsonBody<FoundUsersDto>, ProblemDetails> {
    if query.q.len() > MAX_PREFIX_LENGTH || !query.q.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "must be up to 128 visible ASCII characters without spaces";
        return Err(ProblemDetails::invalid_field("q", message));
    }
    let mut users = services.users.search(&query.q, query.before.as_ref(), query.limit).await?;
    let has_next = users.len() > query.limit.get();
    users.truncate(query.limit.get());
    let next = users.last().filter(|_| has_next).cloned();
    let items = users.into_iter().map(|user_id| FoundUserDto { user_id }).collect();
    Ok(JsonBody(FoundUsersDto { items, next }))
}

/// Get everything about one user
///
/// A user who was never seen has a balance of 0 and empty lists.
#[utoipa::path(
    get,
    path = "/admin/users/{user}",
    operation_id = "getUser",
    tag = "admin",
    params(("user" = UserId, Path)),
    responses((status = 200, body = AdminUserDto), (status = 404, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn show(
    State(services): State<DomainServices>,
    PathParams(user_id): PathParams<UserName>,
) -> Result<JsonBody<AdminUserDto>, ProblemDetails> {
    let (key, limit) = (user_id.key(), PageLimit::default());
    let (balance, facts, places) = tokio::join!(
        services.wallet.balance(key),
        services.rewards.facts(key),
        services.queue.places_of(key),
    );
    let (reservations, payments, coupon_issues, claims) = tokio::join!(
        services.seats.recent_reservations(key, limit),
        services.payments.recent_payments(key, limit),
        services.coupons.recent_issues(&user_id, limit),
        services.rewards.recent_claims(&user_id, limit),
    );
    Ok(JsonBody(AdminUserDto {
        balance: balance?,
        currency: services.seats.currency(),
        facts: facts?,
        places: places?,
        reservations: reservations?,
        payments: payments?,
        coupon_issues: coupon_issues?,
        claims: claims?,
        user_id,
    }))
}
