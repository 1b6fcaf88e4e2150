//! The admin routes of queues.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::QueueDto;
use super::languages::PreferredLanguages;
use super::{Error, QueueService, QueueSettings};
use crate::definition::{ChangedDefinition, DefinitionEtag, InUseItem};
use crate::http::definition_page::{DefinitionsQuery, NameCursor};
use crate::http::merge_patch::{DefinitionChange, MergePatch};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::preconditions::{DefinitionBody, DeletedDefinition, Preconditions};
use crate::http::query::QueryParams;
use crate::http::recorded_change::RecordedChange;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::QueueId;
use crate::store_error::StoreError;
use crate::users::UserDirectory;

pub fn router() -> OpenApiRouter<Arc<QueueService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, put, patch, delete))
}

/// The definition and the current state of a queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminQueue)]
struct AdminQueueDto {
    id: QueueId,
    definition: QueueSettings,
    #[serde(flatten)]
    live: QueueDto,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminQueues)]
struct AdminQueuesDto {
    items: Vec<AdminQueueDto>,
    #[schema(value_type = Option<String>)]
    next: Option<NameCursor>,
}

async fn read(queue: &Arc<QueueService>, id: QueueId) -> Result<AdminQueueDto, ProblemDetails> {
    let (published, snapshot) = queue.overview(&id).await?;
    Ok(AdminQueueDto {
        id: id.clone(),
        definition: published.settings.clone(),
        live: QueueDto::new(id, &published, &snapshot, &PreferredLanguages::default()),
    })
}

async fn changed(
    queue: &Arc<QueueService>,
    id: QueueId,
    changed: ChangedDefinition<QueueSettings>,
) -> Result<DefinitionBody<AdminQueueDto>, ProblemDetails> {
    let etag = DefinitionEtag::of(id.as_str(), &changed.after);
    let change = RecordedChange::new(changed.before.as_ref(), Some(&changed.after));
    // A later change may have been made since.
    let body = AdminQueueDto { definition: changed.after, ..read(queue, id).await? };
    Ok(DefinitionBody { etag, body, change: Some(change) })
}

/// List all queues with their definitions and state
///
/// They are sorted by their id.
#[utoipa::path(
    get,
    path = "/admin/queues",
    operation_id = "listQueues",
    tag = "queue",
    params(DefinitionsQuery),
    responses((status = 200, body = AdminQueuesDto), (status = 422, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn list(
    State(queue): State<Arc<QueueService>>,
    QueryParams(query): QueryParams<DefinitionsQuery>,
) -> Result<JsonBody<AdminQueuesDto>, ProblemDetails> {
    let (ids, next) = query.cut(queue.ids(), QueueId::as_str);
    let mut items = Vec::new();
    for id in ids {
        match read(&queue, id).await {
            Ok(item) => items.push(item),
            // It was deleted meanwhile.
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(JsonBody(AdminQueuesDto { items, next }))
}

/// Get the definition and the state of a queue
#[utoipa::path(
    get,
    path = "/admin/queues/{queue}",
    operation_id = "getQueueStatus",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses(
        (status = 200, body = AdminQueueDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 404, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn show(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
) -> Result<DefinitionBody<AdminQueueDto>, ProblemDetails> {
    let body = read(&queue, id).await?;
    let etag = DefinitionEtag::of(body.id.as_str(), &body.definition);
    Ok(DefinitionBody { etag, body, change: None })
}

/// Create a queue or replace its settings
///
/// An omitted field takes its default.
#[utoipa::path(
    put,
    path = "/admin/queues/{queue}",
    operation_id = "putQueue",
    tag = "queue",
    params(
        ("queue" = QueueId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body = QueueSettings,
    responses(
        (status = 200, body = AdminQueueDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 412, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn put(
    State(queue): State<Arc<QueueService>>,
    NewPathParams(id): NewPathParams<QueueId>,
    Preconditions(preconditions): Preconditions,
    JsonBody(settings): JsonBody<QueueSettings>,
) -> Result<DefinitionBody<AdminQueueDto>, ProblemDetails> {
    let change = DefinitionChange::Replace(settings);
    let settings = queue.change(&id, change, &preconditions).await?;
    changed(&queue, id, settings).await
}

/// Change some settings of a queue
///
/// A JSON Merge Patch (RFC 7396): an omitted field stays as it is, and `null` resets one to its
/// default.
#[utoipa::path(
    patch,
    path = "/admin/queues/{queue}",
    operation_id = "patchQueue",
    tag = "queue",
    params(
        ("queue" = QueueId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body(
        content((Object = "application/merge-patch+json", example = json!({"mode": "paused"})),
            (Object = "application/json", example = json!({"mode": "paused"}))),
        description = "The fields of the settings that change.",
    ),
    responses(
        (status = 200, body = AdminQueueDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 404, body = ProblemDetails),
        (status = 412, body = ProblemDetails),
        (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn patch(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    Preconditions(preconditions): Preconditions,
    patch: MergePatch,
) -> Result<DefinitionBody<AdminQueueDto>, ProblemDetails> {
    let change = DefinitionChange::Patch(patch);
    let settings = queue.change(&id, change, &preconditions).await?;
    changed(&queue, id, settings).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DeleteQueueQuery {
    /// Whether to delete the queue while users wait or are active. They are removed first. The default is false.
    #[serde(default)]
    force: bool,
}

/// Delete a queue
///
/// Its name is unknown on every instance afterwards, and its tokens are of no use. The history of
/// its promotions, draws and reservations stays in MySQL. A queue that is created under the same
/// name continues its scores, so old tokens have no place in it.
#[utoipa::path(
    delete,
    path = "/admin/queues/{queue}",
    tag = "queue",
    operation_id = "deleteQueue",
    params(
        ("queue" = QueueId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
        DeleteQueueQuery,
    ),
    responses(
        (status = 204, description = "The queue is deleted."),
        (status = 404, body = ProblemDetails, description = "`not_found`"),
        (status = 409, body = ProblemDetails,
            description = "`in_use` while a concert that is not archived names the queue, seats are \
                held or paid, or users wait or are active and `force` is false. `in_use` lists the \
                first 20 as `{kind: \"concert\" | \"user\", id}`."),
        (status = 412, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn delete(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    Extension(users): Extension<Arc<UserDirectory>>,
    Preconditions(preconditions): Preconditions,
    QueryParams(query): QueryParams<DeleteQueueQuery>,
) -> Result<DeletedDefinition, ProblemDetails> {
    let mut deleted = queue.delete(&id, query.force, &preconditions).await;
    if let Err(Error::InUse(items)) = &mut deleted {
        name_users(&users, items).await?;
    }
    Ok((StatusCode::NO_CONTENT, RecordedChange::deleted(&deleted?)))
}

async fn name_users(users: &UserDirectory, items: &mut [InUseItem]) -> Result<(), StoreError> {
    let keys = items.iter().filter_map(|item| match item {
        InUseItem::User { id } => Some(id.key()),
        _ => None,
    });
    let names = users.names(keys).await?;
    for item in items {
        if let InUseItem::User { id } = item {
            *id = names.of(id.key());
        }
    }
    Ok(())
}
