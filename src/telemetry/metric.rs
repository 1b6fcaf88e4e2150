//! The list of all metrics.
//!
//! Names are `usher_…` in base units (seconds, bytes), and counters end with `_total`. Labels have
//! few values: routes and not paths; queues and scripts, never users.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Unit};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Seconds of a request: from 0.5 ms to the default request timeout.
const REQUEST_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds of a script call or transaction, from 0.1 ms.
const STORE_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Requests per script call.
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Outbox entries per flush.
const FLUSH_ENTRIES: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];
/// Seconds of waiting in a queue, up to four hours.
const WAIT_SECONDS: &[f64] =
    &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0];
/// Seconds of timer delay.
const DELAY_SECONDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
/// Seconds of restoring a partition.
const RECOVERY_SECONDS: &[f64] = &[0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0];
/// For counters and gauges.
const NONE: &[f64] = &[];

macro_rules! metrics {
    ($(
        $variant:ident $name:literal $kind:ident $unit:ident [$($label:literal),*] $buckets:ident
        $description:literal;
    )*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric {
            $(#[doc = $description] $variant,)*
        }

        impl Metric {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub const fn kind(self) -> MetricKind {
                match self { $(Self::$variant => MetricKind::$kind,)* }
            }

            pub const fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }

            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)* }
            }

            /// The upper bounds of the buckets. Empty except for histograms.
            pub const fn buckets(self) -> &'static [f64] {
                match self { $(Self::$variant => $buckets,)* }
            }

            /// The help text in `/metrics`.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }
        }
    };
}

metrics! {
    HttpRequestsTotal "usher_http_requests_total" Counter Count ["route", "method", "status"] NONE
        "Requests by route, method and status.";
    HttpRequestSeconds "usher_http_request_seconds" Histogram Seconds ["route", "method"]
        REQUEST_SECONDS
        "Time from the request headers to the start of the response.";
    HttpInFlight "usher_http_in_flight" Gauge Count [] NONE
        "Requests in flight.";
    Connections "usher_connections" Gauge Count [] NONE
        "Open connections of both listeners.";
    ConnectionsRefusedTotal "usher_connections_refused_total" Counter Count ["reason"] NONE
        "Connections refused because their address has too many, the instance has too many, or \
         the TLS handshake failed.";
    Streams "usher_streams" Gauge Count [] NONE
        "Open event streams.";
    StreamsRefusedTotal "usher_streams_refused_total" Counter Count ["limit"] NONE
        "Event streams refused because the instance (total) or the user has its maximum.";
    SeatStreamSources "usher_seat_stream_sources" Gauge Count [] NONE
        "Schedules whose seats this instance reads for event streams.";
    SeatStreamChangesTotal "usher_seat_stream_changes_total" Counter Count [] NONE
        "Changed seats that were sent to event streams, counted once for all streams.";
    SeatStreamResendsTotal "usher_seat_stream_resends_total" Counter Count [] NONE
        "Whole maps that were sent again: the client was too slow, or the layout has changed.";
    RateLimitedTotal "usher_rate_limited_total" Counter Count ["by", "kind"] NONE
        "Requests refused by a rate limit: per user, per address or in total.";
    LimitedCallers "usher_limited_callers" Gauge Count ["by"] NONE
        "Users and addresses with a rate limit bucket that is not full.";
    ShedRequestsTotal "usher_shed_requests_total" Counter Count ["kind"] NONE
        "Requests refused because too many were in flight.";
    ChallengesTotal "usher_challenges_total" Counter Count ["outcome"] NONE
        "Joins that required a bot challenge, by outcome.";
    ClockDifferenceSeconds "usher_clock_difference_seconds" Gauge Seconds [] NONE
        "How far MySQL's clock is ahead of Redis' clock. Negative if it is behind.";
    ScriptCallsTotal "usher_script_calls_total" Counter Count ["script", "outcome"] NONE
        "Calls of Lua scripts in Redis, by outcome.";
    ScriptSeconds "usher_script_seconds" Histogram Seconds ["script"] STORE_SECONDS
        "Time of one script call, including the network.";
    CoalescerBatchSize "usher_coalescer_batch_size" Histogram Count ["script"] BATCH_SIZES
        "Requests per script call.";
    CoalescerWaiting "usher_coalescer_waiting" Gauge Count ["script"] NONE
        "Requests that wait for the next batch.";
    CoalescerInFlight "usher_coalescer_in_flight" Gauge Count ["script"] NONE
        "Batches in flight.";
    CoalescerRefusedTotal "usher_coalescer_refused_total" Counter Count ["script"] NONE
        "Requests refused because the coalescer was full.";
    QueueWaiting "usher_queue_waiting" Gauge Count ["queue"] NONE
        "Users who wait.";
    QueueAbandonedTotal "usher_queue_abandoned_total" Counter Count ["queue"] NONE
        "Waiting users who lost their places because they neither polled nor streamed.";
    QueueActive "usher_queue_active" Gauge Count ["queue"] NONE
        "Users who are admitted.";
    QueueAdmittedTotal "usher_queue_admitted_total" Counter Count ["queue"] NONE
        "Users who became active, by joining or by promotion.";
    QueueNoShowsTotal "usher_queue_no_shows_total" Counter Count ["queue"] NONE
        "Promoted users who did not return in time.";
    QueuePromotedTotal "usher_queue_promoted_total" Counter Count ["queue"] NONE
        "Users promoted from waiting to active.";
    QueueWaitSeconds "usher_queue_wait_seconds" Histogram Seconds ["queue"] WAIT_SECONDS
        "Time from joining to admission. It is 0 for users who were admitted when they joined, \
         and up to 0.25 s too short for others. Users who joined before the start of the \
         instance, or in a lottery, are not included.";
    SeatsForSale "usher_seats_for_sale" Gauge Count ["queue"] NONE
        "Seats of all schedules of the queue's concerts, including sold seats.";
    SeatsSold "usher_seats_sold" Gauge Count ["queue"] NONE
        "Sold seats of all schedules of the queue's concerts.";
    ReservationsHeld "usher_reservations_held" Gauge Count ["queue"] NONE
        "Open holds, including those with a payment in progress.";
    HoldsTotal "usher_holds_total" Counter Count ["outcome"] NONE
        "Attempts to hold seats, by outcome.";
    PaymentsTotal "usher_payments_total" Counter Count ["status"] NONE
        "Finished payments, by status.";
    PaymentsPendingOldestSeconds "usher_payments_pending_oldest_seconds" Gauge Seconds [] NONE
        "Age of the oldest unfinished payment. An external payment is late after its time.";
    ExternalConfirmationsTotal "usher_external_confirmations_total" Counter Count ["outcome"] NONE
        "Confirmations of external payments, by outcome.";
    RefundsDue "usher_refunds_due" Gauge Count [] NONE
        "Payments whose provider has to pay money back; see `GET /admin/refunds-due`.";
    RefundsDueOldestSeconds "usher_refunds_due_oldest_seconds" Gauge Seconds [] NONE
        "For how long the oldest refund of a provider has been due.";
    WebhookAttemptsTotal "usher_webhook_attempts_total" Counter Count ["webhook", "outcome"] NONE
        "Attempts to deliver an event to a webhook, by outcome.";
    WebhookLagSeconds "usher_webhook_lag_seconds" Gauge Seconds ["webhook"] NONE
        "Age of the oldest event that a webhook still has to get, on the instance that delivers.";
    WebhookFailingSeconds "usher_webhook_failing_seconds" Gauge Seconds ["webhook"] NONE
        "For how long every attempt of a webhook has failed.";
    WebhooksDisabled "usher_webhooks_disabled" Gauge Count [] NONE
        "Webhooks that Usher has disabled because they failed for three days, answered 410, or \
         their cursor expired.";
    ReservationsExpiredTotal "usher_reservations_expired_total" Counter Count [] NONE
        "Holds that expired and were swept.";
    WalletEntriesTotal "usher_wallet_entries_total" Counter Count ["kind"] NONE
        "Entries of wallet ledgers, by kind.";
    CouponQuota "usher_coupon_quota" Gauge Count ["coupon"] NONE
        "Total quantity of a coupon. A coupon without a limit has no series.";
    CouponIssued "usher_coupon_issued" Gauge Count ["coupon"] NONE
        "Issued coupons.";
    CouponIssuesTotal "usher_coupon_issues_total" Counter Count ["outcome"] NONE
        "Requests for a coupon, by outcome.";
    RewardClaimsTotal "usher_reward_claims_total" Counter Count ["outcome"] NONE
        "Attempts to claim a reward, by outcome.";
    OutboxBacklogEntries "usher_outbox_backlog_entries" Gauge Count [] NONE
        "Outbox entries that MySQL does not have yet.";
    OutboxLagSeconds "usher_outbox_lag_seconds" Gauge Seconds [] NONE
        "Age of the oldest outbox entry that MySQL does not have; 0 if there is none.";
    OutboxPassEntries "usher_outbox_pass_entries" Histogram Count [] FLUSH_ENTRIES
        "Outbox entries per flush.";
    OutboxPassSeconds "usher_outbox_pass_seconds" Histogram Seconds [] STORE_SECONDS
        "Time of one flush.";
    OutboxRowsTotal "usher_outbox_rows_total" Counter Count ["table"] NONE
        "Rows that the outbox writer wrote to MySQL, by table.";
    OutboxRetriesTotal "usher_outbox_retries_total" Counter Count [] NONE
        "Flushes that were rolled back and repeated.";
    OutboxHaltedPartitions "usher_outbox_halted_partitions" Gauge Count [] NONE
        "Partitions whose outbox is halted at a gap or at an entry that can not be applied.";
    AuditFaults "usher_audit_faults" Gauge Count ["check"] NONE
        "Faults that the last audit on this instance found, by check.";
    OutboxDeadLettersTotal "usher_outbox_dead_letters_total" Counter Count [] NONE
        "Outbox entries that became dead letters because MySQL refused an event.";
    OutboxDeadLetters "usher_outbox_dead_letters" Gauge Count [] NONE
        "Current dead letters; see `usher dead-letters list`.";
    PressureLevel "usher_pressure_level" Gauge Count [] NONE
        "What is refused: 0 nothing, 1 nothing (warning), 2 joins, 3 all but payments and refunds.";
    ShedTotal "usher_shed_total" Counter Count ["script"] NONE
        "Script calls refused because the stores can not keep up.";
    RedisMemoryUsedBytes "usher_redis_memory_used_bytes" Gauge Bytes [] NONE
        "Memory used by Redis.";
    RedisMemoryMaxBytes "usher_redis_memory_max_bytes" Gauge Bytes [] NONE
        "Memory limit of Redis; 0 means no limit.";
    PartitionsRecovering "usher_partitions_recovering" Gauge Count [] NONE
        "Partitions that refuse requests until they are restored.";
    PartitionsBehind "usher_partitions_behind" Gauge Count ["state"] NONE
        "Partitions that refuse requests because MySQL lost entries that it had: healing (the \
         writer writes them again) or stuck (Redis does not have them any more).";
    MysqlWentBackTotal "usher_mysql_went_back_total" Counter Count [] NONE
        "Partitions in which MySQL was found older than Redis.";
    RecoveriesTotal "usher_recoveries_total" Counter Count [] NONE
        "Partitions restored from MySQL.";
    RecoverySeconds "usher_recovery_seconds" Histogram Seconds [] RECOVERY_SECONDS
        "Time to restore one partition.";
    OrphansSettledTotal "usher_orphans_settled_total" Counter Count ["kind"] NONE
        "Effects of payments in other partitions that were reconciled after a recovery, by \
         kind.";
    GenerationsRefusedTotal "usher_generations_refused_total" Counter Count [] NONE
        "Script calls that changed nothing, because Redis has another epoch than the verified \
         one.";
    RedisConnections "usher_redis_connections" Gauge Count ["state"] NONE
        "Connections to Redis: configured (open), and those currently disconnected (down).";
    RedisCommandsWaiting "usher_redis_commands_waiting" Gauge Count [] NONE
        "Commands that wait to be sent to Redis.";
    RedisReconnectsTotal "usher_redis_reconnects_total" Counter Count [] NONE
        "Reconnects to Redis.";
    RedisPartitionsMovedTotal "usher_redis_partitions_moved_total" Counter Count [] NONE
        "Partitions that moved to another Redis server.";
    RedisElsewhereTotal "usher_redis_elsewhere_total" Counter Count [] NONE
        "Commands repeated because the server did not own the partition, or was unavailable.";
    RedisUnawaitedReplicas "usher_redis_unawaited_replicas" Gauge Count [] NONE
        "Replicas of one primary that can be promoted, above USHER_REDIS_WAIT_REPLICAS. Above 0, a \
         failover may lose answered writes.";
    MysqlPoolConnections "usher_mysql_pool_connections" Gauge Count ["state"] NONE
        "Connections to MySQL: all (open), and those without a query (idle).";
    RuntimeWorkers "usher_runtime_workers" Gauge Count [] NONE
        "Worker threads of the runtime.";
    RuntimeTasks "usher_runtime_tasks" Gauge Count [] NONE
        "Tasks of the runtime.";
    RuntimeTasksWaiting "usher_runtime_tasks_waiting" Gauge Count [] NONE
        "Tasks that are ready and wait for a thread.";
    RuntimeBusyRatio "usher_runtime_busy_ratio" Gauge Count [] NONE
        "Share of the last second in which the worker threads were busy, 0 to 1.";
    RuntimeLateSeconds "usher_runtime_late_seconds" Histogram Seconds [] DELAY_SECONDS
        "Delay of a timer, which is the time that a ready task waits for a thread.";
    BuildInfo "usher_build_info" Gauge Count ["version"] NONE
        "Always 1; the label has the version.";
}

const METADATA: Metadata<'static> = Metadata::new("usher", Level::INFO, Some("usher"));

impl Metric {
    /// The counter with these labels. Each call looks it up by its labels, so hot paths should keep
    /// the result.
    pub fn counter(self, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(self.kind(), MetricKind::Counter, "{}", self.name());
        metrics::with_recorder(|recorder| recorder.register_counter(&self.key(labels), &METADATA))
    }

    pub fn gauge(self, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(self.kind(), MetricKind::Gauge, "{}", self.name());
        metrics::with_recorder(|recorder| recorder.register_gauge(&self.key(labels), &METADATA))
    }

    pub fn histogram(self, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert_eq!(self.kind(), MetricKind::Histogram, "{}", self.name());
        metrics::with_recorder(|recorder| recorder.register_histogram(&self.key(labels), &METADATA))
    }

    fn key(self, labels: &[(&'static str, &str)]) -> Key {
        debug_assert!(
            labels.iter().map(|(name, _)| *name).eq(self.labels().iter().copied()),
            "{}",
            self.name()
        );
        if labels.is_empty() {
            return Key::from_static_name(self.name());
        }
        let labels: Vec<Label> =
            labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        Key::from_parts(self.name(), labels)
    }

    /// Describes all metrics to the recorder. Metrics without labels start at zero, so that a
    /// dashboard can distinguish "no event yet" from "not measured".
    pub(super) fn describe_all() {
        metrics::with_recorder(|recorder| {
            for metric in Self::ALL.iter().copied() {
                let (name, unit) = (KeyName::from_const_str(metric.name()), Some(metric.unit()));
                match metric.kind() {
                    MetricKind::Counter => {
                        recorder.describe_counter(name, unit, metric.description().into())
                    }
                    MetricKind::Gauge => {
                        recorder.describe_gauge(name, unit, metric.description().into())
                    }
                    MetricKind::Histogram => {
                        recorder.describe_histogram(name, unit, metric.description().into())
                    }
                }
            }
        });
        for metric in Self::ALL.iter().copied().filter(|metric| metric.labels().is_empty()) {
            match metric.kind() {
                MetricKind::Counter => metric.counter(&[]).increment(0),
                MetricKind::Gauge => metric.gauge(&[]).set(0.0),
                MetricKind::Histogram => drop(metric.histogram(&[])),
            }
        }
        for (metric, values) in ZERO_SERIES {
            for value in *values {
                metric.counter(&[(metric.labels()[0], value)]).increment(0);
            }
        }
    }
}

/// Counters whose label values are known. Their series start at zero, so that a rate is correct
/// from the first event.
const ZERO_SERIES: &[(Metric, &[&str])] = &[
    (Metric::HoldsTotal, &["held", "taken", "refused"]),
    (Metric::PaymentsTotal, &["confirmed", "declined", "voided", "refunded"]),
    (
        Metric::ExternalConfirmationsTotal,
        &["confirmed", "repeated", "payment_voided", "reference_used", "amount_mismatch"],
    ),
    (
        Metric::WalletEntriesTotal,
        &["charge", "use", "payment", "refund", "reward", "reward_reversal"],
    ),
    (Metric::CouponIssuesTotal, &["issued", "repeated", "sold_out", "not_started", "ended"]),
    (Metric::RewardClaimsTotal, &["success", "already_claimed", "condition_not_met"]),
    (Metric::ShedRequestsTotal, &["join", "poll", "book", "pay", "other"]),
    (Metric::ChallengesTotal, &["missing", "passed", "failed", "unavailable"]),
    (Metric::ConnectionsRefusedTotal, &["address", "tls"]),
    (
        Metric::OrphansSettledTotal,
        &["debit", "payment", "cancelled", "cancelling", "coupon", "reference"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for metric in Metric::ALL.iter().copied() {
            let name = metric.name();
            assert!(name.starts_with("usher_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind() == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), metric.unit() == Unit::Seconds, "{name}");
            assert_eq!(
                metric.buckets().is_empty(),
                metric.kind() != MetricKind::Histogram,
                "{name}"
            );
            assert!(metric.buckets().is_sorted(), "{name}");
            assert!(metric.description().ends_with('.'), "{name}");
        }
    }

    #[test]
    fn series_that_start_at_zero_are_counters_with_one_label() {
        for (metric, values) in ZERO_SERIES {
            assert_eq!(
                (metric.kind(), metric.labels().len()),
                (MetricKind::Counter, 1),
                "{}",
                metric.name()
            );
            assert!(!values.is_empty());
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> =
            Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
    }
}
