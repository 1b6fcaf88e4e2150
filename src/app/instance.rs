//! One instance: its routers, its background tasks and its shutdown.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::definition_sync::DefinitionSync;
use super::domain_services::DomainServices;
use super::error::Error;
use super::prune::PruneSchedule;
use super::{api, background};
use crate::config::{self, UsherConfig};
use crate::edge::challenge::ChallengeVerifier;
use crate::edge::cors;
use crate::edge::health::ReadinessChecks;
use crate::edge::limits::RateLimits;
use crate::edge::listener;
use crate::edge::shedding::LoadShedding;
use crate::edge::stream_permits::StreamPermits;
use crate::http::identity::IdentityResolver;
use crate::http::jwt;
use crate::outbox::OutboxWriter;
use crate::outbox::pressure::{PressureWatermarks, WatermarkPair};
use crate::queue::{GateSettings, TokenSigner, WaitingPageSettings};
use crate::redis;
use crate::shutdown::ShutdownSignal;
use crate::telemetry::{self, Metric};
use crate::webhooks::{RetrySchedule, WebhookService};

/// Concurrent connections of the admin listener: operators and scrapers of metrics.
const MAX_ADMIN_CONNECTIONS: usize = 200;

/// One instance that is built and does not serve yet.
pub struct UsherApp {
    config: UsherConfig,
    services: DomainServices,
    definitions: Arc<DefinitionSync>,
    writer: OutboxWriter,
    limits: Arc<RateLimits>,
    jwt: Option<Arc<jwt::JwtVerifier>>,
    certificates: Option<Arc<listener::ServerCertificates>>,
    prune_schedule: PruneSchedule,
    webhooks: Arc<WebhookService>,
    retries: RetrySchedule,
    shutdown: ShutdownSignal,
    readiness: Arc<ReadinessChecks>,
    public: axum::Router,
    admin: axum::Router,
}

impl UsherApp {
    /// Builds an instance that ends with `shutdown`.
    ///
    /// # Errors
    /// When a store is not reachable or holds the data of another installation.
    pub async fn build(config: UsherConfig, shutdown: ShutdownSignal) -> Result<Self, Error> {
        Self::build_with(config, shutdown, axum::Router::new()).await
    }

    /// Builds an instance whose admin listener has additional routes, behind the admin key.
    pub(super) async fn build_with(
        config: UsherConfig,
        shutdown: ShutdownSignal,
        extra_admin_routes: axum::Router,
    ) -> Result<Self, Error> {
        // The recorder comes first, so that the components below can start their counters at zero.
        let metrics = telemetry::install();
        redis::MemoryPressure::init_counters();
        let keys: Vec<_> =
            config.token_keys.iter().map(|key| (key.kid.clone(), key.secret.clone())).collect();
        let (services, writer) = DomainServices::open(
            &config.stores,
            TokenSigner::new(&keys),
            shutdown.drain_token().clone(),
        )
        .await?;
        let identities = Arc::new(IdentityResolver::new(&config.identity)?);
        let jwt = identities.jwt();
        let limits = Arc::new(RateLimits::new(&config.http.limits, api::request_kind));
        let proxies = config.http.limits.trusted_proxies;
        let challenge = config.http.challenge.clone();
        let widget = challenge.as_ref().and_then(|settings| settings.widget.clone());
        let challenge = challenge.map(|settings| ChallengeVerifier::new(settings, proxies));
        let challenge = challenge.transpose()?.map(Arc::new);
        let shedding = LoadShedding::new(config.http.shed_in_flight, api::request_kind);
        let connections = config.http.listener.max_connections;
        let streams = Arc::new(StreamPermits::new(&config.http.streams, connections));
        let certificates = config
            .http
            .tls
            .clone()
            .map(listener::ServerCertificates::new)
            .transpose()?
            .map(Arc::new);
        Metric::BuildInfo.gauge(&[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        let definitions = Arc::new(DefinitionSync::new(services.clone()));
        let readiness = api::readiness(&services, shutdown.quiet_token().clone());
        let public = api::public(
            &services,
            definitions.clone(),
            identities,
            limits.clone(),
            shedding,
            streams,
            GateSettings { trusted_proxies: proxies, tls: certificates.is_some() },
            WaitingPageSettings { widget, login_url: config.http.login_url.clone() },
            challenge,
            cors::layer(&config.http.cors),
            readiness.clone(),
            &config.http.requests,
        );
        let webhooks = Arc::new(WebhookService::new(
            services.mysql.clone(),
            services.events.clone(),
            config.stores.events.allow_private,
        )?);
        let admin = api::admin(
            &services,
            definitions.clone(),
            &config.admin_keys,
            readiness.clone(),
            metrics,
            &config.http.requests,
            webhooks.clone(),
            extra_admin_routes,
        );
        let prune_schedule = PruneSchedule::default();
        Ok(Self {
            config,
            services,
            definitions,
            writer,
            limits,
            jwt,
            certificates,
            prune_schedule,
            shutdown,
            readiness,
            webhooks,
            retries: RetrySchedule::default(),
            public,
            admin,
        })
    }

    /// Sets when ended records leave Redis.
    #[must_use]
    pub fn with_prune_schedule(mut self, schedule: PruneSchedule) -> Self {
        self.prune_schedule = schedule;
        self
    }

    /// Sets when failed deliveries to webhooks are repeated.
    #[must_use]
    pub fn with_retry_schedule(mut self, retries: RetrySchedule) -> Self {
        self.retries = retries;
        self
    }

    /// Serves until the shutdown is over: all requests and payments are finished and the outbox is
    /// written to MySQL, as far as the deadline allows.
    pub async fn serve(self, public: TcpListener, admin: TcpListener) {
        let settings = self.config.http.listener;
        let admin_settings = listener::ListenerSettings {
            max_connections: MAX_ADMIN_CONNECTIONS,
            max_per_address: 0,
            ..settings
        };
        let background = background::start(
            &self.services,
            self.definitions,
            self.writer,
            self.limits,
            self.jwt,
            self.certificates.clone(),
            self.prune_schedule,
            (self.webhooks, self.retries),
            watermarks(&self.config.stores.watermarks),
        );
        let overflow = api::overflow(self.readiness, &self.config.http.requests);
        let listeners = async {
            tokio::join!(
                listener::serve(
                    public,
                    self.public,
                    overflow.clone(),
                    settings,
                    self.certificates,
                    self.shutdown.clone()
                ),
                listener::serve(
                    admin,
                    self.admin,
                    overflow,
                    admin_settings,
                    None,
                    self.shutdown.clone()
                ),
            )
        };
        listeners.await;
        let remaining_work = async {
            self.services.payments.drain().await;
            background.stop().await;
        };
        // The deadline cuts this work. Nothing is lost: it is in the outbox, or at a step from
        // which the sweep of another instance continues.
        self.shutdown.stop_token().run_until_cancelled(remaining_work).await;
        self.shutdown.stop();
        self.services.close().await;
    }
}

/// Opens a listener.
///
/// # Errors
/// When the address is not available.
pub async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn watermarks(settings: &config::WatermarkSettings) -> PressureWatermarks {
    let pair = |[warn, limit]: [u64; 2]| WatermarkPair { warn, limit };
    PressureWatermarks { backlog: pair(settings.backlog), memory: pair(settings.memory_percent) }
}
