//! What happens around every answer: its id, in the answer and in the log, its count and time, panics, the timeout, the cache header.
//!
//! One service instead of a layer each. axum clones whatever stands below a layer for every request, and each layer made of a function boxes
//! twice, so five of them cost more than most handlers do.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tower::{Layer, Service};

use super::request_metrics::{InFlightRequests, RouteMetrics};
use crate::http::problem::ProblemDetails;
use crate::http::{cache, request_id};
use crate::telemetry::log;

/// Wraps the routes of one router.
#[derive(Clone)]
pub(super) struct RequestMiddleware {
    timeout: Duration,
    in_flight: InFlightRequests,
}

impl RequestMiddleware {
    /// No answer takes longer than `timeout`: body included, up to the head of the answer. The handler is dropped where it stands then,
    /// so flows that must reach their end run in tasks of their own.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, in_flight: InFlightRequests::default() }
    }
}

impl<S> Layer<S> for RequestMiddleware {
    type Service = RouteService<S>;

    fn layer(&self, inner: S) -> RouteService<S> {
        let requests = Arc::new(RouteMetrics::new(self.in_flight.clone()));
        RouteService { inner, timeout: self.timeout, requests }
    }
}

/// Answers the requests of one route.
#[derive(Clone)]
pub(super) struct RouteService<S> {
    inner: S,
    timeout: Duration,
    requests: Arc<RouteMetrics>,
}

impl<S> Service<Request> for RouteService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let id = request_id::of(request.headers());
        let told = request_id::told_in_log(&id, &request);
        let mut record = self.requests.begin(&request);
        let timeout = self.timeout;
        // Nothing runs before the future is polled, for the request and behind the guard.
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let whole = async move {
            let mut response = match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Err(panic)) => panicked(panic.as_ref()),
                Err(_) => {
                    tracing::warn!(?timeout, "a request ran out of time");
                    ProblemDetails::overloaded().into_response()
                }
            };
            cache::close(response.headers_mut());
            record.answered(response.status());
            drop(record);
            response.headers_mut().insert(request_id::HEADER, id);
            Ok(response)
        };
        Box::pin(log::answering(told, whole))
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    ProblemDetails::internal().into_response()
}
