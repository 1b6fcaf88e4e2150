//! A name for each request, by which its answer and its log lines find each other.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;

/// The header that carries it, in and out.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's own id, or a new one.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    given(headers).unwrap_or_else(made)
}

/// Gives every request its id before anything else sees it, so that what stands further in knows it, too. For listeners that few call: it costs each request a
/// header.
pub fn told_inwards<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.layer(axum::middleware::map_request(|mut request: Request| {
        let id = of(request.headers());
        request.headers_mut().insert(HEADER, id);
        std::future::ready(request)
    }))
}

/// The id of a request that has one.
pub fn told(headers: &HeaderMap) -> Option<&str> {
    headers.get(HEADER).and_then(|id| id.to_str().ok())
}

/// The span of a request under its id.
pub(super) fn span(id: &HeaderValue, request: &Request) -> Span {
    tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        // The query may carry a queue token, so it stays out of the log.
        path = request.uri().path(),
    )
}

/// The caller's own id, where it is one that can go into a log unread.
fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(HEADER)?;
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    ((1..=64).contains(&id.len()) && id.as_bytes().iter().all(sane)).then(|| id.clone())
}

fn made() -> HeaderValue {
    let id = format!("{:032x}", rand::random::<u128>());
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(id: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, id.parse().unwrap());
        headers
    }

    #[test]
    fn sane_ids_are_kept_and_others_replaced() {
        assert_eq!(given(&with("abc_DEF-1")).unwrap(), "abc_DEF-1");
        for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert!(given(&with(bad)).is_none(), "{bad:?}");
        }
        assert!(given(&HeaderMap::new()).is_none());
        assert!(given(&with(made().to_str().unwrap())).is_some());
    }
}
