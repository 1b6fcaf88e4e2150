//! The audit over HTTP.

use std::time::Duration;

use axum::extract::State;
use sqlx::MySqlPool;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AuditReport, audit};
use crate::http::{JsonBody, ProblemDetails};
use crate::redis::RedisClient;

/// How long the call waits for what is under way. A request is cut off at its timeout, so whoever has millions of rows uses the command.
const PATIENCE: Duration = Duration::from_secs(4);

/// The operators' route of the audit.
pub fn router() -> OpenApiRouter<(RedisClient, MySqlPool)> {
    OpenApiRouter::new().routes(routes!(post))
}

/// Checks everything that is promised over Redis and MySQL. For much data use the command `usher audit`, which no timeout cuts off.
#[utoipa::path(post, path = "/admin/audit", tag = "audit", responses((status = 200, body = AuditReport), (status = 503, body = ProblemDetails)),
    security(("admin" = [])))]
async fn post(
    State((redis, mysql)): State<(RedisClient, MySqlPool)>,
) -> Result<JsonBody<AuditReport>, ProblemDetails> {
    Ok(JsonBody(audit(&redis, &mysql, PATIENCE, &|_, _, _| ()).await?))
}
