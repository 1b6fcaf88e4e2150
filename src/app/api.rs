//! The routers of both listeners, merged from those of the domain modules, and their OpenAPI
//! documents.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;
use utoipa::openapi::info::LicenseBuilder;
use utoipa::openapi::{Components, Info, OpenApi, OpenApiBuilder, Paths};

use super::definition_sync::{DefinitionLeaseLayer, DefinitionSync, spread_changes};
use super::domain_services::DomainServices;
use super::{admin_log, admin_users, csv, dead_letter_routes, jobs, openapi, stats};
use crate::edge::admin_key::{AdminKey, AdminRole};
use crate::edge::challenge::ChallengeVerifier;
use crate::edge::health::{self, CheckFailure, ReadinessChecks};
use crate::edge::limits::{RateLimits, RequestKind};
use crate::edge::shedding::LoadShedding;
use crate::edge::stream_permits::StreamPermits;
use crate::edge::unexpected_body::UnexpectedBodyLayer;
use crate::edge::{admin_key, compression, layers};
use crate::http::identity::IdentityResolver;
use crate::http::page::PageLimit;
use crate::http::problem::no_route;
use crate::http::user_recorder::UserRecorderExtension;
use crate::http::{openapi_routes, request_id};
use crate::webhooks::WebhookService;
use crate::{catalogue, coupons, events, payment, queue, rewards, seats, wallet, web, webhooks};

/// The OpenAPI document of the public listener.
pub fn public_document() -> Value {
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
        "Admission and booking: queues, seats, wallets, payments, coupons and rewards.",
        parts,
    )
}

/// The OpenAPI document of the admin listener.
pub fn admin_document() -> Value {
    let parts = [
        queue::admin_router().into_openapi(),
        catalogue::admin_router().into_openapi(),
        coupons::admin_router().into_openapi(),
        rewards::admin_router().into_openapi(),
        seats::admin_router().into_openapi(),
        payment::admin_router().into_openapi(),
        crate::audit::router().into_openapi(),
        admin_log::router().into_openapi(),
        admin_users::router().into_openapi(),
        stats::router().into_openapi(),
        jobs::router().into_openapi(),
        dead_letter_routes::router().into_openapi(),
        events::router().into_openapi(),
        webhooks::router().into_openapi(),
    ];
    let about = "Definitions, operations and reports for operators. Each list is also available as \
                 `text/csv`, as a whole.";
    let mut document = document("Usher admin", about, parts);
    csv::add_responses(&mut document);
    document
}

/// The kind of a route for rate limits and load shedding.
pub(super) fn request_kind(method: &Method, route: &str) -> RequestKind {
    match (method.as_str(), route) {
        ("GET", "/v1/queues/{queue}/tokens/me")
        | ("GET", "/v1/queues/{queue}/tokens/me/events")
        | ("GET", "/v1/queues/{queue}/check")
        | ("GET", "/v1/queues/{queue}")
        | (_, "/v1/queues/{queue}/gate")
        | (_, "/v1/queues/{queue}/gate/")
        | (_, "/v1/queues/{queue}/gate/{*path}")
        // As the document writes it.
        | (_, "/v1/queues/{queue}/gate/{path}") => RequestKind::Poll,
        ("POST", "/v1/queues/{queue}/tokens" | "/waiting/{queue}/place") => RequestKind::Join,
        ("POST", "/v1/reservations")
        | ("POST", "/v1/reservations/best")
        | ("GET", "/v1/schedules/{schedule}/seats" | "/v1/schedules/{schedule}/seats/events")
        | ("GET", "/v1/concerts/{concert}/schedules") => RequestKind::Book,
        ("POST", "/v1/payments")
        | ("GET", "/v1/payments" | "/v1/payments/{id}")
        | (
            "POST",
            "/v1/payments/{id}/confirm" | "/v1/payments/{id}/void" | "/v1/payments/{id}/refunded",
        )
        | ("POST", "/v1/reservations/{id}/cancel") => RequestKind::Pay,
        _ => RequestKind::Other,
    }
}

/// The role that a route of the admin listener needs.
fn required_role(method: &Method, route: &str) -> AdminRole {
    let of_queue = route.starts_with("/admin/queues/");
    match (method.as_str(), route) {
        ("GET" | "HEAD", _) => AdminRole::Viewer,
        _ if of_queue => AdminRole::Operator,
        (_, "/admin/users/{user}/facts")
        | ("DELETE", "/admin/reservations/{id}")
        | ("POST", "/admin/schedules/{schedule}/cancel" | "/admin/dead-letters/{id}/retry") => {
            AdminRole::Operator
        }
        _ => AdminRole::Admin,
    }
}

/// The router of the public listener.
#[expect(clippy::too_many_arguments, reason = "each argument is one part of the edge")]
pub(super) fn public(
    services: &DomainServices,
    definitions: Arc<DefinitionSync>,
    identities: Arc<IdentityResolver>,
    limits: Arc<RateLimits>,
    shedding: LoadShedding,
    streams: Arc<StreamPermits>,
    gate: queue::GateSettings,
    page: queue::WaitingPageSettings,
    challenge: Option<Arc<ChallengeVerifier>>,
    cors: Option<CorsLayer>,
    readiness: Arc<ReadinessChecks>,
    request_limits: &layers::RequestLimits,
) -> Router {
    let routes = Router::new()
        .merge(catalogue::router().with_state(services.catalogue.clone()))
        .merge(seats::router().with_state(services.seats.clone()))
        .merge(payment::router().with_state(services.payments.clone()))
        .merge(wallet::router().with_state(services.wallet.clone()))
        .merge(coupons::router().with_state(services.coupons.clone()))
        .merge(rewards::router().with_state(services.rewards.clone()))
        .route_layer(compression::layer())
        .merge(queue::router().with_state(services.queue.clone()))
        .merge(queue::waiting_router().with_state(services.queue.clone()));
    let recorder = UserRecorderExtension(Arc::new(services.users.clone()));
    let lease = DefinitionLeaseLayer(definitions);
    let domain = layers::DomainLayers { identities, limits, shedding, challenge };
    let routes = domain.clone().wrap(
        routes,
        (
            lease.clone(),
            UnexpectedBodyLayer::new(&public_document()),
            Extension(services.queue.clone()),
            Extension(streams),
            Extension(recorder),
        ),
    );
    let gate_routes = queue::gate_router().with_state(services.queue.clone());
    let gate = domain.wrap(gate_routes, (lease, Extension(gate)));
    let unlimited = web::public()
        .merge(queue::page_router(page).with_state(services.queue.clone()))
        .merge(openapi_routes::docs(&public_document()))
        .route_layer(compression::layer())
        .merge(health::router(readiness));
    layers::wrap_listener(routes.merge(unlimited), gate, request_limits, cors, unknown_address)
}

/// The response to an unknown path: a page for browsers, a problem for programs.
async fn unknown_address(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if !uri.path().starts_with("/v1/") && queue::is_navigation(&method, &headers) {
        return web::not_found(&headers);
    }
    no_route().await.into_response()
}

/// The router of the admin listener. All routes need an admin key, except `/metrics`, health, the
/// OpenAPI document and the pages of the console.
#[expect(clippy::too_many_arguments, reason = "each argument is one part of the listener")]
pub(super) fn admin(
    services: &DomainServices,
    definitions: Arc<DefinitionSync>,
    keys: &[AdminKey],
    readiness: Arc<ReadinessChecks>,
    metrics: PrometheusHandle,
    request_limits: &layers::RequestLimits,
    webhooks: Arc<WebhookService>,
    extra_routes: Router,
) -> Router {
    let routes = Router::new()
        .merge(queue::admin_router().with_state(services.queue.clone()))
        .merge(catalogue::admin_router().with_state(services.catalogue.clone()))
        .merge(coupons::admin_router().with_state(services.coupons.clone()))
        .merge(rewards::admin_router().with_state(services.rewards.clone()))
        .merge(seats::admin_router().with_state(services.seats.clone()))
        .merge(payment::admin_router().with_state(services.payments.clone()))
        .merge(crate::audit::router().with_state((services.redis.clone(), services.mysql.clone())))
        .merge(admin_log::router().with_state(services.mysql.clone()))
        .merge(admin_users::router().with_state(services.clone()))
        .merge(stats::router().with_state(services.clone()))
        .merge(jobs::router().with_state(services.clone()))
        .merge(dead_letter_routes::router().with_state(services.clone()))
        .merge(events::router().with_state(services.events.clone()))
        .merge(webhooks::router().with_state(webhooks));
    let document = admin_document();
    let routes = csv::layer_lists(routes, &document)
        .route_layer(UnexpectedBodyLayer::new(&document))
        .merge(extra_routes)
        .route_layer((
            Extension(services.users.clone()),
            Extension(Arc::new(stats::SharedStats::default())),
        ))
        .route_layer((compression::layer(), DefinitionLeaseLayer(definitions.clone())));
    let routes = spread_changes(routes, definitions);
    let without_key = web::admin()
        .merge(admin_key::metrics(metrics))
        .merge(openapi_routes::document(&document))
        .route_layer(compression::layer())
        .merge(health::router(readiness));
    let routes = admin_log::record_all(routes, services.mysql.clone());
    let routes = admin_key::require_key(routes, keys, required_role);
    request_id::insert_header(layers::wrap_listener(
        routes.merge(without_key),
        Router::new(),
        &layers::RequestLimits {
            body_limit: request_limits.admin_body_limit,
            request_timeout: request_limits.request_timeout + events::MAX_WAIT,
            ..*request_limits
        },
        None,
        no_route,
    ))
}

/// The router of connections above the limit of a listener. Health checks are answered, so that a
/// full instance is not restarted.
pub(super) fn overflow(
    readiness: Arc<ReadinessChecks>,
    request_limits: &layers::RequestLimits,
) -> Router {
    layers::wrap_overflow(health::router(readiness), request_limits)
}

/// The readiness checks of an instance.
pub(super) fn readiness(
    services: &DomainServices,
    draining: CancellationToken,
) -> Arc<ReadinessChecks> {
    let (redis, mysql, partitions) =
        (services.redis.clone(), services.mysql.clone(), services.redis.clone());
    let readiness = ReadinessChecks::new(draining)
        .check("redis", CheckFailure::Unavailable, move || {
            let redis = redis.clone();
            async move {
                redis
                    .ping()
                    .await
                    .map_err(|_| CheckFailure::Unavailable("does not answer".to_owned()))
            }
        })
        .check("mysql", CheckFailure::Degraded, move || {
            let mysql = mysql.clone();
            async move {
                sqlx::query("SELECT 1")
                    .execute(&mysql)
                    .await
                    .map(drop)
                    .map_err(|_| CheckFailure::Degraded("does not answer".to_owned()))
            }
        })
        .check("partitions", CheckFailure::Degraded, move || {
            let all = usize::from(partitions.keys().partitions().count());
            let recovering = partitions.epochs().closed_count();
            let detail = format!("{recovering} of {all} are recovering");
            std::future::ready(match recovering {
                0 => Ok(()),
                _ if recovering == all => Err(CheckFailure::Unavailable(detail)),
                _ => Err(CheckFailure::Degraded(detail)),
            })
        });
    Arc::new(readiness)
}

fn document<const N: usize>(title: &str, description: &str, parts: [OpenApi; N]) -> Value {
    let mut info = Info::new(title, env!("CARGO_PKG_VERSION"));
    info.description = Some(description.to_owned());
    info.license =
        Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build());
    let components = Components::builder().schema_from::<PageLimit>().build();
    let base =
        OpenApiBuilder::new().info(info).paths(Paths::new()).components(Some(components)).build();
    openapi::complete(&parts.into_iter().fold(base, OpenApi::merge_from))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A renamed route would silently become `RequestKind::Other`.
    #[test]
    fn every_request_kind_has_its_routes() {
        let document = public_document();
        let mut counts = [0; 5];
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                counts[request_kind(&method, path) as usize] += 1;
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
            (1, 6, 5, 7),
            "{counts:?}"
        );
    }
}
