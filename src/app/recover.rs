//! `usher recover`: lays Redis back from MySQL, partition by partition, while others serve.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Error, connect};
use crate::config::StoreSettings;
use crate::outbox::OutboxWriter;
use crate::partition::Partition;
use crate::recovery::{self, FenceState, PartitionRecovery, RecoveryOutcome};

/// How often, and how long apart, it is tried again what another instance is at.
const TRIES: u32 = 120;
const PAUSE: Duration = Duration::from_millis(500);

/// Lays back every partition that can't serve, or one, whatever it does; and says how far it is.
///
/// # Errors
/// When a store can't be reached, there is no such partition, or one does not serve in the end.
pub async fn recover(stores: &StoreSettings, only: Option<u16>) -> Result<(), Error> {
    let (redis, mysql) = connect(stores).await?;
    let writer = OutboxWriter::new(redis.clone(), mysql.clone(), stores.ack.into());
    let recovery = PartitionRecovery::new(redis.clone(), mysql.clone(), writer.nudge());
    recovery::verify(&redis, &mysql).await?.whole()?;
    let wanted = match only {
        Some(number) => vec![stores.partitions.nth(number).ok_or(Error::NoPartition(number))?],
        None => not_serving(&recovery).await?,
    };
    // What stands in the outbox of a partition that serves comes to MySQL first, by this writer if there is no other.
    let stop = CancellationToken::new();
    let writing = tokio::spawn(writer.run(stop.clone()));
    let mut bar =
        ProgressBar { all: wanted.len(), done: 0, rows: 0, live: std::io::stdout().is_terminal() };
    let mut failed = 0;
    for partition in wanted {
        match patiently(&recovery, partition, only.is_some()).await {
            Ok(RecoveryOutcome::Laid { rows, .. }) => bar.step(rows)?,
            Ok(RecoveryOutcome::Serves) => bar.step(0)?,
            Ok(RecoveryOutcome::Busy) => {
                failed += 1;
                tracing::error!(%partition, "another instance is at it, and does not come to an end");
            }
            Err(error) => {
                failed += 1;
                tracing::error!(%partition, %error, "the partition could not be laid back");
            }
        }
    }
    stop.cancel();
    if let Err(error) = writing.await {
        tracing::error!(%error, "the writer ended by itself");
    }
    bar.end()?;
    redis.close().await;
    mysql.close().await;
    if failed == 0 { Ok(()) } else { Err(Error::NotRecovered(failed)) }
}

async fn not_serving(recovery: &PartitionRecovery) -> Result<Vec<Partition>, Error> {
    let states = recovery.states().await?;
    let closed = |(_, state): &(Partition, FenceState)| !matches!(state, FenceState::Serves(_));
    Ok(states.into_iter().filter(closed).map(|(partition, _)| partition).collect())
}

/// Waits for whoever is at it already, or was quicker in between.
async fn patiently(
    recovery: &PartitionRecovery,
    partition: Partition,
    anyway: bool,
) -> Result<RecoveryOutcome, recovery::Error> {
    for _ in 0..TRIES {
        match recovery.recover(partition, anyway).await {
            Ok(RecoveryOutcome::Busy) | Err(recovery::Error::Overtaken(_)) => {
                tokio::time::sleep(PAUSE).await
            }
            outcome => return outcome,
        }
    }
    Ok(RecoveryOutcome::Busy)
}

/// How far it is: one line that is written over on a terminal, else one line at the end.
struct ProgressBar {
    all: usize,
    done: usize,
    rows: u64,
    live: bool,
}

impl ProgressBar {
    const WIDTH: usize = 40;

    fn step(&mut self, rows: u64) -> Result<(), Error> {
        self.done += 1;
        self.rows += rows;
        if self.live {
            let filled = self.done * Self::WIDTH / self.all.max(1);
            let (full, empty) = ("#".repeat(filled), " ".repeat(Self::WIDTH - filled));
            let line = format!(
                "\r[{full}{empty}] {}/{} partitions, {} rows",
                self.done, self.all, self.rows
            );
            let mut out = std::io::stdout();
            out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)?;
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Error> {
        let line = format!(
            "{} of {} partitions serve again, {} rows laid",
            self.done, self.all, self.rows
        );
        writeln!(std::io::stdout(), "{}{line}", if self.live { "\n" } else { "" })
            .map_err(Error::Output)
    }
}
