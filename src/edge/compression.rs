//! Compression of JSON and text, when the client accepts it (br, gzip).
//!
//! Short responses are not compressed: they fit into one packet anyway. Routes whose responses are
//! always short, such as joins and polls, do not have this layer, because it costs each request.

use std::convert::Infallible;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate, SizeAbove};

use crate::http::accept_encoding::coding_weight;

/// Shorter bodies are not compressed.
const MIN_BYTES: u16 = 1024;

/// Whether the body is text. Images and fonts are compressed already, and an event stream must not
/// be buffered.
#[derive(Debug, Clone, Copy, Default)]
pub struct IsText;

impl Predicate for IsText {
    fn should_compress<B>(&self, response: &Response<B>) -> bool {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        kind != "text/event-stream"
            && (kind.starts_with("text/")
                || kind.ends_with("+json")
                || ["application/json", "image/svg+xml"].contains(&kind))
    }
}

pub fn layer() -> CompressionLayer<And<SizeAbove, IsText>> {
    CompressionLayer::new().compress_when(SizeAbove::new(MIN_BYTES).and(IsText))
}

/// A content coding that the service can produce, by its name in HTTP.
pub type ContentCoding = &'static str;

/// In order of preference.
const CODINGS: [ContentCoding; 2] = ["br", "gzip"];

/// Compresses JSON once for many responses, in each coding. Empty for a short body.
pub async fn encode(json: &Bytes) -> Vec<(ContentCoding, Bytes)> {
    let mut encoded = Vec::new();
    for coding in CODINGS {
        let respond = service_fn(|_: Request<Body>| async {
            let response = Response::builder().header(CONTENT_TYPE, "application/json");
            Ok::<_, Infallible>(response.body(Body::from(json.clone())).unwrap_or_default())
        });
        let request = Request::builder().header(ACCEPT_ENCODING, coding).body(Body::empty());
        let Ok(response) = layer().layer(respond).oneshot(request.unwrap_or_default()).await;
        if response.headers().contains_key(CONTENT_ENCODING)
            && let Ok(bytes) = to_bytes(Body::new(response.into_body()), usize::MAX).await
        {
            encoded.push((coding, bytes));
        }
    }
    encoded
}

/// The coding that the client prefers (RFC 9110, 12.5.3). `None` for no coding.
pub fn preferred_coding(headers: &HeaderMap) -> Option<ContentCoding> {
    let accepted = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
    let quality =
        |coding| coding_weight(accepted.split(','), coding).filter(|weight| *weight > 0.0);
    let mut best: Option<(ContentCoding, f32)> = None;
    for coding in CODINGS {
        if let Some(quality) = quality(coding)
            && best.is_none_or(|(_, before)| quality > before)
        {
            best = Some((coding, quality));
        }
    }
    best.map(|(coding, _)| coding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;

    #[tokio::test]
    async fn body_is_compressed_once_in_each_coding() {
        let json = Bytes::from("1234567890".repeat(500));
        let encoded = encode(&json).await;
        assert_eq!(encoded.iter().map(|(coding, _)| *coding).collect::<Vec<_>>(), CODINGS);
        assert!(encoded.iter().all(|(_, bytes)| bytes.len() < 500));
        assert!(encode(&Bytes::from("short")).await.is_empty());
    }

    #[test]
    fn client_chooses_the_coding() {
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("br;q=0.5, GZIP", Some("gzip")),
            ("br;q=0, gzip;q=0.1", Some("gzip")),
            ("identity", None),
            ("", None),
        ] {
            let headers = [(ACCEPT_ENCODING, accepted.parse().unwrap())].into_iter().collect();
            assert_eq!(preferred_coding(&headers), coding, "{accepted}");
        }
        assert_eq!(preferred_coding(&HeaderMap::new()), None);
    }

    async fn ask(kind: &'static str, length: usize, accepted: &str) -> (HeaderMap, usize) {
        let answer = move || std::future::ready(([(CONTENT_TYPE, kind)], "x".repeat(length)));
        let app: Router = Router::new().route("/", get(answer)).layer(layer());
        let request = Request::get("/").header("accept-encoding", accepted);
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let headers = response.headers().clone();
        (headers, to_bytes(response.into_body(), 1 << 20).await.unwrap().len())
    }

    #[tokio::test]
    async fn long_text_is_compressed_when_the_client_accepts_it() {
        for (kind, length, accepted, encoding) in [
            ("application/json", 1024, "br, gzip", Some("br")),
            ("application/json", 1024, "gzip", Some("gzip")),
            ("application/problem+json", 5000, "br;q=0.5, gzip", Some("gzip")),
            ("text/html; charset=utf-8", 5000, "br", Some("br")),
            ("application/json", 1023, "br", None),
            ("application/json", 5000, "identity", None),
            ("image/png", 5000, "br", None),
            ("text/event-stream", 5000, "br", None),
        ] {
            let (headers, sent) = ask(kind, length, accepted).await;
            let found = headers.get("content-encoding").map(|it| it.to_str().unwrap());
            assert_eq!(found, encoding, "{kind} {length} {accepted}");
            assert_eq!(sent < length, encoding.is_some(), "{kind} {length} {accepted}: {sent}");
        }
        let (headers, _) = ask("application/json", 5000, "").await;
        assert_eq!(headers["vary"], "accept-encoding", "caches keep the encodings apart");
    }
}
