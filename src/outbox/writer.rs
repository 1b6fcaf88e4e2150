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

use super::apply::ApplyError;
use super::dead_letters;
use super::durability::DurabilitySettings;
use super::flush::{self, FlushFailure, FlushLimits, FlushSummary};
use super::writer_handle::WriterHandle;
use crate::partition::Partition;
use crate::redis::RedisClient;
use crate::telemetry::Metric;

/// How often the outboxes are looked at without a nudge: entries of other instances, of sweeps, and left-overs of a crash.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a stopped partition rests before it is looked at again.
const HALT_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How often the dead letters are counted: `usher dead-letters retry` runs elsewhere.
const DEAD_LETTER_COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// The first and the longest pause before a failed pass is repeated.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// Partitions that share a pass.
const MAX_PARTITIONS_PER_FLUSH: usize = 256;

/// Entries that a pass reads, over all partitions and from each. They bound what it holds in memory before it knows the events.
const MAX_ENTRIES_PER_FLUSH: usize = 4096;
const MAX_ENTRIES_PER_PARTITION: usize = 256;

/// Events that a pass aims at: a transaction of some tenths of a second. They are shared out evenly, so a pass brings 512 of a partition that is hot while 63 others
/// are hardly used; with a quarter of it the writer lagged four times as far behind a rush of purchases.
const TARGET_EVENTS_PER_FLUSH: usize = 32_768;

/// Brings the outboxes of all partitions to MySQL.
pub struct OutboxWriter {
    redis: RedisClient,
    pool: MySqlPool,
    partitions: Vec<Partition>,
    handle: WriterHandle,
    halted: BTreeMap<Partition, WriterHalt>,
    /// Events that an entry held in the last pass: how many entries to read for the next.
    events_per_entry: usize,
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
            handle: WriterHandle::new(redis.clone(), ack),
            partitions: redis.keys().partitions().all().collect(),
            redis,
            pool,
            halted: BTreeMap::new(),
            // A guess on the high side: the first read after a long stop stays small.
            events_per_entry: 32,
            caught_up: Instant::now(),
            newest: None,
        }
    }

    /// The handle by which stores wake this writer.
    pub fn handle(&self) -> WriterHandle {
        self.handle.clone()
    }

    /// Writes until `shutdown`, then once more until nothing is left that this writer can write. That last drain waits for servers that
    /// are away like any other; the caller bounds it by its own deadline, and may drop this future at any point.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut counted = Instant::now() - DEAD_LETTER_COUNT_INTERVAL;
        while !shutdown.is_cancelled() {
            self.flush_until_empty().await;
            if counted.elapsed() >= DEAD_LETTER_COUNT_INTERVAL {
                self.count_dead_letters().await;
                counted = Instant::now();
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.handle.woken() => {}
                () = sleep(POLL_INTERVAL) => {}
            }
        }
        self.flush_until_empty().await;
    }

    /// Passes until nothing is left, or what is left is stopped or another writer's.
    async fn flush_until_empty(&mut self) {
        let mut pause = RETRY_PAUSES.0;
        let mut failed = false;
        loop {
            match self.flush_all().await {
                Ok(progress) => {
                    if failed {
                        tracing::info!("the outbox is being written again");
                    }
                    (failed, pause) = (false, RETRY_PAUSES.0);
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
                    pause = (pause * 2).min(RETRY_PAUSES.1);
                }
            }
        }
    }

    /// One look at all outboxes and a pass for each group that has something. Answers whether anything was written.
    async fn flush_all(&mut self) -> Result<bool, FlushFailure> {
        let lengths = self.redis.outbox_lengths(&self.partitions).await?;
        self.record_lag(lengths.iter().sum());
        let waiting = self.partitions.iter().zip(lengths).filter(|(_, length)| *length > 0);
        let (stopped, busy): (Vec<_>, Vec<_>) = waiting
            .map(|(partition, _)| *partition)
            .partition(|partition| self.halted.contains_key(partition));
        let mut progress = false;
        for group in busy.chunks(MAX_PARTITIONS_PER_FLUSH) {
            progress |= self.flush_group(group).await?;
        }
        for partition in stopped {
            if self.halted.get(&partition).is_some_and(|halt| halt.until <= Instant::now()) {
                progress |= self.flush_group(&[partition]).await?;
            }
        }
        Ok(progress)
    }

    /// A pass over a group. When something in it can't be applied, a pass for each partition, so that one doesn't stop the others; and
    /// one that still can't go on is narrowed down to the entry that is at fault.
    async fn flush_group(&mut self, group: &[Partition]) -> Result<bool, FlushFailure> {
        let outcome = self.flush(group, self.limits(group.len())).await;
        if !is_permanent_failure(&outcome) {
            return self.record_outcome(group, outcome).await;
        }
        let mut progress = false;
        for partition in group {
            let alone = std::slice::from_ref(partition);
            let outcome = self.flush(alone, self.limits(1)).await;
            progress |= if is_permanent_failure(&outcome) {
                self.isolate_failing_entry(*partition).await?
            } else {
                self.record_outcome(alone, outcome).await?
            };
        }
        Ok(progress)
    }

    /// Passes over half as much each time one fails, until it is one entry that fails: that is carried over event by event, and what is refused put
    /// aside. An entry that fails for another reason than what its rows say stops the partition.
    async fn isolate_failing_entry(&mut self, partition: Partition) -> Result<bool, FlushFailure> {
        let (mut entries, mut progress) = (self.limits(1).entries / 2, false);
        for _ in 0..MAX_ENTRIES_PER_PARTITION {
            let bounds = FlushLimits { entries: entries.max(1), events: TARGET_EVENTS_PER_FLUSH };
            let outcome = self.flush(&[partition], bounds).await;
            if is_permanent_failure(&outcome) && entries > 1 {
                entries /= 2;
                continue;
            }
            if outcome.as_ref().is_err_and(FlushFailure::is_row_rejection) {
                return Ok(self.quarantine(partition).await? || progress);
            }
            if !self.record_outcome(&[partition], outcome).await? {
                break;
            }
            progress = true;
        }
        Ok(progress)
    }

    async fn quarantine(&mut self, partition: Partition) -> Result<bool, FlushFailure> {
        let moved = dead_letters::quarantine_entry(&self.redis, &self.pool, &self.handle, partition).await?;
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
    fn limits(&self, partitions: usize) -> FlushLimits {
        let entries = (TARGET_EVENTS_PER_FLUSH / self.events_per_entry.max(1)).min(MAX_ENTRIES_PER_FLUSH) / partitions;
        let entries = u32::try_from(entries.clamp(1, MAX_ENTRIES_PER_PARTITION)).unwrap_or(1);
        FlushLimits { entries, events: TARGET_EVENTS_PER_FLUSH.div_ceil(partitions) }
    }

    async fn flush(
        &self,
        group: &[Partition],
        bounds: FlushLimits,
    ) -> Result<FlushSummary, FlushFailure> {
        let started = Instant::now();
        let pass = flush::flush(&self.redis, &self.pool, &self.handle, group, bounds).await?;
        if pass.entries > 0 {
            Metric::OutboxPassSeconds.histogram(&[]).record(started.elapsed().as_secs_f64());
        }
        Ok(pass)
    }

    /// Takes note of what a pass came to. Answers whether it wrote anything.
    async fn record_outcome(
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
        for partition in &pass.healthy {
            if self.halted.remove(partition).is_some() {
                tracing::info!(%partition, "the outbox of a stopped partition goes on");
            }
        }
        let mut buried = false;
        for (partition, fault) in &pass.errors {
            if fault.is_poison() {
                buried |= self.quarantine(*partition).await?;
            } else {
                self.halt(*partition, fault);
            }
        }
        Metric::OutboxHaltedPartitions.gauge(&[]).set(to_f64(self.halted.len()));
        if pass.entries == 0 {
            return Ok(buried);
        }
        self.events_per_entry = pass.events.div_ceil(pass.entries);
        self.newest = self.newest.max(pass.newest);
        Metric::OutboxPassEntries.histogram(&[]).record(to_f64(pass.entries));
        for (table, rows) in pass.rows {
            Metric::OutboxRowsTotal.counter(&[("table", table)]).increment(rows as u64);
        }
        for (kind, lines) in pass.ledger_rows {
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
        self.halted.insert(partition, WriterHalt { reason, until: Instant::now() + HALT_RETRY_INTERVAL });
        Metric::OutboxHaltedPartitions.gauge(&[]).set(to_f64(self.halted.len()));
    }

    /// The lag is bounded from two sides: what waits came after the outboxes were last empty, and is hardly older than the newest that
    /// was applied. Redis' clock and ours may differ a little; nothing but this gauge compares them.
    #[expect(clippy::disallowed_methods, reason = "a gauge for people")]
    fn record_lag(&mut self, backlog: u64) {
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
fn is_permanent_failure(outcome: &Result<FlushSummary, FlushFailure>) -> bool {
    outcome.as_ref().is_err_and(|failure| !failure.is_transient())
}

/// For gauges, where the 53 bits of a double are plenty.
#[allow(clippy::cast_precision_loss)]
fn to_f64(count: usize) -> f64 {
    count as f64
}
