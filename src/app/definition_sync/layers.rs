//! The layers that keep old definitions out of responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::future::Either;
use tower::{Layer, Service};

use super::DefinitionSync;
use crate::http::ProblemDetails;

/// Lets a request pass once the definitions in memory are the current ones.
#[derive(Clone)]
pub(in crate::app) struct DefinitionLeaseLayer(pub(in crate::app) Arc<DefinitionSync>);

impl<S> Layer<S> for DefinitionLeaseLayer {
    type Service = DefinitionLeaseService<S>;

    fn layer(&self, inner: S) -> DefinitionLeaseService<S> {
        DefinitionLeaseService { inner, sync: self.0.clone() }
    }
}

#[derive(Clone)]
pub(in crate::app) struct DefinitionLeaseService<S> {
    inner: S,
    sync: Arc<DefinitionSync>,
}

type LeaseResponse = Result<Response, Infallible>;

impl<S> Service<Request> for DefinitionLeaseService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = LeaseResponse> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if self.sync.has_lease() {
            return Either::Left(self.inner.call(request));
        }
        let clone = self.inner.clone();
        // The clone has not been polled for readiness; this one has.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let sync = self.sync.clone();
        Either::Right(Box::pin(async move {
            match sync.ensure_fresh().await {
                Ok(()) => inner.call(request).await,
                Err(_) => Ok(ProblemDetails::store_unavailable().into_response()),
            }
        }))
    }
}

/// Answers a successful change only when every instance has loaded it.
pub(in crate::app) fn spread_changes<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    sync: Arc<DefinitionSync>,
) -> Router<S> {
    router.route_layer(from_fn_with_state(sync, spread))
}

async fn spread(State(sync): State<Arc<DefinitionSync>>, request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    let response = next.run(request).await;
    if changes && response.status().is_success() && sync.spread().await.is_err() {
        return ProblemDetails::store_unavailable().into_response();
    }
    response
}
