//! The public routes of rewards.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Error, Reward, RewardClaim, RewardCondition, RewardKind, RewardService};
use crate::http::cache::CachedForOneSecond;
use crate::http::identity::{AuthenticatedUser, NamedUser};
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ClaimId, RewardCode, UserName};
use crate::outbox::event::ClaimStatus;
use crate::time::UnixMillis;

pub fn router() -> OpenApiRouter<Arc<RewardService>> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(claim)).routes(routes!(mine))
}

/// The public description of a reward.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reward)]
pub(super) struct RewardDto {
    code: RewardCode,
    title: String,
    /// The reward can be claimed from this time on.
    starts_at: UnixMillis,
    /// The reward can be claimed until this time.
    ends_at: UnixMillis,
    /// Whether the reward can be claimed at all.
    active: bool,
    /// All of them must hold.
    conditions: Vec<RewardCondition>,
    reward: RewardKind,
    /// Whether a cancellation that makes the conditions false takes the points back.
    revocable: bool,
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
            revocable: reward.revocable,
        }
    }
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ClaimStatus)]
pub(super) enum AttemptStatus {
    Success,
    Failed,
    /// Granted, then revoked because a cancellation made the conditions false.
    Revoked,
}

impl AttemptStatus {
    pub(super) fn of(claim: &RewardClaim) -> Self {
        match claim.status {
            ClaimStatus::Success => Self::Success,
            ClaimStatus::Failed => Self::Failed,
            ClaimStatus::Revoked => Self::Revoked,
        }
    }

    pub(super) fn recorded(self) -> ClaimStatus {
        match self {
            Self::Success => ClaimStatus::Success,
            Self::Failed => ClaimStatus::Failed,
            Self::Revoked => ClaimStatus::Revoked,
        }
    }
}

/// The status of a granted claim.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum GrantedStatus {
    Success,
    /// Granted, but not yet confirmed as durable.
    Pending,
}

/// A granted claim.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Claim)]
struct GrantedDto {
    id: ClaimId,
    code: RewardCode,
    user_id: UserName,
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
    /// The `code` of the refusal. Null unless it failed.
    reason: Option<String>,
    /// How often the user was refused for this reason. 1 unless it failed.
    attempts: u32,
    /// The time of the last attempt.
    claimed_at: UnixMillis,
}

/// A page of attempts, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClaimAttempts)]
struct AttemptsDto {
    items: Vec<AttemptDto>,
    /// The value of `before` for the next page. Null on the last page.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AttemptsQuery {
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<PageCursor>,
}

/// Get a reward
///
/// The response is at most one second old.
#[utoipa::path(
    get,
    path = "/v1/rewards/{code}",
    operation_id = "getReward",
    tag = "reward",
    params(("code" = RewardCode, Path)),
    responses((status = 200, body = RewardDto), (status = 404, body = ProblemDetails))
)]
async fn show(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
) -> Result<CachedForOneSecond<JsonBody<RewardDto>>, ProblemDetails> {
    let reward = rewards.find_reward(&code).await?;
    Ok(CachedForOneSecond(JsonBody(RewardDto::from(reward.as_ref()))))
}

/// Claim a reward
///
/// A user can claim each reward once. The points are in the wallet when the response arrives.
#[utoipa::path(
    post,
    path = "/v1/rewards/{code}/claims",
    operation_id = "claimReward",
    tag = "reward",
    params(("code" = RewardCode, Path)),
    responses(
        (status = 201, body = GrantedDto),
        (status = 202, body = GrantedDto,
            description = "The claim is granted, but not yet confirmed as durable."),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails,
            description = "`not_started`, `ended`, `inactive`, `condition_not_met` with `unmet`"),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`already_claimed`"),
        (status = 422, body = ProblemDetails, description = "`balance_limit_exceeded`"),
    ),
    security(("user" = []))
)]
async fn claim(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
    NamedUser(name): NamedUser,
) -> Result<(StatusCode, JsonBody<GrantedDto>), ProblemDetails> {
    let granted = rewards.claim(&code, name.key()).await?;
    let (answer, status) = if granted.durable {
        (StatusCode::CREATED, GrantedStatus::Success)
    } else {
        (StatusCode::ACCEPTED, GrantedStatus::Pending)
    };
    let body = GrantedDto {
        id: granted.claim.id,
        code,
        user_id: name,
        status,
        reward: granted.reward.gift.clone(),
        claimed_at: UnixMillis(granted.claim.claimed_at),
    };
    Ok((answer, JsonBody(body)))
}

/// List the caller's attempts to claim a reward
///
/// The newest attempt comes first. Refused attempts are included, once per reason.
#[utoipa::path(
    get,
    path = "/v1/rewards/{code}/claims/mine",
    operation_id = "listRewardClaims",
    tag = "reward",
    params(("code" = RewardCode, Path), AttemptsQuery),
    responses(
        (status = 200, body = AttemptsDto),
        (status = 401, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("user" = []))
)]
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
            attempts: claim.attempts,
            claimed_at: UnixMillis(claim.claimed_at),
        })
        .collect();
    Ok(JsonBody(AttemptsDto { items, next }))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        let forbidden = |code, detail: &str| Self::new(StatusCode::FORBIDDEN, code, detail);
        match error {
            Error::NotFound => Self::not_found(),
            Error::AlreadyClaimed => Self::new(
                StatusCode::CONFLICT,
                "already_claimed",
                "The user has already claimed this reward.",
            ),
            Error::Inactive => forbidden("inactive", "This reward is inactive."),
            Error::NotStarted => forbidden("not_started", "This reward can't be claimed yet."),
            Error::Ended => forbidden("ended", "This reward can no longer be claimed."),
            Error::ConditionNotMet(unmet) => {
                forbidden("condition_not_met", "The user does not meet all conditions.")
                    .with("unmet", unmet)
            }
            Error::BalanceLimitExceeded => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "balance_limit_exceeded",
                "The balance would exceed the maximum of a wallet.",
            ),
            Error::InUse(items) => Self::in_use("Users have claimed this reward.", &items),
            Error::NotWritten => {
                Self::in_use("MySQL does not have all claims yet. Try again.", &[])
            }
            Error::PreconditionFailed => Self::precondition_failed(),
            Error::Invalid(violations) => Self::invalid_definition(violations),
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
        assert!(future_size::of(|| claim(any(), any(), any())) <= MAX_BYTES);
    }
}
