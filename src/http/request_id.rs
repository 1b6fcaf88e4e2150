//! A name for each request, by which its answer and its log lines find each other, and the trace that it is part of.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::log;

/// The header that carries it, in and out.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's own id, or a new one.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
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

/// A request under its id, as its log lines tell it.
pub(crate) fn told_in_log(id: &HeaderValue, request: &Request) -> log::LoggedRequest {
    let trace_id = traced(request.headers()).and_then(|trace| HeaderValue::from_str(trace).ok());
    log::LoggedRequest {
        id: id.clone(),
        trace_id,
        method: request.method().clone(),
        uri: request.uri().clone(),
    }
}

/// The trace of which the caller says that the request is part (`traceparent`, W3C Trace Context). Without one the request's own id takes its place:
/// made here, it is as long and as random as a trace's.
fn traced(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let mut part = |length: usize| {
        let part = parts.next()?;
        let hexadecimal = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == length && hexadecimal).then_some(part)
    };
    let (version, trace, span, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let named = |id: &str| id.bytes().any(|byte| byte != b'0');
    (version != "ff" && named(trace) && named(span)).then_some(trace)
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
    fn a_trace_is_what_the_standard_says_it_is() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            traced(&headers).map(str::to_owned)
        };
        assert_eq!(parent(&format!("00-{trace}-00f067aa0ba902b7-01")).unwrap(), trace);
        assert_eq!(
            parent(&format!("01-{trace}-00f067aa0ba902b7-01-more")).unwrap(),
            trace,
            "of a later version"
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
        assert_eq!(traced(&HeaderMap::new()), None);
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
