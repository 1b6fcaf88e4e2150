//! The audit over HTTP.

use std::time::Duration;

use axum::extract::State;
use sqlx::MySqlPool;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AuditReport, audit};
use crate::http::{JsonBody, ProblemDetails};
use crate::redis::RedisClient;

/// The patience of an audit over HTTP. The request timeout limits it further, so use the command
/// for millions of rows.
const PATIENCE: Duration = Duration::from_secs(4);

pub fn router() -> OpenApiRouter<(RedisClient, MySqlPool)> {
    OpenApiRouter::new().routes(routes!(post))
}

/// Checks that Redis and MySQL are consistent and satisfy all guarantees. For large data use the
/// command `usher audit`, which has no timeout.
#[utoipa::path(
    post,
    path = "/admin/audit",
    operation_id = "runAudit",
    tag = "audit",
    responses((status = 200, body = AuditReport), (status = 503, body = ProblemDetails)),
    security(("admin" = [])),
)]
async fn post(
    State((redis, mysql)): State<(RedisClient, MySqlPool)>,
) -> Result<JsonBody<AuditReport>, ProblemDetails> {
    Ok(JsonBody(audit(&redis, &mysql, PATIENCE, &|_, _, _| ()).await?))
}
