//! The admin keys, one of which every call below `/admin` needs, and `/metrics`, which needs none:
//! a scraper must not be able to change anything.
//!
//! Each key has a name and a role. The routes say which role they need.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::SecretString;

use crate::http::peer::PeerAddress;
use crate::http::problem::ProblemDetails;
use crate::http::secret::{BearerToken, KeyDigest, bearer, key_id};
use crate::telemetry::PrometheusHandle;

/// What the holder of a key may do. A later role may do what an earlier one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Reads everything.
    Viewer,
    /// Also changes queues, holds, users in queues and facts, and starts jobs.
    Operator,
    /// Does everything.
    Admin,
}

impl AdminRole {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word in settings and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A key of the admin API.
#[derive(Debug, Clone)]
pub struct AdminKey {
    pub name: String,
    pub role: AdminRole,
    pub secret: SecretString,
}

/// Who calls, in the extensions of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminCaller {
    pub name: Arc<str>,
    /// Identifies the key without revealing it.
    pub key_id: Arc<str>,
}

/// The role that a route needs. The second argument is the path of the route.
pub type RequiredRole = fn(&Method, &str) -> AdminRole;

struct AdminKeys {
    keys: Vec<(KeyDigest, AdminRole, AdminCaller)>,
    required_role: RequiredRole,
}

impl AdminKeys {
    /// Compares with every key, so that the time does not reveal which one is similar.
    fn find(&self, presented: &str) -> Option<(AdminRole, &AdminCaller)> {
        let mut found = None;
        for (digest, role, caller) in &self.keys {
            if digest.matches(presented) {
                found = Some((*role, caller));
            }
        }
        found
    }
}

/// Requires a key on every route of `router`, which must have at least one.
pub fn require_key<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    keys: &[AdminKey],
    required_role: RequiredRole,
) -> Router<S> {
    let keys = keys.iter().map(|key| {
        let (name, key_id) = (key.name.as_str().into(), key_id(&key.secret).into());
        (KeyDigest::of(&key.secret), key.role, AdminCaller { name, key_id })
    });
    let keys = AdminKeys { keys: keys.collect(), required_role };
    router.route_layer(from_fn_with_state(Arc::new(keys), check))
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

async fn check(State(keys): State<Arc<AdminKeys>>, mut request: Request, next: Next) -> Response {
    let caller = match bearer(request.headers()) {
        BearerToken::Key(presented) => keys.find(presented),
        _ => None,
    };
    let Some((role, caller)) = caller else {
        let peer = request.extensions().get::<PeerAddress>().map(|PeerAddress(peer)| peer.ip());
        tracing::warn!(?peer, "refused a call without the admin key");
        let mut response = ProblemDetails::unauthenticated(
            "This call requires an admin key: Authorization: Bearer <key>.",
        )
        .into_response();
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let required = (keys.required_role)(request.method(), route);
    if role < required {
        let (required, role, name) = (required.as_str(), role.as_str(), &*caller.name);
        tracing::warn!(name, role, required, route, "refused a call by a key of a lower role");
        let detail =
            format!("This call requires the role {required}. The key {name} has the role {role}.");
        return ProblemDetails::forbidden(detail).with("required_role", required).into_response();
    }
    request.extensions_mut().insert(caller.clone());
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Extension;
    use axum::body::Body;
    use tower::ServiceExt;

    #[tokio::test]
    async fn only_the_key_is_accepted() {
        let key = "the-admin-key-of-this-very-test-0";
        let keys = [AdminKey {
            name: "admin".to_owned(),
            role: AdminRole::Admin,
            secret: SecretString::from(key),
        }];
        let routes = Router::new().route("/admin", get(|| async {}));
        let app: Router = require_key(routes, &keys, |_, _| AdminRole::Viewer);
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
    async fn role_must_be_high_enough() {
        let secret = |role: AdminRole| format!("the-key-of-the-{}", role.as_str());
        let keys = AdminRole::ALL.map(|role| AdminKey {
            name: format!("the-{}", role.as_str()),
            role,
            secret: secret(role).into(),
        });
        let name =
            |Extension(caller): Extension<AdminCaller>| async move { caller.name.to_string() };
        let routes = Router::new().route("/admin/{id}", get(name).put(name));
        let app: Router = require_key(routes, &keys, |method, route| match method.as_str() {
            "PUT" if route == "/admin/{id}" => AdminRole::Operator,
            _ => AdminRole::Viewer,
        });
        for (method, role, status) in [
            ("GET", AdminRole::Viewer, 200),
            ("GET", AdminRole::Admin, 200),
            ("PUT", AdminRole::Viewer, 403),
            ("PUT", AdminRole::Operator, 200),
            ("PUT", AdminRole::Admin, 200),
        ] {
            let request = axum::http::Request::builder()
                .method(method)
                .uri("/admin/x")
                .header("authorization", format!("Bearer {}", secret(role)))
                .body(Body::empty())
                .unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{method} {role:?}");
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            let expected = if status == 403 { "operator" } else { &keys[role as usize].name };
            assert!(body.contains(expected), "{body}");
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
