//! The client that all modules use: calls a script on the server that owns the partition.
//!
//! Start reading at [`RedisClient::call`]. What may refuse a call, in this order: the partition is
//! not verified, it has no epoch, the load limits refuse the script, Redis holds another epoch.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Value;
use secrecy::{ExposeSecret, SecretString};

use super::address::RedisAddress;
use super::args::FencedArgs;
use super::cluster::{self, RedirectSearch, RedisNode, ServerTopology};
use super::fencing::VerificationTracker;
use super::{
    Error, KeyBuilder, KeyScope, LuaScript, MemoryPressure, PartitionEpochs, ScriptArgs,
    ScriptReply,
};
use crate::failpoint::{self, failpoint};
use crate::partition::Partition;
use crate::telemetry::Metric;

/// How Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisClientSettings {
    /// `redis://`, `redis-sentinel://` or `redis-cluster://`; with TLS `rediss…`.
    pub url: SecretString,
    /// The certificate authorities (PEM) for TLS; without a file those of Mozilla.
    pub ca_file: Option<PathBuf>,
    /// How long a command may take before it fails with [`Error::Unavailable`].
    pub command_timeout: Duration,
    /// Whether to accept a Redis that evicts keys or keeps no append-only file.
    pub may_forget: bool,
    /// What a write must reach before it is answered.
    pub replication: ReplicationRequirement,
    /// Which outbox entries are kept after MySQL has them.
    pub kept_entries: KeptEntries,
}

/// Which outbox entries are kept after MySQL has them, so that a MySQL that goes back can be
/// written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptEntries {
    pub period: Duration,
    /// Of one partition.
    pub bytes: u64,
}

/// What a write must reach before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicationRequirement {
    /// The number of replicas.
    pub replicas: u32,
    /// Whether the append-only file must be on disk, on the primary and on that many replicas.
    pub aof: bool,
}

/// The client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisClient(pub(super) Arc<RedisClientInner>);

#[derive(Debug)]
pub(super) struct RedisClientInner {
    topology: Arc<ServerTopology>,
    keys: KeyBuilder,
    epochs: PartitionEpochs,
    verification: VerificationTracker,
    pressure: MemoryPressure,
    may_forget: bool,
    replication: ReplicationRequirement,
    kept_entries: KeptEntries,
}

impl RedisClient {
    /// Connects to every server that owns a partition and checks its configuration.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the address is invalid, a server does not reply, or a server is
    /// misconfigured.
    pub async fn connect(settings: &RedisClientSettings, keys: KeyBuilder) -> Result<Self, Error> {
        let address: RedisAddress = settings
            .url
            .expose_secret()
            .parse()
            .map_err(|cause| Error::Unavailable(format!("USHER_REDIS_URL {cause}")))?;
        let address = address
            .trusting(settings.ca_file.as_deref())
            .map_err(|error| Error::Unavailable(format!("USHER_REDIS_CA_FILE: {error}")))?;
        let redis = Self(Arc::new(RedisClientInner {
            topology: Arc::new(ServerTopology::new(address, settings.command_timeout, &keys)),
            epochs: PartitionEpochs::new(keys.partitions()),
            verification: VerificationTracker::new(keys.partitions()),
            keys,
            pressure: MemoryPressure::default(),
            may_forget: settings.may_forget,
            replication: settings.replication,
            kept_entries: settings.kept_entries,
        }));
        redis.refresh_topology().await?;
        if let Some(unowned) = redis.keys().partitions().all().find(|at| redis.owner(*at).is_none())
        {
            return Err(Error::Unavailable(format!(
                "no node of the cluster owns the hash slot of {unowned}"
            )));
        }
        redis.watch_topology();
        Ok(redis)
    }

    /// Calls a script once and returns its reply.
    ///
    /// # Errors
    /// [`Error::Recovering`] when the partition does not serve, [`Error::NotPublished`] when the
    /// script misses settings, [`Error::OutOfCapacity`] when the load limits refuse it.
    pub async fn call(
        &self,
        script: &'static LuaScript,
        scope: KeyScope<'_>,
        args: ScriptArgs,
    ) -> Result<ScriptReply, Error> {
        self.0.verification.wait_until_verified(scope.partition).await?;
        let epoch = self.0.epochs.get(scope.partition).ok_or(Error::Recovering(scope.partition))?;
        if self.0.pressure.refuses(script) {
            return Err(Error::OutOfCapacity("too many events wait for MySQL"));
        }
        let labels = [("script", script.name())];
        let started = Instant::now();
        failpoint!("{}.before", script.name());
        let args = args.seal(&epoch.to_string());
        // Boxed: the driver's future is several kilobytes, and every request that may call a script
        // would carry them, even one that is answered from memory.
        let reply = Box::pin(self.evaluate(script, scope, epoch, &args)).await;
        failpoint!("{}.after", script.name());
        Metric::ScriptSeconds.histogram(&labels).record(started.elapsed());
        let reply = match reply.and_then(ScriptReply::try_from) {
            Ok(ScriptReply::Int(super::constants::STALE_EPOCH)) => {
                tracing::error!(
                    partition = %scope.partition,
                    "Redis holds another epoch than the verified one; the partition stops serving"
                );
                Metric::GenerationsRefusedTotal.counter(&[]).increment(1);
                self.0.epochs.close(scope.partition);
                self.request_verification();
                Err(Error::Recovering(scope.partition))
            }
            Ok(ScriptReply::Int(super::constants::NOT_PUBLISHED)) => Err(Error::NotPublished),
            other => other,
        };
        let outcome = if reply.is_ok() { "ok" } else { "error" };
        Metric::ScriptCallsTotal.counter(&[labels[0], ("outcome", outcome)]).increment(1);
        reply
    }

    /// Calls a script under the fence that the caller read, whether or not the partition serves.
    /// When Redis holds another fence, nothing is changed.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn call_under_fence(
        &self,
        script: &'static LuaScript,
        scope: KeyScope<'_>,
        fence: &str,
        args: ScriptArgs,
    ) -> Result<(), Error> {
        let (keys, args) = (self.0.keys.build_all(scope, script), args.seal(fence));
        let call = |client: Client| {
            let (keys, args) = (keys.clone(), args.values());
            async move { client.evalsha::<Value, _, _, _>(script.sha1(), keys, args).await }
        };
        self.with_owner(scope.partition, cluster::NO_PATIENCE, call).await.map(drop)
    }

    /// Which entries of a partition are kept now: none while Redis is short of memory.
    pub fn kept_entries(&self) -> KeptEntries {
        if self.0.pressure.is_memory_short() { KeptEntries::default() } else { self.0.kept_entries }
    }

    /// Runs a script on the owner of the partition and waits for the replication of what it wrote.
    ///
    /// The script is called by its SHA-1 and never sent as text. A Redis that does not know it was
    /// restarted, replaced or flushed, and only a verification loads its scripts
    /// (`redis/fencing/verification.rs`).
    async fn evaluate(
        &self,
        script: &'static LuaScript,
        scope: KeyScope<'_>,
        epoch: u64,
        args: &FencedArgs,
    ) -> Result<Value, Error> {
        let partition = scope.partition;
        let keys = || self.0.keys.build_all(scope, script);
        let mut search = RedirectSearch::within(cluster::CALL_PATIENCE);
        loop {
            // The owner before the verification: a new owner was invalidated before it became
            // visible here.
            let owner = self.owner(partition);
            self.0.verification.wait_until_verified(partition).await?;
            if self.0.epochs.get(partition) != Some(epoch) {
                return Err(Error::Recovering(partition));
            }
            let Some(node) = owner.filter(|node| self.is_usable(node)) else {
                search
                    .retry_after_redirect(
                        self.topology(),
                        Error::Unavailable(format!("the server of {partition} is not connected")),
                    )
                    .await?;
                continue;
            };
            let (client, session) = (node.client(), self.session(partition));
            match client.evalsha(script.sha1(), keys(), args.values()).await {
                Err(error) if is_unknown_script(&error) => {
                    self.invalidate(&node);
                    search.retry_after_pause(Error::Recovering(partition)).await?;
                }
                Err(error) if self.is_redirect(&error) => {
                    search.retry_after_redirect(self.topology(), error.into()).await?
                }
                reply => {
                    let reply = reply?;
                    if self.requires_replication() && script.writes() {
                        self.wait_for_replication(client, partition, session).await?;
                    }
                    return Ok(reply);
                }
            }
        }
    }

    /// Whether one server has all partitions, so that a script can use keys of several.
    ///
    /// Such a script is fenced by its scope's partition. It must compare the epochs of the others.
    pub fn is_one_server(&self) -> bool {
        !self.topology().is_cluster() && !failpoint::is_set("redis.many_servers")
    }

    pub fn keys(&self) -> &KeyBuilder {
        &self.0.keys
    }

    /// The load level of this instance, and which scripts it refuses.
    pub fn pressure(&self) -> &MemoryPressure {
        &self.0.pressure
    }

    pub(super) fn replication(&self) -> ReplicationRequirement {
        self.0.replication
    }

    /// Which partitions serve, and under which epoch.
    pub fn epochs(&self) -> &PartitionEpochs {
        &self.0.epochs
    }

    /// Whether at least one server answers.
    ///
    /// # Errors
    /// That of the last server.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut outcome = Err(Error::Unavailable("no server is known".into()));
        for node in self.topology().table().nodes() {
            outcome = node.client().ping::<Value>(None).await.map(drop).map_err(Error::from);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The number of the partition's last invalidation; `None` while its server is not fully
    /// connected. What was read under an earlier number may be unknown to the current Redis.
    pub(super) fn session(&self, partition: Partition) -> Option<u64> {
        let is_up = self.owner(partition).is_some_and(|node| node.is_fully_connected());
        is_up.then(|| self.0.verification.last_invalidation(partition))
    }

    /// Whether the Redis that owns a partition is still the one of `since`, a value of
    /// [`RedisClient::session_start`].
    pub fn is_unchanged_since(&self, partition: Partition, since: u64) -> bool {
        self.session(partition).is_some_and(|last| last <= since)
    }

    pub fn count_connections(&self) {
        self.topology().count_connections();
    }

    pub async fn close(&self) {
        for node in self.topology().table().nodes() {
            node.close().await;
        }
    }

    pub(super) fn verification(&self) -> &VerificationTracker {
        &self.0.verification
    }

    pub(super) fn topology(&self) -> &Arc<ServerTopology> {
        &self.0.topology
    }

    pub(super) fn owner(&self, partition: Partition) -> Option<Arc<RedisNode>> {
        self.0.topology.table().owner(partition).cloned()
    }

    pub(super) fn may_forget(&self) -> bool {
        self.0.may_forget
    }
}

/// The verification of partitions; see `redis/fencing/verification.rs`.
impl RedisClient {
    /// Wakes the verifier. Calls go on meanwhile.
    pub fn request_verification(&self) {
        self.0.verification.request();
    }

    pub fn is_verified(&self, partition: Partition) -> bool {
        self.0.verification.is_verified(partition)
    }

    /// The number of invalidations so far. A verification reads it first and passes it to
    /// [`RedisClient::mark_verified`].
    pub fn invalidation_count(&self) -> u64 {
        self.0.verification.invalidation_count()
    }

    /// Marks the start of a call whose answer must be durable; see
    /// [`RedisClient::is_unchanged_since`]. Returns 0 (never valid) while the standalone Redis is
    /// disconnected.
    pub fn session_start(&self) -> u64 {
        let topology = self.topology();
        let verified = topology.may_move()
            || topology.table().nodes().iter().all(|node| node.is_fully_connected());
        if verified { self.invalidation_count() } else { 0 }
    }

    /// Records that partitions were verified after `invalidations`. Later invalidations stay in
    /// force.
    pub fn mark_verified(&self, partitions: &[Partition], invalidations: u64) {
        self.0.verification.mark_verified(partitions, invalidations);
    }

    /// Waits until a verification is requested. Several requests count as one.
    pub async fn verification_requested(&self) {
        self.0.verification.requested().await;
    }
}

/// Whether Redis refused a script's SHA-1 because it does not know the script.
pub(super) fn is_unknown_script(error: &fred::error::Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}
