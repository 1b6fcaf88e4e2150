//! Who may keep an answer, and for how long. Unless a handler says otherwise: nobody.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Wraps an answer that is the same for everybody and may be kept for one second.
#[derive(Debug, Clone)]
pub struct SharedForASecond<T>(pub T);

impl<T: IntoResponse> IntoResponse for SharedForASecond<T> {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
        response
    }
}

/// Adds `no-store` where a handler said nothing.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
