//! Rewards and facts for operators.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::{RewardDto, Status};
use super::{Claim, Condition, Error, Facts, Gift, Reward, Rewards};
use crate::http::page::{Cursor, Limit};
use crate::http::path::{NewPath, Path};
use crate::http::query::Query;
use crate::http::{Json, Problem};
use crate::ids::{ClaimId, RewardCode, UserId};
use crate::time::Millis;

/// The operators' routes of rewards.
pub fn router() -> OpenApiRouter<Arc<Rewards>> {
    OpenApiRouter::new().routes(routes!(put)).routes(routes!(claims)).routes(routes!(set_facts))
}

/// A reward as an operator defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewReward {
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
    conditions: Vec<Condition>,
    /// What it gives.
    reward: Gift,
}

fn yes() -> bool {
    true
}

/// An attempt to claim a reward.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminClaim)]
struct ClaimDto {
    id: ClaimId,
    code: RewardCode,
    user_id: UserId,
    status: Status,
    reason: Option<String>,
    claimed_at: Millis,
}

impl ClaimDto {
    fn new(code: &RewardCode, claim: Claim) -> Self {
        Self {
            id: claim.id,
            code: code.clone(),
            user_id: claim.user,
            status: Status::of(&claim),
            reason: claim.reason,
            claimed_at: Millis(claim.claimed_at),
        }
    }
}

/// A page of attempts, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminClaims)]
struct ClaimsDto {
    items: Vec<ClaimDto>,
    /// For `before`, when there is more.
    #[schema(value_type = Option<String>)]
    next: Option<Cursor>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Only attempts that went so.
    status: Option<Status>,
    /// 1…500, 50 if left out.
    #[serde(default)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<Cursor>,
}

/// What operators said of a user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserFacts)]
struct FactsDto {
    user_id: UserId,
    facts: Facts,
}

/// Makes a reward or changes it. Who has claimed it has it for good.
#[utoipa::path(put, path = "/admin/rewards/{code}", tag = "reward", params(("code" = RewardCode, Path)), request_body = NewReward,
    responses((status = 200, body = RewardDto), (status = 422, body = Problem)), security(("admin" = [])))]
async fn put(
    State(rewards): State<Arc<Rewards>>,
    NewPath(code): NewPath<RewardCode>,
    Json(new): Json<NewReward>,
) -> Result<Json<RewardDto>, Problem> {
    if new.code.is_some_and(|other| other != code) {
        return Err(Problem::invalid_field("code", "must be the code of the path"));
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
    Ok(Json(RewardDto::from(reward.as_ref())))
}

/// Attempts to claim a reward, newest first.
#[utoipa::path(get, path = "/admin/rewards/{code}/claims", tag = "reward", params(("code" = RewardCode, Path), Wanted),
    responses((status = 200, body = ClaimsDto), (status = 404, body = Problem), (status = 422, body = Problem)),
    security(("admin" = [])))]
async fn claims(
    State(rewards): State<Arc<Rewards>>,
    Path(code): Path<RewardCode>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<ClaimsDto>, Problem> {
    let success = wanted.status.map(|status| status == Status::Success);
    let before = wanted.before.unwrap_or(Cursor::START);
    let (claims, next) = rewards.history(&code, None, success, (before, wanted.limit)).await?;
    let items = claims.into_iter().map(|claim| ClaimDto::new(&code, claim)).collect();
    Ok(Json(ClaimsDto { items, next }))
}

/// Says what is known of a user, in place of all that was said before. `paid_total` and `reservations_confirmed` are the service's own.
#[utoipa::path(put, path = "/admin/users/{user}/facts", tag = "reward", params(("user" = UserId, Path)),
    request_body(content = std::collections::HashMap<String, i64>, example = json!({"login_days": 7})),
    responses((status = 200, body = FactsDto), (status = 202, body = FactsDto, description = "Done, and not yet known to be durable."),
        (status = 422, body = Problem)), security(("admin" = [])))]
async fn set_facts(
    State(rewards): State<Arc<Rewards>>,
    NewPath(user): NewPath<UserId>,
    Json(facts): Json<Facts>,
) -> Result<(StatusCode, Json<FactsDto>), Problem> {
    let written = rewards.set_facts(user, &facts).await?;
    let status = if written { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(FactsDto { user_id: user, facts })))
}

/// Reads bodies of the kinds that this room takes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::try_as::<NewReward>(bytes);
    crate::http::json::try_as::<Facts>(bytes);
}
