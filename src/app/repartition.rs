//! `usher repartition`: changes the number of partitions while no instance runs.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::audit::audit;
use super::domain_services::{DomainServices, connect, connect_redis};
use super::error::Error;
use super::recover::recover;
use crate::config::StoreSettings;
use crate::mysql::{self, migrate};
use crate::partition::PartitionCount;
use crate::queue::TokenSigner;
use crate::recovery::{FenceState, PartitionRecovery};

/// Time for the connections of stopped instances to close.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DISCONNECT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Changes the number of partitions to that of the settings: audits, flushes every outbox to MySQL,
/// changes the number, restores Redis and audits again. If the number is already changed, it
/// continues an interrupted run. Returns whether the last audit found no fault.
///
/// # Errors
/// When another client is connected to the database, the first audit finds faults, dead letters
/// exist, or a store fails. The installation then has the old or the new number of partitions,
/// never a mixture.
pub async fn repartition(stores: &StoreSettings, to: PartitionCount) -> Result<bool, Error> {
    let from = wait_until_alone(stores).await?;
    if from == to {
        say(&format!(
            "there are {} partitions already; restoring those that do not serve",
            to.count()
        ))?;
    } else {
        Box::pin(change_count(stores, from, to)).await?;
    }
    Box::pin(recover(stores, None)).await?;
    delete_removed_partitions(stores, to).await?;
    say(&format!("audit of {} partitions:", to.count()))?;
    Box::pin(audit(stores)).await
}

/// Deletes the keys of partitions that no longer exist from Redis.
async fn delete_removed_partitions(
    stores: &StoreSettings,
    kept: PartitionCount,
) -> Result<(), Error> {
    let mysql = mysql::connect(stores.mysql.url.expose_secret(), 1).await?;
    let highest = PartitionRecovery::max_partition_count(&mysql).await?;
    if let Some(highest) = highest.filter(|highest| highest.count() > kept.count()) {
        let redis = connect_redis(stores, highest).await?;
        let recovery = PartitionRecovery::new(
            redis.clone(),
            mysql.clone(),
            writer(stores, &redis, &mysql).handle(),
        );
        let dropped = recovery.drop_former(kept).await?;
        redis.close().await;
        say(&format!("deleted {dropped} keys of removed partitions"))?;
    }
    mysql.close().await;
    Ok(())
}

fn writer(
    stores: &StoreSettings,
    redis: &crate::redis::RedisClient,
    mysql: &sqlx::MySqlPool,
) -> crate::outbox::OutboxWriter {
    crate::outbox::OutboxWriter::new(redis.clone(), mysql.clone(), stores.ack.into())
}

/// Waits up to [`DISCONNECT_TIMEOUT`] until no other client is connected to the database. Returns
/// the recorded number of partitions.
async fn wait_until_alone(stores: &StoreSettings) -> Result<PartitionCount, Error> {
    let pool = mysql::connect(stores.mysql.url.expose_secret(), 1).await?;
    let count = migrate::partitions(&pool).await?.ok_or(Error::NotMigrated)?;
    let mut connection = pool.acquire().await.map_err(mysql::Error::from)?;
    let deadline = Instant::now() + DISCONNECT_TIMEOUT;
    loop {
        let others = migrate::others_connected(&mut connection).await?;
        if others == 0 {
            break;
        }
        if Instant::now() >= deadline {
            return Err(Error::OtherConnections(others));
        }
        sleep(DISCONNECT_POLL_INTERVAL).await;
    }
    drop(connection);
    pool.close().await;
    Ok(count)
}

/// Everything from the first audit to the new number in MySQL.
async fn change_count(
    stores: &StoreSettings,
    from: PartitionCount,
    to: PartitionCount,
) -> Result<(), Error> {
    say(&format!("from {} to {} partitions", from.count(), to.count()))?;
    let old = &StoreSettings { partitions: Some(from), ..stores.clone() };
    let (redis, mysql) = connect(old).await?;
    let recovery =
        PartitionRecovery::new(redis.clone(), mysql.clone(), writer(old, &redis, &mysql).handle());
    let all_serve = recovery
        .states()
        .await?
        .iter()
        .all(|(_, state)| matches!(state, FenceState::Serving(_) | FenceState::New));
    redis.close().await;
    mysql.close().await;
    if !all_serve {
        // An earlier run was interrupted, or Redis lost data.
        Box::pin(recover(old, None)).await?;
    }
    let (services, writer) =
        Box::pin(DomainServices::open(old, TokenSigner::new(&[]), CancellationToken::new()))
            .await?;
    let (handle, stop) = (writer.handle(), CancellationToken::new());
    let writing = tokio::spawn(writer.run(stop.clone()));
    let stop_sweep = CancellationToken::new();
    let sweep = tokio::spawn(services.payments.clone().run_sweep(stop_sweep.clone()));
    // The sweep finishes the payments of a killed instance. The audit waits for that.
    let audited = Box::pin(audit(old)).await;
    stop_sweep.cancel();
    let ended = sweep.await;
    let outcome = match audited {
        Ok(true) => Box::pin(fence_all(&services, handle, to)).await,
        Ok(false) => Err(Error::AuditFailed),
        Err(error) => Err(error),
    };
    stop.cancel();
    for ended in [ended, writing.await] {
        if let Err(error) = ended {
            tracing::error!(%error, "a background task ended unexpectedly");
        }
    }
    services.close().await;
    outcome?;
    say(&format!("MySQL now has {} partitions; restoring them to Redis", to.count()))
}

async fn fence_all(
    services: &DomainServices,
    handle: crate::outbox::WriterHandle,
    to: PartitionCount,
) -> Result<(), Error> {
    let recovery = PartitionRecovery::new(services.redis.clone(), services.mysql.clone(), handle);
    let (total, done) = (services.redis.keys().partitions().count(), AtomicU16::new(0));
    let is_terminal = std::io::stdout().is_terminal();
    let fenced = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if is_terminal {
            // A closed terminal does not stop the command.
            let _ = write!(
                std::io::stdout(),
                "\r{done}/{total} partitions fenced and written to MySQL"
            );
            let _ = std::io::stdout().flush();
        }
    };
    recovery.repartition(to, &fenced).await?;
    say(if is_terminal { "" } else { "all partitions fenced and written to MySQL" })
}

fn say(line: &str) -> Result<(), Error> {
    writeln!(std::io::stdout(), "{line}").map_err(Error::Output)
}
