//! Who may keep an answer, and for how long. Unless a handler says otherwise: nobody.

use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

/// Wraps an answer that is the same for everybody and may be kept for one second.
#[derive(Debug, Clone)]
pub struct CachedForOneSecond<T>(pub T);

impl<T: IntoResponse> IntoResponse for CachedForOneSecond<T> {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
        response
    }
}

/// Adds `no-store` where a handler said nothing, and that no browser may take an answer for something else than it says it is.
pub(crate) fn close(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
