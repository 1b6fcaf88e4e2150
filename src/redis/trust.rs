//! Whether the Redis behind the connections is the one that was verified.
//!
//! A Redis that was restarted from an older file, or a replica that lagged, shows the same generation as before, so a generation alone can't tell it. Two things
//! raise a *doubt*: a connection that was made again, and a script that Redis no longer knows. From 7.0 on scripts are neither persisted nor replicated, and
//! only a verification loads them ([`Redis::load_scripts`]); so whatever Redis took the place of ours knows none of them until its partitions were
//! held against MySQL and those that are older were barred. A command that was queued before the change is refused by that Redis itself.
//!
//! While there is a doubt calls wait for the verification. The first doubt is the first connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Value;
use futures::future::try_join_all;
use tokio::sync::{Notify, watch};

use super::{Error, Redis, scripts};
use crate::partition::Partition;

/// How long a call waits for a verification that is under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// Doubts, and up to which of them it was verified.
#[derive(Debug)]
pub(super) struct Trust {
    doubts: AtomicU64,
    verified: watch::Sender<u64>,
    wake: Notify,
}

impl Default for Trust {
    fn default() -> Self {
        Self { doubts: AtomicU64::new(1), verified: watch::Sender::new(0), wake: Notify::new() }
    }
}

impl Trust {
    fn is_whole(&self) -> bool {
        *self.verified.borrow() >= self.doubts.load(Ordering::Acquire)
    }

    /// Waits until there is no doubt, not for ever.
    pub(super) async fn wait(&self, partition: Partition) -> Result<(), Error> {
        if self.is_whole() {
            return Ok(());
        }
        let mut verified = self.verified.subscribe();
        let whole = verified.wait_for(|verified| *verified >= self.doubts.load(Ordering::Acquire));
        match tokio::time::timeout(PATIENCE, whole).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Recovering(partition)),
        }
    }
}

impl Redis {
    /// Says that what was verified may not hold any more: the next verification is asked for, and calls wait for it.
    pub fn doubt(&self) {
        self.trust_in().doubts.fetch_add(1, Ordering::AcqRel);
        self.trust_in().wake.notify_one();
    }

    /// Asks for a verification without holding calls up.
    pub fn ask_for_verification(&self) {
        self.trust_in().wake.notify_one();
    }

    /// Whether nothing is in doubt.
    pub fn is_trusted(&self) -> bool {
        self.trust_in().is_whole()
    }

    /// How many doubts there were. Whoever verifies takes the count first and gives it to [`Redis::trust`].
    pub fn doubts(&self) -> u64 {
        self.trust_in().doubts.load(Ordering::Acquire)
    }

    /// Says that everything was verified after so many doubts.
    pub fn trust(&self, doubts: u64) {
        self.trust_in().verified.send_if_modified(|verified| {
            let newer = *verified < doubts;
            *verified = doubts.max(*verified);
            newer
        });
    }

    /// Waits until a verification is asked for. Several requests count as one.
    pub async fn verification_asked_for(&self) {
        self.trust_in().wake.notified().await;
    }

    /// Makes every script known to Redis. Call it only once each partition that Redis holds an older state of was barred.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn load_scripts(&self) -> Result<(), Error> {
        let client = self.client();
        let loads = scripts::ALL.iter().map(async |script| match client.is_clustered() {
            true => client.script_load_cluster::<Value, _>(script.body()).await,
            false => client.script_load::<Value, _>(script.body()).await,
        });
        try_join_all(loads).await?;
        Ok(())
    }
}
