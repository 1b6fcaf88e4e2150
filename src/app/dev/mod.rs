//! `usher dev`: an instance on private servers, with demo data and simulated users.
//!
//! It is `usher serve` with generated settings. Additional admin routes control the simulated
//! users.

mod simulated_users;

use std::io::Write;

use super::error::Error;
use super::{maintenance, serve};
use crate::config::dev::{DevSecrets, DevSettings};
use crate::config::{
    AckSettings, EventSettings, KeptEntriesSettings, MigrateSettings, MysqlSettings, RedisSettings,
    StoreSettings, UsherConfig, WatermarkSettings,
};
use crate::dev::banner::{self, DevAddresses};
use crate::dev::simulated_users::{SimulatedUsers, SimulationSettings};
use crate::dev::{MysqlDurability, PrivateMysql, PrivateRedis};
use crate::money::CurrencyCode;
use crate::partition::PartitionCount;
use crate::shutdown::ShutdownSignal;

/// `usher dev`: starts private servers, serves on them, and stops them at the end.
///
/// # Errors
/// When a server can't be started, or ends before the instance does.
pub async fn dev(settings: DevSettings) -> Result<(), Error> {
    let dir = &settings.data_dir;
    std::fs::create_dir_all(dir).map_err(Error::DataDir)?;
    let secrets = DevSecrets::load_or_create(dir).map_err(Error::DataDir)?;
    let mut redis = PrivateRedis::start(&dir.join("redis")).await?;
    let mut mysql = PrivateMysql::start(&dir.join("mysql"), MysqlDurability::Keep).await?;
    let servers = PrivateServerUrls {
        redis_url: redis.url(),
        redis_port: redis.port(),
        mysql_url: mysql.url(),
    };
    let shutdown = ShutdownSignal::new();
    let outcome = tokio::select! {
        outcome = serve_on(&servers, &settings, &secrets, shutdown.clone()) => outcome,
        error = redis.ended() => Err(error.into()),
        error = mysql.ended() => Err(error.into()),
    };
    shutdown.stop();
    let stopped = tokio::join!(redis.stop(), mysql.stop());
    outcome.and(stopped.0.map_err(Error::from)).and(stopped.1.map_err(Error::from))
}

struct PrivateServerUrls {
    redis_url: String,
    redis_port: u16,
    mysql_url: String,
}

async fn serve_on(
    servers: &PrivateServerUrls,
    settings: &DevSettings,
    secrets: &DevSecrets,
    shutdown: ShutdownSignal,
) -> Result<(), Error> {
    let stores = StoreSettings {
        redis: RedisSettings::of(servers.redis_url.clone().into()),
        mysql: MysqlSettings { url: servers.mysql_url.clone().into() },
        partitions: None,
        ack: AckSettings::default(),
        watermarks: WatermarkSettings::default(),
        kept_entries: KeptEntriesSettings::default(),
        // A receiver on the same machine.
        events: EventSettings { allow_private: true, ..EventSettings::default() },
        currency: CurrencyCode::DEFAULT,
        wallet_limit: settings.wallet_limit,
    };
    let migrate = MigrateSettings {
        mysql: stores.mysql.clone(),
        partitions: None,
        default_partitions: PartitionCount::default(),
    };
    maintenance::migrate(&migrate).await?;
    maintenance::seed_demo(&stores).await?;
    let config = UsherConfig::for_dev(settings, stores, secrets);
    let users = SimulatedUsers::new(SimulationSettings {
        people: settings.simulated_users,
        ..SimulationSettings::STOPPED
    });
    let stop_users = shutdown.quiet_token().clone();
    serve::run(config, shutdown, simulated_users::router(users.clone()), |addresses| {
        let text = banner::text(&DevAddresses {
            public: addresses.public,
            admin: addresses.admin,
            admin_key: secrets.admin_key_in_plain_text(),
            service_key: secrets.service_key_in_plain_text(),
            redis_port: servers.redis_port,
            mysql_url: &servers.mysql_url,
            simulated_users: settings.simulated_users,
        });
        // A closed standard output does not stop the instance.
        let _ = std::io::stdout().write_all(text.as_bytes());
        tokio::spawn(users.run(addresses.public, stop_users));
    })
    .await
}
