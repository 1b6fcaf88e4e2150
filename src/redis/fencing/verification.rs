//! Whether the Redis that holds a partition is the one that was verified for it.
//!
//! A Redis that was restarted from an older file, or a replica that lagged, shows the same generation as before, so a generation alone can't tell it. Three things
//! raise a *doubt* of partitions: a connection that was made again, another server that holds them now, and a script that Redis no longer
//! knows. From 7.0 on scripts are neither persisted nor replicated, and only a verification loads them ([`super::Pinned::load_scripts`], by a connection
//! that was there before it looked); so whatever Redis took the place of ours knows none of them until its partitions were held against MySQL and those that are
//! older were barred. A command that was queued before the change is refused by that Redis itself; hence no room's script is ever sent as text.
//!
//! While a partition is in doubt its calls wait for the verification; the others go on. The first doubt is the first connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::partition::{Partition, PartitionCount};
use crate::redis::{Error, RedisClient};

/// How long a call waits for a verification that is under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// Doubts, and up to which of them each partition was verified.
#[derive(Debug)]
pub(in crate::redis) struct VerificationTracker {
    /// How many doubts there were, of whatever.
    doubts: AtomicU64,
    of: Vec<PartitionVerification>,
    changed: watch::Sender<()>,
    wake: Notify,
}

/// One partition's last doubt, and the last that is settled.
#[derive(Debug)]
struct PartitionVerification {
    raised: AtomicU64,
    settled: AtomicU64,
}

impl VerificationTracker {
    pub(in crate::redis) fn new(partitions: PartitionCount) -> Self {
        let first =
            |_| PartitionVerification { raised: AtomicU64::new(1), settled: AtomicU64::new(0) };
        let of = partitions.all().map(first).collect();
        Self { doubts: AtomicU64::new(1), of, changed: watch::Sender::new(()), wake: Notify::new() }
    }

    fn of(&self, partition: Partition) -> &PartitionVerification {
        &self.of[usize::from(partition.get())]
    }

    fn is_whole(&self, partition: Partition) -> bool {
        let doubt = self.of(partition);
        doubt.settled.load(Ordering::Acquire) >= doubt.raised.load(Ordering::Acquire)
    }

    /// The number of the last doubt of a partition.
    pub(in crate::redis) fn last(&self, partition: Partition) -> u64 {
        self.of(partition).raised.load(Ordering::Acquire)
    }

    pub(in crate::redis) fn doubt(&self, partitions: &[Partition]) {
        let number = self.doubts.fetch_add(1, Ordering::AcqRel) + 1;
        for partition in partitions {
            self.of(*partition).raised.fetch_max(number, Ordering::AcqRel);
        }
        self.wake.notify_one();
    }

    /// Waits until a partition is in no doubt, not for ever.
    pub(in crate::redis) async fn wait(&self, partition: Partition) -> Result<(), Error> {
        if self.is_whole(partition) {
            return Ok(());
        }
        let mut changed = self.changed.subscribe();
        let whole = changed.wait_for(|()| self.is_whole(partition));
        match tokio::time::timeout(PATIENCE, whole).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Recovering(partition)),
        }
    }
}

impl RedisClient {
    /// Asks for a verification without holding calls up.
    pub fn ask_for_verification(&self) {
        self.trust_in().wake.notify_one();
    }

    /// Whether a partition is in no doubt.
    pub fn is_trusted(&self, partition: Partition) -> bool {
        self.trust_in().is_whole(partition)
    }

    /// How many doubts there were. Whoever verifies takes the count first and gives it to [`RedisClient::trust`].
    pub fn doubts(&self) -> u64 {
        self.trust_in().doubts.load(Ordering::Acquire)
    }

    /// The same for whoever begins a call whose answer shall be durable; 0, which nothing is unbroken since, while the only Redis there is has lost a connection.
    pub fn moment(&self) -> u64 {
        let servers = self.servers();
        let whole = servers.may_move() || servers.map().nodes().iter().all(|node| node.is_whole());
        if whole { self.doubts() } else { 0 }
    }

    /// Says that some partitions were verified after so many doubts.
    pub fn trust(&self, partitions: &[Partition], doubts: u64) {
        for partition in partitions {
            self.trust_in().of(*partition).settled.fetch_max(doubts, Ordering::AcqRel);
        }
        self.trust_in().changed.send_replace(());
    }

    /// Waits until a verification is asked for. Several requests count as one.
    pub async fn verification_asked_for(&self) {
        self.trust_in().wake.notified().await;
    }
}
