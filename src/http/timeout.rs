//! No request takes longer than its time: body included, up to the head of the answer.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Answers 503 `overloaded` when `limit` is over. The handler is dropped where it stands, so flows that must reach their end run in
/// tasks of their own.
pub(super) async fn layer(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        tracing::warn!(?limit, "a request ran out of time");
        Problem::overloaded().into_response()
    })
}
