//! `usher recover`: restores partitions of Redis from MySQL while the others serve.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::domain_services::connect_to_any_records;
use super::error::Error;
use crate::config::StoreSettings;
use crate::outbox::OutboxWriter;
use crate::partition::Partition;
use crate::recovery::{self, FenceState, PartitionRecovery, RecoveryOutcome};
use crate::redis::{RecordVersion, RedisClient};

/// Attempts to restore a partition that another instance is restoring.
const MAX_BUSY_ATTEMPTS: u32 = 120;
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Restores every partition that does not serve or has records of a newer release, or the partition
/// `only` in any state. Prints progress.
///
/// # Errors
/// When a store is not reachable, the partition does not exist, or a partition does not serve
/// afterwards.
pub async fn recover(stores: &StoreSettings, only: Option<u16>) -> Result<(), Error> {
    let (redis, mysql) = Box::pin(connect_to_any_records(stores)).await?;
    let writer = OutboxWriter::new(redis.clone(), mysql.clone(), stores.ack.into());
    let recovery = PartitionRecovery::new(redis.clone(), mysql.clone(), writer.handle());
    recovery::verify(&redis, &mysql).await?.complete()?;
    let newer = newer_records(&redis).await?;
    let partitions = match only {
        Some(number) => {
            let only =
                redis.keys().partitions().nth(number).ok_or(Error::NoSuchPartition(number))?;
            BTreeSet::from([only])
        }
        None => not_serving(&recovery).await?.into_iter().chain(newer.clone()).collect(),
    };
    // The outbox of a serving partition must reach MySQL first. This writer does it if no instance
    // runs.
    let stop = CancellationToken::new();
    let writing = tokio::spawn(writer.run(stop.clone()));
    let mut progress = ProgressBar {
        total: partitions.len(),
        done: 0,
        rows: 0,
        is_terminal: std::io::stdout().is_terminal(),
    };
    let mut failed = 0;
    for partition in partitions {
        let even_if_serving = only.is_some() || newer.contains(&partition);
        match recover_when_free(&recovery, partition, even_if_serving).await {
            Ok(RecoveryOutcome::Restored { rows, .. }) => progress.step(rows)?,
            Ok(RecoveryOutcome::AlreadyServing) => progress.step(0)?,
            Ok(RecoveryOutcome::InProgress) => {
                failed += 1;
                tracing::error!(%partition, "another instance is still restoring the partition");
            }
            Err(error) => {
                failed += 1;
                tracing::error!(%partition, %error, "the partition could not be restored");
            }
        }
    }
    stop.cancel();
    if let Err(error) = writing.await {
        tracing::error!(%error, "the outbox writer ended unexpectedly");
    }
    progress.end()?;
    redis.close().await;
    mysql.close().await;
    if failed == 0 { Ok(()) } else { Err(Error::NotRecovered(failed)) }
}

/// The partitions whose records only a newer release can read.
async fn newer_records(redis: &RedisClient) -> Result<Vec<Partition>, Error> {
    let stored = Box::pin(redis.record_versions()).await?;
    Ok(stored.into_iter().filter(RecordVersion::is_newer).map(|stored| stored.partition).collect())
}

async fn not_serving(recovery: &PartitionRecovery) -> Result<Vec<Partition>, Error> {
    let states = recovery.states().await?;
    let closed = |(_, state): &(Partition, FenceState)| !matches!(state, FenceState::Serving(_));
    Ok(states.into_iter().filter(closed).map(|(partition, _)| partition).collect())
}

/// Restores a partition. Waits while another instance restores it.
async fn recover_when_free(
    recovery: &PartitionRecovery,
    partition: Partition,
    even_if_serving: bool,
) -> Result<RecoveryOutcome, recovery::Error> {
    for _ in 0..MAX_BUSY_ATTEMPTS {
        match recovery.recover(partition, even_if_serving).await {
            Ok(RecoveryOutcome::InProgress) | Err(recovery::Error::FencedByOther(_)) => {
                tokio::time::sleep(BUSY_RETRY_INTERVAL).await
            }
            outcome => return outcome,
        }
    }
    Ok(RecoveryOutcome::InProgress)
}

/// The progress: one line that is redrawn on a terminal, else one line at the end.
struct ProgressBar {
    total: usize,
    done: usize,
    rows: u64,
    is_terminal: bool,
}

impl ProgressBar {
    const WIDTH: usize = 40;

    fn step(&mut self, rows: u64) -> Result<(), Error> {
        self.done += 1;
        self.rows += rows;
        if self.is_terminal {
            let filled = self.done * Self::WIDTH / self.total.max(1);
            let (full, empty) = ("#".repeat(filled), " ".repeat(Self::WIDTH - filled));
            let line = format!(
                "\r[{full}{empty}] {}/{} partitions, {} rows",
                self.done, self.total, self.rows
            );
            let mut out = std::io::stdout();
            out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)?;
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Error> {
        let line = format!(
            "{} of {} partitions serve again, {} rows restored",
            self.done, self.total, self.rows
        );
        writeln!(std::io::stdout(), "{}{line}", if self.is_terminal { "\n" } else { "" })
            .map_err(Error::Output)
    }
}
