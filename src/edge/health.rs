//! Liveness (`/healthz`) and readiness (`/readyz`).
//!
//! A load balancer asks `/readyz`. A failure that all instances share must not take all of them out of
//! service while they still answer some requests. So a check fails in one of two ways: without it the
//! instance can serve nothing (503), or it serves less than usual (200 with `degraded`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::http::json::JsonBody;
use crate::http::query::QueryParams;

/// A slower check counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Results are cached for this time, so that frequent requests cause few queries of the stores.
const RESULT_CACHE_TIME: Duration = Duration::from_millis(200);

type CheckFunction = Box<dyn Fn() -> BoxFuture<'static, Result<(), CheckFailure>> + Send + Sync>;

struct ReadinessCheck {
    name: &'static str,
    on_timeout: fn(String) -> CheckFailure,
    function: CheckFunction,
}

/// Why a check failed. The text is public, so it must not contain secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckFailure {
    /// The instance can serve nothing.
    Unavailable(String),
    /// The instance serves less than usual.
    Degraded(String),
}

/// What a check means for the whole instance, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadinessStatus {
    /// Every check passed.
    Ready,
    /// A check failed, but the instance still serves what does not depend on it.
    Degraded,
    /// The instance serves nothing.
    Unavailable,
}

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
    #[serde(skip)]
    status: ReadinessStatus,
}

/// The response of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ReadinessReport {
    /// `ready`, `degraded` or `unavailable`.
    status: ReadinessStatus,
    /// One result per check.
    checks: Vec<CheckOutcome>,
}

/// The checks that must pass for an instance to be ready.
pub struct ReadinessChecks {
    draining: CancellationToken,
    checks: Vec<ReadinessCheck>,
    last: Mutex<Option<(Instant, Vec<CheckOutcome>)>>,
}

impl ReadinessChecks {
    /// Without checks the instance is ready until `draining` is cancelled.
    pub fn new(draining: CancellationToken) -> Self {
        Self { draining, checks: Vec::new(), last: Mutex::default() }
    }

    /// Adds a check. One that takes longer than a second fails as `on_timeout` says.
    #[must_use]
    pub fn check<F>(
        mut self,
        name: &'static str,
        on_timeout: fn(String) -> CheckFailure,
        function: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), CheckFailure>> + Send + 'static,
    {
        let function: CheckFunction = Box::new(move || Box::pin(function()));
        self.checks.push(ReadinessCheck { name, on_timeout, function });
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
                status: ReadinessStatus::Unavailable,
            });
        }
        outcomes
    }
}

async fn run(check: &ReadinessCheck) -> CheckOutcome {
    let result = tokio::time::timeout(CHECK_TIMEOUT, (check.function)()).await;
    let result = result.unwrap_or_else(|_| Err((check.on_timeout)("no answer in time".to_owned())));
    let (status, detail) = match result {
        Ok(()) => (ReadinessStatus::Ready, String::new()),
        Err(CheckFailure::Degraded(detail)) => (ReadinessStatus::Degraded, detail),
        Err(CheckFailure::Unavailable(detail)) => (ReadinessStatus::Unavailable, detail),
    };
    CheckOutcome { name: check.name, ok: status == ReadinessStatus::Ready, detail, status }
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

/// The parameters of `/readyz`.
#[derive(Debug, Deserialize)]
struct ReadinessQuery {
    /// With `true` a degraded instance answers 503, too.
    #[serde(default)]
    strict: bool,
}

async fn readyz(
    State(readiness): State<Arc<ReadinessChecks>>,
    QueryParams(query): QueryParams<ReadinessQuery>,
) -> Response {
    let checks = readiness.outcomes().await;
    let status = checks.iter().map(|check| check.status).max().unwrap_or(ReadinessStatus::Ready);
    let serves = match status {
        ReadinessStatus::Ready => true,
        ReadinessStatus::Degraded => !query.strict,
        ReadinessStatus::Unavailable => false,
    };
    let report = JsonBody(ReadinessReport { status, checks });
    if serves {
        report.into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], report).into_response()
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
        let readiness = ReadinessChecks::new(CancellationToken::new()).check(
            "redis",
            CheckFailure::Unavailable,
            || async { Ok(()) },
        );
        let (status, body) = ask(&Arc::new(readiness), "/readyz").await;
        assert_eq!(
            (status, body),
            (
                200,
                json!({"status": "ready", "checks": [{"name": "redis", "ok": true, "detail": ""}]})
            )
        );
    }

    #[tokio::test]
    async fn failed_check_affects_readiness_and_not_liveness() {
        let readiness = ReadinessChecks::new(CancellationToken::new())
            .check("redis", CheckFailure::Unavailable, || async { Ok(()) })
            .check("mysql", CheckFailure::Degraded, || async {
                Err(CheckFailure::Unavailable("refused".to_owned()))
            });
        let readiness = Arc::new(readiness);
        let (status, body) = ask(&readiness, "/readyz").await;
        assert_eq!((status, &body["status"]), (503, &json!("unavailable")));
        let failed = json!({"name": "mysql", "ok": false, "detail": "refused"});
        assert_eq!(body["checks"][1], failed);
        assert_eq!(ask(&readiness, "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn degraded_instance_stays_in_service_unless_the_request_is_strict() {
        let readiness = ReadinessChecks::new(CancellationToken::new()).check(
            "mysql",
            CheckFailure::Degraded,
            || async { Err(CheckFailure::Degraded("refused".to_owned())) },
        );
        let readiness = Arc::new(readiness);
        for (path, expected) in
            [("/readyz", 200), ("/readyz?strict=false", 200), ("/readyz?strict=true", 503)]
        {
            let (status, body) = ask(&readiness, path).await;
            assert_eq!((status, &body["status"]), (expected, &json!("degraded")), "{path}");
            assert_eq!(body["checks"][0]["ok"], false);
        }
        assert_eq!(ask(&readiness, "/readyz?strict=perhaps").await.0, 422);
    }

    #[tokio::test]
    async fn hanging_check_counts_as_failed() {
        let readiness = Arc::new(ReadinessChecks::new(CancellationToken::new()).check(
            "redis",
            CheckFailure::Unavailable,
            std::future::pending,
        ));
        assert_eq!(ask(&readiness, "/readyz").await.1["checks"][0]["detail"], "no answer in time");
    }

    #[tokio::test]
    async fn draining_is_visible_immediately() {
        let draining = CancellationToken::new();
        let readiness = Arc::new(ReadinessChecks::new(draining.clone()).check(
            "redis",
            CheckFailure::Unavailable,
            || async { Ok(()) },
        ));
        assert_eq!(ask(&readiness, "/readyz").await.0, 200);
        draining.cancel();
        let (status, body) = ask(&readiness, "/readyz").await;
        assert_eq!((status, &body["checks"][1]["name"]), (503, &json!("draining")));
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_run_of_the_checks() {
        let rounds = Arc::new(AtomicU32::new(0));
        let counted = rounds.clone();
        let readiness = Arc::new(ReadinessChecks::new(CancellationToken::new()).check(
            "redis",
            CheckFailure::Unavailable,
            move || {
                counted.fetch_add(1, Ordering::Relaxed);
                async { Ok(()) }
            },
        ));
        join_all((0..50).map(|_| ask(&readiness, "/readyz"))).await;
        assert!(rounds.load(Ordering::Relaxed) < 50);
    }
}
