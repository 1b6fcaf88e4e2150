//! Load shedding: refuses requests when too many are in flight, joins first and payments last.
//!
//! Each request in flight waits for something, so their number is the length of all internal queues
//! together. Divided by the throughput it is the waiting time of the next request (Little's law). A
//! refusal is cheap and has a `Retry-After`.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::future::Either;
use tower::{Layer, Service};

use super::limits::{RequestClassifier, RequestKind, request_kind};
use crate::http::problem::ProblemDetails;
use crate::http::rate_limit::RateLimitSlot;
use crate::telemetry::Metric;

/// The layer that counts requests in flight and refuses some.
#[derive(Clone)]
pub struct LoadShedding(Arc<LoadGate>);

struct LoadGate {
    in_flight: AtomicUsize,
    /// The limit for each kind, in the order of [`RequestKind`]. `None` disables shedding.
    limits: Option<[usize; 5]>,
    classify: RequestClassifier,
}

impl LoadShedding {
    /// Refuses all requests at `max_in_flight`, and less important kinds earlier. 0 disables
    /// shedding.
    pub fn new(max_in_flight: usize, classify: RequestClassifier) -> Self {
        let limit = |kind| match kind {
            RequestKind::Join => max_in_flight / 2,
            RequestKind::Poll | RequestKind::Other => max_in_flight / 4 * 3,
            RequestKind::Book => max_in_flight / 8 * 7,
            RequestKind::Pay => max_in_flight,
        };
        // At least one, so that a small limit still admits each kind.
        let limits = [
            RequestKind::Join,
            RequestKind::Poll,
            RequestKind::Book,
            RequestKind::Pay,
            RequestKind::Other,
        ]
        .map(|kind| limit(kind).max(1));
        Self(Arc::new(LoadGate {
            in_flight: AtomicUsize::new(0),
            limits: (max_in_flight > 0).then_some(limits),
            classify,
        }))
    }
}

impl LoadGate {
    fn enter(self: &Arc<Self>, kind: RequestKind) -> Option<InFlightGuard> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let guard = InFlightGuard(self.clone());
        self.limits.is_none_or(|limits| before < limits[kind as usize]).then_some(guard)
    }
}

/// Counts one request as in flight.
struct InFlightGuard(Arc<LoadGate>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for LoadShedding {
    type Service = LoadGateService<S>;

    fn layer(&self, inner: S) -> LoadGateService<S> {
        LoadGateService { inner, gate: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct LoadGateService<S> {
    inner: S,
    gate: Arc<LoadGate>,
}

type GateResponse = Result<Response, Infallible>;

impl<S> Service<Request> for LoadGateService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<GateResponse>, Pin<Box<dyn Future<Output = GateResponse> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let kind = request_kind(self.gate.classify, request.method(), request.extensions());
        let Some(guard) = self.gate.enter(kind) else {
            Metric::ShedRequestsTotal.counter(&[("kind", kind.name())]).increment(1);
            return Either::Left(ready(Ok(ProblemDetails::overloaded().into_response())));
        };
        // Clients repeat joins and polls, so they get the state of their limit with every response.
        let repeats = matches!(kind, RequestKind::Join | RequestKind::Poll);
        let rate_limit = repeats.then(|| RateLimitSlot::attach(&mut request));
        let response = self.inner.call(request);
        Either::Right(Box::pin(async move {
            let mut response = response.await;
            drop(guard);
            if let (Ok(response), Some(rate_limit)) = (&mut response, rate_limit) {
                rate_limit.add_headers(response);
            }
            response
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_refused_first_and_payments_last() {
        let gate = LoadShedding::new(8, |_, _| RequestKind::Other).0;
        let mut guards = Vec::new();
        let mut refused = Vec::new();
        for _ in 0..=8 {
            for kind in RequestKind::ALL {
                if gate.enter(kind).is_none() && !refused.contains(&kind) {
                    refused.push(kind);
                }
            }
            guards.extend(gate.enter(RequestKind::Pay));
        }
        assert_eq!(refused, RequestKind::ALL, "in the order of their importance");
        assert_eq!(guards.len(), 8);
        drop(guards);
        assert!(gate.enter(RequestKind::Join).is_some(), "joins are accepted again");
    }

    #[test]
    fn zero_disables_shedding() {
        let gate = LoadShedding::new(0, |_, _| RequestKind::Other).0;
        let all: Vec<_> = (0..10_000).map(|_| gate.enter(RequestKind::Join)).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
