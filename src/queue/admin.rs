//! Queues for operators.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::QueueDto;
use super::{Queue, Settings};
use crate::http::path::{NewPath, Path};
use crate::http::{Json, Problem};
use crate::ids::QueueId;

/// The operators' routes of the line.
pub fn router() -> OpenApiRouter<Arc<Queue>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, put))
}

/// A queue's settings and live counts.
#[derive(Debug, Serialize, ToSchema)]
struct AdminQueueDto {
    settings: Settings,
    #[serde(flatten)]
    live: QueueDto,
}

/// All queues.
#[derive(Debug, Serialize, ToSchema)]
struct AdminQueuesDto {
    items: Vec<AdminQueueDto>,
}

async fn read(queue: &Arc<Queue>, id: QueueId) -> Result<AdminQueueDto, Problem> {
    let (laid, snapshot) = queue.overview(&id).await?;
    Ok(AdminQueueDto { settings: laid.settings.clone(), live: QueueDto::new(id, &laid, &snapshot) })
}

/// All queues with their settings and live counts.
#[utoipa::path(get, path = "/admin/queues", tag = "queue", responses((status = 200, body = AdminQueuesDto)), security(("admin" = [])))]
async fn list(State(queue): State<Arc<Queue>>) -> Result<Json<AdminQueuesDto>, Problem> {
    let mut items = Vec::new();
    for id in queue.ids() {
        items.push(read(&queue, id).await?);
    }
    Ok(Json(AdminQueuesDto { items }))
}

/// One queue with its settings and live counts.
#[utoipa::path(get, path = "/admin/queues/{queue}", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 200, body = AdminQueueDto), (status = 404, body = Problem)), security(("admin" = [])))]
async fn show(
    State(queue): State<Arc<Queue>>,
    Path(id): Path<QueueId>,
) -> Result<Json<AdminQueueDto>, Problem> {
    read(&queue, id).await.map(Json)
}

/// Makes a queue or changes its settings. A field left out takes its default.
#[utoipa::path(put, path = "/admin/queues/{queue}", tag = "queue", params(("queue" = QueueId, Path)), request_body = Settings,
    responses((status = 200, body = AdminQueueDto), (status = 422, body = Problem)), security(("admin" = [])))]
async fn put(
    State(queue): State<Arc<Queue>>,
    NewPath(id): NewPath<QueueId>,
    Json(settings): Json<Settings>,
) -> Result<Json<AdminQueueDto>, Problem> {
    queue.put(&id, settings).await?;
    read(&queue, id).await.map(Json)
}
