//! The one list of metrics.
//!
//! Names are `usher_…` in base units (seconds, bytes), counters end in `_total`. Labels have few values each: routes, not paths;
//! queues and scripts, never users.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Unit};

/// What a metric does with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts samples into buckets.
    Histogram,
}

/// Seconds of a whole request: from half a millisecond to the request timeout.
const REQUEST: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds of one script call or transaction: from a tenth of a millisecond.
const STORE: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Requests in a script call, 1…256.
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Entries in one pass of the writer.
const PASS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];
/// Seconds in line: from at once to some hours.
const LINE: &[f64] =
    &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0];
/// Seconds by which a timer is late.
const LATE: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
/// Seconds of laying a partition back.
const RECOVERY: &[f64] = &[0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0];
/// For counters and gauges.
const NONE: &[f64] = &[];

macro_rules! metrics {
    ($($variant:ident $name:literal $kind:ident $unit:ident [$($label:literal),*] $buckets:ident $description:literal;)*) => {
        /// Every metric of the process.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric {
            $(#[doc = $description] $variant,)*
        }

        impl Metric {
            /// All of them, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name that Prometheus sees.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Counter, gauge or histogram.
            pub const fn kind(self) -> MetricKind {
                match self { $(Self::$variant => MetricKind::$kind,)* }
            }

            /// The unit of its numbers.
            pub const fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }

            /// The names of its labels, in order.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)* }
            }

            /// The upper bounds of a histogram's buckets; empty for the other kinds.
            pub const fn buckets(self) -> &'static [f64] {
                match self { $(Self::$variant => $buckets,)* }
            }

            /// One sentence for people.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }
        }
    };
}

metrics! {
    HttpRequestsTotal "usher_http_requests_total" Counter Count ["route", "method", "status"] NONE "Requests answered.";
    HttpRequestSeconds "usher_http_request_seconds" Histogram Seconds ["route", "method"] REQUEST "Time to the head of the answer.";
    HttpInFlight "usher_http_in_flight" Gauge Count [] NONE "Requests being answered now.";
    Connections "usher_connections" Gauge Count [] NONE "Connections that stand, of both listeners.";
    ConnectionsRefusedTotal "usher_connections_refused_total" Counter Count ["reason"] NONE "Connections closed before their first request: their address has too many, or TLS failed.";
    RateLimitedTotal "usher_rate_limited_total" Counter Count ["by", "kind"] NONE "Requests refused because a user, an address or all together asked too often.";
    LimitedCallers "usher_limited_callers" Gauge Count ["by"] NONE "Users and addresses that are remembered because they asked a moment ago.";
    ShedRequestsTotal "usher_shed_requests_total" Counter Count ["kind"] NONE "Requests refused because too many were being answered.";
    ChallengesTotal "usher_challenges_total" Counter Count ["outcome"] NONE "Joins whose proof of not being a robot was asked for.";
    ScriptCallsTotal "usher_script_calls_total" Counter Count ["script", "outcome"] NONE "Calls of Redis scripts.";
    ScriptSeconds "usher_script_seconds" Histogram Seconds ["script"] STORE "Time of one script call, network included.";
    CoalescerBatchSize "usher_coalescer_batch_size" Histogram Count ["script"] BATCH "Requests that shared one script call.";
    CoalescerWaiting "usher_coalescer_waiting" Gauge Count ["script"] NONE "Requests that wait for the next batch.";
    CoalescerInFlight "usher_coalescer_in_flight" Gauge Count ["script"] NONE "Batches that are under way.";
    CoalescerRefusedTotal "usher_coalescer_refused_total" Counter Count ["script"] NONE "Requests refused because the coalescer was full.";
    QueueWaiting "usher_queue_waiting" Gauge Count ["queue"] NONE "Users who stand in line.";
    QueueActive "usher_queue_active" Gauge Count ["queue"] NONE "Users who are inside.";
    QueueAdmittedTotal "usher_queue_admitted_total" Counter Count ["queue"] NONE "Users who became active, by joining or by promotion.";
    QueueNoShowsTotal "usher_queue_no_shows_total" Counter Count ["queue"] NONE "Promoted users who did not come in time.";
    QueuePromotedTotal "usher_queue_promoted_total" Counter Count ["queue"] NONE "Users moved from the line to the inside.";
    QueueWaitSeconds "usher_queue_wait_seconds" Histogram Seconds ["queue"] LINE "Time from joining to being let in: 0 for those who were let in at once, else a quarter of a second too short at most. Who joined before the instance started, or stood in a lottery, is left out.";
    SeatsForSale "usher_seats_for_sale" Gauge Count ["queue"] NONE "Seats of all dates of the queue's concerts, sold ones too.";
    SeatsSold "usher_seats_sold" Gauge Count ["queue"] NONE "Seats of them that are sold.";
    ReservationsHeld "usher_reservations_held" Gauge Count ["queue"] NONE "Holds that run, and payments under way.";
    HoldsTotal "usher_holds_total" Counter Count ["outcome"] NONE "Attempts to hold seats.";
    PaymentsTotal "usher_payments_total" Counter Count ["status"] NONE "Payments that reached an end.";
    PaymentsPendingOldestSeconds "usher_payments_pending_oldest_seconds" Gauge Seconds [] NONE "Age of the oldest payment without an end.";
    ReservationsExpiredTotal "usher_reservations_expired_total" Counter Count [] NONE "Holds that lapsed and were swept.";
    WalletEntriesTotal "usher_wallet_entries_total" Counter Count ["kind"] NONE "Lines written to wallets' ledgers.";
    CouponQuota "usher_coupon_quota" Gauge Count ["coupon"] NONE "How many there are of a coupon; no series for one without a bound.";
    CouponIssued "usher_coupon_issued" Gauge Count ["coupon"] NONE "How many of a coupon are issued.";
    CouponIssuesTotal "usher_coupon_issues_total" Counter Count ["outcome"] NONE "Requests for a coupon.";
    RewardClaimsTotal "usher_reward_claims_total" Counter Count ["outcome"] NONE "Attempts to claim a reward.";
    OutboxBacklogEntries "usher_outbox_backlog_entries" Gauge Count [] NONE "Outbox entries that MySQL does not have yet.";
    OutboxLagSeconds "usher_outbox_lag_seconds" Gauge Seconds [] NONE "How long what is not yet in MySQL has waited at most; 0 when nothing waits.";
    OutboxPassEntries "usher_outbox_pass_entries" Histogram Count [] PASS "Entries written in one pass.";
    OutboxPassSeconds "usher_outbox_pass_seconds" Histogram Seconds [] STORE "Time of one pass of the writer.";
    OutboxRowsTotal "usher_outbox_rows_total" Counter Count ["table"] NONE "Rows that the writer brought to MySQL.";
    OutboxRetriesTotal "usher_outbox_retries_total" Counter Count [] NONE "Passes that were rolled back and repeated.";
    OutboxHaltedPartitions "usher_outbox_halted_partitions" Gauge Count [] NONE "Partitions whose outbox stands still at a gap or at an entry that can not be applied.";
    AuditFaults "usher_audit_faults" Gauge Count ["check"] NONE "What the last audit on this instance found wrong.";
    OutboxDeadLettersTotal "usher_outbox_dead_letters_total" Counter Count [] NONE "Outbox entries of which something was put aside because MySQL refuses it.";
    OutboxDeadLetters "usher_outbox_dead_letters" Gauge Count [] NONE "Outbox entries that are put aside now; see `usher dead-letters list`.";
    PressureLevel "usher_pressure_level" Gauge Count [] NONE "What is refused: 0 nothing, 1 nothing but a warning, 2 joins, 3 promotions and holds too.";
    ShedTotal "usher_shed_total" Counter Count ["script"] NONE "Calls of scripts that were refused because the stores can't keep up.";
    RedisMemoryUsedBytes "usher_redis_memory_used_bytes" Gauge Bytes [] NONE "Memory that Redis uses.";
    RedisMemoryMaxBytes "usher_redis_memory_max_bytes" Gauge Bytes [] NONE "Memory that Redis may use; 0 is no bound.";
    PartitionsRecovering "usher_partitions_recovering" Gauge Count [] NONE "Partitions that sell nothing until their state is laid back.";
    RecoveriesTotal "usher_recoveries_total" Counter Count [] NONE "Partitions that were laid back from MySQL.";
    RecoverySeconds "usher_recovery_seconds" Histogram Seconds [] RECOVERY "Time in which a partition was laid back.";
    OrphansSettledTotal "usher_orphans_settled_total" Counter Count ["kind"] NONE "What payments left behind in another partition, settled after a recovery.";
    GenerationsRefusedTotal "usher_generations_refused_total" Counter Count [] NONE "LuaScript calls that changed nothing, because Redis held another generation than was verified.";
    RedisConnections "usher_redis_connections" Gauge Count ["state"] NONE "Connections to Redis that Usher keeps (open), and those of them that do not stand now (down).";
    RedisCommandsWaiting "usher_redis_commands_waiting" Gauge Count [] NONE "Commands that wait to be sent to Redis.";
    RedisReconnectsTotal "usher_redis_reconnects_total" Counter Count [] NONE "Connections to Redis made again after a loss.";
    RedisPartitionsMovedTotal "usher_redis_partitions_moved_total" Counter Count [] NONE "Partitions that another Redis server holds than before.";
    RedisElsewhereTotal "usher_redis_elsewhere_total" Counter Count [] NONE "Commands that were asked again because the server did not hold the partition, or was away.";
    MysqlPoolConnections "usher_mysql_pool_connections" Gauge Count ["state"] NONE "Connections to MySQL: all that are open, and those of them that are idle.";
    RuntimeWorkers "usher_runtime_workers" Gauge Count [] NONE "Threads on which tasks run.";
    RuntimeTasks "usher_runtime_tasks" Gauge Count [] NONE "Tasks that are alive.";
    RuntimeTasksWaiting "usher_runtime_tasks_waiting" Gauge Count [] NONE "Tasks that are ready and that no thread has taken yet.";
    RuntimeBusyRatio "usher_runtime_busy_ratio" Gauge Count [] NONE "Share of the last second in which the threads were at work, 0 to 1.";
    RuntimeLateSeconds "usher_runtime_late_seconds" Histogram Seconds [] LATE "By how much a timer was late: what any task waits for a thread.";
    BuildInfo "usher_build_info" Gauge Count ["version"] NONE "Always 1; the label says which version runs.";
}

/// Where the metrics come from, for recorders that filter by it.
const METADATA: Metadata<'static> = Metadata::new("usher", Level::INFO, Some("usher"));

impl Metric {
    /// The counter with these labels. Take it once and keep it where the path is hot: each call looks it up by its labels.
    pub fn counter(self, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(self.kind(), MetricKind::Counter, "{}", self.name());
        metrics::with_recorder(|recorder| recorder.register_counter(&self.key(labels), &METADATA))
    }

    /// The gauge with these labels.
    pub fn gauge(self, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(self.kind(), MetricKind::Gauge, "{}", self.name());
        metrics::with_recorder(|recorder| recorder.register_gauge(&self.key(labels), &METADATA))
    }

    /// The histogram with these labels.
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

    /// Describes every metric to the recorder, and stands those without labels at zero, so that "nothing yet" and "not measured"
    /// look different on a dashboard.
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
        for (metric, values) in KNOWN {
            for value in *values {
                metric.counter(&[(metric.labels()[0], value)]).increment(0);
            }
        }
    }
}

/// Counters of which the values of the label are known beforehand. A rate is right from the first event on where the series stood at zero before it.
const KNOWN: &[(Metric, &[&str])] = &[
    (Metric::HoldsTotal, &["held", "taken", "refused"]),
    (Metric::PaymentsTotal, &["confirmed", "declined", "voided", "refunded"]),
    (Metric::WalletEntriesTotal, &["charge", "use", "payment", "refund", "reward"]),
    (Metric::CouponIssuesTotal, &["issued", "repeated", "sold_out", "not_started", "ended"]),
    (Metric::RewardClaimsTotal, &["success", "already_claimed", "condition_not_met"]),
    (Metric::ShedRequestsTotal, &["join", "poll", "book", "pay", "other"]),
    (Metric::ChallengesTotal, &["missing", "passed", "failed", "unavailable"]),
    (Metric::ConnectionsRefusedTotal, &["address", "tls"]),
    (Metric::OrphansSettledTotal, &["debit", "payment", "cancelled", "cancelling", "coupon"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
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
    fn what_stands_at_zero_is_a_counter_with_one_label() {
        for (metric, values) in KNOWN {
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
