//! Cache headers. Responses are not cacheable unless a handler says otherwise.

use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

/// A response that is equal for all users and that caches may keep for one second.
#[derive(Debug, Clone)]
pub struct CachedForOneSecond<T>(pub T);

impl<T: IntoResponse> IntoResponse for CachedForOneSecond<T> {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
        response
    }
}

/// Adds `no-store` unless the handler set `Cache-Control`, and forbids browsers to guess content
/// types.
pub(crate) fn add_default_headers(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
