//! The middleware of every request: request id in the response and in the log, metrics, panics,
//! timeout, cache headers.
//!
//! It is a single service instead of five layers. For each layer axum clones the inner service per
//! request, and each layer made of a function allocates twice, so five layers cost more than most
//! handlers.

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

/// The layer for the routes of one router.
#[derive(Clone)]
pub(super) struct RequestMiddleware {
    timeout: Duration,
    in_flight: InFlightRequests,
}

impl RequestMiddleware {
    /// Limits a request to `timeout`, from its headers to the start of its response. The handler is
    /// then dropped at its current await point, so work that must finish runs in a separate task.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, in_flight: InFlightRequests::default() }
    }
}

impl<S> Layer<S> for RequestMiddleware {
    type Service = RouteService<S>;

    fn layer(&self, inner: S) -> RouteService<S> {
        let metrics = Arc::new(RouteMetrics::new(self.in_flight.clone()));
        RouteService { inner, timeout: self.timeout, metrics }
    }
}

/// Serves the requests of one route.
#[derive(Clone)]
pub(super) struct RouteService<S> {
    inner: S,
    timeout: Duration,
    metrics: Arc<RouteMetrics>,
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
        let id = request_id::id_or_new(request.headers());
        let log_fields = request_id::log_fields(&id, &request);
        let mut record = self.metrics.start_request(&request);
        let timeout = self.timeout;
        // The future does no work before it is polled below, under the timeout and the panic guard.
        let handler = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let response = async move {
            let mut response = match tokio::time::timeout(timeout, handler).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Err(panic)) => panic_response(panic.as_ref()),
                Err(_) => {
                    tracing::warn!(?timeout, "request timeout");
                    ProblemDetails::overloaded().into_response()
                }
            };
            cache::add_default_headers(response.headers_mut());
            record.set_status(response.status());
            drop(record);
            response.headers_mut().insert(request_id::HEADER, id);
            Ok(response)
        };
        Box::pin(log::with_request(log_fields, response))
    }
}

fn panic_response(panic: &(dyn Any + Send)) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    ProblemDetails::internal().into_response()
}
