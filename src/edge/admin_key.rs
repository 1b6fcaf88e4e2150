//! The admin key, which every call below `/admin` needs, and `/metrics`, which needs none: a
//! scraper must not be able to change anything.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::SecretString;

use crate::http::peer::PeerAddress;
use crate::http::problem::ProblemDetails;
use crate::http::secret::{BearerToken, KeyDigest, bearer};
use crate::telemetry::PrometheusHandle;

/// Requires the key on every route of `router`, which must have at least one.
pub fn require_key<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    key: &SecretString,
) -> Router<S> {
    router.route_layer(from_fn_with_state(Arc::new(KeyDigest::of(key)), check))
}

/// `/metrics` in Prometheus' text format.
pub fn metrics<S: Clone + Send + Sync + 'static>(handle: PrometheusHandle) -> Router<S> {
    let render = move || {
        std::future::ready((
            [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            handle.render(),
        ))
    };
    Router::new().route("/metrics", get(render))
}

async fn check(State(key): State<Arc<KeyDigest>>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        BearerToken::Key(presented) if key.matches(presented) => next.run(request).await,
        _ => {
            let peer = request.extensions().get::<PeerAddress>().map(|PeerAddress(peer)| peer.ip());
            tracing::warn!(?peer, "refused a call without the admin key");
            let mut response = ProblemDetails::unauthenticated(
                "This call requires the admin key: Authorization: Bearer <key>.",
            )
            .into_response();
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use tower::ServiceExt;

    #[tokio::test]
    async fn only_the_key_is_accepted() {
        let key = "the-admin-key-of-this-very-test-0";
        let app: Router =
            require_key(Router::new().route("/admin", get(|| async {})), &SecretString::from(key));
        for (authorization, status) in [
            (Some(format!("Bearer {key}")), 200),
            (Some("Bearer wrong".to_owned()), 401),
            (Some(key.to_owned()), 401),
            (None, 401),
        ] {
            let mut request = axum::http::Request::get("/admin");
            if let Some(authorization) = &authorization {
                request = request.header("authorization", authorization);
            }
            let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), status, "{authorization:?}");
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), status == 401);
        }
    }

    #[tokio::test]
    async fn metrics_need_no_key() {
        let app: Router = metrics(crate::telemetry::install());
        let response = app
            .oneshot(axum::http::Request::get("/metrics").body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert!(
            response.headers()[CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with("text/plain; version=0.0.4")
        );
    }
}
