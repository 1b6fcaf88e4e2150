//! Which pages of other sites may call the API from a browser: none, unless their origins are listed.
//!
//! No credentials: a cookie of ours is sent by pages of our own site alone, whatever is listed.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;

use super::challenge;

/// How long a browser keeps what it was told, by its own lights at most.
const KEPT: Duration = Duration::from_secs(600);

/// An origin as browsers write it: `https://shop.example`, with a port where it is not the usual one. No path, no star.
pub fn origin(text: &str) -> Option<HeaderValue> {
    // Browsers write them in lower case, and compare letter by letter.
    let text = text.to_ascii_lowercase();
    let (scheme, rest) = text.split_once("://")?;
    let host = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let fine = ["http", "https"].contains(&scheme) && !rest.is_empty() && host;
    fine.then(|| HeaderValue::try_from(text.as_str()).ok()).flatten()
}

/// The layer that lets these origins in; none where none is listed.
pub fn layer(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let name = HeaderName::from_static;
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            name("idempotency-key"),
            name("last-event-id"),
            name("queue-token"),
            name("usher-user"),
            name(challenge::HEADER),
            name("x-request-id"),
        ])
        .expose_headers([header::RETRY_AFTER, name("idempotency-replayed"), name("x-request-id")])
        .max_age(KEPT);
    (!origins.is_empty()).then_some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_whole_and_nothing_else() {
        for good in [
            "https://shop.example",
            "http://localhost:3000",
            "http://[::1]:80",
            "HTTPS://Shop.Example",
        ] {
            assert!(origin(good).is_some(), "{good}");
        }
        for bad in [
            "*",
            "null",
            "shop.example",
            "https://",
            "https://a/",
            "https://a/b",
            "https://*.a",
            "ftp://a",
            "https://a b",
        ] {
            assert!(origin(bad).is_none(), "{bad}");
        }
    }
}
