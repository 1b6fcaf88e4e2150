//! Redirects: what a call does when its partition is no longer on the server that was asked.
//!
//! A server answers with a redirect before it runs anything: `MOVED` (another node owns the slot),
//! `ASK` and `TRYAGAIN` (the slot is being migrated), `CLUSTERDOWN` (an owner is being elected),
//! `READONLY` (the server is no longer the primary). So it is safe to retry, for a bounded time. An
//! ASK is not followed: during a migration each node holds a part of the partition, and no script
//! may run before one node owns all of it and was verified.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::topology::ServerTopology;
use crate::redis::Error;
use crate::telemetry::Metric;

/// How long a script call searches for the owner of its partition.
pub(in crate::redis) const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// How long a plain read or write does so.
pub(in crate::redis) const READ_PATIENCE: Duration = Duration::from_millis(500);
/// For callers that run periodically: they retry in their next round.
pub(in crate::redis) const NO_PATIENCE: Duration = Duration::ZERO;

/// The first and the longest pause between two attempts.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// A bounded search for the owner of a partition.
pub(in crate::redis) struct RedirectSearch {
    deadline: Instant,
    pause: Duration,
}

impl RedirectSearch {
    pub(in crate::redis) fn within(patience: Duration) -> Self {
        Self { deadline: Instant::now() + patience, pause: RETRY_PAUSES.0 }
    }

    /// Requests a topology refresh and pauses; returns `cause` once the time is over.
    pub(in crate::redis) async fn retry_after_redirect(
        &mut self,
        topology: &ServerTopology,
        cause: Error,
    ) -> Result<(), Error> {
        topology.request_refresh();
        self.retry_after_pause(cause).await?;
        Metric::RedisElsewhereTotal.counter(&[]).increment(1);
        Ok(())
    }

    /// Pauses, each time longer; returns `cause` once the time is over.
    pub(in crate::redis) async fn retry_after_pause(&mut self, cause: Error) -> Result<(), Error> {
        if Instant::now() + self.pause > self.deadline {
            return Err(cause);
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(RETRY_PAUSES.1);
        Ok(())
    }
}
