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

use super::limits::{Kind, Kinds, kind_of};
use super::problem::Problem;
use crate::telemetry::Metric;

/// Counts the requests that are being answered.
#[derive(Clone)]
pub struct Shedding(Arc<Gate>);

struct Gate {
    answering: AtomicUsize,
    /// What each kind finds at most, in the order of [`Kind`]; none is off.
    most: Option<[usize; 5]>,
    kinds: Kinds,
}

impl Shedding {
    /// Refuses everything when `most` requests are being answered, and kinds that matter less before; 0 is off.
    pub fn new(most: usize, kinds: Kinds) -> Self {
        let part = |kind| match kind {
            Kind::Join => most / 2,
            Kind::Poll | Kind::Other => most / 4 * 3,
            Kind::Book => most / 8 * 7,
            Kind::Pay => most,
        };
        // At least one, so that a small bound still lets something through.
        let parts =
            [Kind::Join, Kind::Poll, Kind::Book, Kind::Pay, Kind::Other].map(|kind| part(kind).max(1));
        Self(Arc::new(Gate { answering: AtomicUsize::new(0), most: (most > 0).then_some(parts), kinds }))
    }
}

impl Gate {
    fn enter(self: &Arc<Self>, kind: Kind) -> Option<Inside> {
        let before = self.answering.fetch_add(1, Ordering::Relaxed);
        let inside = Inside(self.clone());
        self.most.is_none_or(|most| before < most[kind as usize]).then_some(inside)
    }
}

/// A request that is being answered.
struct Inside(Arc<Gate>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for Shedding {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.0.clone() }
    }
}

/// The routes behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Arc<Gate>,
}

type Answered = Result<Response, Infallible>;

impl<S> Service<Request> for Gated<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, Pin<Box<dyn Future<Output = Answered> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let kind = kind_of(self.gate.kinds, request.method(), request.extensions());
        let Some(inside) = self.gate.enter(kind) else {
            Metric::ShedRequestsTotal.counter(&[("kind", kind.name())]).increment(1);
            return Either::Left(ready(Ok(Problem::overloaded().into_response())));
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
        let gate = Shedding::new(8, |_, _| Kind::Other).0;
        let mut inside = Vec::new();
        let mut refused = Vec::new();
        for _ in 0..=8 {
            for kind in Kind::ALL {
                if gate.enter(kind).is_none() && !refused.contains(&kind) {
                    refused.push(kind);
                }
            }
            inside.extend(gate.enter(Kind::Pay));
        }
        assert_eq!(refused, Kind::ALL, "in the order of their worth");
        assert_eq!(inside.len(), 8);
        drop(inside);
        assert!(gate.enter(Kind::Join).is_some(), "it opens again by itself");
    }

    #[test]
    fn off_is_off() {
        let gate = Shedding::new(0, |_, _| Kind::Other).0;
        let all: Vec<_> = (0..10_000).map(|_| gate.enter(Kind::Join)).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
