//! The two listeners' routers, merged from the rooms', and the documents that are made from them.

use std::sync::Arc;

use axum::http::Method;
use axum::{Extension, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, Info, License, OpenApi, OpenApiBuilder, Paths};

use super::{DomainServices, admin_log, contract, crowd};
use crate::dev::crowd::SimulatedUsers;
use crate::edge::challenge::ChallengeVerifier;
use crate::edge::health::{self, ReadinessChecks};
use crate::http::identity::{IdentityResolver, USER_HEADER};
use crate::edge::limits::{RateLimits, RequestKind};
use crate::http::page::PageLimit;
use crate::edge::shedding::LoadShedding;
use crate::edge::{admin_key, layers};
use crate::http::{openapi, request_id};
use crate::queue::TOKEN_HEADER;
use crate::{catalogue, coupons, payment, queue, recovery, rewards, seats, wallet, web};

/// The document of the public listener.
pub fn public_document() -> OpenApi {
    let parts = [
        queue::router().into_openapi(),
        catalogue::router().into_openapi(),
        seats::router().into_openapi(),
        payment::router().into_openapi(),
        wallet::router().into_openapi(),
        coupons::router().into_openapi(),
        rewards::router().into_openapi(),
    ];
    document(
        "Usher",
        "Admission and booking: a line, seats, a wallet, payments, coupons, rewards.",
        parts,
    )
}

/// The document of the admin listener.
pub fn admin_document() -> OpenApi {
    let parts = [
        queue::admin_router().into_openapi(),
        catalogue::admin_router().into_openapi(),
        coupons::admin_router().into_openapi(),
        rewards::admin_router().into_openapi(),
        seats::admin_router().into_openapi(),
        crate::audit::router().into_openapi(),
        admin_log::router().into_openapi(),
    ];
    document("Usher, admin", "What operators set and see.", parts)
}

/// What a route is for, as limits and shedding see it.
pub(super) fn kind(method: &Method, route: &str) -> RequestKind {
    match (method.as_str(), route) {
        ("GET", "/v1/queues/{queue}/tokens/me")
        | ("GET", "/v1/queues/{queue}/tokens/me/events")
        | ("GET", "/v1/queues/{queue}/check")
        | ("GET", "/v1/queues/{queue}") => RequestKind::Poll,
        ("POST", "/v1/queues/{queue}/tokens" | "/waiting/{queue}/place") => RequestKind::Join,
        ("POST", "/v1/reservations")
        | ("POST", "/v1/reservations/best")
        | ("GET", "/v1/schedules/{schedule}/seats")
        | ("GET", "/v1/concerts/{concert}/schedules") => RequestKind::Book,
        ("POST", "/v1/payments")
        | ("GET", "/v1/payments/{id}")
        | ("POST", "/v1/reservations/{id}/cancel") => RequestKind::Pay,
        _ => RequestKind::Other,
    }
}

/// Everything of the public listener.
#[expect(clippy::too_many_arguments, reason = "each is one part of what stands around the rooms")]
pub(super) fn public(
    rooms: &DomainServices,
    callers: Arc<IdentityResolver>,
    limits: Arc<RateLimits>,
    shedding: LoadShedding,
    challenge: Option<Arc<ChallengeVerifier>>,
    cors: Option<CorsLayer>,
    readiness: Arc<ReadinessChecks>,
    bounds: &layers::RequestLimits,
) -> Router {
    let routes = Router::new()
        .merge(queue::router().with_state(rooms.queue.clone()))
        .merge(queue::waiting_router().with_state(rooms.queue.clone()))
        .merge(catalogue::router().with_state(rooms.catalogue.clone()))
        .merge(seats::router().with_state(rooms.seats.clone()))
        .merge(payment::router().with_state(rooms.payments.clone()))
        .merge(wallet::router().with_state(rooms.wallet.clone()))
        .merge(coupons::router().with_state(rooms.coupons.clone()))
        .merge(rewards::router().with_state(rooms.rewards.clone()));
    let routes = layers::rooms(
        routes.route_layer(Extension(rooms.queue.clone())),
        callers,
        limits,
        shedding,
        challenge,
    );
    let open =
        web::public().merge(openapi::docs(public_document())).merge(health::router(readiness));
    layers::whole(routes.merge(open), bounds, cors)
}

/// Everything of the admin listener. `/metrics` and health need no key. Only `usher dev` has a demo crowd.
pub(super) fn admin(
    rooms: &DomainServices,
    key: &SecretString,
    readiness: Arc<ReadinessChecks>,
    metrics: PrometheusHandle,
    bounds: &layers::RequestLimits,
    demo: Option<SimulatedUsers>,
) -> Router {
    let routes = Router::new()
        .merge(queue::admin_router().with_state(rooms.queue.clone()))
        .merge(catalogue::admin_router().with_state(rooms.catalogue.clone()))
        .merge(coupons::admin_router().with_state(rooms.coupons.clone()))
        .merge(rewards::admin_router().with_state(rooms.rewards.clone()))
        .merge(seats::admin_router().with_state(rooms.seats.clone()))
        .merge(crate::audit::router().with_state((rooms.redis.clone(), rooms.mysql.clone())))
        .merge(admin_log::router().with_state(rooms.mysql.clone()))
        .merge(demo.map(crowd::router).unwrap_or_default());
    let open = web::admin()
        .merge(admin_key::metrics(metrics))
        .merge(openapi::document(admin_document()))
        .merge(health::router(readiness));
    let routes = admin_key::require_key(admin_log::keep(routes, rooms.mysql.clone(), key), key);
    request_id::told_inwards(layers::whole(routes.merge(open), bounds, None))
}

/// What must hold before an instance is given requests.
pub(super) fn readiness(
    rooms: &DomainServices,
    draining: CancellationToken,
) -> Arc<ReadinessChecks> {
    let (redis, mysql, generations) =
        (rooms.redis.clone(), rooms.mysql.clone(), rooms.redis.clone());
    let readiness = ReadinessChecks::new(draining)
        .check("redis", move || {
            let redis = redis.clone();
            async move { redis.ping().await.map_err(|_| "does not answer".to_owned()) }
        })
        .check("mysql", move || {
            let mysql = mysql.clone();
            async move {
                sqlx::query("SELECT 1")
                    .execute(&mysql)
                    .await
                    .map(drop)
                    .map_err(|_| "does not answer".to_owned())
            }
        })
        .check("partitions", move || {
            let closed = generations.generations().closed();
            async move { if closed == 0 { Ok(()) } else { Err(format!("{closed} are recovering")) } }
        });
    Arc::new(readiness)
}

fn document<const N: usize>(title: &str, about: &str, parts: [OpenApi; N]) -> OpenApi {
    let header = |name: &str| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name)));
    let components = Components::builder()
        .schema_from::<PageLimit>()
        .security_scheme("user", header(USER_HEADER))
        .security_scheme("queue_token", header(TOKEN_HEADER))
        .security_scheme(
            "admin",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        )
        .build();
    let mut info = Info::new(title, env!("CARGO_PKG_VERSION"));
    info.description = Some(about.to_owned());
    info.license = Some(License::new("Apache-2.0"));
    let whole =
        OpenApiBuilder::new().info(info).paths(Paths::new()).components(Some(components)).build();
    contract::complete(parts.into_iter().fold(whole, OpenApi::merge_from))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route that is renamed must not lose its kind without a word.
    #[test]
    fn every_kind_has_its_routes() {
        let document = serde_json::to_value(public_document()).unwrap();
        let mut counts = [0; 5];
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                counts[kind(&method, path) as usize] += 1;
            }
        }
        let of = |kind: RequestKind| counts[kind as usize];
        assert_eq!(
            (
                of(RequestKind::Join),
                of(RequestKind::Poll),
                of(RequestKind::Book),
                of(RequestKind::Pay)
            ),
            (1, 4, 4, 3),
            "{counts:?}"
        );
    }
}
