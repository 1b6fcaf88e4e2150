//! Rewards and facts for operators.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::{AttemptStatus, RewardDto};
use super::{Error, Reward, RewardClaim, RewardCondition, RewardKind, RewardService, UserFacts};
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ClaimId, RewardCode, UserId};
use crate::time::UnixMillis;

/// The operators' routes of rewards.
pub fn router() -> OpenApiRouter<Arc<RewardService>> {
    OpenApiRouter::new().routes(routes!(put)).routes(routes!(claims)).routes(routes!(set_facts))
}

/// A reward as an operator defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RewardDefinition {
    /// If given, the code of the path.
    code: Option<RewardCode>,
    /// 1–255 characters.
    title: String,
    /// It can't be claimed before.
    starts_at: DateTime<Utc>,
    /// It can't be claimed from here on; a moment that has passed ends it at once.
    ends_at: DateTime<Utc>,
    /// Whether it can be claimed at all; default true.
    #[serde(default = "yes")]
    active: bool,
    /// All of these must hold; default none.
    #[serde(default)]
    conditions: Vec<RewardCondition>,
    /// What it gives.
    reward: RewardKind,
}

fn yes() -> bool {
    true
}

/// An attempt to claim a reward.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminClaim)]
struct AdminClaimDto {
    id: ClaimId,
    code: RewardCode,
    user_id: UserId,
    status: AttemptStatus,
    reason: Option<String>,
    claimed_at: UnixMillis,
}

impl AdminClaimDto {
    fn new(code: &RewardCode, claim: RewardClaim) -> Self {
        Self {
            id: claim.id,
            code: code.clone(),
            user_id: claim.user,
            status: AttemptStatus::of(&claim),
            reason: claim.reason,
            claimed_at: UnixMillis(claim.claimed_at),
        }
    }
}

/// A page of attempts, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminClaims)]
struct AdminClaimsDto {
    items: Vec<AdminClaimDto>,
    /// For `before`, when there is more.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct AdminClaimsQuery {
    /// Only attempts that went so.
    status: Option<AttemptStatus>,
    /// 1…500, 50 if left out.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<PageCursor>,
}

/// What operators said of a user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserFacts)]
struct UserFactsDto {
    user_id: UserId,
    facts: UserFacts,
}

/// Makes a reward or changes it. Who has claimed it has it for good.
#[utoipa::path(put, path = "/admin/rewards/{code}", tag = "reward", params(("code" = RewardCode, Path)), request_body = RewardDefinition,
    responses((status = 200, body = RewardDto), (status = 422, body = ProblemDetails)), security(("admin" = [])))]
async fn put(
    State(rewards): State<Arc<RewardService>>,
    NewPathParams(code): NewPathParams<RewardCode>,
    JsonBody(new): JsonBody<RewardDefinition>,
) -> Result<JsonBody<RewardDto>, ProblemDetails> {
    if new.code.is_some_and(|other| other != code) {
        return Err(ProblemDetails::invalid_field("code", "must be the code of the path"));
    }
    let reward = Reward {
        code: code.clone(),
        version: 0,
        title: new.title,
        starts_at: new.starts_at,
        ends_at: new.ends_at,
        active: new.active,
        conditions: new.conditions,
        gift: new.reward,
    };
    rewards.put(reward).await?;
    let reward = rewards.reward(&code).ok_or(Error::NotFound)?;
    Ok(JsonBody(RewardDto::from(reward.as_ref())))
}

/// Attempts to claim a reward, newest first.
#[utoipa::path(get, path = "/admin/rewards/{code}/claims", tag = "reward", params(("code" = RewardCode, Path), AdminClaimsQuery),
    responses((status = 200, body = AdminClaimsDto), (status = 404, body = ProblemDetails), (status = 422, body = ProblemDetails)),
    security(("admin" = [])))]
async fn claims(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
    QueryParams(wanted): QueryParams<AdminClaimsQuery>,
) -> Result<JsonBody<AdminClaimsDto>, ProblemDetails> {
    let success = wanted.status.map(|status| status == AttemptStatus::Success);
    let before = wanted.before.unwrap_or(PageCursor::START);
    let (claims, next) = rewards.history(&code, None, success, (before, wanted.limit)).await?;
    let items = claims.into_iter().map(|claim| AdminClaimDto::new(&code, claim)).collect();
    Ok(JsonBody(AdminClaimsDto { items, next }))
}

/// Says what is known of a user, in place of all that was said before. `paid_total` and `reservations_confirmed` are the service's own.
#[utoipa::path(put, path = "/admin/users/{user}/facts", tag = "reward", params(("user" = UserId, Path)),
    request_body(content = std::collections::HashMap<String, i64>, example = json!({"login_days": 7})),
    responses((status = 200, body = UserFactsDto), (status = 202, body = UserFactsDto, description = "Done, and not yet known to be durable."),
        (status = 422, body = ProblemDetails)), security(("admin" = [])))]
async fn set_facts(
    State(rewards): State<Arc<RewardService>>,
    NewPathParams(user): NewPathParams<UserId>,
    JsonBody(facts): JsonBody<UserFacts>,
) -> Result<(StatusCode, JsonBody<UserFactsDto>), ProblemDetails> {
    let written = rewards.set_facts(user, &facts).await?;
    let status = if written { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, JsonBody(UserFactsDto { user_id: user, facts })))
}

/// Reads bodies of the kinds that this room takes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::try_as::<RewardDefinition>(bytes);
    crate::http::json::try_as::<UserFacts>(bytes);
}
