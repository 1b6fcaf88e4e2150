//! Renders the screen as text of 80 columns.

use serde::Deserialize;

use super::format::{bytes, count, duration, rate};
use super::scrape::MetricScrape;
use crate::telemetry::Metric;

const SCREEN_WIDTH: usize = 80;
/// Queues or coupons on one screen.
const MAX_ROWS: usize = 12;

/// A queue in the response of `/admin/queues`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct QueueSummary {
    queue_id: String,
    mode: String,
    waiting: u64,
    active: u64,
    max_active: u32,
    estimated_wait_seconds: Option<u64>,
}

impl QueueSummary {
    pub(super) fn read_all(text: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct QueueSummaries {
            items: Vec<QueueSummary>,
        }
        serde_json::from_slice::<QueueSummaries>(text).map(|queues| queues.items)
    }
}

/// Two consecutive scrapes.
struct ScrapeInterval<'a> {
    previous: &'a MetricScrape,
    current: &'a MetricScrape,
    seconds: f64,
}

impl ScrapeInterval<'_> {
    /// The increase per second of a value.
    fn rate(&self, value: impl Fn(&MetricScrape) -> f64) -> f64 {
        ((value(self.current) - value(self.previous)) / self.seconds).max(0.0)
    }

    fn rate_of(&self, metric: Metric) -> String {
        rate(self.rate(|scrape| scrape.sum(metric)))
    }

    fn rate_with(&self, metric: Metric, label: &str, value: &str) -> String {
        rate(self.rate(|scrape| scrape.sum_with(metric, label, value)))
    }

    /// The mean of the observations between the two scrapes.
    fn mean(&self, metric: Metric) -> Option<f64> {
        let (old_count, old_sum) = self.previous.count_and_sum(metric);
        let (count, sum) = self.current.count_and_sum(metric);
        (count > old_count).then(|| (sum - old_sum) / (count - old_count))
    }
}

/// The whole screen. Each line ends with a line feed and has at most [`SCREEN_WIDTH`] columns.
pub(super) fn render(
    url: &str,
    previous: &MetricScrape,
    current: &MetricScrape,
    queues: Option<&[QueueSummary]>,
) -> String {
    let interval = ScrapeInterval { previous, current, seconds: current.seconds_since(previous) };
    let mut rows = vec![format!("Usher {} at {url}", current.version())];
    rows.extend(service_rows(&interval));
    rows.push(String::new());
    rows.extend(queue_rows(&interval, queues));
    rows.push(String::new());
    rows.extend(sale_rows(&interval));
    rows.push(String::new());
    rows.extend(writer_rows(&interval));
    rows.iter()
        .map(|row| row.chars().take(SCREEN_WIDTH).chain(['\n']).collect::<String>())
        .collect()
}

fn service_rows(interval: &ScrapeInterval<'_>) -> Vec<String> {
    let now = interval.current;
    let errors =
        interval.rate(|scrape| scrape.sum_with_prefix(Metric::HttpRequestsTotal, "status", "5"));
    let p99 = |metric| duration(now.quantile(interval.previous, metric, None, 0.99));
    vec![
        format!(
            "requests {}/s, errors {}/s, in flight {}, p99 {}",
            interval.rate_of(Metric::HttpRequestsTotal),
            rate(errors),
            count(now.sum(Metric::HttpInFlight)),
            p99(Metric::HttpRequestSeconds),
        ),
        format!(
            "script calls {}/s, p99 {}, {} requests per call; threads {:.0} % busy",
            interval.rate_of(Metric::ScriptCallsTotal),
            p99(Metric::ScriptSeconds),
            rate(interval.mean(Metric::CoalescerBatchSize).unwrap_or_default()),
            now.sum(Metric::RuntimeBusyRatio) * 100.0,
        ),
    ]
}

fn queue_rows(interval: &ScrapeInterval<'_>, queues: Option<&[QueueSummary]>) -> Vec<String> {
    let now = interval.current;
    let row = |cells: [&str; 8]| {
        let [queue, mode, waiting, active, limit, admitted, wait, sold] = cells;
        let queue: String = queue.chars().take(16).collect();
        format!(
            "{queue:<16} {mode:<8} {waiting:>9} {active:>7} {limit:>7} {admitted:>7} {wait:>7} \
             {sold:>12}"
        )
    };
    let mut rows =
        vec![row(["QUEUE", "MODE", "WAITING", "ACTIVE", "LIMIT", "IN/S", "WAIT", "SEATS SOLD"])];
    let ids = match queues {
        Some(queues) => queues.iter().map(|queue| queue.queue_id.clone()).collect(),
        None => now.label_values(Metric::QueueWaiting, "queue"),
    };
    for id in ids.iter().take(MAX_ROWS) {
        let of = |metric| now.sum_with(metric, "queue", id);
        let queue = queues.and_then(|queues| queues.iter().find(|queue| queue.queue_id == *id));
        let (waiting, active) = match queue {
            Some(queue) => (queue.waiting as f64, queue.active as f64),
            None => (of(Metric::QueueWaiting), of(Metric::QueueActive)),
        };
        let sold = match of(Metric::SeatsForSale) {
            0.0 => "-".to_owned(),
            seats => format!("{}/{}", count(of(Metric::SeatsSold)), count(seats)),
        };
        let wait =
            queue.and_then(|queue| queue.estimated_wait_seconds).map(|seconds| seconds as f64);
        rows.push(row([
            id,
            queue.map_or("-", |queue| &queue.mode),
            &count(waiting),
            &count(active),
            &queue.map_or_else(|| "-".to_owned(), |queue| count(queue.max_active.into())),
            &interval.rate_with(Metric::QueueAdmittedTotal, "queue", id),
            &duration(wait),
            &sold,
        ]));
    }
    match ids.len() {
        0 => rows.push("there are no queues".to_owned()),
        count if count > MAX_ROWS => rows.push(format!("and {} more", count - MAX_ROWS)),
        _ => {}
    }
    if queues.is_none() {
        rows.push(
            "set USHER_ADMIN_KEY (--admin-key) to see modes, limits and estimated waits".to_owned(),
        );
    }
    rows
}

fn sale_rows(interval: &ScrapeInterval<'_>) -> Vec<String> {
    let now = interval.current;
    let row = |name: &str, metric: Metric, label: &'static str, values: &[&str]| {
        let cell = |value: &&str| {
            let total = count(now.sum_with(metric, label, value));
            format!(
                "{} {total} ({}/s)",
                value.replace('_', " "),
                interval.rate_with(metric, label, value)
            )
        };
        format!("{name:<9} {}", values.iter().map(cell).collect::<Vec<_>>().join(", "))
    };
    let mut rows = vec![
        row("holds", Metric::HoldsTotal, "outcome", &["held", "taken", "refused"]),
        row("payments", Metric::PaymentsTotal, "status", &["confirmed", "declined", "voided"]),
        row("coupons", Metric::CouponIssuesTotal, "outcome", &["issued", "repeated", "sold_out"]),
        row("rewards", Metric::RewardClaimsTotal, "outcome", &["success", "already_claimed"]),
    ];
    let pending = now.sum(Metric::PaymentsPendingOldestSeconds);
    rows.push(format!(
        "open reservations {}, oldest unfinished payment {}",
        count(now.sum(Metric::ReservationsHeld)),
        duration(Some(pending)),
    ));
    for coupon in now.label_values(Metric::CouponQuota, "coupon").iter().take(MAX_ROWS) {
        let of = |metric| count(now.sum_with(metric, "coupon", coupon));
        rows.push(format!(
            "coupon {coupon}: {} of {} issued",
            of(Metric::CouponIssued),
            of(Metric::CouponQuota)
        ));
    }
    rows
}

fn writer_rows(interval: &ScrapeInterval<'_>) -> Vec<String> {
    let now = interval.current;
    let sum = |metric| count(now.sum(metric));
    let level = match now.sum(Metric::PressureLevel) {
        level if level < 1.0 => "nothing is refused",
        level if level < 2.0 => "nothing is refused yet",
        level if level < 3.0 => "JOINS ARE REFUSED",
        _ => "JOINS, PROMOTIONS AND HOLDS ARE REFUSED",
    };
    let memory = match now.sum(Metric::RedisMemoryMaxBytes) {
        0.0 => "no limit".to_owned(),
        max => bytes(max),
    };
    let pool = |state| count(now.sum_with(Metric::MysqlPoolConnections, "state", state));
    let redis = |state| count(now.sum_with(Metric::RedisConnections, "state", state));
    vec![
        format!(
            "writer    backlog {}, lag {}, {} rows/s, {} entries per flush of {}",
            sum(Metric::OutboxBacklogEntries),
            duration(Some(now.sum(Metric::OutboxLagSeconds))),
            interval.rate_of(Metric::OutboxRowsTotal),
            rate(interval.mean(Metric::OutboxPassEntries).unwrap_or_default()),
            duration(interval.mean(Metric::OutboxPassSeconds)),
        ),
        format!(
            "          retries {}, dead letters {}, halted partitions {}",
            sum(Metric::OutboxRetriesTotal),
            sum(Metric::OutboxDeadLetters),
            sum(Metric::OutboxHaltedPartitions),
        ),
        format!("stores    {level}; recovering partitions {}", sum(Metric::PartitionsRecovering)),
        format!(
            "          Redis {} of {memory}, connections {} ({} down); MySQL {} ({} idle)",
            bytes(now.sum(Metric::RedisMemoryUsedBytes)),
            redis("open"),
            redis("down"),
            pool("open"),
            pool("idle"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(admitted: u32) -> MetricScrape {
        let long = "q".repeat(64);
        let line = |metric: Metric, labels: &str, value: &str| {
            format!("{}{labels} {value}\n", metric.name())
        };
        MetricScrape::parse(
            &[
                line(Metric::BuildInfo, "{version=\"9.9.9\"}", "1"),
                line(Metric::QueueWaiting, "{queue=\"show\"}", "123456"),
                line(Metric::QueueWaiting, &format!("{{queue=\"{long}\"}}"), "9007199254740991"),
                line(Metric::QueueActive, "{queue=\"show\"}", "500"),
                line(Metric::QueueAdmittedTotal, "{queue=\"show\"}", &admitted.to_string()),
                line(Metric::SeatsForSale, "{queue=\"show\"}", "50"),
                line(Metric::SeatsSold, "{queue=\"show\"}", "12"),
                line(Metric::PressureLevel, "", "2"),
            ]
            .concat(),
        )
    }

    #[test]
    fn screen_fits_and_shows_the_important_values() {
        let queues = r#"{"items": [{"queue_id": "show", "mode": "paused", "waiting": 123456,
            "active": 500, "max_active": 1000,
            "estimated_wait_seconds": 250, "settings": {}}]}"#;
        let queues = QueueSummary::read_all(queues.as_bytes()).unwrap();
        for queues in [None, Some(queues.as_slice())] {
            let text = render("http://127.0.0.1:8081", &page(0), &page(1), queues);
            assert!(text.lines().all(|line| line.chars().count() <= SCREEN_WIDTH), "{text}");
            let row = text.lines().find(|line| line.starts_with("show ")).unwrap();
            assert!(
                row.contains("123,456") && row.contains("500") && row.ends_with("12/50"),
                "{row}"
            );
            assert_eq!(
                row.contains("paused") && row.contains("4m10s") && row.contains("1,000"),
                queues.is_some()
            );
            assert_eq!(text.contains("--admin-key"), queues.is_none());
            assert!(text.contains("9.9.9") && text.contains("JOINS ARE REFUSED"), "{text}");
        }
    }
}
