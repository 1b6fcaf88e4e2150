//! Connects to the stores and builds the domain services on them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use super::clocks;
use super::error::Error;
use crate::catalogue::CatalogueService;
use crate::config::{self, StoreSettings};
use crate::coupons::CouponService;
use crate::events::EventService;
use crate::idempotency::IdempotencyService;
use crate::money::{CurrencyCode, Money};
use crate::mysql::{self, migrate};
use crate::outbox::{DurabilitySettings, OutboxWriter, WriterHandle};
use crate::partition::PartitionCount;
use crate::payment::{self, PaymentService};
use crate::queue::{QueueService, TokenSigner};
use crate::recovery;
use crate::redis::{
    self, KeptEntries, KeyBuilder, RecordVersion, RedisClient, ReplicationRequirement,
};
use crate::rewards::RewardService;
use crate::seats::SeatService;
use crate::store_error::StoreError;
use crate::users::UserDirectory;
use crate::wallet::WalletService;

/// Connections to MySQL of one instance: those of the outbox writer, and those of reads and
/// definitions.
const MAX_MYSQL_CONNECTIONS: u32 = 12;
/// A Redis that takes longer to answer counts as unavailable.
const REDIS_COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// The domain services of one instance, and its stores.
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
    pub(crate) users: Arc<UserDirectory>,
    pub(crate) events: Arc<EventService>,
}

impl DomainServices {
    /// Connects to the stores, opens the partitions that may serve, and reads the definitions.
    pub(super) async fn open(
        stores: &StoreSettings,
        signer: TokenSigner,
        drain: CancellationToken,
    ) -> Result<(Self, OutboxWriter), Error> {
        let (redis, mysql) = connect(stores).await?;
        recovery::verify(&redis, &mysql).await?.complete()?;
        Box::pin(recovery::raise_record_versions(&redis)).await?;
        let writer = OutboxWriter::new(redis.clone(), mysql.clone(), stores.ack.into());
        let money = (stores.currency, stores.wallet_limit);
        let hours = stores.events.retention_hours;
        let services = Self::assemble(redis, mysql, signer, drain, &writer.handle(), money, hours);
        services.reload().await?;
        Ok((services, writer))
    }

    fn assemble(
        redis: RedisClient,
        mysql: MySqlPool,
        signer: TokenSigner,
        drain: CancellationToken,
        writer: &WriterHandle,
        (currency, wallet_limit): (CurrencyCode, Money),
        event_retention_hours: u32,
    ) -> Self {
        let queue =
            Arc::new(QueueService::new(redis.clone(), mysql.clone(), signer, drain.clone()));
        let catalogue = Arc::new(CatalogueService::new(
            redis.clone(),
            mysql.clone(),
            queue.clone(),
            writer.clone(),
        ));
        let idempotency = Arc::new(IdempotencyService::new(redis.clone()));
        let seats = Arc::new(SeatService::new(
            redis.clone(),
            mysql.clone(),
            queue.clone(),
            catalogue.clone(),
            idempotency.clone(),
            writer.clone(),
            currency,
        ));
        let wallet = Arc::new(WalletService::new(
            redis.clone(),
            mysql.clone(),
            writer.clone(),
            currency,
            wallet_limit,
        ));
        let coupons =
            Arc::new(CouponService::new(redis.clone(), mysql.clone(), writer.clone(), currency));
        let rewards = Arc::new(RewardService::new(
            redis.clone(),
            mysql.clone(),
            writer.clone(),
            wallet_limit,
        ));
        let users = Arc::new(UserDirectory::new(redis.clone(), mysql.clone(), writer.clone()));
        let dependencies = payment::PaymentDependencies {
            queue: queue.clone(),
            seats: seats.clone(),
            wallet: wallet.clone(),
            coupons: coupons.clone(),
            idempotency,
        };
        let payments = Arc::new(PaymentService::new(
            redis.clone(),
            mysql.clone(),
            dependencies,
            writer.clone(),
        ));
        let events = Arc::new(EventService::new(
            mysql.clone(),
            (redis.keys().partitions(), event_retention_hours),
            (seats.clone(), payments.clone(), users.clone()),
            drain,
        ));
        Self {
            redis,
            mysql,
            queue,
            catalogue,
            seats,
            wallet,
            payments,
            coupons,
            rewards,
            users,
            events,
        }
    }

    /// Closes the connections to both stores.
    pub(super) async fn close(&self) {
        self.redis.close().await;
        self.mysql.close().await;
    }

    /// Reads all definitions from MySQL.
    pub(super) async fn reload(&self) -> Result<(), Error> {
        self.queue.reload().await?;
        self.catalogue.reload().await?;
        self.coupons.reload().await?;
        self.rewards.reload().await?;
        Ok(())
    }
}

/// Connects to both stores with all checks of `usher serve`, and disconnects. Returns a sentence
/// about their clocks.
///
/// # Errors
/// The reason why an instance can't use the stores.
pub async fn check_stores(stores: &StoreSettings) -> Result<String, Error> {
    let (redis, mysql) = match connect(stores).await {
        Ok(connected) => connected,
        // Redis is connected after MySQL, so its error is still unknown.
        Err(error @ Error::Store(StoreError::Mysql(mysql::Error::Unreachable { .. }))) => {
            return Err(match connect_redis(stores, stores.partitions.unwrap_or_default()).await {
                Ok(redis) => {
                    redis.close().await;
                    error
                }
                Err(second) => Error::Several(vec![error, second]),
            });
        }
        Err(error) => return Err(error),
    };
    let difference = clocks::difference_ms(&redis, &mysql).await?;
    redis.close().await;
    mysql.close().await;
    Ok(clocks::describe(difference))
}

/// Connects to both stores and checks that this release can read what they contain.
pub(super) async fn connect(stores: &StoreSettings) -> Result<(RedisClient, MySqlPool), Error> {
    let (redis, mysql) = Box::pin(connect_to_any_records(stores)).await?;
    match Box::pin(redis.record_versions()).await?.into_iter().find(RecordVersion::is_newer) {
        Some(newer) => Err(Error::NewerRecords(newer)),
        None => Ok((redis, mysql)),
    }
}

/// As [`connect`], but accepts records in Redis that only a newer release can read.
pub(super) async fn connect_to_any_records(
    stores: &StoreSettings,
) -> Result<(RedisClient, MySqlPool), Error> {
    // A new connection to MySQL may lead to a server that lacks the last transactions.
    let verified = Arc::new(OnceLock::<RedisClient>::new());
    let on_connect = {
        let verified = verified.clone();
        move || verified.get().into_iter().for_each(RedisClient::request_verification)
    };
    let url = stores.mysql.url.expose_secret();
    let mysql = mysql::connect_observed(url, MAX_MYSQL_CONNECTIONS, on_connect).await?;
    let recorded = migrate::partitions(&mysql).await?.ok_or(Error::NotMigrated)?;
    if let Some(configured) = stores.partitions.filter(|configured| *configured != recorded) {
        return Err(Error::PartitionCountMismatch {
            recorded: recorded.count(),
            configured: configured.count(),
        });
    }
    Box::pin(migrate::check_schema(&mysql)).await?;
    let redis = connect_redis(stores, recorded).await?;
    Ok((verified.get_or_init(|| redis).clone(), mysql))
}

pub(super) async fn connect_redis(
    stores: &StoreSettings,
    partitions: PartitionCount,
) -> Result<RedisClient, Error> {
    let keys = KeyBuilder::new(&stores.redis.key_prefix, partitions);
    let settings = redis::RedisClientSettings {
        url: stores.redis.url.clone(),
        ca_file: stores.redis.ca_file.clone(),
        command_timeout: REDIS_COMMAND_TIMEOUT,
        may_forget: stores.redis.may_forget,
        replication: ReplicationRequirement {
            replicas: stores.redis.wait_replicas,
            aof: stores.redis.wait_aof,
        },
        kept_entries: KeptEntries {
            period: stores.kept_entries.period,
            bytes: stores.kept_entries.bytes / u64::from(partitions.count()),
        },
    };
    Ok(RedisClient::connect(&settings, keys).await?)
}

impl From<config::AckSettings> for DurabilitySettings {
    fn from(ack: config::AckSettings) -> Self {
        Self { durable: ack.durable, patience: ack.timeout }
    }
}
