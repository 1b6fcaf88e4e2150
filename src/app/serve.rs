//! The commands that run an instance or work on the stores of one.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::{DomainServices, Error, UsherApp, demo};
use crate::config::dev::{DevSecrets, DevSettings};
use crate::config::{
    AckSettings, MigrateSettings, MysqlSettings, RedisSettings, StoreSettings, UsherConfig,
    WatermarkSettings,
};
use crate::dev::banner::{self, DevAddresses};
use crate::dev::crowd::{SimulatedUsers, SimulationSettings};
use crate::dev::{MysqlDurability, PrivateMysql, PrivateRedis};
use crate::edge::file_descriptors;
use crate::ids::{ConcertId, QueueId};
use crate::mysql::{self, migrate};
use crate::partition::PartitionCount;
use crate::queue::{QueueService, TokenSigner};
use crate::recovery;
use crate::shutdown::{self, ShutdownSignal};

/// `usher serve`: serves until a signal.
///
/// # Errors
/// When the instance can't be built or its listeners can't be opened.
pub async fn serve(config: UsherConfig) -> Result<(), Error> {
    run(config, ShutdownSignal::new(), None, |_| {}).await
}

/// Builds an instance, opens its listeners, says so, lets the demo crowd come if there is one, and serves until the shutdown is over.
async fn run(
    mut config: UsherConfig,
    shutdown: ShutdownSignal,
    crowd: Option<SimulatedUsers>,
    serving: impl FnOnce([std::net::SocketAddr; 2]),
) -> Result<(), Error> {
    let signals = shutdown::signals().map_err(Error::Signals)?;
    let timing = config.http.shutdown;
    let connections = &mut config.http.listener.max_connections;
    *connections = file_descriptors::room_for(*connections);
    let public = super::listen(config.http.listen).await?;
    let admin = super::listen(config.http.admin_listen).await?;
    let addresses = [&public, &admin].map(tokio::net::TcpListener::local_addr);
    let app = UsherApp::build_beside(config, shutdown.clone(), crowd.clone()).await?;
    if let [Ok(public), Ok(admin)] = addresses {
        tracing::info!(%public, %admin, "serving");
        serving([public, admin]);
        if let Some(crowd) = crowd {
            tokio::spawn(crowd.run(public, shutdown.quiet_token().clone()));
        }
    }
    let phases = tokio::spawn(async move { shutdown.run(signals, timing).await });
    app.serve(public, admin).await;
    phases.abort();
    tracing::info!("stopped");
    Ok(())
}

/// `usher migrate`: brings the schema up to date.
///
/// # Errors
/// When MySQL can't be reached or was migrated with another number of partitions.
pub async fn migrate(settings: &MigrateSettings) -> Result<(), Error> {
    migrate_at(settings.mysql.url.expose_secret(), settings.partitions).await
}

async fn migrate_at(url: &str, partitions: PartitionCount) -> Result<(), Error> {
    let pool = mysql::connect(url, 2).await?;
    migrate::migrate(&pool, partitions).await?;
    pool.close().await;
    Ok(())
}

/// `usher keys rotate`: makes a new key for passes.
///
/// # Errors
/// When MySQL can't be reached.
pub async fn rotate_keys(settings: &MigrateSettings) -> Result<(), Error> {
    let pool = mysql::connect(settings.mysql.url.expose_secret(), 2).await?;
    QueueService::rotate_pass_keys(&pool).await?;
    pool.close().await;
    Ok(())
}

/// How long `usher audit` waits for what is under way: longer than a payment without an instance takes to be driven to its end.
const AUDIT_PATIENCE: Duration = Duration::from_secs(30);

/// `usher audit`: checks everything that is promised over both stores, says what it found, and whether it holds.
///
/// # Errors
/// When a store can't be reached, or nothing can be written.
pub async fn audit(stores: &StoreSettings) -> Result<bool, Error> {
    let (redis, mysql) = super::connect(stores).await?;
    let bar = std::io::stderr().is_terminal();
    let progress = |check: &'static str, seen: u64, about: u64| {
        if bar {
            let done = usize::try_from((20 * seen).checked_div(about).unwrap_or_default())
                .unwrap_or_default();
            // Nobody may be looking; that is no reason to stop.
            let _ = write!(
                std::io::stderr(),
                "\r[{:<20}] {seen} of about {about}, {check:<12}",
                "#".repeat(done)
            );
        }
    };
    let report = crate::audit::audit(&redis, &mysql, AUDIT_PATIENCE, &progress).await?;
    redis.close().await;
    mysql.close().await;
    if bar {
        let _ = writeln!(std::io::stderr());
    }
    let mut out = std::io::stdout();
    let number =
        |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for check in &report.checks {
        let (word, redis, mysql) =
            (if check.ok { "ok" } else { "FAULT" }, number(check.redis), number(check.mysql));
        writeln!(
            out,
            "{word:<5} {:<12} Redis {redis:>12}  MySQL {mysql:>12}  {}",
            check.name, check.detail
        )
        .map_err(Error::Output)?;
    }
    writeln!(out, "{}", if report.consistent { "consistent" } else { "not consistent" })
        .map_err(Error::Output)?;
    Ok(report.consistent)
}

/// `usher audit queue`: checks a line's order, rate and lottery, says what it found, and whether it was fair.
///
/// # Errors
/// When a store can't be reached, there is no such queue, or nothing can be written.
pub async fn audit_queue(stores: &StoreSettings, queue: &QueueId) -> Result<bool, Error> {
    let (rooms, _) =
        DomainServices::open(stores, TokenSigner::new(&[]), CancellationToken::new()).await?;
    let audit = rooms.queue.audit(queue).await?;
    rooms.close().await;
    let mut out = std::io::stdout();
    let counts = format!(
        "{} promotions let {} users in; {} places derived again",
        audit.promotions, audit.admitted, audit.derived
    );
    writeln!(out, "{queue}: {counts}").map_err(Error::Output)?;
    for fault in &audit.faults {
        writeln!(out, "  fault: {fault}").map_err(Error::Output)?;
    }
    writeln!(out, "{}", if audit.faults.is_empty() { "fair" } else { "not fair" })
        .map_err(Error::Output)?;
    Ok(audit.faults.is_empty())
}

/// `usher archive`: ends the sale of a concert for good and clears it out of Redis.
///
/// # Errors
/// When a store can't be reached, or something of the sale is still under way.
pub async fn archive(stores: &StoreSettings, concert: &ConcertId) -> Result<(), Error> {
    let (rooms, writer) =
        DomainServices::open(stores, TokenSigner::new(&[]), CancellationToken::new()).await?;
    // No instance may be running, and MySQL must have everything first.
    let stop = CancellationToken::new();
    let writer = tokio::spawn(writer.run(stop.clone()));
    let outcome = rooms.seats.archive(concert).await;
    stop.cancel();
    if let Err(error) = writer.await {
        tracing::error!(%error, "the writer ended by itself");
    }
    rooms.close().await;
    Ok(outcome?)
}

/// `usher seed demo`: puts the demo data in.
///
/// # Errors
/// When a store can't be reached.
pub async fn seed_demo(stores: &StoreSettings) -> Result<(), Error> {
    // Nothing here signs or reads a token.
    let (rooms, _) =
        DomainServices::open(stores, TokenSigner::new(&[]), CancellationToken::new()).await?;
    demo::seed(&rooms).await?;
    rooms.close().await;
    Ok(())
}

/// `usher dev`: serves on servers of its own with demo data, and stops what it started.
///
/// # Errors
/// When a server can't be started, or ends before the instance does.
pub async fn dev(settings: DevSettings) -> Result<(), Error> {
    let dir = &settings.data_dir;
    std::fs::create_dir_all(dir).map_err(Error::DataDir)?;
    let secrets = DevSecrets::load_or_make(dir).map_err(Error::DataDir)?;
    let mut redis = PrivateRedis::start(&dir.join("redis")).await?;
    let mut mysql = PrivateMysql::start(&dir.join("mysql"), MysqlDurability::Keep).await?;
    let servers = PrivateServerUrls {
        redis_url: redis.url(),
        redis_port: redis.port(),
        mysql_url: mysql.url(),
    };
    let shutdown = ShutdownSignal::new();
    let outcome = tokio::select! {
        outcome = dev_instance(&settings, &secrets, &servers, shutdown.clone()) => outcome,
        error = redis.ended() => Err(error.into()),
        error = mysql.ended() => Err(error.into()),
    };
    shutdown.stop();
    let stopped = tokio::join!(redis.stop(), mysql.stop());
    outcome.and(stopped.0.map_err(Error::from)).and(stopped.1.map_err(Error::from))
}

/// Where the private servers are.
struct PrivateServerUrls {
    redis_url: String,
    redis_port: u16,
    mysql_url: String,
}

async fn dev_instance(
    settings: &DevSettings,
    secrets: &DevSecrets,
    servers: &PrivateServerUrls,
    shutdown: ShutdownSignal,
) -> Result<(), Error> {
    let stores = StoreSettings {
        redis: RedisSettings::of(servers.redis_url.clone().into()),
        mysql: MysqlSettings { url: servers.mysql_url.clone().into() },
        partitions: PartitionCount::default(),
        ack: AckSettings::default(),
        watermarks: WatermarkSettings::default(),
    };
    migrate_at(&servers.mysql_url, stores.partitions).await?;
    seed_demo(&stores).await?;
    let config = UsherConfig::for_dev(settings, stores, secrets);
    let crowd = SimulatedUsers::new(SimulationSettings {
        people: settings.crowd,
        ..SimulationSettings::NOBODY
    });
    run(config, shutdown, Some(crowd), |[public, admin]| {
        let text = banner::text(&DevAddresses {
            public,
            admin,
            admin_key: secrets.admin_key_in_plain_text(),
            redis_port: servers.redis_port,
            mysql_url: &servers.mysql_url,
            crowd: settings.crowd,
        });
        // Nobody may be reading; that is no reason not to serve.
        let _ = std::io::stdout().write_all(text.as_bytes());
    })
    .await
}
