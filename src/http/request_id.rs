//! The id of each request, which connects its response and its log lines, and the trace of the
//! request.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::log;

/// Carries the id in requests and responses.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id that the caller sent, or a new one.
pub(crate) fn id_or_new(headers: &HeaderMap) -> HeaderValue {
    valid_id(headers).unwrap_or_else(new_id)
}

/// Adds the id to the headers of every request, so that handlers can read it. It costs each request
/// one header, so only the admin listener uses it.
pub fn insert_header<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.layer(axum::middleware::map_request(|mut request: Request| {
        let id = id_or_new(request.headers());
        request.headers_mut().insert(HEADER, id);
        std::future::ready(request)
    }))
}

/// The id of a request that passed [`insert_header`].
pub fn from_headers(headers: &HeaderMap) -> Option<&str> {
    headers.get(HEADER).and_then(|id| id.to_str().ok())
}

/// The fields of the request in its log lines.
pub(crate) fn log_fields(id: &HeaderValue, request: &Request) -> log::LoggedRequest {
    let trace_id = trace_id(request.headers()).and_then(|trace| HeaderValue::from_str(trace).ok());
    log::LoggedRequest {
        id: id.clone(),
        trace_id,
        method: request.method().clone(),
        uri: request.uri().clone(),
    }
}

/// The trace id in `traceparent` (W3C Trace Context). Without one the log uses the request id,
/// which has the same length and randomness.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let mut part = |length: usize| {
        let part = parts.next()?;
        let hexadecimal = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == length && hexadecimal).then_some(part)
    };
    let (version, trace, span, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_nonzero = |id: &str| id.bytes().any(|byte| byte != b'0');
    (version != "ff" && is_nonzero(trace) && is_nonzero(span)).then_some(trace)
}

/// The id that the caller sent, if it is safe to log: 1 to 64 letters, digits, `_` or `-`.
fn valid_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(HEADER)?;
    let is_id_byte = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    ((1..=64).contains(&id.len()) && id.as_bytes().iter().all(is_id_byte)).then(|| id.clone())
}

fn new_id() -> HeaderValue {
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
    fn trace_id_is_read_as_the_standard_defines() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            trace_id(&headers).map(str::to_owned)
        };
        assert_eq!(parent(&format!("00-{trace}-00f067aa0ba902b7-01")).unwrap(), trace);
        assert_eq!(
            parent(&format!("01-{trace}-00f067aa0ba902b7-01-more")).unwrap(),
            trace,
            "a later version"
        );
        for bad in [
            "",
            "00",
            &format!("00-{trace}"),
            &format!("ff-{trace}-00f067aa0ba902b7-01"),
            &format!("00-{trace}-0000000000000000-01"),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            &format!("00-{trace} forged=line-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(parent(bad), None, "{bad:?}");
        }
        assert_eq!(trace_id(&HeaderMap::new()), None);
    }

    #[test]
    fn valid_ids_are_kept_and_others_replaced() {
        assert_eq!(valid_id(&with("abc_DEF-1")).unwrap(), "abc_DEF-1");
        for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert!(valid_id(&with(bad)).is_none(), "{bad:?}");
        }
        assert!(valid_id(&HeaderMap::new()).is_none());
        assert!(valid_id(&with(new_id().to_str().unwrap())).is_some());
    }
}
