//! The layers around a router, in their required order.
//!
//! From the outside in: `middleware` (request id, metrics, panics, timeout, cache headers), the
//! body limit and CORS. The routes of domain modules also have load shedding and rate limits by
//! address; health checks have neither, so that they work under load. Layers that are added to a
//! router together cost one clone and one box per request; added one by one, each costs that.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::Route;
use axum::{Extension, Router};
use tower::{Layer, Service};
use tower_http::cors::CorsLayer;

use super::challenge::ChallengeVerifier;
use super::limits::{self, RateLimits};
use super::middleware::RequestMiddleware;
use super::shedding::LoadShedding;
use crate::http::identity::IdentityResolver;
use crate::http::problem::{ProblemDetails, no_method};
use crate::http::user_limit::UserRateLimit;

/// Limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// From the end of the request headers to the start of the response.
    pub request_timeout: Duration,
    /// The maximum length of the body, in bytes.
    pub body_limit: usize,
    /// The same on the admin listener.
    pub admin_body_limit: usize,
}

/// What the routes of domain modules need: identities, rate limits, load shedding, and a challenge
/// before joins.
#[derive(Clone)]
pub struct DomainLayers {
    pub identities: Arc<IdentityResolver>,
    pub limits: Arc<RateLimits>,
    pub shedding: LoadShedding,
    pub challenge: Option<Arc<ChallengeVerifier>>,
}

impl DomainLayers {
    /// Wraps routes, with `inner` closest to the handlers. Everything is one layer, because each
    /// further call of `route_layer` boxes and clones the service of every request.
    pub fn wrap<S, L>(self, router: Router<S>, inner: L) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Response = Response, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        let Self { identities, limits, shedding, challenge } = self;
        let router = match challenge {
            Some(challenge) => router.route_layer(Extension(challenge)),
            None => router,
        };
        let shared = (Extension(identities), Extension(UserRateLimit(limits.clone())), inner);
        if limits.limits_addresses() {
            let by_address = from_fn_with_state(limits, limits::limit_by_address);
            router.route_layer((shedding, by_address, shared))
        } else {
            router.route_layer((shedding, shared))
        }
    }
}

/// Wraps the router of a listener: adds problems for unknown paths and methods, and the layers of
/// every response. `unknown_path` answers unknown paths. CORS applies to `router` and not to
/// `without_cors`.
pub fn wrap_listener<S: Clone + Send + Sync + 'static, T: 'static>(
    router: Router<S>,
    without_cors: Router<S>,
    settings: &RequestLimits,
    cors: Option<CorsLayer>,
    unknown_path: impl Handler<T, S>,
) -> Router<S> {
    let router = router.fallback(unknown_path).method_not_allowed_fallback(no_method);
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.merge(without_cors).layer((
        RequestMiddleware::new(settings.request_timeout),
        DefaultBodyLimit::max(settings.body_limit),
    ))
}

/// The router of connections above the limit of a listener: 503 `overloaded` for everything except
/// `unlimited`, which must need no store.
pub fn wrap_overflow(unlimited: Router, settings: &RequestLimits) -> Router {
    let refuse = || async {
        ProblemDetails::overloaded_with("The instance has too many connections. Retry later.")
    };
    unlimited.fallback(refuse).layer(RequestMiddleware::new(settings.request_timeout))
}

#[cfg(test)]
mod tests {
    use super::super::limits as limit;
    use super::*;
    use crate::http::JsonBody;
    use crate::http::cache::CachedForOneSecond;
    use crate::http::identity::{self, AuthenticatedUser};
    use crate::http::peer::PeerAddress;
    use crate::http::problem::no_route;
    use crate::http::problem::tests::read;
    use axum::body::{Body, Bytes};
    use axum::http::{HeaderMap, Request};
    use axum::routing::{get, post};
    use serde_json::Value;
    use tower::ServiceExt;

    const SMALL_BODIES: RequestLimits = RequestLimits {
        request_timeout: Duration::from_secs(600),
        body_limit: 100,
        admin_body_limit: 100,
    };

    fn app() -> Router {
        let identities = IdentityResolver::new(&identity::IdentitySettings {
            header: true,
            ..Default::default()
        })
        .unwrap();
        let settings = limit::RateLimitSettings {
            user_per_second: 1,
            user_burst: 2,
            kinds: [None; 4],
            address_per_second: 3,
            global_per_second: 0,
            joins_per_second: 0,
            trusted_proxies: 0,
        };
        let limits = RateLimits::new(&settings, |_, _| limit::RequestKind::Other);
        let shedding = LoadShedding::new(0, |_, _| limit::RequestKind::Other);
        let routes = Router::new()
            .route(
                "/v1/me",
                get(|AuthenticatedUser(user): AuthenticatedUser| async move { user.to_string() }),
            )
            .route("/v1/shared", get(|| async { CachedForOneSecond("x") }))
            .route("/v1/slow", get(std::future::pending::<()>))
            .route("/v1/panic", get(|| async { panic!("on purpose") as () }))
            .route(
                "/v1/body",
                post(|JsonBody(value): JsonBody<Value>| async move { JsonBody(value) }),
            );
        let health = Router::new().route("/healthz", get(|| async {}));
        let settings =
            RequestLimits { request_timeout: Duration::from_millis(300), ..SMALL_BODIES };
        wrap_listener(
            DomainLayers {
                identities: Arc::new(identities),
                limits: Arc::new(limits),
                shedding,
                challenge: None,
            }
            .wrap(routes, tower::layer::util::Identity::new())
            .merge(health),
            Router::new(),
            &settings,
            None,
            no_route,
        )
    }

    async fn ask(app: &Router, request: Request<Body>) -> (u16, HeaderMap, Value) {
        let (status, headers, body) = read(app.clone().oneshot(request).await.unwrap()).await;
        assert!(headers.contains_key("x-request-id"), "every response has one");
        (status.as_u16(), headers, body)
    }

    fn get_request(path: &str) -> Request<Body> {
        Request::get(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn every_failure_is_a_problem() {
        let app = app();
        for (path, status, code) in [
            ("/nowhere", 404, "not_found"),
            ("/v1/slow", 503, "overloaded"),
            ("/v1/panic", 500, "internal"),
            ("/v1/body", 405, "method_not_allowed"),
            ("/v1/me", 401, "unauthenticated"),
        ] {
            let (got, headers, body) = ask(&app, get_request(path)).await;
            assert_eq!((got, &body["code"]), (status, &code.into()), "{path}");
            assert_eq!(headers["content-type"], "application/problem+json", "{path}");
            assert_eq!(headers["cache-control"], "no-store", "{path}");
            assert_eq!(headers.contains_key("retry-after"), status == 503, "{path}");
            assert_eq!(
                headers.get("allow").map(|allow| allow.to_str().unwrap()),
                (status == 405).then_some("POST")
            );
        }
    }

    #[tokio::test]
    async fn responses_are_not_cacheable_unless_a_handler_allows_it() {
        let app = app();
        assert_eq!(ask(&app, get_request("/healthz")).await.1["cache-control"], "no-store");
        assert_eq!(
            ask(&app, get_request("/v1/shared")).await.1["cache-control"],
            "public, max-age=1"
        );
    }

    #[tokio::test]
    async fn request_id_of_the_caller_is_kept() {
        let mut request = get_request("/healthz");
        request.headers_mut().insert("x-request-id", "of-the-gateway".parse().unwrap());
        assert_eq!(ask(&app(), request).await.1["x-request-id"], "of-the-gateway");
    }

    #[tokio::test]
    async fn body_is_limited_with_and_without_content_length() {
        let app = app();
        let chunks = futures::stream::iter(
            (0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"          "))),
        );
        for body in [Body::from(vec![b' '; 101]), Body::from_stream(chunks)] {
            let request = Request::post("/v1/body")
                .header("content-type", "application/json")
                .body(body)
                .unwrap();
            let (status, _, body) = ask(&app, request).await;
            assert_eq!((status, &body["code"]), (413, &"body_too_large".into()));
        }
    }

    #[tokio::test]
    async fn users_and_addresses_are_limited_and_health_is_not() {
        let app = app();
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let mut request = get_request("/v1/me");
            request
                .headers_mut()
                .insert("usher-user", "00000000-0000-4000-8000-000000000001".parse().unwrap());
            statuses.push(ask(&app, request).await.0);
        }
        assert_eq!(statuses, [200, 200, 429]);

        let from_peer = |path| {
            let mut request = get_request(path);
            request.extensions_mut().insert(PeerAddress("192.0.2.1:1".parse().unwrap()));
            request
        };
        for (path, status) in [
            ("/v1/shared", 200),
            ("/v1/shared", 200),
            ("/v1/shared", 200),
            ("/v1/shared", 429),
            ("/healthz", 200),
        ] {
            assert_eq!(ask(&app, from_peer(path)).await.0, status, "{path}");
        }
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_including_aborted_ones() {
        let metrics = crate::telemetry::install();
        let routes = Router::new()
            .route("/counted/{id}", get(|| async {}))
            .route("/hung/{id}", get(std::future::pending::<()>));
        let settings = SMALL_BODIES;
        let app: Router = wrap_listener(routes, Router::new(), &settings, None, no_route);
        ask(&app, get_request("/counted/17")).await;
        let hung =
            tokio::time::timeout(Duration::from_millis(10), app.oneshot(get_request("/hung/17")))
                .await;
        assert!(hung.is_err());
        let text = metrics.render();
        for labels in [
            "{route=\"/counted/{id}\",method=\"GET\",status=\"200\"} 1",
            "{route=\"/hung/{id}\",method=\"GET\",status=\"499\"} 1",
        ] {
            assert!(text.contains(&format!("usher_http_requests_total{labels}")), "{text}");
        }
    }
}
