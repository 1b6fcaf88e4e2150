//! Compression of JSON and text, when the client accepts it (br, gzip).
//!
//! Short responses are not compressed: they fit into one packet anyway. Routes whose responses are
//! always short, such as joins and polls, do not have this layer, because it costs each request.

use axum::http::Response;
use axum::http::header::CONTENT_TYPE;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate, SizeAbove};

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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::http::{HeaderMap, Request};
    use axum::routing::get;
    use tower::ServiceExt;

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
