//! The admin routes of queues.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deletion::InUseItem;
use super::dto::QueueDto;
use super::languages::PreferredLanguages;
use super::{Error, QueueService, QueueSettings};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::QueueId;
use crate::store_error::StoreError;
use crate::users::UserDirectory;

pub fn router() -> OpenApiRouter<Arc<QueueService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, put, delete))
}

/// The settings and the current state of a queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminQueue)]
struct AdminQueueDto {
    settings: QueueSettings,
    #[serde(flatten)]
    live: QueueDto,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminQueues)]
struct AdminQueuesDto {
    items: Vec<AdminQueueDto>,
}

async fn read(queue: &Arc<QueueService>, id: QueueId) -> Result<AdminQueueDto, ProblemDetails> {
    let (published, snapshot) = queue.overview(&id).await?;
    Ok(AdminQueueDto {
        settings: published.settings.clone(),
        live: QueueDto::new(id, &published, &snapshot, &PreferredLanguages::default()),
    })
}

/// List all queues with their settings and state
#[utoipa::path(
    get,
    path = "/admin/queues",
    operation_id = "listQueues",
    tag = "queue",
    responses((status = 200, body = AdminQueuesDto)),
    security(("admin" = []))
)]
async fn list(
    State(queue): State<Arc<QueueService>>,
) -> Result<JsonBody<AdminQueuesDto>, ProblemDetails> {
    let mut items = Vec::new();
    for id in queue.ids() {
        items.push(read(&queue, id).await?);
    }
    Ok(JsonBody(AdminQueuesDto { items }))
}

/// Get the settings and the state of a queue
#[utoipa::path(
    get,
    path = "/admin/queues/{queue}",
    operation_id = "getQueueStatus",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses((status = 200, body = AdminQueueDto), (status = 404, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn show(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
) -> Result<JsonBody<AdminQueueDto>, ProblemDetails> {
    read(&queue, id).await.map(JsonBody)
}

/// Create a queue or replace its settings
///
/// An omitted field takes its default.
#[utoipa::path(
    put,
    path = "/admin/queues/{queue}",
    operation_id = "putQueue",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    request_body = QueueSettings,
    responses((status = 200, body = AdminQueueDto), (status = 422, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn put(
    State(queue): State<Arc<QueueService>>,
    NewPathParams(id): NewPathParams<QueueId>,
    JsonBody(settings): JsonBody<QueueSettings>,
) -> Result<JsonBody<AdminQueueDto>, ProblemDetails> {
    queue.put(&id, settings).await?;
    read(&queue, id).await.map(JsonBody)
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
    params(("queue" = QueueId, Path), DeleteQueueQuery),
    responses(
        (status = 204, description = "The queue is deleted."),
        (status = 404, body = ProblemDetails, description = "`not_found`"),
        (status = 409, body = ProblemDetails,
            description = "`in_use` while a concert names the queue, seats are held or paid, or users \
                wait or are active and `force` is false. `in_use` lists the first 20 as \
                `{kind: \"concert\" | \"user\", id}`."),
    ),
    security(("admin" = []))
)]
async fn delete(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    Extension(users): Extension<Arc<UserDirectory>>,
    QueryParams(query): QueryParams<DeleteQueueQuery>,
) -> Result<StatusCode, ProblemDetails> {
    let mut deleted = queue.delete(&id, query.force).await;
    if let Err(Error::InUse(items)) = &mut deleted {
        name_users(&users, items).await?;
    }
    deleted?;
    Ok(StatusCode::NO_CONTENT)
}

async fn name_users(users: &UserDirectory, items: &mut [InUseItem]) -> Result<(), StoreError> {
    let keys = items.iter().filter_map(|item| match item {
        InUseItem::User { id } => Some(id.key()),
        InUseItem::Concert { .. } => None,
    });
    let names = users.names(keys).await?;
    for item in items {
        if let InUseItem::User { id } = item {
            *id = names.of(id.key());
        }
    }
    Ok(())
}
