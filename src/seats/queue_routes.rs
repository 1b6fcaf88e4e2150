//! The admin route that removes a user from a queue, with their holds.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::SeatService;
use crate::http::ProblemDetails;
use crate::http::path::PathParams;
use crate::ids::{QueueId, UserId};

pub(super) fn router() -> OpenApiRouter<Arc<SeatService>> {
    OpenApiRouter::new().routes(routes!(remove_user))
}

/// Remove a user from a queue
///
/// A waiting user loses the place. The visit of an active user ends, and its holds are released. A
/// payment in progress is completed. The queue token is refused with 410 from then on. The user
/// may join again.
#[utoipa::path(
    delete,
    path = "/admin/queues/{queue}/users/{user}",
    tag = "queue",
    operation_id = "removeQueueUser",
    params(
        ("queue" = QueueId, Path),
        ("user" = UserId, Path, description = "The id of the user.")
    ),
    responses(
        (status = 204, description = "The user is removed."),
        (status = 404, body = ProblemDetails,
            description = "`not_found`: the queue does not exist, or the user neither waits nor is \
                active."),
    ),
    security(("admin" = []))
)]
async fn remove_user(
    State(seats): State<Arc<SeatService>>,
    PathParams((queue, user)): PathParams<(QueueId, UserId)>,
) -> Result<StatusCode, ProblemDetails> {
    seats.remove_user(&queue, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
