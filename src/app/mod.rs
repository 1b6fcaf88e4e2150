//! The composition root: builds the rooms, merges their routers, and hands the background work its stores and its end.
//!
//! Only this module and `cli` see the whole configuration.

mod admin_log;
mod api;
mod background;
mod contract;
mod crowd;
mod dead_letters;
mod demo;
mod recover;
mod repartition;
mod retire;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::MySqlPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::catalogue::{self, CatalogueService};
use crate::config::{self, StoreSettings, UsherConfig};
use crate::coupons::{self, CouponService};
use crate::dev;
use crate::edge::challenge::ChallengeVerifier;
use crate::edge::cors;
use crate::http::identity::IdentityResolver;
use crate::http::jwt;
use crate::edge::limits::RateLimits;
use crate::edge::listener;
use crate::edge::shedding::LoadShedding;
use crate::idempotency::IdempotencyService;
use crate::mysql::{self, migrate};
use crate::outbox::pressure::{PressureWatermarks, WatermarkPair};
use crate::outbox::{DurabilitySettings, OutboxWriter, WriterHandle};
use crate::payment::{self, PaymentService};
use crate::queue::{self, QueueService, TokenSigner};
use crate::recovery;
use crate::redis::{self, KeyBuilder, RedisClient, ReplicationRequirement};
use crate::rewards::{self, RewardService};
use crate::seats::SeatService;
use crate::shutdown::ShutdownSignal;
use crate::telemetry::{self, Metric};
use crate::tls;
use crate::wallet::WalletService;

pub use admin_log::print as print_admin_log;
pub use api::{admin_document, public_document};
pub use dead_letters::{list as list_dead_letters, retry as retry_dead_letters};
pub use recover::recover;
pub use repartition::repartition;
pub use retire::PruneSchedule;
pub use serve::{archive, audit, audit_queue, dev, migrate, rotate_keys, seed_demo, serve};

/// Connections to MySQL of one instance: the writer's few, and what reads and definitions need beside it.
const MYSQL_CONNECTIONS: u32 = 12;
/// Connections of the admin listener that stand at once: operators, and what scrapes metrics.
const ADMIN_CONNECTIONS: usize = 200;
/// How long Redis may take to answer before a request is told that it is unavailable.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// Why an instance did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings are wrong.
    #[error(transparent)]
    Settings(#[from] config::InvalidSettings),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The schema is missing.
    #[error("MySQL holds no schema yet: run `usher migrate` first")]
    NotMigrated,
    /// Another number of partitions was recorded.
    #[error("USHER_PARTITIONS is {asked}, but MySQL was migrated with {recorded}")]
    Partitions {
        /// What MySQL says.
        recorded: u16,
        /// What the settings say.
        asked: u16,
    },
    /// The keys of users' JWTs can't be used.
    #[error("USHER_JWT_KEY: the file {0}")]
    JwtKeys(#[from] jwt::InvalidJwtKeys),
    /// The partitions' fences can't be read.
    #[error(transparent)]
    Fences(#[from] recovery::Error),
    /// The queues can't be read.
    #[error("the queues: {0}")]
    Queue(#[from] queue::Error),
    /// The concerts can't be read.
    #[error("the concerts: {0}")]
    Catalogue(#[from] catalogue::Error),
    /// The coupons can't be read.
    #[error("the coupons: {0}")]
    Coupons(#[from] coupons::Error),
    /// The rewards can't be read.
    #[error("the rewards: {0}")]
    Rewards(#[from] rewards::Error),
    /// A sale can't be archived.
    #[error("the seats: {0}")]
    Seats(#[from] crate::seats::Error),
    /// A private server can't be started, or has ended.
    #[error(transparent)]
    Server(#[from] dev::Error),
    /// The data directory can't be used.
    #[error("USHER_DATA_DIR (--data-dir): {0}")]
    DataDir(std::io::Error),
    /// Standard output can't be written.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// Signals can't be listened to.
    #[error("listening to signals: {0}")]
    Signals(std::io::Error),
    /// There is no such partition.
    #[error("--partition: there is no partition {0}")]
    NoPartition(u16),
    /// A certificate can't be used.
    #[error("TLS: {0}")]
    Tls(#[from] tls::Error),
    /// Some partitions could not be laid back.
    #[error("{0} partitions do not serve")]
    NotRecovered(usize),
    /// Somebody else is connected to the database.
    #[error(
        "{0} other connections to the database: stop every instance, and whatever else uses it, and try again"
    )]
    OthersConnected(i64),
    /// Some dead letters are refused again.
    #[error("{0} dead letters are refused again")]
    StillDead(u32),
    /// There is no instance to look at.
    #[error(transparent)]
    Top(#[from] crate::top::Error),
    /// An audit found faults.
    #[error("the audit found faults")]
    Unsound,
    /// A listener can't be opened.
    #[error("listening on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// The rooms of one instance.
#[derive(Clone)]
pub(crate) struct DomainServices {
    pub(crate) redis: RedisClient,
    pub(crate) mysql: MySqlPool,
    pub(crate) queue: Arc<QueueService>,
    pub(crate) catalogue: Arc<CatalogueService>,
    pub(crate) seats: Arc<SeatService>,
    pub(crate) wallet: Arc<WalletService>,
    pub(crate) payments: Arc<PaymentService>,
    pub(crate) coupons: Arc<CouponService>,
    pub(crate) rewards: Arc<RewardService>,
}

impl DomainServices {
    /// Connects to the stores, opens the partitions that may serve, and reads the definitions.
    async fn open(
        stores: &StoreSettings,
        signer: TokenSigner,
        ending: CancellationToken,
    ) -> Result<(Self, OutboxWriter), Error> {
        let (redis, mysql) = connect(stores).await?;
        recovery::verify(&redis, &mysql).await?.whole()?;
        let writer = OutboxWriter::new(redis.clone(), mysql.clone(), stores.ack.into());
        let rooms = Self::furnish(redis, mysql, signer, ending, &writer.nudge());
        rooms.reload().await?;
        Ok((rooms, writer))
    }

    fn furnish(
        redis: RedisClient,
        mysql: MySqlPool,
        signer: TokenSigner,
        ending: CancellationToken,
        nudge: &WriterHandle,
    ) -> Self {
        let queue = Arc::new(QueueService::new(redis.clone(), mysql.clone(), signer, ending));
        let catalogue =
            Arc::new(CatalogueService::new(redis.clone(), mysql.clone(), queue.clone()));
        let seats = Arc::new(SeatService::new(
            redis.clone(),
            mysql.clone(),
            queue.clone(),
            catalogue.clone(),
            nudge.clone(),
        ));
        let wallet = Arc::new(WalletService::new(redis.clone(), mysql.clone(), nudge.clone()));
        let coupons = Arc::new(CouponService::new(redis.clone(), mysql.clone(), nudge.clone()));
        let rewards = Arc::new(RewardService::new(redis.clone(), mysql.clone(), nudge.clone()));
        let rooms = payment::PaymentDependencies {
            queue: queue.clone(),
            seats: seats.clone(),
            wallet: wallet.clone(),
            coupons: coupons.clone(),
            idempotency: Arc::new(IdempotencyService::new(redis.clone())),
        };
        let payments =
            Arc::new(PaymentService::new(redis.clone(), mysql.clone(), rooms, nudge.clone()));
        Self { redis, mysql, queue, catalogue, seats, wallet, payments, coupons, rewards }
    }

    /// Closes the connections to both stores.
    async fn close(&self) {
        self.redis.close().await;
        self.mysql.close().await;
    }

    /// Reads all definitions from MySQL.
    async fn reload(&self) -> Result<(), Error> {
        self.queue.reload().await?;
        self.catalogue.reload().await?;
        self.coupons.reload().await?;
        self.rewards.reload().await?;
        Ok(())
    }
}

/// Connects to both stores as an instance does, and leaves them as they are.
///
/// # Errors
/// What keeps an instance from using them.
pub async fn reach(stores: &StoreSettings) -> Result<(), Error> {
    let (redis, mysql) = connect(stores).await?;
    redis.close().await;
    mysql.close().await;
    Ok(())
}

async fn connect(stores: &StoreSettings) -> Result<(RedisClient, MySqlPool), Error> {
    let mysql = mysql::connect(stores.mysql.url.expose_secret(), MYSQL_CONNECTIONS).await?;
    match migrate::partitions(&mysql).await? {
        None => return Err(Error::NotMigrated),
        Some(recorded) if recorded != stores.partitions => {
            return Err(Error::Partitions {
                recorded: recorded.count(),
                asked: stores.partitions.count(),
            });
        }
        Some(_) => {}
    }
    Ok((connect_redis(stores).await?, mysql))
}

async fn connect_redis(stores: &StoreSettings) -> Result<RedisClient, Error> {
    let keys = KeyBuilder::new(&stores.redis.key_prefix, stores.partitions);
    let settings = redis::RedisClientSettings {
        url: stores.redis.url.clone(),
        ca_file: stores.redis.ca_file.clone(),
        command_timeout: COMMAND_TIMEOUT,
        may_forget: stores.redis.may_forget,
        reach: ReplicationRequirement {
            replicas: stores.redis.wait_replicas,
            aof: stores.redis.wait_aof,
        },
    };
    Ok(RedisClient::connect(&settings, keys).await?)
}

impl From<config::AckSettings> for DurabilitySettings {
    fn from(ack: config::AckSettings) -> Self {
        Self { durable: ack.durable, patience: ack.patience }
    }
}

fn watermarks(settings: &config::WatermarkSettings) -> PressureWatermarks {
    let marks = |[warn, limit]: [u64; 2]| WatermarkPair { warn, limit };
    PressureWatermarks { backlog: marks(settings.backlog), memory: marks(settings.memory_percent) }
}

/// One instance, built and not yet serving.
pub struct UsherApp {
    config: UsherConfig,
    rooms: DomainServices,
    writer: OutboxWriter,
    limits: Arc<RateLimits>,
    jwt: Option<Arc<jwt::JwtVerifier>>,
    certificates: Option<Arc<listener::ServerCertificates>>,
    retirement: PruneSchedule,
    shutdown: ShutdownSignal,
    public: axum::Router,
    admin: axum::Router,
}

impl UsherApp {
    /// Builds an instance that ends with `shutdown`.
    ///
    /// # Errors
    /// When a store can't be reached or its data is not for this instance.
    pub async fn build(config: UsherConfig, shutdown: ShutdownSignal) -> Result<Self, Error> {
        Self::build_beside(config, shutdown, None).await
    }

    /// The same with the demo crowd's controls on the admin listener.
    async fn build_beside(
        config: UsherConfig,
        shutdown: ShutdownSignal,
        crowd: Option<dev::crowd::SimulatedUsers>,
    ) -> Result<Self, Error> {
        // First, so that whoever is made below can stand its counters at zero.
        let metrics = telemetry::install();
        redis::MemoryPressure::stand_counters();
        let keys: Vec<_> =
            config.token_keys.iter().map(|key| (key.kid.clone(), key.secret.clone())).collect();
        let (rooms, writer) = DomainServices::open(
            &config.stores,
            TokenSigner::new(&keys),
            shutdown.drain_token().clone(),
        )
        .await?;
        let callers = Arc::new(IdentityResolver::new(&config.identity)?);
        let jwt = callers.jwt();
        let limits = Arc::new(RateLimits::new(&config.http.limits, api::kind));
        let proxies = config.http.limits.trusted_proxies;
        let challenge = config.http.challenge.clone();
        let challenge = challenge.map(|settings| ChallengeVerifier::new(settings, proxies));
        let challenge = challenge.transpose()?.map(Arc::new);
        let shedding = LoadShedding::new(config.http.shed_in_flight, api::kind);
        let certificates = config
            .http
            .tls
            .clone()
            .map(listener::ServerCertificates::new)
            .transpose()?
            .map(Arc::new);
        Metric::BuildInfo.gauge(&[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        let readiness = api::readiness(&rooms, shutdown.quiet_token().clone());
        let public = api::public(
            &rooms,
            callers,
            limits.clone(),
            shedding,
            challenge,
            cors::layer(&config.http.cors),
            readiness.clone(),
            &config.http.requests,
        );
        let admin =
            api::admin(&rooms, &config.admin_key, readiness, metrics, &config.http.requests, crowd);
        let retirement = PruneSchedule::default();
        Ok(Self {
            config,
            rooms,
            writer,
            limits,
            jwt,
            certificates,
            retirement,
            shutdown,
            public,
            admin,
        })
    }

    /// The same instance with other times at which what has ended leaves Redis.
    #[must_use]
    pub fn retiring(mut self, retirement: PruneSchedule) -> Self {
        self.retirement = retirement;
        self
    }

    /// Serves until the shutdown is over: no more requests, every payment at its end, the outbox written as far as the deadline allows.
    pub async fn serve(self, public: TcpListener, admin: TcpListener) {
        let settings = self.config.http.listener;
        let admin_settings = listener::ListenerSettings {
            max_connections: ADMIN_CONNECTIONS,
            max_per_address: 0,
            ..settings
        };
        let background = background::start(
            &self.rooms,
            self.writer,
            self.limits,
            self.jwt,
            self.certificates.clone(),
            self.retirement,
            watermarks(&self.config.stores.watermarks),
        );
        let listeners = async {
            tokio::join!(
                listener::serve(
                    public,
                    self.public,
                    settings,
                    self.certificates,
                    self.shutdown.clone()
                ),
                listener::serve(admin, self.admin, admin_settings, None, self.shutdown.clone()),
            )
        };
        listeners.await;
        let rest = async {
            self.rooms.payments.drain().await;
            background.stop().await;
        };
        // At the deadline what is left is cut; it is in the outbox or at a step from which the sweep of another instance goes on.
        self.shutdown.stop_token().run_until_cancelled(rest).await;
        self.shutdown.stop();
        self.rooms.close().await;
    }
}

/// Opens a listener.
///
/// # Errors
/// With the address that can't be had.
pub async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}
