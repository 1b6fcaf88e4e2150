//! Verification: compares each partition's fence in Redis with its checkpoint in MySQL. Opens the
//! partitions where both agree and closes the others.
//!
//! A Redis that was rolled back shows the same epoch as before, so every command that was queued
//! for it would run. Hence this order: a script that compares and sets fences the stale partition,
//! then the scripts are loaded into Redis, and only then is the partition marked as verified
//! (`redis/fencing/verification.rs`).
//!
//! A writer may have read entries from the previous Redis and commit them only now. Then the
//! checkpoint moves past what the current Redis has, just after the two were compared. So for a
//! partition that was invalidated the checkpoint is read again once such a writer is done, and
//! Redis is read after it.

use std::collections::{BTreeMap, HashSet};

use sqlx::MySqlPool;

use super::healing::{self, BehindPartitions};
use super::{Error, sql};
use crate::mysql;
use crate::mysql::checkpoint::{self, Checkpoint};
use crate::partition::Partition;
use crate::redis::codes::RecoveryFenceStaleCode;
use crate::redis::{
    self, FenceMarks, FenceReading, KeyScope, PinnedConnection, RedisClient, ScriptArgs, scripts,
};
use crate::telemetry::Metric;

/// What the fence in Redis and the checkpoint in MySQL say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceState {
    /// Both agree; the partition serves under this epoch.
    Serving(u64),
    /// Both have this epoch, but MySQL lost entries that it had.
    Behind(u64),
    /// The same, and the partition is fenced until MySQL has them again.
    Healing(u64),
    /// Neither store has used the partition yet.
    New,
    /// Redis has our epoch, but lacks entries that MySQL has.
    Stale,
    /// Redis is empty, or a recovery fenced the partition.
    Lost,
    /// Redis has an epoch that is not the current one in MySQL.
    OtherEpoch(u64),
    /// Redis has a value of an unknown form.
    Foreign,
}

pub(super) fn fence_state(checkpoint: &Checkpoint, marks: FenceMarks) -> FenceState {
    match (checkpoint.epoch, marks.fence) {
        (Some(known), FenceReading::Open(found)) if known == found => {
            if marks.seq < checkpoint.n {
                FenceState::Stale
            } else if marks.written > checkpoint.n {
                FenceState::Behind(known)
            } else {
                FenceState::Serving(known)
            }
        }
        (Some(known), FenceReading::Healing(found))
            if known == found && marks.seq >= checkpoint.n =>
        {
            FenceState::Healing(known)
        }
        // A first epoch that reached Redis but not MySQL was never served under; it is replaced.
        (None, FenceReading::Absent | FenceReading::Open(_))
            if checkpoint.n == 0 && marks.seq == 0 =>
        {
            FenceState::New
        }
        (Some(known), FenceReading::Healing(found)) if known == found => FenceState::Lost,
        (_, FenceReading::Absent | FenceReading::Fenced { .. }) => FenceState::Lost,
        (_, FenceReading::Open(found) | FenceReading::Healing(found)) => {
            FenceState::OtherEpoch(found)
        }
        (_, FenceReading::Foreign) => FenceState::Foreign,
    }
}

/// The outcome of a verification.
#[must_use]
#[derive(Debug, Default)]
pub struct VerificationOutcome {
    /// Partitions to restore automatically. Those of another installation are not among them.
    pub lost: Vec<Partition>,
    /// Why some partitions could not be verified, if so. They stay unverified.
    pub error: Option<Error>,
}

impl VerificationOutcome {
    /// The lost partitions, provided that every partition was verified.
    ///
    /// # Errors
    /// Why a partition was not.
    pub fn complete(self) -> Result<Vec<Partition>, Error> {
        self.error.map_or(Ok(self.lost), Err)
    }
}

/// Compares the fences of all partitions. Opens those that agree and the new ones, closes the rest.
/// A server that does not answer delays only its own partitions.
///
/// # Errors
/// When MySQL does not answer; then no partition becomes verified.
pub async fn verify(redis: &RedisClient, mysql: &MySqlPool) -> Result<VerificationOutcome, Error> {
    // 1. Take the number of invalidations and pin the servers before anything is read. An
    //    invalidation from here on has a higher number and stays in force. A Redis that replaces a
    //    pinned one does not get the scripts, whatever was read from it.
    let invalidations = redis.invalidation_count();
    let owners = redis.unverified_owners().await;

    // 2. Read MySQL first: what it has now, Redis must have at any later time.
    let partitions = redis.keys().partitions();
    let all: Vec<_> = partitions.all().collect();
    let mut checkpoints = checkpoint::load_all(mysql, partitions).await?;
    let mut marks = redis.fence_marks_each(&all).await;

    // 3. A partition that was invalidated and seems to agree is read again after the writers that
    //    may hold entries of the previous Redis.
    let unverified: Vec<_> = checkpoints
        .iter()
        .zip(&marks)
        .filter(|(checkpoint, marks)| {
            let agrees = |marks: &FenceMarks| {
                let state = fence_state(checkpoint, *marks);
                matches!(state, FenceState::Serving(_) | FenceState::Healing(_))
            };
            !redis.is_verified(checkpoint.partition) && marks.as_ref().is_ok_and(agrees)
        })
        .map(|(checkpoint, _)| checkpoint.partition)
        .collect();
    if !unverified.is_empty() {
        for checkpoint in checkpoint::load_after_writers(mysql, &unverified).await? {
            checkpoints[usize::from(checkpoint.partition.get())] = checkpoint;
        }
        marks = redis.fence_marks_each(&all).await;
    }

    confirm_behind(mysql, &mut checkpoints, &marks).await?;

    // 4. Fence the stale partitions, so that no queued command runs on them, and those that MySQL
    //    is behind.
    let mut outcome = VerificationOutcome::default();
    let mut states = BTreeMap::new();
    for (checkpoint, marks) in checkpoints.iter().zip(marks) {
        let state = match marks.map(|marks| (fence_state(checkpoint, marks), marks)) {
            Ok((state, marks)) => match state {
                FenceState::Stale => fence_stale_partition(redis, checkpoint).await,
                FenceState::Behind(epoch) => healing::fence_behind(redis, checkpoint, epoch).await,
                _ => Ok(()),
            }
            .map(|()| (state, marks)),
            Err(error) => Err(error),
        };
        match state {
            Ok((state, marks)) => drop(states.insert(checkpoint.partition, (state, marks))),
            Err(error) => outcome.error = Some(error.into()),
        }
    }

    // 5. Only then load the scripts. A server that fails here may not know them and must not learn
    //    them yet, so its partitions stay unverified.
    for owner in owners {
        if let Err(error) = load_scripts(owner.pinned, &owner.partitions, &states, mysql).await {
            states.retain(|partition, _| !owner.partitions.contains(partition));
            outcome.error = Some(error);
        }
    }

    // 6. Open the partitions that agree, close the others.
    let is_other = |state: &FenceState| matches!(state, FenceState::OtherEpoch(_));
    let has_other_epoch = states.values().any(|(state, _)| is_other(state));
    let known_epochs =
        if has_other_epoch { sql::known_epochs(mysql).await? } else { HashSet::new() };
    let (mut foreign, mut behind) = (0_usize, BehindPartitions::default());
    for checkpoint in &checkpoints {
        let partition = checkpoint.partition;
        let Some((state, marks)) = states.get(&partition).copied() else { continue };
        let epoch = match state {
            FenceState::Serving(epoch) => Some(epoch),
            FenceState::New => open_new_partition(redis, mysql, checkpoint).await?,
            _ => None,
        };
        let Some(epoch) = epoch else {
            redis.epochs().close(partition);
            if let FenceState::Behind(epoch) | FenceState::Healing(epoch) = state {
                if let Err(error) = behind.advance(redis, mysql, checkpoint, marks, epoch).await {
                    outcome.error = Some(error);
                }
                continue;
            }
            // An epoch that this installation never had belongs to another one.
            let is_foreign = match state {
                FenceState::OtherEpoch(found) => !known_epochs.contains(&(partition.get(), found)),
                state => state == FenceState::Foreign,
            };
            if is_foreign {
                foreign += 1;
            } else {
                outcome.lost.push(partition);
            }
            continue;
        };
        redis.epochs().open(partition, epoch);
    }

    // 7. Let the waiting calls go on.
    let verified: Vec<_> = states.into_keys().collect();
    redis.mark_verified(&verified, invalidations);
    behind.record();
    Metric::PartitionsRecovering.gauge(&[]).set((outcome.lost.len() + foreign) as f64);
    if foreign > 0 {
        tracing::error!(
            partitions = foreign,
            "Redis belongs to another installation; run `usher recover` to overwrite it"
        );
    }
    Ok(outcome)
}

/// Reads the checkpoints of the partitions again that MySQL seems to be behind: a writer may have
/// committed between the two reads. Redis learns of a commit after it, so MySQL's checkpoint reaches
/// what Redis knew, unless MySQL went back.
async fn confirm_behind(
    mysql: &MySqlPool,
    checkpoints: &mut [Checkpoint],
    marks: &[Result<FenceMarks, redis::Error>],
) -> Result<(), Error> {
    for (checkpoint, marks) in checkpoints.iter_mut().zip(marks) {
        let Ok(marks) = marks else { continue };
        if let FenceState::Behind(_) = fence_state(checkpoint, *marks) {
            let now = checkpoint::load(mysql, checkpoint.partition).await?;
            // What was added to Redis since it was read says nothing here.
            *checkpoint = Checkpoint { n: now.n.min(marks.seq), ..now };
        }
    }
    Ok(())
}

/// Loads the scripts into a server with unverified partitions, provided that all its partitions
/// were read. A server that serves but does not know the scripts was restarted: it may lack entries
/// that MySQL does not have either, and a payment across two partitions may lack some of its steps.
async fn load_scripts(
    pinned: Result<PinnedConnection, redis::Error>,
    partitions: &[Partition],
    states: &BTreeMap<Partition, (FenceState, FenceMarks)>,
    mysql: &MySqlPool,
) -> Result<(), Error> {
    let pinned = pinned?;
    if let Some(unread) = partitions.iter().find(|partition| !states.contains_key(partition)) {
        return Err(redis::Error::Recovering(*unread).into());
    }
    let is_serving = |partition| matches!(states.get(partition), Some((FenceState::Serving(_), _)));
    if partitions.iter().any(is_serving) && !pinned.knows_scripts().await? {
        sql::request_reconciliation(mysql).await?;
    }
    Ok(pinned.load_scripts().await?)
}

/// Fences a partition that lacks entries of MySQL, unless it changed since it was read.
async fn fence_stale_partition(
    redis: &RedisClient,
    checkpoint: &Checkpoint,
) -> Result<(), redis::Error> {
    let Some(epoch) = checkpoint.epoch else { return Ok(()) };
    let mut args = ScriptArgs::new();
    args.text(&checkpoint.n.to_string()).text(&redis::recovery_fence(rand::random(), None));
    let scope = KeyScope::partition(checkpoint.partition);
    let pinned = redis.pin(checkpoint.partition).await?;
    let reply = pinned
        .call_fenced(&scripts::RECOVERY_FENCE_STALE, scope, &epoch.to_string(), args, Vec::new())
        .await?;
    // No reply: Redis has another epoch by now, so no call under ours can run either.
    let Some(reply) = reply else { return Ok(()) };
    if reply.code::<RecoveryFenceStaleCode>()? == RecoveryFenceStaleCode::Fenced {
        tracing::error!(
            partition = %checkpoint.partition,
            checkpoint = checkpoint.n,
            "Redis is older than MySQL; the partition is fenced and will be restored"
        );
    }
    Ok(())
}

/// Gives a new partition its first epoch, in Redis before the commit in MySQL. The row lock ensures
/// that one of several instances does it.
async fn open_new_partition(
    redis: &RedisClient,
    mysql: &MySqlPool,
    seen: &Checkpoint,
) -> Result<Option<u64>, Error> {
    let mut tx = mysql.begin().await.map_err(mysql::Error::from)?;
    let locked = checkpoint::lock(&mut tx, seen.partition).await?;
    let marks = redis.fence_marks(&[seen.partition]).await?;
    let epoch = match fence_state(&locked, marks[0]) {
        FenceState::Serving(epoch) => Some(epoch),
        FenceState::New => {
            let first = redis::new_epoch();
            redis.write_fence(seen.partition, &first.to_string()).await?;
            checkpoint::set_epoch(&mut tx, seen.partition, first).await?;
            Some(first)
        }
        _ => None,
    };
    tx.commit().await.map_err(mysql::Error::from)?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::PartitionCount;

    #[test]
    fn only_matching_fences_serve() {
        let partition = PartitionCount::new(1).unwrap().nth(0).unwrap();
        let checkpoint = |epoch, n| Checkpoint { partition, n, epoch };
        let marks = |fence, seq| FenceMarks { fence, seq, written: 0 };
        let had = |fence, seq, written| FenceMarks { fence, seq, written };
        let (absent, open) = (FenceReading::Absent, FenceReading::Open);
        let fenced = |draining| FenceReading::Fenced { token: 7, draining };
        for (checkpoint, marks, expected) in [
            (checkpoint(None, 0), marks(absent, 0), FenceState::New),
            (checkpoint(None, 0), marks(open(1), 0), FenceState::New),
            (checkpoint(None, 0), marks(open(1), 7), FenceState::OtherEpoch(1)),
            (checkpoint(Some(1), 5), marks(open(1), 5), FenceState::Serving(1)),
            (checkpoint(Some(1), 5), marks(open(1), 9), FenceState::Serving(1)),
            // Redis is empty, stale, or has another epoch.
            (checkpoint(Some(1), 0), marks(absent, 0), FenceState::Lost),
            (checkpoint(Some(1), 5), marks(open(1), 4), FenceState::Stale),
            (checkpoint(Some(2), 5), marks(open(1), 5), FenceState::OtherEpoch(1)),
            // A recovery is running or was interrupted.
            (checkpoint(Some(1), 5), marks(fenced(Some(1)), 9), FenceState::Lost),
            (checkpoint(None, 0), marks(fenced(None), 0), FenceState::Lost),
            // MySQL went back.
            (checkpoint(Some(1), 5), had(open(1), 9, 5), FenceState::Serving(1)),
            (checkpoint(Some(1), 5), had(open(1), 9, 6), FenceState::Behind(1)),
            (checkpoint(Some(1), 5), had(FenceReading::Healing(1), 9, 5), FenceState::Healing(1)),
            (checkpoint(Some(1), 9), had(FenceReading::Healing(1), 9, 5), FenceState::Healing(1)),
            (checkpoint(Some(1), 9), had(FenceReading::Healing(1), 8, 5), FenceState::Lost),
            (
                checkpoint(Some(2), 5),
                had(FenceReading::Healing(1), 9, 5),
                FenceState::OtherEpoch(1),
            ),
            (checkpoint(Some(1), 5), marks(FenceReading::Foreign, 5), FenceState::Foreign),
        ] {
            assert_eq!(fence_state(&checkpoint, marks), expected, "{checkpoint:?} {marks:?}");
        }
    }
}
