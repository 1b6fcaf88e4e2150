//! `usher repartition`: another count of partitions, while no instance runs.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{DomainServices, Error, connect, connect_redis, recover, serve};
use crate::config::StoreSettings;
use crate::mysql::{self, migrate};
use crate::partition::PartitionCount;
use crate::queue::TokenSigner;
use crate::recovery::{FenceState, PartitionRecovery};

/// How long connections of instances that were just stopped may take to go, and how often it is looked.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// Makes the count of the settings the installation's own: audits, brings everything to MySQL, changes the count, lays Redis anew, audits again; and says how far it is.
/// Where the count is that of the settings already, it goes on with what a run before has left. Says whether the last audit found everything sound.
///
/// # Errors
/// When somebody else is connected to the database, the audit before finds faults, dead letters are kept, or a store fails. Any of them leaves an installation of the old
/// or of the new count, never of both.
pub async fn repartition(stores: &StoreSettings) -> Result<bool, Error> {
    let from = alone(stores).await?;
    let to = stores.partitions;
    if from == to {
        say(&format!(
            "the count is {to} already; what does not serve is laid back",
            to = to.count()
        ))?;
    } else {
        let former = StoreSettings { partitions: from, ..stores.clone() };
        Box::pin(change(&former, to)).await?;
    }
    Box::pin(recover(stores, None)).await?;
    drop_former(stores).await?;
    say(&format!("audit of {} partitions:", to.count()))?;
    Box::pin(serve::audit(stores)).await
}

/// Drops what partitions that there are no more have left in Redis.
async fn drop_former(stores: &StoreSettings) -> Result<(), Error> {
    let mysql = mysql::connect(stores.mysql.url.expose_secret(), 1).await?;
    let ever = PartitionRecovery::ever(&mysql).await?;
    if let Some(ever) = ever.filter(|ever| ever.count() > stores.partitions.count()) {
        let all = StoreSettings { partitions: ever, ..stores.clone() };
        let redis = connect_redis(&all).await?;
        let recovery = PartitionRecovery::new(
            redis.clone(),
            mysql.clone(),
            writer(&all, &redis, &mysql).nudge(),
        );
        let dropped = recovery.drop_former(stores.partitions).await?;
        redis.close().await;
        say(&format!("{dropped} keys of former partitions dropped"))?;
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

/// Waits until nobody else is connected to the database, not for long, and gives the count that is recorded there.
async fn alone(stores: &StoreSettings) -> Result<PartitionCount, Error> {
    let pool = mysql::connect(stores.mysql.url.expose_secret(), 1).await?;
    let count = migrate::partitions(&pool).await?.ok_or(Error::NotMigrated)?;
    let mut connection = pool.acquire().await.map_err(mysql::Error::from)?;
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let others = migrate::others_connected(&mut connection).await?;
        if others == 0 {
            break;
        }
        if Instant::now() >= deadline {
            return Err(Error::OthersConnected(others));
        }
        sleep(LOOK).await;
    }
    drop(connection);
    pool.close().await;
    Ok(count)
}

/// From the audit before to the new count in MySQL.
async fn change(former: &StoreSettings, to: PartitionCount) -> Result<(), Error> {
    let from = former.partitions;
    say(&format!("from {} to {} partitions", from.count(), to.count()))?;
    let (redis, mysql) = connect(former).await?;
    let recovery = PartitionRecovery::new(
        redis.clone(),
        mysql.clone(),
        writer(former, &redis, &mysql).nudge(),
    );
    let whole = recovery
        .states()
        .await?
        .iter()
        .all(|(_, state)| matches!(state, FenceState::Serves(_) | FenceState::Fresh));
    redis.close().await;
    mysql.close().await;
    if !whole {
        // A run before was cut off, or something is lost.
        Box::pin(recover(former, None)).await?;
    }
    let (rooms, writer) =
        Box::pin(DomainServices::open(former, TokenSigner::new(&[]), CancellationToken::new()))
            .await?;
    let (nudge, stop) = (writer.nudge(), CancellationToken::new());
    let writing = tokio::spawn(writer.run(stop.clone()));
    let stop_sweep = CancellationToken::new();
    let sweep = tokio::spawn(rooms.payments.clone().run_sweep(stop_sweep.clone()));
    // The sweep ends the payments that a killed instance has left; the audit waits for that.
    let sound = Box::pin(serve::audit(former)).await;
    stop_sweep.cancel();
    let ended = sweep.await;
    let outcome = match sound {
        Ok(true) => Box::pin(bar_all(&rooms, nudge, to)).await,
        Ok(false) => Err(Error::Unsound),
        Err(error) => Err(error),
    };
    stop.cancel();
    for ended in [ended, writing.await] {
        if let Err(error) = ended {
            tracing::error!(%error, "work beside ended by itself");
        }
    }
    rooms.close().await;
    outcome?;
    say(&format!("MySQL says {} partitions now; laying them back", to.count()))
}

async fn bar_all(
    rooms: &DomainServices,
    nudge: crate::outbox::WriterHandle,
    to: PartitionCount,
) -> Result<(), Error> {
    let recovery = PartitionRecovery::new(rooms.redis.clone(), rooms.mysql.clone(), nudge);
    let (all, done) = (rooms.redis.keys().partitions().count(), AtomicU16::new(0));
    let live = std::io::stdout().is_terminal();
    let barred = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if live {
            // Nobody may be looking; that is no reason to stop.
            let _ =
                write!(std::io::stdout(), "\r{done}/{all} partitions closed, everything in MySQL");
            let _ = std::io::stdout().flush();
        }
    };
    recovery.repartition(to, &barred).await?;
    say(if live { "" } else { "all partitions closed, everything in MySQL" })
}

fn say(line: &str) -> Result<(), Error> {
    writeln!(std::io::stdout(), "{line}").map_err(Error::Output)
}
