//! The admin routes of rewards.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Reward, RewardDefinition, RewardService, claim_admin, sql};
use crate::definition::{ChangedDefinition, DefinitionEtag};
use crate::http::definition_page::{DefinitionsQuery, NameCursor};
use crate::http::merge_patch::{DefinitionChange, MergePatch};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::preconditions::{DefinitionBody, DeletedDefinition, Preconditions};
use crate::http::query::QueryParams;
use crate::http::recorded_change::RecordedChange;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::RewardCode;

pub fn router() -> OpenApiRouter<Arc<RewardService>> {
    claim_admin::router().routes(routes!(list)).routes(routes!(show, put, patch, delete))
}

/// The definition of a reward and how often it was claimed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminReward)]
struct AdminRewardDto {
    /// The code of the reward.
    id: RewardCode,
    definition: RewardDefinition,
    /// The number of granted claims, as MySQL has them.
    claimed_quantity: u64,
}

/// A page of rewards, sorted by their code.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminRewards)]
struct AdminRewardsDto {
    items: Vec<AdminRewardDto>,
    #[schema(value_type = Option<String>)]
    next: Option<NameCursor>,
}

async fn claimed(rewards: &RewardService, code: &RewardCode) -> Result<u64, ProblemDetails> {
    let counts = sql::granted_counts(&rewards.mysql, &[code]).await?;
    Ok(counts.get(code).copied().unwrap_or_default())
}

async fn changed(
    rewards: &RewardService,
    id: RewardCode,
    changed: ChangedDefinition<RewardDefinition>,
) -> Result<DefinitionBody<AdminRewardDto>, ProblemDetails> {
    let etag = DefinitionEtag::of(id.as_str(), &changed.after);
    let change = RecordedChange::new(changed.before.as_ref(), Some(&changed.after));
    let claimed_quantity = claimed(rewards, &id).await?;
    let body = AdminRewardDto { id, definition: changed.after, claimed_quantity };
    Ok(DefinitionBody { etag, body, change: Some(change) })
}

/// List all rewards with their definitions
///
/// They are sorted by their code.
#[utoipa::path(
    get,
    path = "/admin/rewards",
    operation_id = "listRewardDefinitions",
    tag = "reward",
    params(DefinitionsQuery),
    responses((status = 200, body = AdminRewardsDto), (status = 422, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn list(
    State(rewards): State<Arc<RewardService>>,
    QueryParams(query): QueryParams<DefinitionsQuery>,
) -> Result<JsonBody<AdminRewardsDto>, ProblemDetails> {
    let (page, next) = query.cut(rewards.all(), |reward| reward.code.as_str());
    let codes: Vec<_> = page.iter().map(|reward| &reward.code).collect();
    let counts = sql::granted_counts(&rewards.mysql, &codes).await?;
    let item = |reward: &Arc<Reward>| AdminRewardDto {
        id: reward.code.clone(),
        definition: reward.as_ref().into(),
        claimed_quantity: counts.get(&reward.code).copied().unwrap_or_default(),
    };
    Ok(JsonBody(AdminRewardsDto { items: page.iter().map(item).collect(), next }))
}

/// Get the definition of a reward and the number of claims
#[utoipa::path(
    get,
    path = "/admin/rewards/{code}",
    operation_id = "getRewardDefinition",
    tag = "reward",
    params(("code" = RewardCode, Path)),
    responses(
        (status = 200, body = AdminRewardDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 404, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn show(
    State(rewards): State<Arc<RewardService>>,
    PathParams(id): PathParams<RewardCode>,
) -> Result<DefinitionBody<AdminRewardDto>, ProblemDetails> {
    let definition = RewardDefinition::from(rewards.find_reward(&id).await?.as_ref());
    let etag = DefinitionEtag::of(id.as_str(), &definition);
    let claimed_quantity = claimed(&rewards, &id).await?;
    let body = AdminRewardDto { id, definition, claimed_quantity };
    Ok(DefinitionBody { etag, body, change: None })
}

/// Create a reward or replace its definition
///
/// Claims that were granted before a change remain granted.
#[utoipa::path(
    put,
    path = "/admin/rewards/{code}",
    operation_id = "putReward",
    tag = "reward",
    params(
        ("code" = RewardCode, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body = RewardDefinition,
    responses(
        (status = 200, body = AdminRewardDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 412, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn put(
    State(rewards): State<Arc<RewardService>>,
    NewPathParams(code): NewPathParams<RewardCode>,
    Preconditions(preconditions): Preconditions,
    JsonBody(definition): JsonBody<RewardDefinition>,
) -> Result<DefinitionBody<AdminRewardDto>, ProblemDetails> {
    let change = DefinitionChange::Replace(definition);
    let definition = rewards.change(&code, change, &preconditions).await?;
    changed(&rewards, code, definition).await
}

/// Change some fields of a reward
///
/// A JSON Merge Patch (RFC 7396): an omitted field stays as it is, and `null` resets one to its
/// default.
#[utoipa::path(
    patch,
    path = "/admin/rewards/{code}",
    operation_id = "patchReward",
    tag = "reward",
    params(
        ("code" = RewardCode, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body(
        content((Object = "application/merge-patch+json", example = json!({"active": false})),
            (Object = "application/json", example = json!({"active": false}))),
        description = "The fields of the definition that change.",
    ),
    responses(
        (status = 200, body = AdminRewardDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 404, body = ProblemDetails),
        (status = 412, body = ProblemDetails),
        (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn patch(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
    Preconditions(preconditions): Preconditions,
    patch: MergePatch,
) -> Result<DefinitionBody<AdminRewardDto>, ProblemDetails> {
    let change = DefinitionChange::Patch(patch);
    let definition = rewards.change(&code, change, &preconditions).await?;
    changed(&rewards, code, definition).await
}

/// Delete a reward that no user has claimed
///
/// The history of refused attempts stays.
#[utoipa::path(
    delete,
    path = "/admin/rewards/{code}",
    operation_id = "deleteReward",
    tag = "reward",
    params(
        ("code" = RewardCode, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    responses(
        (status = 204, description = "The reward is deleted."),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`in_use` when users have claimed it. `in_use` lists the first 20 claims \
                as `{kind: \"claim\", id}`. Also while MySQL lacks claims; repeat it then."),
        (status = 412, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn delete(
    State(rewards): State<Arc<RewardService>>,
    PathParams(code): PathParams<RewardCode>,
    Preconditions(preconditions): Preconditions,
) -> Result<DeletedDefinition, ProblemDetails> {
    let deleted = rewards.delete(&code, &preconditions).await?;
    Ok((StatusCode::NO_CONTENT, RecordedChange::deleted(&deleted)))
}
