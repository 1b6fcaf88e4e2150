//! Opens the partitions whose fences agree: at start, after every reconnection, and from time to time those that stay closed.

use std::time::Duration;

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::mysql::generation::{self, Checkpoint};
use crate::mysql::{self};
use crate::redis::{self, Marks, Redis};
use crate::telemetry::Metric;

/// How often closed partitions are looked at again.
const AGAIN: Duration = Duration::from_secs(2);

/// Why the fences could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis did not answer.
    #[error(transparent)]
    Redis(#[from] redis::Error),
    /// MySQL did not answer.
    #[error(transparent)]
    Mysql(#[from] mysql::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Mysql(error.into())
    }
}

/// What the two fences of a partition say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// They agree; the partition serves under this generation.
    Serve(u64),
    /// Neither store has ever seen the partition.
    Fresh,
    /// Redis lacks what MySQL has.
    Recover,
}

fn judge(checkpoint: &Checkpoint, marks: Marks) -> Verdict {
    match (checkpoint.generation, marks.generation) {
        (Some(known), Some(found)) if known == found && marks.seq >= checkpoint.n => Verdict::Serve(known),
        // A first generation that reached Redis but not MySQL was never served under; it is written anew.
        (None, _) if checkpoint.n == 0 && marks.seq == 0 => Verdict::Fresh,
        _ => Verdict::Recover,
    }
}

/// Looks at every partition's fences, opens those that agree and those that are fresh, and closes the rest.
///
/// # Errors
/// When either store does not answer; then the partitions not yet looked at are as they were.
pub async fn verify(redis: &Redis, mysql: &MySqlPool) -> Result<(), Error> {
    let partitions = redis.keys().partitions();
    // MySQL first: what it has at this moment, Redis must have at a later one.
    let checkpoints = generation::load(mysql, partitions).await?;
    let all: Vec<_> = partitions.all().collect();
    let marks = redis.marks(&all).await?;
    let mut recovering = 0_u32;
    for (checkpoint, marks) in checkpoints.iter().zip(marks) {
        let generation = match judge(checkpoint, marks) {
            Verdict::Serve(generation) => Some(generation),
            Verdict::Fresh => open_fresh(redis, mysql, checkpoint).await?,
            Verdict::Recover => None,
        };
        match generation {
            Some(generation) => redis.generations().open(checkpoint.partition, generation),
            None => {
                redis.generations().close(checkpoint.partition);
                recovering += 1;
            }
        }
    }
    Metric::PartitionsRecovering.gauge(&[]).set(f64::from(recovering));
    if recovering > 0 {
        tracing::error!(partitions = recovering, "Redis lacks what MySQL has; these partitions do not serve");
    }
    Ok(())
}

/// Gives a fresh partition its first generation, in Redis before the commit in MySQL. Of several instances one does it, under the row's lock.
async fn open_fresh(redis: &Redis, mysql: &MySqlPool, seen: &Checkpoint) -> Result<Option<u64>, Error> {
    let mut tx = mysql.begin().await.map_err(mysql::Error::from)?;
    let locked = generation::lock_checkpoint(&mut tx, seen.partition).await?;
    let marks = redis.marks(&[seen.partition]).await?;
    let generation = match judge(&locked, marks[0]) {
        Verdict::Serve(generation) => Some(generation),
        Verdict::Fresh => {
            // At random, so that the Redis of another installation can't pass for ours.
            let first = rand::random_range(1..=1 << 52);
            redis.write_generation(seen.partition, first).await?;
            generation::set_generation(&mut tx, seen.partition, first).await?;
            Some(first)
        }
        Verdict::Recover => None,
    };
    tx.commit().await.map_err(mysql::Error::from)?;
    Ok(generation)
}

/// Verifies again after every reconnection, and every two seconds while a partition is closed. Runs until `stop`.
pub async fn run_verifier(redis: Redis, mysql: MySqlPool, stop: CancellationToken) {
    let mut reconnected = redis.reconnected();
    let mut again = tokio::time::interval(AGAIN);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = reconnected.changed() => Metric::RedisReconnectsTotal.counter(&[]).increment(1),
            _ = again.tick() => {
                if redis.generations().closed() == 0 {
                    continue;
                }
            }
        }
        if let Err(error) = verify(&redis, &mysql).await {
            tracing::warn!(%error, "verifying the partitions");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Partitions;

    #[test]
    fn only_agreeing_fences_serve() {
        let partition = Partitions::new(1).unwrap().nth(0).unwrap();
        let checkpoint = |generation, n| Checkpoint { partition, n, generation };
        let marks = |generation, seq| Marks { generation, seq };
        for (checkpoint, marks, expected) in [
            (checkpoint(None, 0), marks(None, 0), Verdict::Fresh),
            (checkpoint(None, 0), marks(Some(1), 0), Verdict::Fresh),
            (checkpoint(None, 0), marks(Some(1), 7), Verdict::Recover),
            (checkpoint(Some(1), 5), marks(Some(1), 5), Verdict::Serve(1)),
            (checkpoint(Some(1), 5), marks(Some(1), 9), Verdict::Serve(1)),
            // Redis came back empty, older, or under another generation.
            (checkpoint(Some(1), 0), marks(None, 0), Verdict::Recover),
            (checkpoint(Some(1), 5), marks(Some(1), 4), Verdict::Recover),
            (checkpoint(Some(2), 5), marks(Some(1), 5), Verdict::Recover),
        ] {
            assert_eq!(judge(&checkpoint, marks), expected, "{checkpoint:?} {marks:?}");
        }
    }
}
