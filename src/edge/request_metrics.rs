//! Counts requests, times them, and logs those that failed.
//!
//! Looking a metric up by its labels costs as much as a small handler, so each route keeps the handles that it has used.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram};

use crate::telemetry::Metric;

/// What the metrics say of a request whose client hung up before the answer; no real status.
const HUNG_UP: &str = "499";

/// How many requests of a router are being answered. Looked up at the first of them, when there is a recorder.
#[derive(Clone, Default)]
pub(super) struct InFlightRequests(Arc<OnceLock<Gauge>>);

impl InFlightRequests {
    fn gauge(&self) -> &Gauge {
        self.0.get_or_init(|| Metric::HttpInFlight.gauge(&[]))
    }
}

/// The requests of one route.
pub(super) struct RouteMetrics {
    in_flight: InFlightRequests,
    known: ArcSwap<Vec<OutcomeMetrics>>,
}

/// The handles for one outcome. There are as many as a route has methods and statuses.
#[derive(Clone)]
struct OutcomeMetrics {
    route: Option<MatchedPath>,
    method: &'static str,
    status: Option<StatusCode>,
    answered: Counter,
    seconds: Histogram,
}

impl RouteMetrics {
    /// None so far.
    pub(super) fn new(in_flight: InFlightRequests) -> Self {
        Self { in_flight, known: ArcSwap::default() }
    }

    /// One more.
    pub(super) fn begin(self: &Arc<Self>, request: &Request) -> RequestRecord {
        self.in_flight.gauge().increment(1.0);
        RequestRecord {
            requests: self.clone(),
            // The route, not the path: paths have as many values as there are ids.
            route: request.extensions().get().cloned(),
            method: method(request.method()),
            started: Instant::now(),
            status: None,
        }
    }
}

/// Recorded when it is dropped, so that a request whose client hangs up is counted too.
pub(super) struct RequestRecord {
    requests: Arc<RouteMetrics>,
    route: Option<MatchedPath>,
    method: &'static str,
    started: Instant,
    status: Option<StatusCode>,
}

impl RequestRecord {
    /// What the client is told.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    fn is_of(&self, series: &OutcomeMetrics) -> bool {
        series.status == self.status
            && series.method == self.method
            && route(series.route.as_ref()) == route(self.route.as_ref())
    }

    /// Counts under the handles for this outcome, which are looked up once.
    fn count(&self) {
        let known = self.requests.known.load();
        if let Some(series) = known.iter().find(|series| self.is_of(series)) {
            return self.count_under(series);
        }
        let (route, status) = (route(self.route.as_ref()), status(self.status.as_ref()));
        let labels = [("route", route), ("method", self.method), ("status", status)];
        let series = OutcomeMetrics {
            route: self.route.clone(),
            method: self.method,
            status: self.status,
            answered: Metric::HttpRequestsTotal.counter(&labels),
            seconds: Metric::HttpRequestSeconds.histogram(&labels[..2]),
        };
        self.count_under(&series);
        // Two at once may both add theirs; either counts for the same labels.
        self.requests.known.rcu(|known| [known.as_slice(), std::slice::from_ref(&series)].concat());
    }

    fn count_under(&self, series: &OutcomeMetrics) {
        series.answered.increment(1);
        series.seconds.record(self.started.elapsed());
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.requests.in_flight.gauge().decrement(1.0);
        self.count();
        let (route, status) = (route(self.route.as_ref()), status(self.status.as_ref()));
        if self.status == Some(StatusCode::INTERNAL_SERVER_ERROR) {
            tracing::error!(route, status, elapsed = ?self.started.elapsed(), "a request failed");
        } else {
            tracing::debug!(route, status, elapsed = ?self.started.elapsed(), "answered");
        }
    }
}

fn route(matched: Option<&MatchedPath>) -> &str {
    matched.map_or("unmatched", MatchedPath::as_str)
}

fn status(status: Option<&StatusCode>) -> &str {
    status.map_or(HUNG_UP, StatusCode::as_str)
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

    #[test]
    fn an_outcome_is_looked_up_once() {
        let requests = Arc::new(RouteMetrics::new(InFlightRequests::default()));
        for code in [StatusCode::OK, StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::OK] {
            requests.begin(&Request::default()).answered(code);
        }
        drop(requests.begin(&Request::default()));
        let known: Vec<_> = requests.known.load().iter().map(|series| series.status).collect();
        assert_eq!(known, [Some(StatusCode::OK), Some(StatusCode::NOT_FOUND), None]);
    }
}
