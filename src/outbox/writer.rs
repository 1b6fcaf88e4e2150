//! The writer's loop: when to flush, what to repeat, and which partition to stop.
//!
//! Every instance runs one writer; row locks distribute the partitions among them. A temporary
//! failure (a deadlock, an unavailable server) is repeated with growing pauses without a limit,
//! while the entries wait in Redis. An event whose row MySQL rejects is quarantined
//! ([`dead_letters`]). Any other permanent failure stops its partition: it is logged once and
//! retried every [`HALT_RETRY_INTERVAL`], so that a repair needs no restart.

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
use super::store::{WrittenOutbox, record_written};
use super::writer_handle::WriterHandle;
use crate::mysql::checkpoint;
use crate::partition::Partition;
use crate::redis::RedisClient;
use crate::telemetry::Metric;

/// How often the outboxes are read without a wake-up: for entries of other instances, of sweeps,
/// and of a crashed writer.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How often a stopped partition is retried.
const HALT_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How often the dead letters are counted, which `usher dead-letters retry` applies in another
/// process, and quiet outboxes are trimmed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The first and the longest pause before a failed flush is repeated.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// Partitions in one transaction.
const MAX_PARTITIONS_PER_FLUSH: usize = 256;

/// Entries that a flush reads in total. This and the next limit bound its memory before the entries
/// are decoded.
const MAX_ENTRIES_PER_FLUSH: usize = 4096;
/// Entries that a flush reads from one partition.
const MAX_ENTRIES_PER_PARTITION: usize = 256;

/// Events that a flush aims at: a transaction of a few tenths of a second. They are divided evenly
/// among the partitions, so a flush takes 512 events of one busy partition of 64. With a quarter of
/// this the writer fell four times as far behind under a burst of purchases.
const TARGET_EVENTS_PER_FLUSH: usize = 32_768;

/// Writes the outboxes of all partitions to MySQL.
pub struct OutboxWriter {
    redis: RedisClient,
    pool: MySqlPool,
    partitions: Vec<Partition>,
    handle: WriterHandle,
    halted: BTreeMap<Partition, WriterHalt>,
    /// Average events per entry in the last flush; determines how many entries the next one reads.
    events_per_entry: usize,
    /// When the outboxes were last empty.
    caught_up: Instant,
    /// The time of the newest event that was applied.
    newest: Option<DateTime<Utc>>,
}

struct WriterHalt {
    reason: String,
    until: Instant,
}

impl OutboxWriter {
    /// Creates a writer for all partitions; [`OutboxWriter::run`] starts it.
    pub fn new(redis: RedisClient, pool: MySqlPool, ack: DurabilitySettings) -> Self {
        Self {
            handle: WriterHandle::new(redis.clone(), ack),
            partitions: redis.keys().partitions().all().collect(),
            redis,
            pool,
            halted: BTreeMap::new(),
            // A high estimate, so that the first flush after a long stop stays small.
            events_per_entry: 32,
            caught_up: Instant::now(),
            newest: None,
        }
    }

    pub fn handle(&self) -> WriterHandle {
        self.handle.clone()
    }

    /// Writes until `shutdown`, then once more until nothing is left that this writer can write.
    /// The last round also waits for unavailable servers; the caller limits it with its own
    /// deadline and may drop this future at any point.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut kept_up = Instant::now() - UPKEEP_INTERVAL;
        while !shutdown.is_cancelled() {
            self.flush_until_empty().await;
            if kept_up.elapsed() >= UPKEEP_INTERVAL {
                self.count_dead_letters().await;
                self.trim_quiet_outboxes().await;
                kept_up = Instant::now();
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.handle.woken() => {}
                () = sleep(POLL_INTERVAL) => {}
            }
        }
        self.flush_until_empty().await;
    }

    /// Flushes until the outboxes are empty, or what is left belongs to stopped partitions or to
    /// another writer.
    async fn flush_until_empty(&mut self) {
        let mut pause = RETRY_PAUSES.0;
        let mut failed = false;
        loop {
            match self.flush_all().await {
                Ok(progress) => {
                    if failed {
                        tracing::info!("the outbox is written to MySQL again");
                    }
                    (failed, pause) = (false, RETRY_PAUSES.0);
                    if !progress {
                        return;
                    }
                }
                Err(failure) => {
                    // Log the first failure only; the counter shows how long it lasts.
                    if !failed {
                        tracing::warn!(error = %failure, "could not write the outbox to MySQL; \
                                                          trying again");
                    }
                    failed = true;
                    Metric::OutboxRetriesTotal.counter(&[]).increment(1);
                    sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                    pause = (pause * 2).min(RETRY_PAUSES.1);
                }
            }
        }
    }

    /// Flushes every outbox that has entries, in groups. Returns whether anything was written.
    async fn flush_all(&mut self) -> Result<bool, FlushFailure> {
        let backlogs = self.redis.outbox_backlogs(&self.partitions).await?;
        self.record_lag(backlogs.iter().sum());
        let waiting = self.partitions.iter().zip(backlogs).filter(|(_, backlog)| *backlog > 0);
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

    /// Flushes a group of partitions. When that fails permanently, each partition is flushed alone,
    /// so that one does not stop the others; a partition that still fails is narrowed down to the
    /// failing entry.
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

    /// Halves the number of entries after each failure until a single entry fails. That entry is
    /// applied event by event, and its rejected events are quarantined. An entry that fails for
    /// another reason stops the partition.
    async fn isolate_failing_entry(&mut self, partition: Partition) -> Result<bool, FlushFailure> {
        let (mut entries, mut progress) = (self.limits(1).entries / 2, false);
        for _ in 0..MAX_ENTRIES_PER_PARTITION {
            let limits = FlushLimits { entries: entries.max(1), events: TARGET_EVENTS_PER_FLUSH };
            let outcome = self.flush(&[partition], limits).await;
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
        let moved =
            dead_letters::quarantine_entry(&self.redis, &self.pool, &self.handle, partition)
                .await?;
        self.count_dead_letters().await;
        Ok(moved)
    }

    /// Updates the gauge of dead letters. An error is only logged: it must not stop the writer.
    async fn count_dead_letters(&self) {
        match dead_letters::count_letters(&self.pool).await {
            Ok(count) => Metric::OutboxDeadLetters
                .gauge(&[])
                .set(to_f64(usize::try_from(count).unwrap_or(0))),
            Err(error) => tracing::debug!(%error, "could not count the dead letters"),
        }
    }

    /// Trims what a flush would trim, in partitions without new entries. Only by checkpoints that
    /// MySQL has just returned: while MySQL does not answer, nothing is trimmed, because it may
    /// come back with less.
    async fn trim_quiet_outboxes(&self) {
        let partitions = self.redis.keys().partitions();
        let Ok(checkpoints) = checkpoint::load_all(&self.pool, partitions).await else { return };
        let Ok(kept) = flush::keep_matching_epochs(&self.redis, checkpoints).await else { return };
        let written: Vec<_> = kept
            .iter()
            .filter(|(checkpoint, marks)| checkpoint.n == marks.written)
            .map(|(checkpoint, marks)| WrittenOutbox {
                partition: checkpoint.partition,
                fence: marks.fence,
                through: checkpoint.n,
                bytes: 0,
            })
            .collect();
        record_written(&self.redis, &written).await;
    }

    /// The number of entries that probably hold [`TARGET_EVENTS_PER_FLUSH`] events, divided evenly.
    fn limits(&self, partitions: usize) -> FlushLimits {
        let entries = (TARGET_EVENTS_PER_FLUSH / self.events_per_entry.max(1))
            .min(MAX_ENTRIES_PER_FLUSH)
            / partitions;
        let entries = u32::try_from(entries.clamp(1, MAX_ENTRIES_PER_PARTITION)).unwrap_or(1);
        FlushLimits { entries, events: TARGET_EVENTS_PER_FLUSH.div_ceil(partitions) }
    }

    async fn flush(
        &self,
        group: &[Partition],
        limits: FlushLimits,
    ) -> Result<FlushSummary, FlushFailure> {
        let started = Instant::now();
        let summary = flush::flush(&self.redis, &self.pool, &self.handle, group, limits).await?;
        if summary.entries > 0 {
            Metric::OutboxPassSeconds.histogram(&[]).record(started.elapsed().as_secs_f64());
        }
        Ok(summary)
    }

    /// Records the outcome of a flush: stops, resumes or quarantines. Returns whether anything was
    /// written.
    async fn record_outcome(
        &mut self,
        group: &[Partition],
        outcome: Result<FlushSummary, FlushFailure>,
    ) -> Result<bool, FlushFailure> {
        let summary = match (outcome, group) {
            (Ok(summary), _) => summary,
            (Err(failure), [partition]) if !failure.is_transient() => {
                self.halt(*partition, &failure.into());
                return Ok(false);
            }
            (Err(failure), _) => return Err(failure),
        };
        for partition in &summary.healthy {
            if self.halted.remove(partition).is_some() {
                tracing::info!(%partition, "the outbox of a stopped partition is written again");
            }
        }
        let mut quarantined = false;
        for (partition, error) in &summary.errors {
            if error.is_permanent() {
                quarantined |= self.quarantine(*partition).await?;
            } else {
                self.halt(*partition, error);
            }
        }
        Metric::OutboxHaltedPartitions.gauge(&[]).set(to_f64(self.halted.len()));
        if summary.entries == 0 {
            return Ok(quarantined);
        }
        self.events_per_entry = summary.events.div_ceil(summary.entries);
        self.newest = self.newest.max(summary.newest);
        Metric::OutboxPassEntries.histogram(&[]).record(to_f64(summary.entries));
        for (table, rows) in summary.rows {
            Metric::OutboxRowsTotal.counter(&[("table", table)]).increment(rows as u64);
        }
        for (kind, rows) in summary.ledger_rows {
            Metric::WalletEntriesTotal.counter(&[("kind", kind)]).increment(rows);
        }
        Ok(true)
    }

    /// Stops a partition until the next retry. Logs each reason once.
    fn halt(&mut self, partition: Partition, error: &ApplyError) {
        let reason = error.to_string();
        if self.halted.get(&partition).is_none_or(|halt| halt.reason != reason) {
            tracing::error!(
                %partition,
                %reason,
                "stopped writing a partition's outbox to MySQL; its events stay in Redis"
            );
        }
        self.halted
            .insert(partition, WriterHalt { reason, until: Instant::now() + HALT_RETRY_INTERVAL });
        Metric::OutboxHaltedPartitions.gauge(&[]).set(to_f64(self.halted.len()));
    }

    /// Estimates the lag. It is at most the time since the outboxes were last empty, and at most
    /// the age of the newest applied event. The second bound compares the clocks of Redis and of
    /// this host, which is accurate enough for a gauge.
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

/// Whether repeating the flush would fail as well.
fn is_permanent_failure(outcome: &Result<FlushSummary, FlushFailure>) -> bool {
    outcome.as_ref().is_err_and(|failure| !failure.is_transient())
}

/// For gauges, where 53 bits are enough.
#[allow(clippy::cast_precision_loss)]
fn to_f64(count: usize) -> f64 {
    count as f64
}
