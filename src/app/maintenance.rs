//! Commands that change the stores once: `migrate`, `keys rotate`, `archive` and `seed demo`.

use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::demo_data;
use super::domain_services::DomainServices;
use super::error::Error;
use crate::config::{MigrateSettings, MysqlSettings, StoreSettings};
use crate::ids::ConcertId;
use crate::mysql;
use crate::queue::{QueueService, TokenSigner};

/// `usher migrate`: brings the schema up to date.
///
/// # Errors
/// When MySQL is not reachable, or was migrated with another number of partitions.
pub async fn migrate(settings: &MigrateSettings) -> Result<(), Error> {
    let pool = mysql::connect(settings.mysql.url.expose_secret(), 2).await?;
    mysql::migrate::migrate(&pool, settings.partitions, settings.default_partitions).await?;
    pool.close().await;
    Ok(())
}

/// `usher keys rotate`: creates a new signing key for admission JWTs.
///
/// # Errors
/// When MySQL is not reachable.
pub async fn rotate_keys(settings: &MysqlSettings) -> Result<(), Error> {
    let pool = mysql::connect(settings.url.expose_secret(), 2).await?;
    QueueService::rotate_pass_keys(&pool).await?;
    pool.close().await;
    Ok(())
}

/// `usher archive`: ends the sale of a concert and removes its records from Redis.
///
/// # Errors
/// When a store is not reachable, or a hold, payment or cancellation of the sale is not finished.
pub async fn archive(stores: &StoreSettings, concert: &ConcertId) -> Result<(), Error> {
    let (services, writer) =
        DomainServices::open(stores, TokenSigner::new(&[]), CancellationToken::new()).await?;
    // MySQL must have everything before the records leave Redis. This writer does it if no instance
    // runs.
    let stop = CancellationToken::new();
    let writer = tokio::spawn(writer.run(stop.clone()));
    let outcome = services.seats.archive(concert).await;
    stop.cancel();
    if let Err(error) = writer.await {
        tracing::error!(%error, "the outbox writer ended unexpectedly");
    }
    services.close().await;
    Ok(outcome?)
}

/// `usher seed demo`: stores the demo data.
///
/// # Errors
/// When a store is not reachable.
pub async fn seed_demo(stores: &StoreSettings) -> Result<(), Error> {
    // Seeding neither signs nor verifies tokens, so it needs no key.
    let (services, _) =
        DomainServices::open(stores, TokenSigner::new(&[]), CancellationToken::new()).await?;
    demo_data::seed(&services).await?;
    services.close().await;
    Ok(())
}
