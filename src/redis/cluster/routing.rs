//! Sends commands to the owner of a partition, and keeps the slot table up to date.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fred::clients::Client;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::node::RedisNode;
use super::redirect::RedirectSearch;
use crate::partition::Partition;
use crate::redis::client::RedisClientInner;
use crate::redis::{Error, RedisClient};
use crate::telemetry::Metric;

/// How often the owners are read when no call meets a redirect.
const TOPOLOGY_REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest pause between two refreshes, however many calls meet redirects.
const MIN_TOPOLOGY_REFRESH_INTERVAL: Duration = Duration::from_millis(25);

impl RedisClient {
    /// Whether a server refused a command without running it, because it does not own the partition
    /// (any more).
    pub(in crate::redis) fn is_redirect(&self, error: &fred::error::Error) -> bool {
        const CODES: [&str; 6] =
            ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN"];
        self.topology().may_move()
            && CODES.iter().any(|code| error.details().split(' ').next() == Some(*code))
    }

    /// Whether a command should be sent to a server. A disconnected server that another one can
    /// replace is skipped; a standalone Redis is always used, because the driver waits for its
    /// reconnection.
    pub(in crate::redis) fn is_usable(&self, node: &Arc<RedisNode>) -> bool {
        node.is_connected() || !self.topology().may_move()
    }

    /// Sends a command to the owner of a partition and follows redirects for at most `patience`.
    pub(in crate::redis) async fn with_owner<T, F>(
        &self,
        partition: Partition,
        patience: Duration,
        send: impl Fn(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, fred::error::Error>>,
    {
        let mut search = RedirectSearch::within(patience);
        loop {
            let cause = match self.owner(partition).filter(|node| self.is_usable(node)) {
                None => Error::Unavailable(format!("the server of {partition} is not connected")),
                Some(node) => match send(node.client().clone()).await {
                    Err(error) if self.is_redirect(&error) => error.into(),
                    outcome => return Ok(outcome?),
                },
            };
            search.retry_after_redirect(self.topology(), cause).await?;
        }
    }

    /// Marks every partition of a server as unverified.
    pub(in crate::redis) fn invalidate(&self, node: &Arc<RedisNode>) {
        self.verification().invalidate(&self.topology().table().partitions_of(node, self.keys()));
    }

    /// Reads the owners and publishes a new table when one changed.
    pub(in crate::redis) async fn refresh_topology(&self) -> Result<(), Error> {
        let Some(change) = self.topology().refresh().await? else { return Ok(()) };
        for node in &change.new {
            self.check_server(node).await?;
            self.watch_reconnections(node);
        }
        let is_first = self.topology().table().nodes().is_empty();
        if !is_first {
            tracing::warn!(
                partitions = ?change.moved,
                "partitions moved to another server and are verified before they serve"
            );
            Metric::RedisPartitionsMovedTotal.counter(&[]).increment(change.moved.len() as u64);
        }
        // Before the new table is visible: no call may reach a new owner that was not verified.
        self.verification().invalidate(&change.moved);
        self.topology().publish(change);
        Ok(())
    }

    /// Refreshes the topology periodically and on request, until the client is dropped.
    pub(in crate::redis) fn watch_topology(&self) {
        if !self.topology().may_move() {
            return;
        }
        let (topology, inner) = (self.topology().clone(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            loop {
                // A request or the interval, whichever comes first.
                let requested = topology.refresh_requested();
                let _ = tokio::time::timeout(TOPOLOGY_REFRESH_INTERVAL, requested).await;
                let Some(redis) = upgrade(&inner) else { return };
                if let Err(error) = redis.refresh_topology().await {
                    tracing::debug!(%error, "could not read which server owns which partition");
                }
                drop(redis);
                sleep(MIN_TOPOLOGY_REFRESH_INTERVAL).await;
            }
        });
    }

    /// Marks the partitions of a server as unverified after each reconnection, until the server is
    /// dropped.
    fn watch_reconnections(&self, node: &Arc<RedisNode>) {
        let mut reconnections = node.reconnections();
        let (inner, node) = (Arc::downgrade(&self.0), Arc::downgrade(node));
        tokio::spawn(async move {
            loop {
                let waits = reconnections.iter_mut().map(|events| Box::pin(events.recv()));
                // A lagged receiver counts as one reconnection.
                let (event, ..) = futures::future::select_all(waits).await;
                match (upgrade(&inner), node.upgrade()) {
                    (Some(redis), Some(node)) if event != Err(RecvError::Closed) => {
                        Metric::RedisReconnectsTotal.counter(&[]).increment(1);
                        redis.invalidate(&node);
                    }
                    _ => return,
                }
            }
        });
    }
}

fn upgrade(inner: &Weak<RedisClientInner>) -> Option<RedisClient> {
    inner.upgrade().map(RedisClient)
}
