//! Liveness (`/healthz`) and readiness (`/readyz`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::http::json::JsonBody;

/// A slower check counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Results are cached for this time, so that frequent requests cause few queries of the stores.
const RESULT_CACHE_TIME: Duration = Duration::from_millis(200);

type ReadinessCheck = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The result of one readiness check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CheckOutcome {
    /// The name of the check.
    #[schema(value_type = String, example = "redis")]
    name: &'static str,
    /// Whether the check passed.
    ok: bool,
    /// Why the check failed; empty if it passed.
    detail: String,
}

/// The response of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ReadinessReport {
    /// One result per check.
    checks: Vec<CheckOutcome>,
}

/// The checks that must pass for an instance to be ready.
pub struct ReadinessChecks {
    draining: CancellationToken,
    checks: Vec<(&'static str, ReadinessCheck)>,
    last: Mutex<Option<(Instant, Vec<CheckOutcome>)>>,
}

impl ReadinessChecks {
    /// Without checks the instance is ready until `draining` is cancelled.
    pub fn new(draining: CancellationToken) -> Self {
        Self { draining, checks: Vec::new(), last: Mutex::default() }
    }

    /// Adds a check. Its error is public, so it must not contain secrets.
    #[must_use]
    pub fn check<F>(
        mut self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push((name, Box::new(move || Box::pin(check()))));
        self
    }

    /// The results of all checks, from the cache if it is fresh. Concurrent requests share one run
    /// of the checks.
    async fn outcomes(&self) -> Vec<CheckOutcome> {
        let mut last = self.last.lock().await;
        let mut outcomes = match &*last {
            Some((at, outcomes)) if at.elapsed() < RESULT_CACHE_TIME => outcomes.clone(),
            _ => {
                let outcomes = join_all(self.checks.iter().map(run)).await;
                last.insert((Instant::now(), outcomes)).1.clone()
            }
        };
        drop(last);
        if self.draining.is_cancelled() {
            outcomes.push(CheckOutcome {
                name: "draining",
                ok: false,
                detail: "shutting down".to_owned(),
            });
        }
        outcomes
    }
}

async fn run((name, check): &(&'static str, ReadinessCheck)) -> CheckOutcome {
    let outcome = tokio::time::timeout(CHECK_TIMEOUT, check()).await;
    let detail = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned())).err();
    CheckOutcome { name, ok: detail.is_none(), detail: detail.unwrap_or_default() }
}

/// `/healthz` and `/readyz`.
pub fn router<S: Clone + Send + Sync + 'static>(readiness: Arc<ReadinessChecks>) -> Router<S> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz).with_state(readiness))
}

async fn healthz() -> &'static str {
    "ok"
}

async fn readyz(State(readiness): State<Arc<ReadinessChecks>>) -> Response {
    let checks = readiness.outcomes().await;
    if checks.iter().all(|outcome| outcome.ok) {
        JsonBody(ReadinessReport { checks }).into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            [(RETRY_AFTER, "1")],
            JsonBody(ReadinessReport { checks }),
        )
            .into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::tests::read;
    use axum::body::Body;
    use axum::http::Request;
    use serde_json::{Value, json};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tower::ServiceExt;

    async fn ask(readiness: &Arc<ReadinessChecks>, path: &str) -> (u16, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (status, headers, body) =
            read(router::<()>(readiness.clone()).oneshot(request).await.unwrap()).await;
        assert_eq!(headers.contains_key(RETRY_AFTER), status == 503);
        (status.as_u16(), body)
    }

    #[tokio::test]
    async fn instance_is_ready_when_every_check_passes() {
        let readiness =
            ReadinessChecks::new(CancellationToken::new()).check("redis", || async { Ok(()) });
        let (status, body) = ask(&Arc::new(readiness), "/readyz").await;
        assert_eq!(
            (status, body),
            (200, json!({"checks": [{"name": "redis", "ok": true, "detail": ""}]}))
        );
    }

    #[tokio::test]
    async fn failed_check_affects_readiness_and_not_liveness() {
        let readiness = ReadinessChecks::new(CancellationToken::new())
            .check("redis", || async { Ok(()) })
            .check("mysql", || async { Err("refused".to_owned()) });
        let readiness = Arc::new(readiness);
        let (status, body) = ask(&readiness, "/readyz").await;
        assert_eq!(
            (status, &body["checks"][1]),
            (503, &json!({"name": "mysql", "ok": false, "detail": "refused"}))
        );
        assert_eq!(ask(&readiness, "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn hanging_check_counts_as_failed() {
        let readiness = Arc::new(
            ReadinessChecks::new(CancellationToken::new()).check("redis", std::future::pending),
        );
        assert_eq!(ask(&readiness, "/readyz").await.1["checks"][0]["detail"], "no answer in time");
    }

    #[tokio::test]
    async fn draining_is_visible_immediately() {
        let draining = CancellationToken::new();
        let readiness =
            Arc::new(ReadinessChecks::new(draining.clone()).check("redis", || async { Ok(()) }));
        assert_eq!(ask(&readiness, "/readyz").await.0, 200);
        draining.cancel();
        let (status, body) = ask(&readiness, "/readyz").await;
        assert_eq!((status, &body["checks"][1]["name"]), (503, &json!("draining")));
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_run_of_the_checks() {
        let rounds = Arc::new(AtomicU32::new(0));
        let counted = rounds.clone();
        let readiness =
            Arc::new(ReadinessChecks::new(CancellationToken::new()).check("redis", move || {
                counted.fetch_add(1, Ordering::Relaxed);
                async { Ok(()) }
            }));
        join_all((0..50).map(|_| ask(&readiness, "/readyz"))).await;
        assert!(rounds.load(Ordering::Relaxed) < 50);
    }
}
