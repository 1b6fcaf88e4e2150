//! The client: what the rooms call, on whichever server holds the partition.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Value;
use secrecy::{ExposeSecret, SecretString};

use super::address::RedisAddress;
use super::args::FencedArgs;
use super::cluster::{self, RedirectSearch, RedisNode, ServerTopology};
use super::fencing::VerificationTracker;
use super::{
    Error, KeyBuilder, KeyScope, LuaScript, MemoryPressure, PartitionEpochs,
    ReplicationRequirement, ScriptArgs, ScriptReply,
};
use crate::failpoint::failpoint;
use crate::partition::Partition;
use crate::telemetry::Metric;

/// How Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisClientSettings {
    /// `redis://`, `redis-sentinel://` or `redis-cluster://`; with TLS `rediss…`.
    pub url: SecretString,
    /// The authorities (PEM) that vouch for a Redis behind TLS; without a file Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// How long a command may take before its caller is told that Redis is unavailable.
    pub command_timeout: Duration,
    /// Serves on a Redis that may forget, too.
    pub may_forget: bool,
    /// What a write must have reached before it is answered.
    pub reach: ReplicationRequirement,
}

/// The client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisClient(pub(super) Arc<RedisClientInner>);

#[derive(Debug)]
pub(super) struct RedisClientInner {
    servers: Arc<ServerTopology>,
    keys: KeyBuilder,
    generations: PartitionEpochs,
    trust: VerificationTracker,
    pressure: MemoryPressure,
    may_forget: bool,
    reach: ReplicationRequirement,
}

impl RedisClient {
    /// Connects to every server that holds a partition, and refuses one that may forget, unless that is allowed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the address is wrong, somebody who is needed does not answer, or a Redis is not as it must be.
    pub async fn connect(settings: &RedisClientSettings, keys: KeyBuilder) -> Result<Self, Error> {
        let address: RedisAddress = settings
            .url
            .expose_secret()
            .parse()
            .map_err(|why| Error::Unavailable(format!("USHER_REDIS_URL {why}")))?;
        let address = address
            .trusting(settings.ca_file.as_deref())
            .map_err(|wrong| Error::Unavailable(format!("USHER_REDIS_CA_FILE: {wrong}")))?;
        let redis = Self(Arc::new(RedisClientInner {
            servers: Arc::new(ServerTopology::new(address, settings.command_timeout, &keys)),
            generations: PartitionEpochs::new(keys.partitions()),
            trust: VerificationTracker::new(keys.partitions()),
            keys,
            pressure: MemoryPressure::default(),
            may_forget: settings.may_forget,
            reach: settings.reach,
        }));
        redis.look_around().await?;
        if let Some(lost) = redis.keys().partitions().all().find(|at| redis.owner(*at).is_none()) {
            return Err(Error::Unavailable(format!(
                "no node of the cluster holds the slot of {lost}"
            )));
        }
        redis.follow_the_owners();
        Ok(redis)
    }

    /// Calls a script once and gives its answer.
    ///
    /// # Errors
    /// [`Error::Recovering`] when the partition does not serve, [`Error::NotLaid`] when the script misses settings, [`Error::NoRoom`] when it is refused
    /// for now; else as in [`Error`].
    pub async fn call(
        &self,
        script: &'static LuaScript,
        place: KeyScope<'_>,
        args: ScriptArgs,
    ) -> Result<ScriptReply, Error> {
        self.0.trust.wait(place.partition).await?;
        let generation =
            self.0.generations.get(place.partition).ok_or(Error::Recovering(place.partition))?;
        if self.0.pressure.refuses(script) {
            return Err(Error::NoRoom("too much waits for MySQL"));
        }
        let labels = [("script", script.name())];
        let started = Instant::now();
        failpoint!("{}.before", script.name());
        let args = args.seal(&generation.to_string());
        // fred's own room is several kilobytes, which every request that may call a script would carry, be it answered from memory.
        let answer = Box::pin(self.run(script, place, generation, &args)).await;
        failpoint!("{}.after", script.name());
        Metric::ScriptSeconds.histogram(&labels).record(started.elapsed());
        let answer = match answer.and_then(ScriptReply::try_from) {
            Ok(ScriptReply::Int(super::constants::STALE_EPOCH)) => {
                tracing::error!(partition = %place.partition, "another generation stands in Redis; the partition stops serving");
                Metric::GenerationsRefusedTotal.counter(&[]).increment(1);
                self.0.generations.close(place.partition);
                self.ask_for_verification();
                Err(Error::Recovering(place.partition))
            }
            Ok(ScriptReply::Int(super::constants::NOT_PUBLISHED)) => Err(Error::NotLaid),
            other => other,
        };
        let outcome = if answer.is_ok() { "ok" } else { "error" };
        Metric::ScriptCallsTotal.counter(&[labels[0], ("outcome", outcome)]).increment(1);
        answer
    }

    /// By the script's SHA-1 and never by its text: a Redis that does not know it was restarted, replaced or flushed, and gets its scripts from the verification that
    /// follows. One that does not hold the partition has not run it either: the call goes to whoever does, once that was verified. What the
    /// script wrote has reached what it must when this returns.
    async fn run(
        &self,
        script: &'static LuaScript,
        place: KeyScope<'_>,
        generation: u64,
        args: &FencedArgs,
    ) -> Result<Value, Error> {
        let partition = place.partition;
        let keys = || self.0.keys.build_all(place, script);
        let mut search = RedirectSearch::within(cluster::CALL);
        loop {
            // First the owner, then the doubt: an owner that is new was in doubt before it could be seen here.
            let owner = self.owner(partition);
            self.0.trust.wait(partition).await?;
            if self.0.generations.get(partition) != Some(generation) {
                return Err(Error::Recovering(partition));
            }
            let Some(node) = owner.filter(|node| self.is_worth_asking(node)) else {
                search
                    .go_on(self, Error::Unavailable("whoever holds the partition is away".into()))
                    .await?;
                continue;
            };
            let (client, session) = (node.client(), self.session(partition));
            match client.evalsha(script.sha1(), keys(), args.values()).await {
                Err(error) if is_unknown_script(&error) => {
                    self.doubt(&node);
                    search.pause(Error::Recovering(partition)).await?;
                }
                Err(error) if self.is_elsewhere(&error) => search.go_on(self, error.into()).await?,
                answer => {
                    let answer = answer?;
                    if self.waits() && script.writes() {
                        self.reached(client, partition, session).await?;
                    }
                    return Ok(answer);
                }
            }
        }
    }

    /// The names of keys and partitions.
    pub fn keys(&self) -> &KeyBuilder {
        &self.0.keys
    }

    /// What is refused while the stores can't keep up.
    pub fn pressure(&self) -> &MemoryPressure {
        &self.0.pressure
    }

    pub(super) fn reach(&self) -> ReplicationRequirement {
        self.0.reach
    }

    /// Which partitions serve, and under which generation.
    pub fn generations(&self) -> &PartitionEpochs {
        &self.0.generations
    }

    /// Whether Redis answers; of several servers, whether any does.
    ///
    /// # Errors
    /// What the last of them said, or that it said nothing.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut outcome = Err(Error::Unavailable("no server is known".into()));
        for node in self.servers().map().nodes() {
            outcome = node.client().ping::<Value>(None).await.map(drop).map_err(Error::from);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Since when nothing was doubted of a partition, while its connections stand. What was read before may be unknown to the Redis of now.
    pub(super) fn session(&self, partition: Partition) -> Option<u64> {
        let up = self.owner(partition).is_some_and(|node| node.is_whole());
        up.then(|| self.0.trust.last(partition))
    }

    /// Whether the Redis that holds a partition is known to be the same as at a moment, which [`RedisClient::moment`] told then.
    pub fn is_unbroken(&self, partition: Partition, since: u64) -> bool {
        self.session(partition).is_some_and(|last| last <= since)
    }

    /// Tells the metrics of the connections.
    pub fn count_connections(&self) {
        self.servers().count_connections();
    }

    /// Closes the connections.
    pub async fn close(&self) {
        for node in self.servers().map().nodes() {
            node.close().await;
        }
    }

    pub(super) fn trust_in(&self) -> &VerificationTracker {
        &self.0.trust
    }

    pub(super) fn servers(&self) -> &Arc<ServerTopology> {
        &self.0.servers
    }

    /// The server that holds a partition, as far as is known.
    pub(super) fn owner(&self, partition: Partition) -> Option<Arc<RedisNode>> {
        self.0.servers.map().owner(partition).cloned()
    }

    pub(super) fn may_forget(&self) -> bool {
        self.0.may_forget
    }
}

/// Whether Redis does not know a script that is called by its SHA-1.
pub(super) fn is_unknown_script(error: &fred::error::Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}
