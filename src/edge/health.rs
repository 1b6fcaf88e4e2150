//! Whether the process runs (`/healthz`), and whether it should be given requests (`/readyz`).

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

/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// An outcome is good for so long: however often anybody asks, the stores are asked a few times a second.
const FRESH: Duration = Duration::from_millis(200);

type ReadinessCheck = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CheckOutcome {
    /// What was looked at.
    #[schema(value_type = String, example = "redis")]
    name: &'static str,
    /// Whether all is well with it.
    ok: bool,
    /// What is wrong; empty when nothing is.
    detail: String,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ReadinessReport {
    /// One outcome for each check.
    checks: Vec<CheckOutcome>,
}

/// The checks that make an instance ready.
pub struct ReadinessChecks {
    draining: CancellationToken,
    checks: Vec<(&'static str, ReadinessCheck)>,
    last: Mutex<Option<(Instant, Vec<CheckOutcome>)>>,
}

impl ReadinessChecks {
    /// Ready as long as `draining` is not cancelled, until checks are added.
    pub fn new(draining: CancellationToken) -> Self {
        Self { draining, checks: Vec::new(), last: Mutex::default() }
    }

    /// Adds a check; what it gives as its error is shown to whoever asks, so it must hold no secret.
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

    /// All outcomes, made anew unless they are fresh. Those who ask at once share one round of checks.
    async fn outcomes(&self) -> Vec<CheckOutcome> {
        let mut last = self.last.lock().await;
        let mut outcomes = match &*last {
            Some((at, outcomes)) if at.elapsed() < FRESH => outcomes.clone(),
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
    let outcome = tokio::time::timeout(PATIENCE, check()).await;
    let detail = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned())).err();
    CheckOutcome { name, ok: detail.is_none(), detail: detail.unwrap_or_default() }
}

/// `/healthz` and `/readyz`.
pub fn router<S: Clone + Send + Sync + 'static>(readiness: Arc<ReadinessChecks>) -> Router<S> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready).with_state(readiness))
}

async fn alive() -> &'static str {
    "ok"
}

async fn ready(State(readiness): State<Arc<ReadinessChecks>>) -> Response {
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
    async fn ready_when_every_check_passes() {
        let readiness =
            ReadinessChecks::new(CancellationToken::new()).check("redis", || async { Ok(()) });
        let (status, body) = ask(&Arc::new(readiness), "/readyz").await;
        assert_eq!(
            (status, body),
            (200, json!({"checks": [{"name": "redis", "ok": true, "detail": ""}]}))
        );
    }

    #[tokio::test]
    async fn one_failed_check_is_enough_and_health_does_not_care() {
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
    async fn a_check_that_hangs_has_failed() {
        let readiness = Arc::new(
            ReadinessChecks::new(CancellationToken::new()).check("redis", std::future::pending),
        );
        assert_eq!(ask(&readiness, "/readyz").await.1["checks"][0]["detail"], "no answer in time");
    }

    #[tokio::test]
    async fn draining_shows_at_once() {
        let draining = CancellationToken::new();
        let readiness =
            Arc::new(ReadinessChecks::new(draining.clone()).check("redis", || async { Ok(()) }));
        assert_eq!(ask(&readiness, "/readyz").await.0, 200);
        draining.cancel();
        let (status, body) = ask(&readiness, "/readyz").await;
        assert_eq!((status, &body["checks"][1]["name"]), (503, &json!("draining")));
    }

    #[tokio::test]
    async fn many_questions_are_one_round_of_checks() {
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
