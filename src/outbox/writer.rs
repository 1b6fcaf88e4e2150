//! The writer's loop: when to pass, what to repeat, and whom to stop.
//!
//! Every instance runs one; row locks deal the partitions out among them. What fails for the moment (a deadlock, a server that is
//! away) is repeated with growing pauses for as long as it takes: entries wait in Redis meanwhile. What a row says against itself is put aside
//! ([`dead_letters`]); what can't be applied for another reason stops its partition, is said once, and is looked at again now and then, so that a repair needs no restart.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::mysql::MySqlPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::ack::DurabilitySettings;
use super::apply::ApplyError;
use super::dead_letters;
use super::nudge::WriterHandle;
use super::pass::{self, FlushFailure, FlushLimits, FlushSummary};
use crate::partition::Partition;
use crate::redis::RedisClient;
use crate::telemetry::Metric;

/// How often the outboxes are looked at without a nudge: entries of other instances, of sweeps, and left-overs of a crash.
const POLL: Duration = Duration::from_millis(100);

/// How long a stopped partition rests before it is looked at again.
const REST: Duration = Duration::from_secs(10);

/// How often the dead letters are counted: `usher dead-letters retry` runs elsewhere.
const COUNT: Duration = Duration::from_secs(10);

/// The first and the longest pause before a failed pass is repeated.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// Partitions that share a pass.
const PARTITIONS: usize = 256;

/// Entries that a pass reads, over all partitions and from each. They bound what it holds in memory before it knows the events.
const ENTRIES: usize = 4096;
const ENTRIES_EACH: usize = 256;

/// Events that a pass aims at: a transaction of some tenths of a second. They are shared out evenly, so a pass brings 512 of a partition that is hot while 63 others
/// are hardly used; with a quarter of it the writer lagged four times as far behind a rush of purchases.
const EVENTS: usize = 32_768;

/// Brings the outboxes of all partitions to MySQL.
pub struct OutboxWriter {
    redis: RedisClient,
    pool: MySqlPool,
    partitions: Vec<Partition>,
    nudge: WriterHandle,
    halted: BTreeMap<Partition, WriterHalt>,
    /// Events that an entry held in the last pass: how many entries to read for the next.
    events_each: usize,
    /// When nothing was left last.
    caught_up: Instant,
    /// When the newest event applied happened.
    newest: Option<DateTime<Utc>>,
}

struct WriterHalt {
    reason: String,
    until: Instant,
}

impl OutboxWriter {
    /// A writer for all partitions. It does nothing until it runs.
    pub fn new(redis: RedisClient, pool: MySqlPool, ack: DurabilitySettings) -> Self {
        Self {
            nudge: WriterHandle::new(redis.clone(), ack),
            partitions: redis.keys().partitions().all().collect(),
            redis,
            pool,
            halted: BTreeMap::new(),
            // A guess on the high side: the first read after a long stop stays small.
            events_each: 32,
            caught_up: Instant::now(),
            newest: None,
        }
    }

    /// The handle by which stores wake this writer.
    pub fn nudge(&self) -> WriterHandle {
        self.nudge.clone()
    }

    /// Writes until `shutdown`, then once more until nothing is left that this writer can write. That last drain waits for servers that
    /// are away like any other; the caller bounds it by its own deadline, and may drop this future at any point.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut counted = Instant::now() - COUNT;
        while !shutdown.is_cancelled() {
            self.drain().await;
            if counted.elapsed() >= COUNT {
                self.count_dead_letters().await;
                counted = Instant::now();
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.nudge.poked() => {}
                () = sleep(POLL) => {}
            }
        }
        self.drain().await;
    }

    /// Passes until nothing is left, or what is left is stopped or another writer's.
    async fn drain(&mut self) {
        let mut pause = PAUSES.0;
        let mut failed = false;
        loop {
            match self.round().await {
                Ok(progress) => {
                    if failed {
                        tracing::info!("the outbox is being written again");
                    }
                    (failed, pause) = (false, PAUSES.0);
                    if !progress {
                        return;
                    }
                }
                Err(failure) => {
                    // Once for each spell: the counter tells how long it lasts.
                    if !failed {
                        tracing::warn!(error = %failure, "a pass of the outbox writer failed; repeating it");
                    }
                    failed = true;
                    Metric::OutboxRetriesTotal.counter(&[]).increment(1);
                    sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// One look at all outboxes and a pass for each group that has something. Answers whether anything was written.
    async fn round(&mut self) -> Result<bool, FlushFailure> {
        let lengths = self.redis.outbox_lengths(&self.partitions).await?;
        self.measure(lengths.iter().sum());
        let waiting = self.partitions.iter().zip(lengths).filter(|(_, length)| *length > 0);
        let (stopped, busy): (Vec<_>, Vec<_>) = waiting
            .map(|(partition, _)| *partition)
            .partition(|partition| self.halted.contains_key(partition));
        let mut progress = false;
        for group in busy.chunks(PARTITIONS) {
            progress |= self.carry(group).await?;
        }
        for partition in stopped {
            if self.halted.get(&partition).is_some_and(|halt| halt.until <= Instant::now()) {
                progress |= self.carry(&[partition]).await?;
            }
        }
        Ok(progress)
    }

    /// A pass over a group. When something in it can't be applied, a pass for each partition, so that one doesn't stop the others; and
    /// one that still can't go on is narrowed down to the entry that is at fault.
    async fn carry(&mut self, group: &[Partition]) -> Result<bool, FlushFailure> {
        let outcome = self.pass(group, self.bounds(group.len())).await;
        if !stuck(&outcome) {
            return self.settle(group, outcome).await;
        }
        let mut progress = false;
        for partition in group {
            let alone = std::slice::from_ref(partition);
            let outcome = self.pass(alone, self.bounds(1)).await;
            progress |= if stuck(&outcome) {
                self.narrow(*partition).await?
            } else {
                self.settle(alone, outcome).await?
            };
        }
        Ok(progress)
    }

    /// Passes over half as much each time one fails, until it is one entry that fails: that is carried over event by event, and what is refused put
    /// aside. An entry that fails for another reason than what its rows say stops the partition.
    async fn narrow(&mut self, partition: Partition) -> Result<bool, FlushFailure> {
        let (mut entries, mut progress) = (self.bounds(1).entries / 2, false);
        for _ in 0..ENTRIES_EACH {
            let bounds = FlushLimits { entries: entries.max(1), events: EVENTS };
            let outcome = self.pass(&[partition], bounds).await;
            if stuck(&outcome) && entries > 1 {
                entries /= 2;
                continue;
            }
            if outcome.as_ref().is_err_and(FlushFailure::blames_a_row) {
                return Ok(self.bury(partition).await? || progress);
            }
            if !self.settle(&[partition], outcome).await? {
                break;
            }
            progress = true;
        }
        Ok(progress)
    }

    async fn bury(&mut self, partition: Partition) -> Result<bool, FlushFailure> {
        let moved = dead_letters::bury(&self.redis, &self.pool, &self.nudge, partition).await?;
        self.count_dead_letters().await;
        Ok(moved)
    }

    /// How many letters wait for somebody. Not worth a failure of the writer.
    async fn count_dead_letters(&self) {
        match dead_letters::count(&self.pool).await {
            Ok(count) => Metric::OutboxDeadLetters
                .gauge(&[])
                .set(to_f64(usize::try_from(count).unwrap_or(0))),
            Err(error) => tracing::debug!(%error, "counting the dead letters"),
        }
    }

    /// As many entries as last time held the events that a pass aims at, shared out evenly.
    fn bounds(&self, partitions: usize) -> FlushLimits {
        let entries = (EVENTS / self.events_each.max(1)).min(ENTRIES) / partitions;
        let entries = u32::try_from(entries.clamp(1, ENTRIES_EACH)).unwrap_or(1);
        FlushLimits { entries, events: EVENTS.div_ceil(partitions) }
    }

    async fn pass(
        &self,
        group: &[Partition],
        bounds: FlushLimits,
    ) -> Result<FlushSummary, FlushFailure> {
        let started = Instant::now();
        let pass = pass::run(&self.redis, &self.pool, &self.nudge, group, bounds).await?;
        if pass.entries > 0 {
            Metric::OutboxPassSeconds.histogram(&[]).record(started.elapsed().as_secs_f64());
        }
        Ok(pass)
    }

    /// Takes note of what a pass came to. Answers whether it wrote anything.
    async fn settle(
        &mut self,
        group: &[Partition],
        outcome: Result<FlushSummary, FlushFailure>,
    ) -> Result<bool, FlushFailure> {
        let pass = match (outcome, group) {
            (Ok(pass), _) => pass,
            (Err(failure), [partition]) if !failure.is_transient() => {
                self.halt(*partition, &failure.into());
                return Ok(false);
            }
            (Err(failure), _) => return Err(failure),
        };
        for partition in &pass.sound {
            if self.halted.remove(partition).is_some() {
                tracing::info!(%partition, "the outbox of a stopped partition goes on");
            }
        }
        let mut buried = false;
        for (partition, fault) in &pass.faults {
            if fault.is_poison() {
                buried |= self.bury(*partition).await?;
            } else {
                self.halt(*partition, fault);
            }
        }
        Metric::OutboxHaltedPartitions.gauge(&[]).set(to_f64(self.halted.len()));
        if pass.entries == 0 {
            return Ok(buried);
        }
        self.events_each = pass.events.div_ceil(pass.entries);
        self.newest = self.newest.max(pass.newest);
        Metric::OutboxPassEntries.histogram(&[]).record(to_f64(pass.entries));
        for (table, rows) in pass.rows {
            Metric::OutboxRowsTotal.counter(&[("table", table)]).increment(rows as u64);
        }
        for (kind, lines) in pass.lines {
            Metric::WalletEntriesTotal.counter(&[("kind", kind)]).increment(lines);
        }
        Ok(true)
    }

    /// Stops a partition. Said once for each reason; a partition found as it was only rests again.
    fn halt(&mut self, partition: Partition, fault: &ApplyError) {
        let reason = fault.to_string();
        if self.halted.get(&partition).is_none_or(|halt| halt.reason != reason) {
            tracing::error!(%partition, %reason, "a partition's outbox is stopped; its facts stay in Redis until this is repaired");
        }
        self.halted.insert(partition, WriterHalt { reason, until: Instant::now() + REST });
        Metric::OutboxHaltedPartitions.gauge(&[]).set(to_f64(self.halted.len()));
    }

    /// The lag is bounded from two sides: what waits came after the outboxes were last empty, and is hardly older than the newest that
    /// was applied. Redis' clock and ours may differ a little; nothing but this gauge compares them.
    #[expect(clippy::disallowed_methods, reason = "a gauge for people")]
    fn measure(&mut self, backlog: u64) {
        if backlog == 0 {
            self.caught_up = Instant::now();
        }
        let waited = self.caught_up.elapsed();
        let behind = self.newest.and_then(|newest| (Utc::now() - newest).to_std().ok());
        let lag = if backlog == 0 {
            Duration::ZERO
        } else {
            behind.map_or(waited, |behind| behind.min(waited))
        };
        Metric::OutboxBacklogEntries
            .gauge(&[])
            .set(to_f64(usize::try_from(backlog).unwrap_or(usize::MAX)));
        Metric::OutboxLagSeconds.gauge(&[]).set(lag.as_secs_f64());
    }
}

/// Whether the same pass would fail again and again.
fn stuck(outcome: &Result<FlushSummary, FlushFailure>) -> bool {
    outcome.as_ref().is_err_and(|failure| !failure.is_transient())
}

/// For gauges, where the 53 bits of a double are plenty.
#[allow(clippy::cast_precision_loss)]
fn to_f64(count: usize) -> f64 {
    count as f64
}
