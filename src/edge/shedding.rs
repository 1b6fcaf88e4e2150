//! What is refused when more is being answered than an instance can, before everybody waits: joins first, then what only looks, payments last.
//!
//! Every request that is being answered waits for something, so their number is the depth of all queues together, and divided by the pace it is how long
//! the next one would wait (Little's law). A refusal costs next to nothing and says when to come back.

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

use super::limits::{RequestClassifier, RequestKind, kind_of};
use crate::http::problem::ProblemDetails;
use crate::telemetry::Metric;

/// Counts the requests that are being answered.
#[derive(Clone)]
pub struct LoadShedding(Arc<LoadGate>);

struct LoadGate {
    answering: AtomicUsize,
    /// What each kind finds at most, in the order of [`TestKind`]; none is off.
    most: Option<[usize; 5]>,
    kinds: RequestClassifier,
}

impl LoadShedding {
    /// Refuses everything when `most` requests are being answered, and kinds that matter less before; 0 is off.
    pub fn new(most: usize, kinds: RequestClassifier) -> Self {
        let part = |kind| match kind {
            RequestKind::Join => most / 2,
            RequestKind::Poll | RequestKind::Other => most / 4 * 3,
            RequestKind::Book => most / 8 * 7,
            RequestKind::Pay => most,
        };
        // At least one, so that a small bound still lets something through.
        let parts = [
            RequestKind::Join,
            RequestKind::Poll,
            RequestKind::Book,
            RequestKind::Pay,
            RequestKind::Other,
        ]
        .map(|kind| part(kind).max(1));
        Self(Arc::new(LoadGate {
            answering: AtomicUsize::new(0),
            most: (most > 0).then_some(parts),
            kinds,
        }))
    }
}

impl LoadGate {
    fn enter(self: &Arc<Self>, kind: RequestKind) -> Option<InFlightGuard> {
        let before = self.answering.fetch_add(1, Ordering::Relaxed);
        let inside = InFlightGuard(self.clone());
        self.most.is_none_or(|most| before < most[kind as usize]).then_some(inside)
    }
}

/// A request that is being answered.
struct InFlightGuard(Arc<LoadGate>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for LoadShedding {
    type Service = LoadGateService<S>;

    fn layer(&self, inner: S) -> LoadGateService<S> {
        LoadGateService { inner, gate: self.0.clone() }
    }
}

/// The routes behind the gate.
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

    fn call(&mut self, request: Request) -> Self::Future {
        let kind = kind_of(self.gate.kinds, request.method(), request.extensions());
        let Some(inside) = self.gate.enter(kind) else {
            Metric::ShedRequestsTotal.counter(&[("kind", kind.name())]).increment(1);
            return Either::Left(ready(Ok(ProblemDetails::overloaded().into_response())));
        };
        let answer = self.inner.call(request);
        Either::Right(Box::pin(async move {
            let answer = answer.await;
            drop(inside);
            answer
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_go_first_and_payments_last() {
        let gate = LoadShedding::new(8, |_, _| RequestKind::Other).0;
        let mut inside = Vec::new();
        let mut refused = Vec::new();
        for _ in 0..=8 {
            for kind in RequestKind::ALL {
                if gate.enter(kind).is_none() && !refused.contains(&kind) {
                    refused.push(kind);
                }
            }
            inside.extend(gate.enter(RequestKind::Pay));
        }
        assert_eq!(refused, RequestKind::ALL, "in the order of their worth");
        assert_eq!(inside.len(), 8);
        drop(inside);
        assert!(gate.enter(RequestKind::Join).is_some(), "it opens again by itself");
    }

    #[test]
    fn off_is_off() {
        let gate = LoadShedding::new(0, |_, _| RequestKind::Other).0;
        let all: Vec<_> = (0..10_000).map(|_| gate.enter(RequestKind::Join)).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
