//! The gate: a forward-auth endpoint for nginx (`auth_request`), Traefik (`forwardAuth`), Caddy
//! (`forward_auth`) and Envoy (`ext_authz`). It protects a site that needs no change for it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{COOKIE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::{Error, QueueService, TOKEN_HEADER};
use crate::http::ProblemDetails;
use crate::http::path::PathParams;
use crate::ids::QueueId;

/// The headers in which proxies send the requested path: Traefik and Caddy, then nginx as in
/// `examples/`.
const REQUESTED_PATH_HEADERS: [&str; 2] = ["x-forwarded-uri", "x-original-uri"];

/// Checks whether a user is active, for reverse proxies
///
/// Send the header `Queue-Token` or the cookie `usher-{queue}`.
#[utoipa::path(
    get,
    path = "/v1/queues/{queue}/check",
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
    queue.settings(&id).ok_or(Error::NotFound)?;
    let claims = token(&headers, &id)
        .and_then(|token| queue.verify(token))
        .filter(|claims| claims.queue == id);
    let Some(claims) = claims else { return Ok(send_to_waiting_page(&id, &headers)) };
    match queue.require_active(&claims).await {
        Ok(()) => {
            let user = HeaderValue::try_from(claims.user.to_string())
                .map_err(|_| ProblemDetails::internal())?;
            Ok((StatusCode::NO_CONTENT, [(HeaderName::from_static("usher-user"), user)])
                .into_response())
        }
        Err(Error::NotAdmitted { .. } | Error::TokenExpired) => {
            Ok(send_to_waiting_page(&id, &headers))
        }
        Err(error) => Err(error.into()),
    }
}

fn send_to_waiting_page(queue: &QueueId, headers: &HeaderMap) -> Response {
    let requested =
        REQUESTED_PATH_HEADERS.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    // Any other path could redirect the user to another site.
    let return_to = requested.filter(|path| is_same_origin(path)).unwrap_or("/");
    let return_to: String = form_urlencoded::byte_serialize(return_to.as_bytes()).collect();
    let problem = ProblemDetails::new(
        StatusCode::UNAUTHORIZED,
        "not_admitted",
        "The user must wait in the queue first.",
    );
    match HeaderValue::try_from(format!("/waiting/{queue}?return={return_to}")) {
        Ok(location) => ([(LOCATION, location)], problem).into_response(),
        Err(_) => problem.into_response(),
    }
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
    fn cookie_of_the_queue_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; usher-demo2=no; usher-demo=yes"));
        let queue = "demo".parse().unwrap();
        assert_eq!(token(&headers, &queue), Some("yes"));
        headers.insert(TOKEN_HEADER, HeaderValue::from_static("header"));
        assert_eq!(token(&headers, &queue), Some("header"));
    }
}
