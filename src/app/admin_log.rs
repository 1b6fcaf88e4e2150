//! Who did what by the admin API: a line in MySQL for every call that may change something.
//!
//! The line is written before the call is carried out and its status afterwards, so no change is without its line: where it can't be written the call is
//! refused with 503 and does nothing. A crash between the two leaves a line without a status, which says as much. Calls that only read leave none, and neither
//! do callers without the key, who would fill the table; those are in the log of the process.

use std::io::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, MySqlPool};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Error;
use crate::config::MigrateSettings;
use crate::http::page::PageLimit;
use crate::http::peer::PeerAddress;
use crate::http::query::QueryParams;
use crate::http::secret::key_id;
use crate::http::{JsonBody, ProblemDetails, request_id};
use crate::mysql;
use crate::time::UnixMillis;

/// The longest name that is kept; no object has a longer one.
const LONGEST: usize = 64;

struct AdminLogState {
    mysql: MySqlPool,
    key_id: String,
}

/// What is known of a call before it is carried out.
struct PendingAction {
    peer: String,
    request_id: String,
    method: String,
    route: String,
    object: Option<String>,
}

/// Puts the log in front of every route of `router`, which must have some. What asks for the key belongs in front of it.
pub(super) fn keep<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    mysql: MySqlPool,
    key: &SecretString,
) -> Router<S> {
    let log = Arc::new(AdminLogState { mysql, key_id: key_id(key) });
    router.route_layer(from_fn_with_state(log, record))
}

async fn record(State(log): State<Arc<AdminLogState>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let id = match log.begin(&PendingAction::of(&request)).await {
        Ok(id) => id,
        Err(error) => {
            tracing::error!(%error, "an admin call is refused: its line can't be written");
            return ProblemDetails::from(mysql::Error::from(error)).into_response();
        }
    };
    let response = next.run(request).await;
    if let Err(error) = log.end(id, response.status().as_u16()).await {
        tracing::error!(%error, id, status = response.status().as_u16(), "the line of an admin call stays without its status");
    }
    response
}

impl AdminLogState {
    async fn begin(&self, line: &PendingAction) -> Result<u64, sqlx::Error> {
        let insert = "INSERT INTO admin_actions (at, key_id, peer, request_id, method, route, object) \
                      VALUES (UTC_TIMESTAMP(3), ?, ?, ?, ?, ?, ?)";
        let done = sqlx::query(insert)
            .bind(&self.key_id)
            .bind(&line.peer)
            .bind(&line.request_id)
            .bind(&line.method)
            .bind(&line.route)
            .bind(&line.object)
            .execute(&self.mysql)
            .await?;
        Ok(done.last_insert_id())
    }

    async fn end(&self, id: u64, status: u16) -> Result<(), sqlx::Error> {
        let update = "UPDATE admin_actions SET status = ? WHERE id = ?";
        sqlx::query(update).bind(status).bind(id).execute(&self.mysql).await.map(drop)
    }
}

impl PendingAction {
    fn of(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let peer = request.extensions().get::<PeerAddress>();
        Self {
            peer: peer.map_or_else(
                || "unknown".to_owned(),
                |PeerAddress(peer)| peer.ip().to_canonical().to_string(),
            ),
            request_id: request_id::told(request.headers()).unwrap_or_default().to_owned(),
            method: request.method().as_str().chars().take(16).collect(),
            route: route.to_owned(),
            object: object(route, request.uri().path()),
        }
    }
}

/// What stands in the path where the route has its parameter; of names that can't be any, nothing but that.
fn object(route: &str, path: &str) -> Option<String> {
    let at = route.split('/').position(|part| part.starts_with('{'))?;
    let name = path.split('/').nth(at)?;
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let kept = name.len() <= LONGEST && name.bytes().all(sane);
    Some(if kept { name } else { "(not a name)" }.to_owned())
}

#[derive(FromRow)]
struct RecordedActions {
    id: u64,
    at: DateTime<Utc>,
    key_id: String,
    peer: String,
    request_id: String,
    method: String,
    route: String,
    object: Option<String>,
    status: Option<u16>,
}

/// `usher admin-log`: prints the newest lines, the oldest of them first.
///
/// # Errors
/// When MySQL can't be reached, or nothing can be written.
pub async fn print(settings: &MigrateSettings, newest: u32) -> Result<(), Error> {
    let pool = mysql::connect(settings.mysql.url.expose_secret(), 1).await?;
    let lines = newest_before(&pool, u64::MAX, newest).await?;
    pool.close().await;
    let mut out = std::io::stdout();
    for line in lines.iter().rev() {
        let at = line.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let status = line.status.map_or_else(|| "?".to_owned(), |status| status.to_string());
        let object = line.object.as_deref().unwrap_or("-");
        let RecordedActions { key_id, peer, request_id, method, route, .. } = line;
        writeln!(
            out,
            "{at}  {status:<3} {method} {route} {object}  from {peer}, key {key_id}, request {request_id}"
        )
        .map_err(Error::Output)?;
    }
    Ok(())
}

/// The newest lines older than the one of this id.
async fn newest_before(
    pool: &MySqlPool,
    before: u64,
    most: u32,
) -> Result<Vec<RecordedActions>, mysql::Error> {
    let select = "SELECT id, at, key_id, peer, request_id, method, route, object, status FROM admin_actions \
                  WHERE id < ? ORDER BY id DESC LIMIT ?";
    Ok(sqlx::query_as(select).bind(before).bind(most).fetch_all(pool).await?)
}

/// The log for those who look at it from afar.
pub(super) fn router() -> OpenApiRouter<MySqlPool> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What somebody did by the admin API.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminAction)]
struct AdminActionDto {
    at: UnixMillis,
    method: String,
    route: String,
    /// The name in the path, if the route has one.
    object: Option<String>,
    /// Null while the call is under way, and for ever if its end is not known.
    status: Option<u16>,
    /// Tells keys apart and gives none away.
    key_id: String,
    peer: String,
    request_id: String,
}

/// A page of them, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminActions)]
struct AdminActionsDto {
    items: Vec<AdminActionDto>,
    /// For `before`, when there is more.
    next: Option<String>,
}

/// Which page of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct AdminActionsQuery {
    /// 1…500, 50 if left out.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<u64>,
}

/// Who changed what by the admin API, newest first. Calls that only read leave no line.
#[utoipa::path(get, path = "/admin/actions", tag = "admin", params(AdminActionsQuery),
    responses((status = 200, body = AdminActionsDto), (status = 422, body = ProblemDetails)), security(("admin" = [])))]
async fn list(
    State(mysql): State<MySqlPool>,
    QueryParams(page): QueryParams<AdminActionsQuery>,
) -> Result<JsonBody<AdminActionsDto>, ProblemDetails> {
    let limit = page.limit.get();
    let most = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
    let mut lines = newest_before(&mysql, page.before.unwrap_or(u64::MAX), most).await?;
    let more = lines.len() > limit;
    lines.truncate(limit);
    let next = lines.last().filter(|_| more).map(|line| line.id.to_string());
    let items = lines.into_iter().map(|line| AdminActionDto {
        at: line.at.into(),
        method: line.method,
        route: line.route,
        object: line.object,
        status: line.status,
        key_id: line.key_id,
        peer: line.peer,
        request_id: line.request_id,
    });
    Ok(JsonBody(AdminActionsDto { items: items.collect(), next }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_the_name_in_the_path() {
        let put = "/admin/queues/{queue}";
        assert_eq!(object(put, "/admin/queues/show").as_deref(), Some("show"));
        assert_eq!(
            object("/admin/users/{user}/facts", "/admin/users/u-1/facts").as_deref(),
            Some("u-1")
        );
        assert_eq!(object("/admin/audit", "/admin/audit"), None);
        for bad in ["%00", "a b", &"x".repeat(65)] {
            assert_eq!(
                object(put, &format!("/admin/queues/{bad}")).as_deref(),
                Some("(not a name)"),
                "{bad}"
            );
        }
    }
}
