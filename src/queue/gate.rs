//! The gate: forward authentication for reverse proxies. It protects a site that needs no change
//! for it.
//!
//! nginx (`auth_request`) uses [`check`]: it expects 204 or 401 and redirects itself. Caddy
//! (`forward_auth`), Traefik (`forwardAuth`) and Envoy (`ext_authz`) use [`gate`]: they send the
//! response to the browser, so it is a redirect for a navigation. Envoy keeps the method and
//! appends the requested path, so the gate accepts every method and every path.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{COOKIE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use utoipa::Path;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::gate_request::{
    GateSettings, is_navigation, is_preflight, original_method, public_origin,
};
use super::{Error, QueueService, TOKEN_HEADER};
use crate::http::ProblemDetails;
use crate::http::path::PathParams;
use crate::ids::QueueId;

/// The headers in which proxies send the requested path: Traefik and Caddy, then nginx as in
/// `examples/`.
const REQUESTED_PATH_HEADERS: [&str; 2] = ["x-forwarded-uri", "x-original-uri"];

const USER_HEADER: HeaderName = HeaderName::from_static("usher-user");
const GATE_PREFIX: &str = "/v1/queues/";

/// The routes of the gate. CORS must not apply to them: a preflight request is for the site behind
/// the proxy.
pub fn router() -> Router<Arc<QueueService>> {
    Router::new()
        .route("/v1/queues/{queue}/gate", any(gate))
        .route("/v1/queues/{queue}/gate/", any(gate))
        .route("/v1/queues/{queue}/gate/{*path}", any(gate))
}

/// The description of the routes. One operation stands for all methods.
pub(super) fn describe(
    mut router: OpenApiRouter<Arc<QueueService>>,
) -> OpenApiRouter<Arc<QueueService>> {
    let document: &mut OpenApi = router.get_openapi_mut();
    let mut without_path = __path_gate::operation();
    without_path.tags = Some(vec!["queue".to_owned()]);
    let mut with_path = without_path.clone();
    with_path.operation_id = Some("checkGatePath".to_owned());
    let path = utoipa::openapi::path::ParameterBuilder::new()
        .name("path")
        .parameter_in(utoipa::openapi::path::ParameterIn::Path)
        .required(utoipa::openapi::Required::True)
        .schema(Some(
            utoipa::openapi::ObjectBuilder::new()
                .schema_type(utoipa::openapi::schema::Type::String),
        ))
        .build();
    with_path.parameters.get_or_insert_default().push(path.into());
    let methods = __path_gate::methods;
    document.paths.add_path_operation(__path_gate::path(), methods(), without_path);
    let template = format!("{}/{{path}}", __path_gate::path());
    document.paths.add_path_operation(template, methods(), with_path);
    router
}

/// Check whether a user is active, for Caddy, Traefik and Envoy
///
/// Accepts any method, and any path below this one. Send the header `Queue-Token` or the cookie
/// `usher-{queue}`. A CORS preflight request passes with an empty `Usher-User`.
#[utoipa::path(
    get,
    path = "/v1/queues/{queue}/gate",
    operation_id = "checkGate",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses(
        (status = 204, description = "The user is active. `Usher-User` has their id."),
        (status = 302, description = "A browser's navigation goes to the waiting page."),
        (status = 401, body = ProblemDetails, description = "`not_admitted`"),
        (status = 404, body = ProblemDetails),
    ),
    security(("queue_token" = []))
)]
async fn gate(
    State(queue): State<Arc<QueueService>>,
    Extension(settings): Extension<GateSettings>,
    request: Request,
) -> Result<Response, ProblemDetails> {
    let (uri, headers) = (request.uri(), request.headers());
    let (name, rest) = split_path(uri.path());
    let found = async {
        let id = name.parse::<QueueId>().map_err(|_| Error::NotFound)?;
        queue.find_settings(&id).await.map(|_| id)
    };
    let id = found.await.inspect_err(|error| {
        // A wrong name in the configuration of a proxy would otherwise be hard to find.
        if matches!(error, Error::NotFound) {
            tracing::warn!(queue = ?name, "a proxy asked the gate for a queue that does not exist");
        }
    })?;
    let method = original_method(request.method(), headers, settings);
    if is_preflight(&method, headers) {
        // The proxy copies the empty value over a header that the client sent.
        let no_user = HeaderValue::from_static("");
        return Ok((StatusCode::NO_CONTENT, [(USER_HEADER, no_user)]).into_response());
    }
    if let Some(passed) = pass_active_user(&queue, &id, headers).await? {
        return Ok(passed);
    }
    if !is_navigation(&method, headers) {
        return Err(not_admitted());
    }
    let appended = uri.query().map(|query| format!("{rest}?{query}"));
    let path = waiting_path(&id, headers, Some(appended.as_deref().unwrap_or(rest)));
    let origin = public_origin(uri, headers, settings).unwrap_or_default();
    let location =
        HeaderValue::try_from(format!("{origin}{path}")).map_err(|_| ProblemDetails::internal())?;
    Ok((StatusCode::FOUND, [(LOCATION, location)]).into_response())
}

/// The name of the queue in the path of a gate route, and the path after `gate`. The router decodes
/// parameters and refuses some paths of the site that way, so the path is split here.
fn split_path(path: &str) -> (&str, &str) {
    let (name, rest) =
        path.strip_prefix(GATE_PREFIX).and_then(|path| path.split_once('/')).unwrap_or_default();
    (name, rest.strip_prefix("gate").unwrap_or_default())
}

/// Checks whether a user is active, for reverse proxies
///
/// Send the header `Queue-Token` or the cookie `usher-{queue}`.
#[utoipa::path(
    get,
    path = "/v1/queues/{queue}/check",
    operation_id = "checkVisit",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses(
        (status = 204, description = "The user is active. `Usher-User` has their id."),
        (status = 401, body = ProblemDetails,
            description = "The user is not active. `Location` is the waiting page."),
        (status = 404, body = ProblemDetails),
    ),
    security(("queue_token" = []))
)]
pub(super) async fn check(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    headers: HeaderMap,
) -> Result<Response, ProblemDetails> {
    queue.find_settings(&id).await?;
    if let Some(passed) = pass_active_user(&queue, &id, &headers).await? {
        return Ok(passed);
    }
    match HeaderValue::try_from(waiting_path(&id, &headers, None)) {
        Ok(location) => Ok(([(LOCATION, location)], not_admitted()).into_response()),
        Err(_) => Err(not_admitted()),
    }
}

/// 204 with the user if they are active. `None` for everyone else.
async fn pass_active_user(
    queue: &Arc<QueueService>,
    id: &QueueId,
    headers: &HeaderMap,
) -> Result<Option<Response>, ProblemDetails> {
    let claims = token(headers, id)
        .and_then(|token| queue.verify(token))
        .filter(|claims| claims.queue == *id);
    let Some(claims) = claims else { return Ok(None) };
    match queue.require_active(&claims).await {
        Ok(()) => {
            let user = HeaderValue::try_from(claims.user_name().to_string())
                .map_err(|_| ProblemDetails::internal())?;
            Ok(Some((StatusCode::NO_CONTENT, [(USER_HEADER, user)]).into_response()))
        }
        Err(Error::NotAdmitted { .. } | Error::TokenExpired) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn not_admitted() -> ProblemDetails {
    ProblemDetails::new(
        StatusCode::UNAUTHORIZED,
        "not_admitted",
        "The user must wait in the queue first.",
    )
}

/// The waiting page with the path to return to: from a header of the proxy, else `appended`.
fn waiting_path(queue: &QueueId, headers: &HeaderMap, appended: Option<&str>) -> String {
    let requested =
        REQUESTED_PATH_HEADERS.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    // Any other path could redirect the user to another site.
    let return_to = requested.or(appended).filter(|path| is_same_origin(path)).unwrap_or("/");
    let return_to: String = form_urlencoded::byte_serialize(return_to.as_bytes()).collect();
    format!("/waiting/{queue}?return={return_to}")
}

/// The token of the header, or of the queue's cookie when there is no header.
fn token<'a>(headers: &'a HeaderMap, queue: &QueueId) -> Option<&'a str> {
    match headers.get(TOKEN_HEADER) {
        Some(token) => token.to_str().ok(),
        None => cookie(headers, queue),
    }
}

/// The cookie of the queue `demo`, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn demo_cookie(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, &"demo".parse().ok()?)
}

/// The queue token in the cookie that the waiting page sets.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, queue: &QueueId) -> Option<&'a str> {
    let name = format!("usher-{queue}");
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|all| all.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Whether `path` is a path of the same origin: without a scheme, a host, or characters that a
/// browser could interpret as one.
fn is_same_origin(path: &str) -> bool {
    let mut bytes = path.bytes();
    bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_same_origin_are_accepted() {
        for good in ["/", "/seats", "/a?b=c#d", "/a//b"] {
            assert!(is_same_origin(good), "{good}");
        }
        for bad in [
            "",
            "seats",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\nb",
            "/a b",
        ] {
            assert!(!is_same_origin(bad), "{bad:?}");
        }
    }

    #[test]
    fn any_rest_of_the_path_is_split_off() {
        for (path, expected) in [
            ("/v1/queues/demo/gate", ("demo", "")),
            ("/v1/queues/demo/gate/", ("demo", "/")),
            ("/v1/queues/demo/gate//a%2Fb/%ff", ("demo", "//a%2Fb/%ff")),
            ("/v1/queues/gate/gate/gate/x", ("gate", "/gate/x")),
        ] {
            assert_eq!(split_path(path), expected, "{path}");
        }
    }

    #[test]
    fn cookie_of_the_queue_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; usher-demo2=no; usher-demo=yes"));
        let queue = "demo".parse().unwrap();
        assert_eq!(token(&headers, &queue), Some("yes"));
        headers.insert(TOKEN_HEADER, HeaderValue::from_static("header"));
        assert_eq!(token(&headers, &queue), Some("header"));
    }
}
