//! Whether the Redis that owns a partition is the one that was verified against MySQL.
//!
//! A Redis that restarted from an older file, or a replica that lagged before its promotion, shows
//! the same epoch as before, so the epoch alone is not enough. Three events *invalidate*
//! partitions: a reconnection, a new owner, and a script that Redis does not know any more.
//!
//! The third one is what makes this safe. Since Redis 7.0 scripts are neither persisted nor
//! replicated, and only a verification loads them ([`super::PinnedConnection::load_scripts`], over
//! a connection that existed before the verification read anything). So a Redis that took the place
//! of ours knows no script until its partitions were compared with MySQL and the stale ones were
//! fenced. A command that was queued before the change is refused by that Redis itself. Therefore
//! scripts are only called by their SHA-1 and never sent as text.
//!
//! While a partition is unverified its calls wait; the other partitions serve. The first connection
//! is the first invalidation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::partition::{Partition, PartitionCount};
use crate::redis::Error;

/// How long a call waits for a verification.
const VERIFICATION_PATIENCE: Duration = Duration::from_secs(2);

/// Numbered invalidations, and the number up to which each partition was verified.
#[derive(Debug)]
pub(in crate::redis) struct VerificationTracker {
    /// The number of invalidations so far, of any partition.
    invalidations: AtomicU64,
    partitions: Vec<PartitionVerification>,
    changed: watch::Sender<()>,
    wake: Notify,
}

/// The number of a partition's last invalidation, and the number up to which it was verified.
#[derive(Debug)]
struct PartitionVerification {
    invalidated: AtomicU64,
    verified: AtomicU64,
}

impl VerificationTracker {
    pub(in crate::redis) fn new(partitions: PartitionCount) -> Self {
        let first = |_| PartitionVerification {
            invalidated: AtomicU64::new(1),
            verified: AtomicU64::new(0),
        };
        let partitions = partitions.all().map(first).collect();
        Self {
            invalidations: AtomicU64::new(1),
            partitions,
            changed: watch::Sender::new(()),
            wake: Notify::new(),
        }
    }

    fn of(&self, partition: Partition) -> &PartitionVerification {
        &self.partitions[usize::from(partition.get())]
    }

    pub(in crate::redis) fn is_verified(&self, partition: Partition) -> bool {
        let state = self.of(partition);
        state.verified.load(Ordering::Acquire) >= state.invalidated.load(Ordering::Acquire)
    }

    pub(in crate::redis) fn last_invalidation(&self, partition: Partition) -> u64 {
        self.of(partition).invalidated.load(Ordering::Acquire)
    }

    pub(in crate::redis) fn invalidate(&self, partitions: &[Partition]) {
        let number = self.invalidations.fetch_add(1, Ordering::AcqRel) + 1;
        for partition in partitions {
            self.of(*partition).invalidated.fetch_max(number, Ordering::AcqRel);
        }
        self.wake.notify_one();
    }

    pub(in crate::redis) fn invalidation_count(&self) -> u64 {
        self.invalidations.load(Ordering::Acquire)
    }

    /// Wakes the verifier.
    pub(in crate::redis) fn request(&self) {
        self.wake.notify_one();
    }

    pub(in crate::redis) async fn requested(&self) {
        self.wake.notified().await;
    }

    /// Records that partitions were verified after `invalidations`, and wakes the waiting calls.
    pub(in crate::redis) fn mark_verified(&self, partitions: &[Partition], invalidations: u64) {
        for partition in partitions {
            self.of(*partition).verified.fetch_max(invalidations, Ordering::AcqRel);
        }
        self.changed.send_replace(());
    }

    /// Waits until a partition is verified, for at most [`VERIFICATION_PATIENCE`].
    pub(in crate::redis) async fn wait_until_verified(
        &self,
        partition: Partition,
    ) -> Result<(), Error> {
        if self.is_verified(partition) {
            return Ok(());
        }
        let mut changed = self.changed.subscribe();
        let verified = changed.wait_for(|()| self.is_verified(partition));
        match tokio::time::timeout(VERIFICATION_PATIENCE, verified).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Recovering(partition)),
        }
    }
}
