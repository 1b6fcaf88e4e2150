//! Makes a change of a definition visible on every instance before the change is answered.
//!
//! An instance answers from definitions in memory, so it needs a lease of [`LEASE_TIME`]. To renew
//! the lease it writes the version that it has loaded to Redis and reads the versions of the
//! others. If one of them is newer, it reads MySQL first. The lease counts from the start of that
//! call, on the monotonic clock of the instance.
//!
//! The instance that has made a change loads it, writes the new version to Redis, and answers once
//! every other instance has loaded it too. It waits at most [`LEASE_TIME`]. After that, an instance
//! that has not loaded the change has no lease, because a renewal would have shown it the new
//! version. So an instance that hangs delays a change by that time and never answers from old
//! definitions.
//!
//! Without a lease (at the start, after a hang, while Redis is away) a request waits until the
//! version in MySQL was read after its arrival. Such requests share the reads. An instance that
//! reaches neither store answers 503.
//!
//! Start reading with [`DefinitionSync::ensure_fresh`] and [`DefinitionSync::spread`].

mod layers;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::domain_services::DomainServices;
use crate::mysql::definitions;
use crate::redis::VersionExchange;
use crate::telemetry::Metric;

pub(super) use layers::{DefinitionLeaseLayer, spread_changes};

/// How long an instance may answer from memory after it has compared its version.
const LEASE_TIME: Duration = Duration::from_secs(1);
const RENEWAL_INTERVAL: Duration = Duration::from_millis(100);
/// How often MySQL is asked without a reason: another instance may have died between the commit of
/// a change and its announcement.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often a change looks whether the other instances have loaded it.
const ACKNOWLEDGEMENT_PAUSE: Duration = Duration::from_millis(10);

/// Neither the lease nor MySQL says that the definitions in memory are the current ones.
#[derive(Debug)]
pub(super) struct DefinitionsUnknown;

/// The versions of the definitions: of this instance, and of the others.
pub(super) struct DefinitionSync {
    services: DomainServices,
    /// The name of this process among the instances.
    instance: String,
    started: Instant,
    /// The end of the lease, in milliseconds since `started`.
    lease_end: AtomicU64,
    /// The version that is loaded. The definitions in memory may be newer, never older.
    loaded: AtomicU64,
    /// The highest version of another instance that this one has looked for in MySQL.
    looked_for: AtomicU64,
    /// Whether Redis has had the record of this instance.
    is_registered: AtomicBool,
    /// When Redis had lost that record, in milliseconds since `started`. 0 if never.
    record_lost_at: AtomicU64,
    last_look: Mutex<LastLook>,
}

#[derive(Default)]
struct LastLook {
    started_at: Option<Instant>,
    /// The version that is loaded, if the look succeeded.
    version: Option<u64>,
}

impl DefinitionSync {
    pub(super) fn new(services: DomainServices) -> Self {
        Self {
            services,
            instance: format!("{:016x}", rand::random::<u64>()),
            started: Instant::now(),
            lease_end: AtomicU64::default(),
            loaded: AtomicU64::default(),
            looked_for: AtomicU64::default(),
            is_registered: AtomicBool::default(),
            record_lost_at: AtomicU64::default(),
            last_look: Mutex::default(),
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from((at - self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the definitions in memory contain every change that was answered before this call.
    fn has_lease(&self) -> bool {
        self.millis(Instant::now()) < self.lease_end.load(Ordering::Acquire)
    }

    /// Returns once the definitions in memory contain every change that was answered before this
    /// call.
    async fn ensure_fresh(&self) -> Result<(), DefinitionsUnknown> {
        if self.has_lease() {
            return Ok(());
        }
        self.look().await.map(drop)
    }

    /// Reads the version in MySQL, and the definitions if it has changed. Returns the outcome of a
    /// look that began after this call; concurrent calls share it.
    async fn look(&self) -> Result<u64, DefinitionsUnknown> {
        let asked_at = Instant::now();
        let mut last = self.last_look.lock().await;
        if last.started_at.is_some_and(|started_at| started_at >= asked_at) {
            return last.version.ok_or(DefinitionsUnknown);
        }
        let before = last.version.take();
        last.started_at = Some(Instant::now());
        let version = match definitions::version(&self.services.mysql).await {
            Ok(version) => version,
            Err(error) => {
                tracing::warn!(%error, "reading the version of the definitions failed");
                return Err(DefinitionsUnknown);
            }
        };
        // The version was read before the definitions, so they are never older than the version.
        if before != Some(version) {
            if let Err(error) = self.services.reload().await {
                tracing::warn!(%error, "reading the definitions failed");
                return Err(DefinitionsUnknown);
            }
            self.loaded.store(version, Ordering::Release);
        }
        last.version = Some(version);
        Ok(version)
    }

    async fn exchange(&self, version: u64) -> Result<VersionExchange, crate::redis::Error> {
        let exchange = self.services.redis.exchange_version(&self.instance, version).await?;
        let was_registered = self.is_registered.swap(true, Ordering::AcqRel);
        if exchange.is_new && was_registered {
            self.record_lost_at.store(self.millis(Instant::now()), Ordering::Release);
        }
        Ok(exchange)
    }

    /// Renews the lease, if Redis answers and MySQL does where it is needed.
    async fn renew(&self) {
        // A record may have gone with its instance while this one had no lease.
        if !self.has_lease() && self.look().await.is_err() {
            return;
        }
        loop {
            let started_at = Instant::now();
            let version = self.loaded.load(Ordering::Acquire);
            let exchange = match self.exchange(version).await {
                Ok(exchange) => exchange,
                Err(error) => {
                    tracing::debug!(%error, "the lease on the definitions was not renewed");
                    return;
                }
            };
            let newest = exchange.others.iter().map(|(_, version)| *version).max();
            let newest = newest.unwrap_or_default();
            if newest <= version.max(self.looked_for.load(Ordering::Acquire)) {
                let end = self.millis(started_at + LEASE_TIME);
                self.lease_end.store(end, Ordering::Release);
                return;
            }
            if self.look().await.is_err() {
                return;
            }
            // MySQL may have gone back to an older state: it was asked, so its version counts.
            self.looked_for.store(newest, Ordering::Release);
        }
    }

    /// Returns once every instance has loaded what MySQL has now, or has no lease.
    async fn spread(&self) -> Result<(), DefinitionsUnknown> {
        let version = self.look().await?;
        let announced_until = Instant::now() + LEASE_TIME;
        let mut exchange = loop {
            match self.exchange(version).await {
                Ok(exchange) => break exchange,
                Err(error) if Instant::now() >= announced_until => {
                    tracing::warn!(%error, "a change can't be announced to the other instances");
                    return Err(DefinitionsUnknown);
                }
                Err(_) => tokio::time::sleep(ACKNOWLEDGEMENT_PAUSE).await,
            }
        };
        let deadline = Instant::now() + LEASE_TIME;
        loop {
            let lost_at = self.record_lost_at.load(Ordering::Acquire);
            // Redis may have lost the records of others too. They come back while leases last.
            let until = self.started + Duration::from_millis(lost_at) + LEASE_TIME;
            let incomplete = lost_at > 0 && Instant::now() < until;
            exchange.others.retain(|(_, loaded)| *loaded < version);
            if exchange.others.is_empty() && !incomplete {
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.drop_instances(&exchange.others).await;
                return Ok(());
            }
            tokio::time::sleep(ACKNOWLEDGEMENT_PAUSE).await;
            if let Ok(next) = self.exchange(version).await {
                exchange = next;
            }
        }
    }

    async fn drop_instances(&self, records: &[(String, u64)]) {
        if let Err(error) = store::drop_instances(&self.services.redis, records).await {
            tracing::debug!(%error, "the records of instances without a lease stay in Redis");
        }
    }

    /// Keeps the lease and polls MySQL until `stop` is cancelled, then removes the record of this
    /// instance.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(self.renew_until(&stop), self.poll_until(&stop));
        self.drop_instances(&[(self.instance.clone(), self.loaded.load(Ordering::Acquire))]).await;
    }

    async fn renew_until(&self, stop: &CancellationToken) {
        let mut ticks = ticks(RENEWAL_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.renew().await;
        }
    }

    async fn poll_until(&self, stop: &CancellationToken) {
        let mut ticks = ticks(POLL_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.count_connections();
            let _ = self.look().await;
        }
    }

    fn count_connections(&self) {
        let mysql = &self.services.mysql;
        Metric::MysqlPoolConnections.gauge(&[("state", "open")]).set(f64::from(mysql.size()));
        Metric::MysqlPoolConnections.gauge(&[("state", "idle")]).set(mysql.num_idle() as f64);
        self.services.redis.count_connections();
    }
}

fn ticks(interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
