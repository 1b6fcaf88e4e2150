//! Refuses bodies on routes that take none.
//!
//! A client that sends a body expects it to matter. A route whose OpenAPI operation has no request
//! body accepts no body or `{}`, and refuses everything else before the handler runs.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use futures::future::Either;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tower::{Layer, Service};

use crate::http::json;
use crate::http::problem::ProblemDetails;

/// `{}` and some whitespace fit.
const MAX_IGNORED_BYTES: usize = 1024;

/// The layer for the routes of one OpenAPI document.
#[derive(Clone)]
pub struct UnexpectedBodyLayer {
    /// Method and path of the operations that have a request body.
    with_body: Arc<HashSet<(Method, String)>>,
}

impl UnexpectedBodyLayer {
    /// `document` is the OpenAPI document of the routes.
    pub fn new(document: &Value) -> Self {
        let mut with_body = HashSet::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                if let Ok(method) = method.to_uppercase().parse::<Method>()
                    && operation.get("requestBody").is_some()
                {
                    with_body.insert((method, path.clone()));
                }
            }
        }
        Self { with_body: Arc::new(with_body) }
    }

    fn takes_body(&self, request: &Request) -> bool {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        self.with_body.contains(&(request.method().clone(), path.to_owned()))
    }
}

impl<S> Layer<S> for UnexpectedBodyLayer {
    type Service = UnexpectedBodyService<S>;

    fn layer(&self, inner: S) -> UnexpectedBodyService<S> {
        UnexpectedBodyService { inner, layer: self.clone() }
    }
}

/// Serves the requests of one route.
#[derive(Clone)]
pub struct UnexpectedBodyService<S> {
    inner: S,
    layer: UnexpectedBodyLayer,
}

impl<S> Service<Request> for UnexpectedBodyService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future =
        Either<S::Future, Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.body().is_end_stream() || self.layer.takes_body(&request) {
            return Either::Left(self.inner.call(request));
        }
        let mut inner = self.inner.clone();
        Either::Right(Box::pin(async move {
            let (parts, body) = request.into_parts();
            match read_empty(body).await {
                Ok(()) => inner.call(Request::from_parts(parts, Body::empty())).await,
                Err(problem) => Ok(problem.into_response()),
            }
        }))
    }
}

/// Reads a body that must be empty or `{}`.
async fn read_empty(body: Body) -> Result<(), ProblemDetails> {
    match Limited::new(body, MAX_IGNORED_BYTES).collect().await {
        Ok(body) => json::parse_empty(&body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(json::unexpected_body()),
        Err(_) => Err(json::incomplete_body()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::tests::read;
    use axum::Router;
    use axum::routing::post;
    use tower::ServiceExt;

    async fn status(body: Body) -> u16 {
        let layer = UnexpectedBodyLayer { with_body: Arc::new(HashSet::new()) };
        let app: Router = Router::new().route("/", post(|| async {})).route_layer(layer);
        let request = Request::post("/").body(body).unwrap();
        read(app.oneshot(request).await.unwrap()).await.0.as_u16()
    }

    #[tokio::test]
    async fn only_an_empty_object_is_accepted() {
        for (body, expected) in [
            ("", 200),
            (" \n", 200),
            ("{}", 200),
            (" { } ", 200),
            (r#"{"seats":[3]}"#, 422),
            ("[]", 422),
            ("null", 422),
            ("seats=3", 400),
            ("{} {}", 400),
        ] {
            assert_eq!(status(Body::from(body)).await, expected, "{body:?}");
        }
        assert_eq!(status(Body::from(vec![b' '; MAX_IGNORED_BYTES + 1])).await, 422);
        let broken = futures::stream::iter([Err::<&[u8], _>(std::io::Error::other("reset"))]);
        assert_eq!(status(Body::from_stream(broken)).await, 400);
    }
}
