//! Counts and times requests, and logs those that failed.
//!
//! Looking up a metric by its labels costs as much as a small handler, so each route caches its
//! handles.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram};

use crate::telemetry::Metric;

/// The status label of a request whose client disconnected before the response. Not a real status.
const CLIENT_CLOSED_REQUEST: &str = "499";

/// The gauge of requests in flight. It is looked up by the first request, when a recorder is
/// installed.
#[derive(Clone, Default)]
pub(super) struct InFlightRequests(Arc<OnceLock<Gauge>>);

impl InFlightRequests {
    fn gauge(&self) -> &Gauge {
        self.0.get_or_init(|| Metric::HttpInFlight.gauge(&[]))
    }
}

/// The metrics of one route.
pub(super) struct RouteMetrics {
    in_flight: InFlightRequests,
    outcomes: ArcSwap<Vec<OutcomeMetrics>>,
}

/// The handles of one outcome: a method and a status of a route.
#[derive(Clone)]
struct OutcomeMetrics {
    route: Option<MatchedPath>,
    method: &'static str,
    status: Option<StatusCode>,
    requests: Counter,
    seconds: Histogram,
}

impl RouteMetrics {
    pub(super) fn new(in_flight: InFlightRequests) -> Self {
        Self { in_flight, outcomes: ArcSwap::default() }
    }

    pub(super) fn start_request(self: &Arc<Self>, request: &Request) -> RequestRecord {
        self.in_flight.gauge().increment(1.0);
        RequestRecord {
            metrics: self.clone(),
            // The route and not the path: a path contains ids, so it has too many values.
            route: request.extensions().get().cloned(),
            method: method(request.method()),
            started: Instant::now(),
            status: None,
        }
    }
}

/// Recorded when it is dropped, which includes requests whose client disconnects.
pub(super) struct RequestRecord {
    metrics: Arc<RouteMetrics>,
    route: Option<MatchedPath>,
    method: &'static str,
    started: Instant,
    status: Option<StatusCode>,
}

impl RequestRecord {
    pub(super) fn set_status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    fn matches(&self, outcome: &OutcomeMetrics) -> bool {
        outcome.status == self.status
            && outcome.method == self.method
            && route(outcome.route.as_ref()) == route(self.route.as_ref())
    }

    /// Counts with the cached handles of this outcome, and caches them at the first use.
    fn count(&self) {
        let cached = self.metrics.outcomes.load();
        if let Some(outcome) = cached.iter().find(|outcome| self.matches(outcome)) {
            return self.record(outcome);
        }
        let (route, status) = (route(self.route.as_ref()), status(self.status.as_ref()));
        let labels = [("route", route), ("method", self.method), ("status", status)];
        let outcome = OutcomeMetrics {
            route: self.route.clone(),
            method: self.method,
            status: self.status,
            requests: Metric::HttpRequestsTotal.counter(&labels),
            seconds: Metric::HttpRequestSeconds.histogram(&labels[..2]),
        };
        self.record(&outcome);
        // Two requests may both add an entry, which is harmless: both entries have the same
        // handles.
        let outcomes = &self.metrics.outcomes;
        outcomes.rcu(|cached| [cached.as_slice(), std::slice::from_ref(&outcome)].concat());
    }

    fn record(&self, outcome: &OutcomeMetrics) {
        outcome.requests.increment(1);
        outcome.seconds.record(self.started.elapsed());
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.metrics.in_flight.gauge().decrement(1.0);
        self.count();
        let (route, status) = (route(self.route.as_ref()), status(self.status.as_ref()));
        if self.status == Some(StatusCode::INTERNAL_SERVER_ERROR) {
            tracing::error!(route, status, elapsed = ?self.started.elapsed(), "request failed");
        } else {
            tracing::debug!(route, status, elapsed = ?self.started.elapsed(), "request answered");
        }
    }
}

fn route(matched: Option<&MatchedPath>) -> &str {
    matched.map_or("unmatched", MatchedPath::as_str)
}

fn status(status: Option<&StatusCode>) -> &str {
    status.map_or(CLIENT_CLOSED_REQUEST, StatusCode::as_str)
}

/// The method as a label. Clients can invent methods, so unknown ones share a value.
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
    fn unknown_methods_share_a_label() {
        assert_eq!(method(&Method::GET), "GET");
        assert_eq!(method(&Method::from_bytes(b"BREW").unwrap()), "other");
    }

    #[test]
    fn each_outcome_is_cached_once() {
        let metrics = Arc::new(RouteMetrics::new(InFlightRequests::default()));
        for code in [StatusCode::OK, StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::OK] {
            metrics.start_request(&Request::default()).set_status(code);
        }
        drop(metrics.start_request(&Request::default()));
        let statuses: Vec<_> =
            metrics.outcomes.load().iter().map(|outcome| outcome.status).collect();
        assert_eq!(statuses, [Some(StatusCode::OK), Some(StatusCode::NOT_FOUND), None]);
    }
}
