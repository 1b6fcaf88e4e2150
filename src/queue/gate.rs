//! The gate in front of a site that knows nothing of Usher: what nginx (`auth_request`), Traefik (`forwardAuth`), Caddy (`forward_auth`) and
//! Envoy (`ext_authz`) ask before they let a request through.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{COOKIE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::{Error, QueueService, TOKEN_HEADER};
use crate::http::ProblemDetails;
use crate::http::path::PathParams;
use crate::ids::QueueId;

/// Where proxies say which page was asked for: Traefik and Caddy, then nginx by our example.
const ASKED_FOR: [&str; 2] = ["x-forwarded-uri", "x-original-uri"];

/// Whether the holder of the cookie `usher-{queue}` or of a Queue-Token may pass. If not, where to wait.
#[utoipa::path(get, path = "/v1/queues/{queue}/check", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 204, description = "Active; the user is in `Usher-User`."),
        (status = 401, body = ProblemDetails, description = "Not active; `Location` is the waiting page."), (status = 404, body = ProblemDetails)),
    security(("queue_token" = [])))]
pub(super) async fn check(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    headers: HeaderMap,
) -> Result<Response, ProblemDetails> {
    queue.settings(&id).ok_or(Error::NotFound)?;
    let claims = token(&headers, &id)
        .and_then(|token| queue.verify(token))
        .filter(|claims| claims.queue == id);
    let Some(claims) = claims else { return Ok(wait(&id, &headers)) };
    match queue.require_active(&claims).await {
        Ok(()) => {
            let user = HeaderValue::try_from(claims.user.to_string())
                .map_err(|_| ProblemDetails::internal())?;
            Ok((StatusCode::NO_CONTENT, [(HeaderName::from_static("usher-user"), user)])
                .into_response())
        }
        Err(Error::NotAdmitted { .. } | Error::TokenExpired) => Ok(wait(&id, &headers)),
        Err(error) => Err(error.into()),
    }
}

fn wait(queue: &QueueId, headers: &HeaderMap) -> Response {
    let asked = ASKED_FOR.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let back = asked.filter(|path| is_same_origin(path)).unwrap_or("/");
    let back: String = form_urlencoded::byte_serialize(back.as_bytes()).collect();
    let problem =
        ProblemDetails::new(StatusCode::UNAUTHORIZED, "not_admitted", "Wait in line first.");
    match HeaderValue::try_from(format!("/waiting/{queue}?return={back}")) {
        Ok(location) => ([(LOCATION, location)], problem).into_response(),
        Err(_) => problem.into_response(),
    }
}

/// The token of the header, else of the queue's cookie.
fn token<'a>(headers: &'a HeaderMap, queue: &QueueId) -> Option<&'a str> {
    match headers.get(TOKEN_HEADER) {
        Some(token) => token.to_str().ok(),
        None => cookie(headers, queue),
    }
}

/// Reads the cookie of the queue `demo`, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, &"demo".parse().ok()?)
}

/// The token that the waiting page keeps in the queue's cookie.
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

/// A path of this very site: no scheme, no host, nothing that a browser would read as one.
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
    fn only_paths_of_this_site_are_returned_to() {
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
    fn the_cookie_of_this_queue_is_read_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; usher-demo2=no; usher-demo=yes"));
        let queue = "demo".parse().unwrap();
        assert_eq!(token(&headers, &queue), Some("yes"));
        headers.insert(TOKEN_HEADER, HeaderValue::from_static("header"));
        assert_eq!(token(&headers, &queue), Some("header"));
    }
}
