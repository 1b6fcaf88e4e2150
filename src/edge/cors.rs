//! CORS: pages of listed origins may call the API from a browser. The default is none.
//!
//! Credentials are never allowed, so browsers send cookies from pages of the service itself only.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;

use super::challenge;

/// How long a browser may cache a preflight response.
const PREFLIGHT_CACHE_TIME: Duration = Duration::from_secs(600);

/// Parses an origin as browsers send it: scheme, host and a port that is not the default. No path,
/// no `*`.
pub fn parse_origin(text: &str) -> Option<HeaderValue> {
    // Browsers send lower case and compare byte by byte.
    let text = text.to_ascii_lowercase();
    let (scheme, rest) = text.split_once("://")?;
    let host = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let is_valid = ["http", "https"].contains(&scheme) && !rest.is_empty() && host;
    is_valid.then(|| HeaderValue::try_from(text.as_str()).ok()).flatten()
}

/// The layer for these origins. `None` without origins.
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
        .expose_headers([
            header::RETRY_AFTER,
            name("idempotency-replayed"),
            name("ratelimit"),
            name("ratelimit-policy"),
            name("x-request-id"),
        ])
        .max_age(PREFLIGHT_CACHE_TIME);
    (!origins.is_empty()).then_some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_origins_are_accepted() {
        for good in [
            "https://shop.example",
            "http://localhost:3000",
            "http://[::1]:80",
            "HTTPS://Shop.Example",
        ] {
            assert!(parse_origin(good).is_some(), "{good}");
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
            assert!(parse_origin(bad).is_none(), "{bad}");
        }
    }
}
