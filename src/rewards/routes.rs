//! Rewards over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Error, Reward, RewardClaim, RewardCondition, RewardKind, RewardService};
use crate::http::cache::CachedForOneSecond;
use crate::http::identity::AuthenticatedUser;
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::problem::FieldError;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ClaimId, RewardCode, UserId};
use crate::time::UnixMillis;

/// The routes of rewards.
pub fn router() -> OpenApiRouter<Arc<RewardService>> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(claim)).routes(routes!(mine))
}

/// A reward as everybody may see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reward)]
pub(super) struct RewardDto {
    code: RewardCode,
    title: String,
    starts_at: UnixMillis,
    ends_at: UnixMillis,
    active: bool,
    conditions: Vec<RewardCondition>,
    reward: RewardKind,
}

impl From<&Reward> for RewardDto {
    fn from(reward: &Reward) -> Self {
        Self {
            code: reward.code.clone(),
            title: reward.title.clone(),
            starts_at: reward.starts_at.into(),
            ends_at: reward.ends_at.into(),
            active: reward.active,
            conditions: reward.conditions.clone(),
            reward: reward.gift.clone(),
        }
    }
}

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ClaimStatus)]
pub(super) enum AttemptStatus {
    Success,
    Failed,
}

impl AttemptStatus {
    pub(super) fn of(claim: &RewardClaim) -> Self {
        if claim.success { Self::Success } else { Self::Failed }
    }
}

/// How a claim that was granted stands.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum GrantedStatus {
    Success,
    /// Granted, and not yet known to be durable.
    Pending,
}

/// A reward that was granted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Claim)]
struct GrantedDto {
    id: ClaimId,
    code: RewardCode,
    user_id: UserId,
    status: GrantedStatus,
    reward: RewardKind,
    claimed_at: UnixMillis,
}

/// An attempt to claim a reward.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClaimAttempt)]
struct AttemptDto {
    id: ClaimId,
    status: AttemptStatus,
    /// Null for a success, else the `code` of the refusal.
    reason: Option<String>,
    claimed_at: UnixMillis,
}

/// A page of attempts, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClaimAttempts)]
struct AttemptsDto {
    items: Vec<AttemptDto>,
    /// For `before`, when there is more.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct AttemptsQuery {
    /// 1…500, 50 if left out.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<PageCursor>,
}

/// A reward, one second old at most.
#[utoipa::path(get, path = "/v1/rewards/{code}", tag = "reward", params(("code" = RewardCode, Path)),
    responses((status = 200, body = RewardDto), (status = 404, body = ProblemDetails)))]
async fn show(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
) -> Result<CachedForOneSecond<JsonBody<RewardDto>>, ProblemDetails> {
    let reward = rewards.reward(&code).ok_or(Error::NotFound)?;
    Ok(CachedForOneSecond(JsonBody(RewardDto::from(reward.as_ref()))))
}

/// Claims a reward. Points are in the wallet when this answers.
#[utoipa::path(post, path = "/v1/rewards/{code}/claims", tag = "reward", params(("code" = RewardCode, Path)),
    responses((status = 201, body = GrantedDto), (status = 202, body = GrantedDto, description = "Granted, and not yet known to be durable."),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "`not_started`, `ended`, `inactive`, `condition_not_met` with `unmet`"),
        (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails, description = "`already_claimed`"),
        (status = 422, body = ProblemDetails, description = "`balance_limit_exceeded`")), security(("user" = [])))]
async fn claim(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
    AuthenticatedUser(user): AuthenticatedUser,
) -> Result<(StatusCode, JsonBody<GrantedDto>), ProblemDetails> {
    let granted = rewards.claim(&code, user).await?;
    let (answer, status) = if granted.written {
        (StatusCode::CREATED, GrantedStatus::Success)
    } else {
        (StatusCode::ACCEPTED, GrantedStatus::Pending)
    };
    let body = GrantedDto {
        id: granted.claim.id,
        code,
        user_id: user,
        status,
        reward: granted.reward.gift.clone(),
        claimed_at: UnixMillis(granted.claim.claimed_at),
    };
    Ok((answer, JsonBody(body)))
}

/// One's own attempts, refused ones too, newest first.
#[utoipa::path(get, path = "/v1/rewards/{code}/claims/mine", tag = "reward", params(("code" = RewardCode, Path), AttemptsQuery),
    responses((status = 200, body = AttemptsDto), (status = 401, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 422, body = ProblemDetails)), security(("user" = [])))]
async fn mine(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
    AuthenticatedUser(user): AuthenticatedUser,
    QueryParams(page): QueryParams<AttemptsQuery>,
) -> Result<JsonBody<AttemptsDto>, ProblemDetails> {
    let before = page.before.unwrap_or(PageCursor::START);
    let (claims, next) = rewards.history(&code, Some(user), None, (before, page.limit)).await?;
    let items = claims
        .into_iter()
        .map(|claim| AttemptDto {
            id: claim.id,
            status: AttemptStatus::of(&claim),
            reason: claim.reason,
            claimed_at: UnixMillis(claim.claimed_at),
        })
        .collect();
    Ok(JsonBody(AttemptsDto { items, next }))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let forbidden = |code| Self::new(StatusCode::FORBIDDEN, code, text.clone());
        match error {
            Error::NotFound => Self::not_found(),
            Error::AlreadyClaimed => Self::new(StatusCode::CONFLICT, "already_claimed", text),
            Error::Inactive => forbidden("inactive"),
            Error::NotStarted => forbidden("not_started"),
            Error::Ended => forbidden("ended"),
            Error::ConditionNotMet(unmet) => forbidden("condition_not_met").with("unmet", unmet),
            Error::BalanceLimitExceeded => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "balance_limit_exceeded", text)
            }
            Error::Unsound(flaws) => Self::invalid_request(
                flaws.into_iter().map(|(field, message)| FieldError { field, message }).collect(),
            ),
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
        assert!(future_size::of(|| claim(any(), any(), any())) <= MAX_BYTES);
    }
}
