//! Rewards over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Claim, Condition, Error, Gift, Reward, Rewards};
use crate::http::cache::SharedForASecond;
use crate::http::identity::User;
use crate::http::page::{Cursor, Limit};
use crate::http::path::Path;
use crate::http::problem::FieldError;
use crate::http::query::Query;
use crate::http::{Json, Problem};
use crate::ids::{ClaimId, RewardCode, UserId};
use crate::time::Millis;

/// The routes of rewards.
pub fn router() -> OpenApiRouter<Arc<Rewards>> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(claim)).routes(routes!(mine))
}

/// A reward as everybody may see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reward)]
pub(super) struct RewardDto {
    code: RewardCode,
    title: String,
    starts_at: Millis,
    ends_at: Millis,
    active: bool,
    conditions: Vec<Condition>,
    reward: Gift,
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
pub(super) enum Status {
    Success,
    Failed,
}

impl Status {
    pub(super) fn of(claim: &Claim) -> Self {
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
    reward: Gift,
    claimed_at: Millis,
}

/// An attempt to claim a reward.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClaimAttempt)]
struct AttemptDto {
    id: ClaimId,
    status: Status,
    /// Null for a success, else the `code` of the refusal.
    reason: Option<String>,
    claimed_at: Millis,
}

/// A page of attempts, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClaimAttempts)]
struct AttemptsDto {
    items: Vec<AttemptDto>,
    /// For `before`, when there is more.
    #[schema(value_type = Option<String>)]
    next: Option<Cursor>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Page {
    /// 1…500, 50 if left out.
    #[serde(default)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<Cursor>,
}

/// A reward, one second old at most.
#[utoipa::path(get, path = "/v1/rewards/{code}", tag = "reward", params(("code" = RewardCode, Path)),
    responses((status = 200, body = RewardDto), (status = 404, body = Problem)))]
async fn show(
    State(rewards): State<Arc<Rewards>>,
    Path(code): Path<RewardCode>,
) -> Result<SharedForASecond<Json<RewardDto>>, Problem> {
    let reward = rewards.reward(&code).ok_or(Error::NotFound)?;
    Ok(SharedForASecond(Json(RewardDto::from(reward.as_ref()))))
}

/// Claims a reward. Points are in the wallet when this answers.
#[utoipa::path(post, path = "/v1/rewards/{code}/claims", tag = "reward", params(("code" = RewardCode, Path)),
    responses((status = 201, body = GrantedDto), (status = 202, body = GrantedDto, description = "Granted, and not yet known to be durable."),
        (status = 401, body = Problem),
        (status = 403, body = Problem, description = "`not_started`, `ended`, `inactive`, `condition_not_met` with `unmet`"),
        (status = 404, body = Problem), (status = 409, body = Problem, description = "`already_claimed`"),
        (status = 422, body = Problem, description = "`balance_limit_exceeded`")), security(("user" = [])))]
async fn claim(
    State(rewards): State<Arc<Rewards>>,
    Path(code): Path<RewardCode>,
    User(user): User,
) -> Result<(StatusCode, Json<GrantedDto>), Problem> {
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
        claimed_at: Millis(granted.claim.claimed_at),
    };
    Ok((answer, Json(body)))
}

/// One's own attempts, refused ones too, newest first.
#[utoipa::path(get, path = "/v1/rewards/{code}/claims/mine", tag = "reward", params(("code" = RewardCode, Path), Page),
    responses((status = 200, body = AttemptsDto), (status = 401, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)), security(("user" = [])))]
async fn mine(
    State(rewards): State<Arc<Rewards>>,
    Path(code): Path<RewardCode>,
    User(user): User,
    Query(page): Query<Page>,
) -> Result<Json<AttemptsDto>, Problem> {
    let before = page.before.unwrap_or(Cursor::START);
    let (claims, next) = rewards.history(&code, Some(user), None, (before, page.limit)).await?;
    let items = claims
        .into_iter()
        .map(|claim| AttemptDto {
            id: claim.id,
            status: Status::of(&claim),
            reason: claim.reason,
            claimed_at: Millis(claim.claimed_at),
        })
        .collect();
    Ok(Json(AttemptsDto { items, next }))
}

impl From<Error> for Problem {
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
            Error::Redis(error) => error.into(),
            Error::Mysql(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::weight::{self, MOST, any};

    #[test]
    fn busy_handlers_are_light() {
        assert!(weight::of(|| claim(any(), any(), any())) <= MOST);
    }
}
