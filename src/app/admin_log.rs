//! The audit log of the admin API: one row in MySQL for every call that may change something.
//!
//! The row is written before the call is applied, and its status is added afterwards. If the row
//! can't be written, the call is refused with 503 and changes nothing. A crash in between leaves a
//! row without a status. Calls that only read are not recorded. Calls without the key are not
//! recorded either, because they could fill the table; the log of the process has them.

use std::io::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{FromRow, MySqlPool};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use crate::config::MysqlSettings;
use crate::edge::admin_key::AdminCaller;
use crate::http::page::PageLimit;
use crate::http::peer::PeerAddress;
use crate::http::query::QueryParams;
use crate::http::recorded_change::RecordedChange;
use crate::http::{JsonBody, ProblemDetails, request_id};
use crate::mysql;
use crate::time::UnixMillis;

/// The longest name in a path that is recorded. No id is longer.
const MAX_ID_LENGTH: usize = 128;
const NOT_A_NAME: &str = "(not a name)";

struct AdminLogState {
    mysql: MySqlPool,
}

/// A call before it is applied.
struct PendingAction {
    actor: String,
    key_id: String,
    peer: String,
    request_id: String,
    method: String,
    route: String,
    object: Option<String>,
}

/// Records the calls of every route of `router`. The check of the admin key must run before it.
pub(super) fn record_all<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    mysql: MySqlPool,
) -> Router<S> {
    let log = Arc::new(AdminLogState { mysql });
    router.route_layer(from_fn_with_state(log, record))
}

async fn record(State(log): State<Arc<AdminLogState>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let action = PendingAction::of(&mut parts).await;
    let request = Request::from_parts(parts, body);
    let id = match log.begin(&action).await {
        Ok(id) => id,
        Err(error) => {
            tracing::error!(%error, "refused an admin call because it can't be recorded");
            return ProblemDetails::from(mysql::Error::from(error)).into_response();
        }
    };
    let mut response = next.run(request).await;
    let change = response.extensions_mut().remove::<RecordedChange>().unwrap_or_default();
    if let Err(error) = log.end(id, response.status().as_u16(), change).await {
        let status = response.status().as_u16();
        tracing::error!(%error, id, status, "the status of an admin call can't be recorded");
    }
    response
}

impl AdminLogState {
    async fn begin(&self, action: &PendingAction) -> Result<u64, sqlx::Error> {
        let insert = "INSERT INTO admin_actions \
                      (at, actor, key_id, peer, request_id, method, route, object) \
                      VALUES (UTC_TIMESTAMP(3), ?, ?, ?, ?, ?, ?, ?)";
        let done = sqlx::query(insert)
            .bind(&action.actor)
            .bind(&action.key_id)
            .bind(&action.peer)
            .bind(&action.request_id)
            .bind(&action.method)
            .bind(&action.route)
            .bind(&action.object)
            .execute(&self.mysql)
            .await?;
        Ok(done.last_insert_id())
    }

    async fn end(&self, id: u64, status: u16, change: RecordedChange) -> Result<(), sqlx::Error> {
        let update = "UPDATE admin_actions SET status = ?, state_before = ?, state_after = ? \
                      WHERE id = ?";
        let text = |state: Option<Value>| state.map(|state| state.to_string());
        let update = sqlx::query(update).bind(status);
        let update = update.bind(text(change.before)).bind(text(change.after)).bind(id);
        update.execute(&self.mysql).await.map(drop)
    }
}

impl PendingAction {
    async fn of(parts: &mut Parts) -> Self {
        let object = object(parts).await;
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let peer = parts.extensions.get::<PeerAddress>();
        let caller = parts.extensions.get::<AdminCaller>();
        Self {
            actor: caller.map(|caller| caller.name.to_string()).unwrap_or_default(),
            key_id: caller.map(|caller| caller.key_id.to_string()).unwrap_or_default(),
            peer: peer.map_or_else(
                || "unknown".to_owned(),
                |PeerAddress(peer)| peer.ip().to_canonical().to_string(),
            ),
            request_id: request_id::from_headers(&parts.headers).unwrap_or_default().to_owned(),
            method: parts.method.as_str().chars().take(16).collect(),
            route: route.to_owned(),
            object,
        }
    }
}

/// The path parameters, joined by a slash. Values that can't be an id are not repeated.
async fn object(parts: &mut Parts) -> Option<String> {
    let is_id = |name: &str| {
        (1..=MAX_ID_LENGTH).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
    };
    // Fails on a value that is not UTF-8.
    let Ok(parameters) = RawPathParams::from_request_parts(parts, &()).await else {
        return Some(NOT_A_NAME.to_owned());
    };
    let names: Vec<&str> =
        parameters.iter().map(|(_, name)| if is_id(name) { name } else { NOT_A_NAME }).collect();
    (!names.is_empty()).then(|| names.join("/"))
}

#[derive(FromRow)]
struct RecordedAction {
    id: u64,
    at: DateTime<Utc>,
    actor: Option<String>,
    key_id: String,
    peer: String,
    request_id: String,
    method: String,
    route: String,
    object: Option<String>,
    status: Option<u16>,
    state_before: Option<String>,
    state_after: Option<String>,
}

impl RecordedAction {
    /// Older releases recorded only the key.
    fn actor(&self) -> &str {
        self.actor.as_deref().unwrap_or(&self.key_id)
    }
}

/// `usher admin-log`: prints the newest actions, oldest first.
///
/// # Errors
/// When MySQL is not reachable, or standard output can't be written.
pub async fn print(settings: &MysqlSettings, newest: u32) -> Result<(), Error> {
    let pool = mysql::connect(settings.url.expose_secret(), 1).await?;
    let actions = newest_before(&pool, u64::MAX, newest).await?;
    pool.close().await;
    let mut out = std::io::stdout();
    for action in actions.iter().rev() {
        let at = action.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let status = action.status.map_or_else(|| "?".to_owned(), |status| status.to_string());
        let object = action.object.as_deref().unwrap_or("-");
        let RecordedAction { key_id, peer, request_id, method, route, .. } = action;
        let actor = action.actor();
        writeln!(
            out,
            "{at}  {status:<3} {method} {route} {object}  \
             by {actor} from {peer}, key {key_id}, request {request_id}"
        )
        .map_err(Error::Output)?;
    }
    Ok(())
}

/// The newest actions with a smaller id than `before`.
async fn newest_before(
    pool: &MySqlPool,
    before: u64,
    limit: u32,
) -> Result<Vec<RecordedAction>, mysql::Error> {
    let select = "SELECT id, at, actor, key_id, peer, request_id, method, route, object, status, \
                  state_before, state_after FROM admin_actions WHERE id < ? ORDER BY id DESC LIMIT ?";
    Ok(sqlx::query_as(select).bind(before).bind(limit).fetch_all(pool).await?)
}

pub(super) fn router() -> OpenApiRouter<MySqlPool> {
    OpenApiRouter::new().routes(routes!(list))
}

/// One recorded call of the admin API.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminAction)]
struct AdminActionDto {
    at: UnixMillis,
    /// The name of the admin key.
    actor: String,
    method: String,
    route: String,
    /// The names in the path, joined by a slash, if the route has any.
    object: Option<String>,
    /// Null while the call runs, and if the instance crashed during the call.
    status: Option<u16>,
    /// The object before the call. Null if it did not exist, nothing was changed, or the call
    /// changes no object.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// The object after the call. Null if it was deleted, nothing was changed, or the call changes
    /// no object.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// Identifies the admin key without revealing it.
    key_id: String,
    peer: String,
    request_id: String,
}

/// A page of recorded calls, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminActions)]
struct AdminActionsDto {
    items: Vec<AdminActionDto>,
    /// The value of `before` for the next page; null on the last page.
    next: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AdminActionsQuery {
    /// 1 to 500; the default is 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<u64>,
}

/// Lists calls that may have changed something, newest first. Calls that only read are not
/// recorded.
#[utoipa::path(get, path = "/admin/actions", tag = "admin", params(AdminActionsQuery),
    responses((status = 200, body = AdminActionsDto), (status = 422, body = ProblemDetails)),
    security(("admin" = [])))]
async fn list(
    State(mysql): State<MySqlPool>,
    QueryParams(page): QueryParams<AdminActionsQuery>,
) -> Result<JsonBody<AdminActionsDto>, ProblemDetails> {
    let limit = page.limit.get();
    let one_more = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
    let mut actions = newest_before(&mysql, page.before.unwrap_or(u64::MAX), one_more).await?;
    let has_more = actions.len() > limit;
    actions.truncate(limit);
    let next = actions.last().filter(|_| has_more).map(|action| action.id.to_string());
    let items = actions.into_iter().map(|action| AdminActionDto {
        at: action.at.into(),
        actor: action.actor().to_owned(),
        before: action.state_before.and_then(|json| serde_json::from_str(&json).ok()),
        after: action.state_after.and_then(|json| serde_json::from_str(&json).ok()),
        method: action.method,
        route: action.route,
        object: action.object,
        status: action.status,
        key_id: action.key_id,
        peer: action.peer,
        request_id: action.request_id,
    });
    Ok(JsonBody(AdminActionsDto { items: items.collect(), next }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn object_has_the_path_parameters() {
        let answer = async |request: Request| {
            let mut parts = request.into_parts().0;
            object(&mut parts).await.unwrap_or_default()
        };
        let app: Router = Router::new()
            .route("/admin/queues/{queue}", get(answer))
            .route("/admin/queues/{queue}/users/{user}", get(answer))
            .route("/admin/audit", get(answer));
        let long = format!("/admin/queues/{}", "x".repeat(129));
        for (path, expected) in [
            ("/admin/queues/show", "show"),
            ("/admin/queues/show/users/auth0%7C5f%2F7c", "show/auth0|5f/7c"),
            ("/admin/audit", ""),
            ("/admin/queues/%00", "(not a name)"),
            ("/admin/queues/a%20b/users/u-1", "(not a name)/u-1"),
            ("/admin/queues/%FF", "(not a name)"),
            (&long, "(not a name)"),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
            assert_eq!(body, expected, "{path}");
        }
    }
}
