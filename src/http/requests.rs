//! Counts requests, times them, and logs those that failed.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::telemetry::Metric;

/// What the metrics say of a request whose client hung up before the answer; no real status.
const HUNG_UP: &str = "499";

/// Counts and times one request.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let mut record = Record {
        // The route, not the path: paths have as many values as there are ids.
        route: request.extensions().get().cloned(),
        method: method(request.method()),
        started: Instant::now(),
        status: None,
    };
    Metric::HttpInFlight.gauge(&[]).increment(1.0);
    let response = next.run(request).await;
    record.status = Some(response.status());
    response
}

/// Recorded when it is dropped, so that a request whose client hangs up is counted too.
struct Record {
    route: Option<MatchedPath>,
    method: &'static str,
    started: Instant,
    status: Option<StatusCode>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
        let status = self.status.as_ref().map_or(HUNG_UP, StatusCode::as_str);
        Metric::HttpInFlight.gauge(&[]).decrement(1.0);
        Metric::HttpRequestsTotal
            .counter(&[("route", route), ("method", self.method), ("status", status)])
            .increment(1);
        Metric::HttpRequestSeconds.histogram(&[("route", route), ("method", self.method)]).record(elapsed);
        if self.status == Some(StatusCode::INTERNAL_SERVER_ERROR) {
            tracing::error!(route, status, ?elapsed, "a request failed");
        } else {
            tracing::debug!(route, status, ?elapsed, "answered");
        }
    }
}

/// Clients may make up methods; a label may not.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_methods_share_a_label() {
        assert_eq!(method(&Method::GET), "GET");
        assert_eq!(method(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
