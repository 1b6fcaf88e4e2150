//! When a partition is held by another server than it was: how that is noticed, how long it is searched for, and what has to be known first.
//!
//! «Elsewhere» is what a server answers before it runs anything: `MOVED` (another one owns the slot), `ASK` and `TRYAGAIN` (it is on its way),
//! `CLUSTERDOWN` (an owner is being elected), `READONLY` (it is not the primary any more). So it is safe to ask again, for a bounded time. ASK is not followed: half of
//! a partition stands on either side then, and nothing of it runs until it has one owner again and that one was verified.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fred::clients::Client;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::node::RedisNode;
use crate::partition::Partition;
use crate::redis::client::RedisClientInner;
use crate::redis::{Error, RedisClient};
use crate::telemetry::Metric;

/// How long a call searches for whoever holds its partition, and how long what nobody waits for does.
pub(in crate::redis) const CALL: Duration = Duration::from_secs(2);
pub(in crate::redis) const LOOK: Duration = Duration::from_millis(500);
/// Not at all: whoever asks comes again by itself.
pub(in crate::redis) const NOT: Duration = Duration::ZERO;

/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// How often it is looked who holds what although nobody has met anything, and how often at most.
const OVER: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(25);

/// A bounded search.
pub(in crate::redis) struct RedirectSearch {
    until: Instant,
    pause: Duration,
}

impl RedirectSearch {
    pub(in crate::redis) fn within(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, pause: PAUSES.0 }
    }

    /// Has somebody look who holds what, and waits a little; or gives up with the cause.
    pub(in crate::redis) async fn go_on(
        &mut self,
        redis: &RedisClient,
        cause: Error,
    ) -> Result<(), Error> {
        redis.servers().wake();
        self.pause(cause).await?;
        Metric::RedisElsewhereTotal.counter(&[]).increment(1);
        Ok(())
    }

    /// Waits a little longer than the time before, or gives up with the cause.
    pub(in crate::redis) async fn pause(&mut self, cause: Error) -> Result<(), Error> {
        if Instant::now() + self.pause > self.until {
            return Err(cause);
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        Ok(())
    }
}

impl RedisClient {
    /// Whether an answer says that nothing was run because the partition is held elsewhere, or by nobody for now.
    pub(in crate::redis) fn is_elsewhere(&self, error: &fred::error::Error) -> bool {
        const WORDS: [&str; 6] =
            ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN"];
        self.servers().may_move()
            && WORDS.iter().any(|word| error.details().split(' ').next() == Some(*word))
    }

    /// Whether a command should be sent to a server: not where another may soon take its place. One that has no substitute is waited for.
    pub(in crate::redis) fn is_worth_asking(&self, node: &Arc<RedisNode>) -> bool {
        node.answers() || !self.servers().may_move()
    }

    /// Asks whoever holds a partition, also by asking again where nothing was run.
    pub(in crate::redis) async fn on<T, F>(
        &self,
        partition: Partition,
        patience: Duration,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, fred::error::Error>>,
    {
        let mut search = RedirectSearch::within(patience);
        loop {
            let cause = match self.owner(partition).filter(|node| self.is_worth_asking(node)) {
                None => Error::Unavailable("whoever holds the partition is away".into()),
                Some(node) => match ask(node.client().clone()).await {
                    Err(error) if self.is_elsewhere(&error) => error.into(),
                    answer => return Ok(answer?),
                },
            };
            search.go_on(self, cause).await?;
        }
    }

    /// Says that what was verified of a server may not hold any more.
    pub(in crate::redis) fn doubt(&self, node: &Arc<RedisNode>) {
        self.trust_in().doubt(&self.servers().map().held_by(node, self.keys()));
    }

    /// Looks who holds what, and takes it over: a server that was not known is looked at first, and what has changed hands is in doubt before anybody sees it.
    pub(in crate::redis) async fn look_around(&self) -> Result<(), Error> {
        let Some(change) = self.servers().look().await? else { return Ok(()) };
        for node in &change.new {
            self.refuse_unsafe(node).await?;
            self.doubt_reconnections(node);
        }
        let first = self.servers().map().nodes().is_empty();
        if !first {
            tracing::warn!(partitions = ?change.moved, "partitions have changed hands; they are verified before they serve again");
            Metric::RedisPartitionsMovedTotal.counter(&[]).increment(change.moved.len() as u64);
        }
        self.trust_in().doubt(&change.moved);
        self.servers().publish(change);
        Ok(())
    }

    /// Looks again now and then, and when somebody has met a server that holds something no more. Until the client is dropped.
    pub(in crate::redis) fn follow_the_owners(&self) {
        if !self.servers().may_move() {
            return;
        }
        let (servers, inner) = (self.servers().clone(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            loop {
                // Whichever comes first.
                let _ = tokio::time::timeout(OVER, servers.woken()).await;
                let Some(redis) = upgrade(&inner) else { return };
                if let Err(error) = redis.look_around().await {
                    tracing::debug!(%error, "looking who holds which partition");
                }
                drop(redis);
                sleep(AGAIN).await;
            }
        });
    }

    /// Raises a doubt whenever a connection was made again, until the server is let go.
    fn doubt_reconnections(&self, node: &Arc<RedisNode>) {
        let mut reconnections = node.reconnections();
        let (inner, node) = (Arc::downgrade(&self.0), Arc::downgrade(node));
        tokio::spawn(async move {
            loop {
                let waits = reconnections.iter_mut().map(|events| Box::pin(events.recv()));
                // Missed ones count as one.
                let (event, ..) = futures::future::select_all(waits).await;
                match (upgrade(&inner), node.upgrade()) {
                    (Some(redis), Some(node)) if event != Err(RecvError::Closed) => {
                        Metric::RedisReconnectsTotal.counter(&[]).increment(1);
                        redis.doubt(&node);
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
