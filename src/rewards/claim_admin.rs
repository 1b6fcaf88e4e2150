//! The admin routes of reward claims and user facts.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::AttemptStatus;
use super::{Error, RewardClaim, RewardService, UserFactChanges, UserFacts, sql, store};
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::query::QueryParams;
use crate::http::recorded_change::RecordedChange;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ClaimId, RewardCode, UserId, UserName};
use crate::time::UnixMillis;
use crate::users::UserDirectory;

pub(super) fn router() -> OpenApiRouter<Arc<RewardService>> {
    OpenApiRouter::new().routes(routes!(claims)).routes(routes!(set_facts, merge_facts))
}

/// An attempt to claim a reward.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminClaim)]
pub struct AdminClaimDto {
    id: ClaimId,
    code: RewardCode,
    user_id: UserName,
    status: AttemptStatus,
    /// The `code` of the refusal. Null unless it failed.
    reason: Option<String>,
    /// How often the user was refused for this reason. 1 unless it failed.
    attempts: u32,
    /// The time of the last attempt.
    claimed_at: UnixMillis,
}

impl AdminClaimDto {
    pub fn new(code: &RewardCode, claim: RewardClaim, user_id: UserName) -> Self {
        Self {
            id: claim.id,
            code: code.clone(),
            user_id,
            status: AttemptStatus::of(&claim),
            reason: claim.reason,
            attempts: claim.attempts,
            claimed_at: UnixMillis(claim.claimed_at),
        }
    }
}

/// A page of attempts, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminClaims)]
struct AdminClaimsDto {
    items: Vec<AdminClaimDto>,
    /// The value of `before` for the next page. Null on the last page.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AdminClaimsQuery {
    /// Only attempts with this status.
    status: Option<AttemptStatus>,
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<PageCursor>,
}

/// The facts that an operator has set for a user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserFacts)]
struct UserFactsDto {
    user_id: UserName,
    /// The facts by name.
    #[schema(value_type = std::collections::HashMap<String, i64>, example = json!({"login_days": 7}))]
    facts: UserFacts,
}

/// List the attempts to claim a reward
///
/// The newest attempt comes first. Refused attempts are included, once per user and reason.
#[utoipa::path(
    get,
    path = "/admin/rewards/{code}/claims",
    operation_id = "listClaimsOfReward",
    tag = "reward",
    params(("code" = RewardCode, Path), AdminClaimsQuery),
    responses(
        (status = 200, body = AdminClaimsDto),
        (status = 404, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn claims(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
    Extension(users): Extension<Arc<UserDirectory>>,
    QueryParams(query): QueryParams<AdminClaimsQuery>,
) -> Result<JsonBody<AdminClaimsDto>, ProblemDetails> {
    let status = query.status.map(AttemptStatus::recorded);
    let before = query.before.unwrap_or(PageCursor::START);
    let (claims, next) = rewards.history(&code, None, status, (before, query.limit)).await?;
    let names = users.names(claims.iter().map(|claim| claim.user)).await?;
    let items = claims.into_iter().map(|claim| {
        let user_id = names.of(claim.user);
        AdminClaimDto::new(&code, claim, user_id)
    });
    Ok(JsonBody(AdminClaimsDto { items: items.collect(), next }))
}

impl RewardService {
    /// The newest attempts of a user to claim any reward.
    pub async fn recent_claims(
        &self,
        user: &UserName,
        limit: PageLimit,
    ) -> Result<Vec<AdminClaimDto>, Error> {
        self.wait_until_written(user.key()).await?;
        let claims = sql::claims_of_user(&self.mysql, user.key(), limit.get()).await?;
        let dto = |(code, claim)| AdminClaimDto::new(&code, claim, user.clone());
        Ok(claims.into_iter().map(dto).collect())
    }

    /// The facts that operators have set for a user.
    pub async fn facts(&self, user: UserId) -> Result<UserFacts, Error> {
        Ok(store::read_facts(&self.redis, user).await?)
    }

    /// The number of granted claims of all rewards, as MySQL has them.
    pub async fn granted_total(&self) -> Result<u64, Error> {
        Ok(sql::granted_total(&self.mysql).await?)
    }
}

/// Replace the facts of a user
///
/// The request replaces all facts that were set before. At most 100 facts can be set. The service
/// maintains `paid_total` and `reservations_confirmed`, which can't be set.
#[utoipa::path(
    put,
    path = "/admin/users/{user}/facts",
    operation_id = "putUserFacts",
    tag = "reward",
    params(("user" = UserId, Path)),
    request_body(
        content = std::collections::HashMap<String, i64>,
        example = json!({"login_days": 7})
    ),
    responses(
        (status = 200, body = UserFactsDto),
        (status = 202, body = UserFactsDto,
            description = "The facts are set, but not yet confirmed as durable."),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn set_facts(
    State(rewards): State<Arc<RewardService>>,
    Extension(users): Extension<Arc<UserDirectory>>,
    NewPathParams(user_id): NewPathParams<UserName>,
    JsonBody(facts): JsonBody<UserFacts>,
) -> Result<(StatusCode, Extension<RecordedChange>, JsonBody<UserFactsDto>), ProblemDetails> {
    users.record(&user_id).await?;
    let before = rewards.facts(user_id.key()).await?;
    let durable = rewards.set_facts(user_id.key(), &facts).await?;
    let status = if durable { StatusCode::OK } else { StatusCode::ACCEPTED };
    let change = RecordedChange::new(Some(&before), Some(&facts));
    Ok((status, Extension(change), JsonBody(UserFactsDto { user_id, facts })))
}

/// Change some facts of a user
///
/// A JSON Merge Patch (RFC 7396): facts that are not named stay, and null removes a fact. The
/// response has all facts after the change.
#[utoipa::path(
    patch,
    path = "/admin/users/{user}/facts",
    operation_id = "mergeUserFacts",
    tag = "reward",
    params(("user" = UserId, Path)),
    request_body(
        content(
            (std::collections::HashMap<String, Option<i64>> = "application/merge-patch+json",
                example = json!({"level": 3, "login_days": null})),
            (std::collections::HashMap<String, Option<i64>> = "application/json",
                example = json!({"level": 3, "login_days": null})),
        ),
        description = "The facts that change.",
    ),
    responses(
        (status = 200, body = UserFactsDto),
        (status = 202, body = UserFactsDto,
            description = "The facts are changed, but not yet confirmed as durable."),
        (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn merge_facts(
    State(rewards): State<Arc<RewardService>>,
    Extension(users): Extension<Arc<UserDirectory>>,
    NewPathParams(user_id): NewPathParams<UserName>,
    JsonBody(changes): JsonBody<UserFactChanges>,
) -> Result<(StatusCode, Extension<RecordedChange>, JsonBody<UserFactsDto>), ProblemDetails> {
    users.record(&user_id).await?;
    let before = rewards.facts(user_id.key()).await?;
    let (facts, durable) = rewards.merge_facts(user_id.key(), &changes).await?;
    let status = if durable { StatusCode::OK } else { StatusCode::ACCEPTED };
    let change = RecordedChange::new(Some(&before), Some(&facts));
    Ok((status, Extension(change), JsonBody(UserFactsDto { user_id, facts })))
}

/// Parses the request bodies of these routes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<super::RewardDefinition>(bytes);
    crate::http::json::parse_as::<UserFacts>(bytes);
    crate::http::json::parse_as::<UserFactChanges>(bytes);
}
