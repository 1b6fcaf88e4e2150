//! Opens the partitions whose fences agree, and says of the others what has become of them.
//!
//! A Redis that was rolled back shows the same generation as before, so whatever was queued for it would run. Hence the order: first it is barred, by a
//! script that compares and sets, then the scripts are made known to Redis, and only then is it trusted (see `redis/trust.rs`).
//!
//! A writer may have read entries from the Redis before it and commit them only now; then the checkpoint says more than the Redis that is here has, a moment after
//! the two were compared. So in doubt the checkpoint is asked for once such a writer is done, and Redis' marks after it.

use std::collections::{BTreeMap, HashSet};

use sqlx::MySqlPool;

use super::{Error, sql};
use crate::mysql::checkpoint::{self, Checkpoint};
use crate::mysql::{self};
use crate::partition::Partition;
use crate::redis::{
    self, FenceMarks, FenceReading, KeyScope, PinnedConnection, RedisClient, ScriptArgs, scripts,
};
use crate::telemetry::Metric;

/// What the two fences of a partition say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceState {
    /// They agree; the partition serves under this generation.
    Serving(u64),
    /// Neither store has ever seen the partition.
    New,
    /// Redis has our generation, but lacks what MySQL has.
    Stale,
    /// Redis is empty, or a recovery has barred the partition.
    Lost,
    /// Redis has a generation that MySQL does not have now.
    OtherEpoch(u64),
    /// What Redis has is not ours.
    Foreign,
}

/// What the fences say.
pub(super) fn fence_state(checkpoint: &Checkpoint, marks: FenceMarks) -> FenceState {
    match (checkpoint.epoch, marks.fence) {
        (Some(known), FenceReading::Open(found)) if known == found && marks.seq >= checkpoint.n => {
            FenceState::Serving(known)
        }
        (Some(known), FenceReading::Open(found)) if known == found => FenceState::Stale,
        // A first generation that reached Redis but not MySQL was never served under; it is written anew.
        (None, FenceReading::Absent | FenceReading::Open(_))
            if checkpoint.n == 0 && marks.seq == 0 =>
        {
            FenceState::New
        }
        (_, FenceReading::Absent | FenceReading::Fenced(_)) => FenceState::Lost,
        (_, FenceReading::Open(found)) => FenceState::OtherEpoch(found),
        (_, FenceReading::Foreign) => FenceState::Foreign,
    }
}

/// What a verification came to.
#[derive(Debug, Default)]
pub struct VerificationOutcome {
    /// Partitions that can be laid back without anybody being asked: what is another installation's is left alone.
    pub lost: Vec<Partition>,
    /// Why some partitions could not be looked at, if so. They are trusted no more than before.
    pub error: Option<Error>,
}

impl VerificationOutcome {
    /// Takes it only if every partition was looked at.
    ///
    /// # Errors
    /// Why one was not.
    pub fn complete(self) -> Result<Vec<Partition>, Error> {
        self.error.map_or(Ok(self.lost), Err)
    }
}

/// Looks at every partition's fences, opens those that agree and those that are fresh, and closes the rest. A server that is away, or a partition that is on its
/// way between two, holds up nobody else.
///
/// # Errors
/// When MySQL does not answer; then Redis is trusted no more than before.
pub async fn verify(redis: &RedisClient, mysql: &MySqlPool) -> Result<VerificationOutcome, Error> {
    // In this order: what changes hands from here on is in doubt again by a later count, and a Redis that is replaced after it was pinned does not get its scripts,
    // whatever was read of it.
    let doubts = redis.invalidation_count();
    let holders = redis.unverified_owners().await;
    let partitions = redis.keys().partitions();
    // MySQL first: what it has at this moment, Redis must have at a later one.
    let mut checkpoints = checkpoint::load_all(mysql, partitions).await?;
    let all: Vec<_> = partitions.all().collect();
    let mut marks = redis.fence_marks_each(&all).await;
    let in_doubt = checkpoints.iter().zip(&marks).filter(|(of, marks)| {
        let serves = |marks: &FenceMarks| matches!(fence_state(of, *marks), FenceState::Serving(_));
        !redis.is_verified(of.partition) && marks.as_ref().is_ok_and(serves)
    });
    let in_doubt: Vec<_> = in_doubt.map(|(of, _)| of.partition).collect();
    if !in_doubt.is_empty() {
        for settled in checkpoint::load_after_writers(mysql, &in_doubt).await? {
            checkpoints[usize::from(settled.partition.get())] = settled;
        }
        marks = redis.fence_marks_each(&all).await;
    }
    let mut verified = VerificationOutcome::default();
    let (mut known, mut foreign) = (BTreeMap::new(), 0_usize);
    for (checkpoint, marks) in checkpoints.iter().zip(marks) {
        let state = match marks.map(|marks| fence_state(checkpoint, marks)) {
            Ok(FenceState::Stale) => fence_stale_partition(redis, checkpoint).await.map(|()| FenceState::Stale),
            state => state,
        };
        match state {
            Ok(state) => drop(known.insert(checkpoint.partition, state)),
            Err(error) => verified.error = Some(error.into()),
        }
    }
    for holder in holders {
        if let Err(error) = load_scripts(holder.pinned, &holder.partitions, &known, mysql).await {
            // It may not know its scripts, and must not learn them yet.
            known.retain(|partition, _| !holder.partitions.contains(partition));
            verified.error = Some(error);
        }
    }
    let ours = if known.values().any(|state| matches!(state, FenceState::OtherEpoch(_))) {
        sql::known_epochs(mysql).await?
    } else {
        HashSet::new()
    };
    for checkpoint in &checkpoints {
        let partition = checkpoint.partition;
        let Some(state) = known.get(&partition).copied() else { continue };
        let serves = match state {
            FenceState::Serving(generation) => Some(generation),
            FenceState::New => open_new_partition(redis, mysql, checkpoint).await?,
            _ => None,
        };
        match (serves, state) {
            (Some(generation), _) => redis.epochs().open(partition, generation),
            (None, FenceState::OtherEpoch(found)) if !ours.contains(&(partition.get(), found)) => {
                foreign += 1
            }
            (None, FenceState::Foreign) => foreign += 1,
            (None, _) => verified.lost.push(partition),
        }
        if serves.is_none() {
            redis.epochs().close(partition);
        }
    }
    let known: Vec<_> = known.into_keys().collect();
    redis.mark_verified(&known, doubts);
    Metric::PartitionsRecovering.gauge(&[]).set((verified.lost.len() + foreign) as f64);
    if foreign > 0 {
        tracing::error!(
            partitions = foreign,
            "Redis holds another installation's state; it is left alone until somebody runs `usher recover`"
        );
    }
    Ok(verified)
}

/// Makes the scripts known to a server of which something is in doubt, provided that everything it holds was looked at. One that serves on without having known them
/// may lack some of what MySQL did not have yet, and a payment between two partitions half of its steps.
async fn load_scripts(
    pinned: Result<PinnedConnection, redis::Error>,
    partitions: &[Partition],
    known: &BTreeMap<Partition, FenceState>,
    mysql: &MySqlPool,
) -> Result<(), Error> {
    let pinned = pinned?;
    if let Some(unknown) = partitions.iter().find(|partition| !known.contains_key(partition)) {
        return Err(redis::Error::Recovering(*unknown).into());
    }
    let serves = |partition| matches!(known.get(partition), Some(FenceState::Serving(_)));
    if partitions.iter().any(serves) && !pinned.knows_scripts().await? {
        sql::request_reconciliation(mysql).await?;
    }
    Ok(pinned.load_scripts().await?)
}

/// Bars a partition that is older than its checkpoint, unless it is not any more.
async fn fence_stale_partition(redis: &RedisClient, checkpoint: &Checkpoint) -> Result<(), redis::Error> {
    let Some(known) = checkpoint.epoch else { return Ok(()) };
    let mut args = ScriptArgs::new();
    args.text(&checkpoint.n.to_string()).text(&redis::recovery_fence(rand::random(), None));
    let place = KeyScope::partition(checkpoint.partition);
    let pinned = redis.pin(checkpoint.partition).await?;
    pinned
        .call_fenced(&scripts::RECOVERY_FENCE_STALE, place, &known.to_string(), args, Vec::new())
        .await?;
    tracing::error!(partition = %checkpoint.partition, checkpoint = checkpoint.n, "Redis is older than MySQL; the partition is barred");
    Ok(())
}

/// Gives a fresh partition its first generation, in Redis before the commit in MySQL. Of several instances one does it, under the row's lock.
async fn open_new_partition(
    redis: &RedisClient,
    mysql: &MySqlPool,
    seen: &Checkpoint,
) -> Result<Option<u64>, Error> {
    let mut tx = mysql.begin().await.map_err(mysql::Error::from)?;
    let locked = checkpoint::lock(&mut tx, seen.partition).await?;
    let marks = redis.fence_marks(&[seen.partition]).await?;
    let generation = match fence_state(&locked, marks[0]) {
        FenceState::Serving(generation) => Some(generation),
        FenceState::New => {
            let first = new_epoch();
            redis.write_fence(seen.partition, &first.to_string()).await?;
            checkpoint::set_epoch(&mut tx, seen.partition, first).await?;
            Some(first)
        }
        _ => None,
    };
    tx.commit().await.map_err(mysql::Error::from)?;
    Ok(generation)
}

/// At random, so that the Redis of another installation can't pass for ours.
pub(super) fn new_epoch() -> u64 {
    rand::random_range(1..=1 << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::PartitionCount;

    #[test]
    fn only_agreeing_fences_serve() {
        let partition = PartitionCount::new(1).unwrap().nth(0).unwrap();
        let checkpoint = |generation, n| Checkpoint { partition, n, epoch: generation };
        let marks = |fence, seq| FenceMarks { fence, seq };
        let (absent, open) = (FenceReading::Absent, FenceReading::Open);
        for (checkpoint, marks, expected) in [
            (checkpoint(None, 0), marks(absent, 0), FenceState::New),
            (checkpoint(None, 0), marks(open(1), 0), FenceState::New),
            (checkpoint(None, 0), marks(open(1), 7), FenceState::OtherEpoch(1)),
            (checkpoint(Some(1), 5), marks(open(1), 5), FenceState::Serving(1)),
            (checkpoint(Some(1), 5), marks(open(1), 9), FenceState::Serving(1)),
            // Redis came back empty, older, or under another generation.
            (checkpoint(Some(1), 0), marks(absent, 0), FenceState::Lost),
            (checkpoint(Some(1), 5), marks(open(1), 4), FenceState::Stale),
            (checkpoint(Some(2), 5), marks(open(1), 5), FenceState::OtherEpoch(1)),
            // A recovery is at work, or was cut off, whatever stands behind its bar.
            (checkpoint(Some(1), 5), marks(FenceReading::Fenced(Some(1)), 9), FenceState::Lost),
            (checkpoint(None, 0), marks(FenceReading::Fenced(None), 0), FenceState::Lost),
            (checkpoint(Some(1), 5), marks(FenceReading::Foreign, 5), FenceState::Foreign),
        ] {
            assert_eq!(fence_state(&checkpoint, marks), expected, "{checkpoint:?} {marks:?}");
        }
    }
}
