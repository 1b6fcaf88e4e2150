//! A name for each request, by which its answer and its log lines find each other.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id, a span that bears it, and the response the header.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let id = given(request.headers()).unwrap_or_else(made);
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        // The query may carry a queue token, so it stays out of the log.
        path = request.uri().path(),
    );
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(HEADER, id);
    response
}

/// The caller's own id, where it is one that can go into a log unread.
fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(HEADER)?;
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    ((1..=64).contains(&id.len()) && id.as_bytes().iter().all(sane)).then(|| id.clone())
}

fn made() -> HeaderValue {
    let id = format!("{:032x}", rand::random::<u128>());
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
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
