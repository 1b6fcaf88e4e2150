//! What the screen shows, as text of 80 columns.

use serde::Deserialize;

use super::figures::{bytes, count, rate, time};
use super::scrape::MetricScrape;
use crate::telemetry::Metric;

/// The width that every terminal has.
const WIDTH: usize = 80;
/// Lines shown of a kind; a screen has an end.
const MOST: usize = 12;

/// A line as the admin API tells it.
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
    /// Reads the answer of `/admin/queues`.
    pub(super) fn read_all(text: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct ScreenLines {
            items: Vec<QueueSummary>,
        }
        serde_json::from_slice::<ScreenLines>(text).map(|lines| lines.items)
    }
}

/// Two looks and what lies between them.
struct ScrapeInterval<'a> {
    before: &'a MetricScrape,
    now: &'a MetricScrape,
    seconds: f64,
}

impl ScrapeInterval<'_> {
    /// A second of a counter, all of it or with such a label.
    fn rate(&self, of: impl Fn(&MetricScrape) -> f64) -> f64 {
        ((of(self.now) - of(self.before)) / self.seconds).max(0.0)
    }

    fn all(&self, metric: Metric) -> String {
        rate(self.rate(|scrape| scrape.sum(metric)))
    }

    fn of(&self, metric: Metric, label: &str, value: &str) -> String {
        rate(self.rate(|scrape| scrape.sum_of(metric, label, value)))
    }

    /// The mean of what a histogram has counted meanwhile.
    fn mean(&self, metric: Metric) -> Option<f64> {
        let ((count, sum), (count_before, sum_before)) =
            (self.now.count_and_sum(metric), self.before.count_and_sum(metric));
        (count > count_before).then(|| (sum - sum_before) / (count - count_before))
    }
}

/// The whole screen. Every line ends with a line feed and is no longer than 80 columns.
pub(super) fn screen(
    url: &str,
    before: &MetricScrape,
    now: &MetricScrape,
    lines: Option<&[QueueSummary]>,
) -> String {
    let between = ScrapeInterval { before, now, seconds: now.seconds_since(before) };
    let mut rows = vec![format!("Usher {} at {url}", now.version())];
    rows.extend(service(&between));
    rows.push(String::new());
    rows.extend(queues(&between, lines));
    rows.push(String::new());
    rows.extend(sale(&between));
    rows.push(String::new());
    rows.extend(writer(&between));
    rows.iter().map(|row| row.chars().take(WIDTH).chain(['\n']).collect::<String>()).collect()
}

fn service(between: &ScrapeInterval<'_>) -> Vec<String> {
    let now = between.now;
    let errors = between.rate(|scrape| scrape.sum_like(Metric::HttpRequestsTotal, "status", "5"));
    let p99 = |metric| time(now.quantile(between.before, metric, None, 0.99));
    vec![
        format!(
            "requests {}/s, errors {}/s, in flight {}, 99 of 100 within {}",
            between.all(Metric::HttpRequestsTotal),
            rate(errors),
            count(now.sum(Metric::HttpInFlight)),
            p99(Metric::HttpRequestSeconds),
        ),
        format!(
            "script calls {}/s, 99 of 100 within {}, {} requests each; threads {:.0} % busy",
            between.all(Metric::ScriptCallsTotal),
            p99(Metric::ScriptSeconds),
            rate(between.mean(Metric::CoalescerBatchSize).unwrap_or_default()),
            now.sum(Metric::RuntimeBusyRatio) * 100.0,
        ),
    ]
}

fn queues(between: &ScrapeInterval<'_>, lines: Option<&[QueueSummary]>) -> Vec<String> {
    let now = between.now;
    let row = |cells: [&str; 8]| {
        let [queue, mode, waiting, active, most, admitted, wait, sold] = cells;
        let queue: String = queue.chars().take(16).collect();
        format!(
            "{queue:<16} {mode:<8} {waiting:>9} {active:>7} {most:>7} {admitted:>7} {wait:>7} {sold:>12}"
        )
    };
    let mut rows =
        vec![row(["QUEUE", "MODE", "WAITING", "ACTIVE", "MOST", "IN/S", "WAIT", "SEATS SOLD"])];
    let ids = match lines {
        Some(lines) => lines.iter().map(|line| line.queue_id.clone()).collect(),
        None => now.values(Metric::QueueWaiting, "queue"),
    };
    for id in ids.iter().take(MOST) {
        let of = |metric| now.sum_of(metric, "queue", id);
        let line = lines.and_then(|lines| lines.iter().find(|line| line.queue_id == *id));
        let (waiting, active) = match line {
            Some(line) => (line.waiting as f64, line.active as f64),
            None => (of(Metric::QueueWaiting), of(Metric::QueueActive)),
        };
        let sold = match of(Metric::SeatsForSale) {
            0.0 => "-".to_owned(),
            seats => format!("{}/{}", count(of(Metric::SeatsSold)), count(seats)),
        };
        let wait = line.and_then(|line| line.estimated_wait_seconds).map(|seconds| seconds as f64);
        rows.push(row([
            id,
            line.map_or("-", |line| &line.mode),
            &count(waiting),
            &count(active),
            &line.map_or_else(|| "-".to_owned(), |line| count(line.max_active.into())),
            &between.of(Metric::QueueAdmittedTotal, "queue", id),
            &time(wait),
            &sold,
        ]));
    }
    match ids.len() {
        0 => rows.push("no queue yet".to_owned()),
        many if many > MOST => rows.push(format!("and {} more", many - MOST)),
        _ => {}
    }
    if lines.is_none() {
        rows.push(
            "without USHER_ADMIN_KEY (--admin-key) modes, bounds and estimates are not shown"
                .to_owned(),
        );
    }
    rows
}

fn sale(between: &ScrapeInterval<'_>) -> Vec<String> {
    let now = between.now;
    let row = |name: &str, metric: Metric, label: &'static str, values: &[&str]| {
        let cell = |value: &&str| {
            let all = count(now.sum_of(metric, label, value));
            format!("{} {all} ({}/s)", value.replace('_', " "), between.of(metric, label, value))
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
        "open reservations {}, oldest payment without an end {}",
        count(now.sum(Metric::ReservationsHeld)),
        time(Some(pending)),
    ));
    for coupon in now.values(Metric::CouponQuota, "coupon").iter().take(MOST) {
        let of = |metric| count(now.sum_of(metric, "coupon", coupon));
        rows.push(format!(
            "coupon {coupon}: {} of {} issued",
            of(Metric::CouponIssued),
            of(Metric::CouponQuota)
        ));
    }
    rows
}

fn writer(between: &ScrapeInterval<'_>) -> Vec<String> {
    let now = between.now;
    let sum = |metric| count(now.sum(metric));
    let level = match now.sum(Metric::PressureLevel) {
        level if level < 1.0 => "nothing is refused",
        level if level < 2.0 => "nothing is refused yet",
        level if level < 3.0 => "JOINS ARE REFUSED",
        _ => "JOINS, PROMOTIONS AND HOLDS ARE REFUSED",
    };
    let memory = match now.sum(Metric::RedisMemoryMaxBytes) {
        0.0 => "no bound".to_owned(),
        most => bytes(most),
    };
    let pool = |state| count(now.sum_of(Metric::MysqlPoolConnections, "state", state));
    let redis = |state| count(now.sum_of(Metric::RedisConnections, "state", state));
    vec![
        format!(
            "writer    backlog {}, lag {}, {} rows/s, {} entries a pass of {}",
            sum(Metric::OutboxBacklogEntries),
            time(Some(now.sum(Metric::OutboxLagSeconds))),
            between.all(Metric::OutboxRowsTotal),
            rate(between.mean(Metric::OutboxPassEntries).unwrap_or_default()),
            time(between.mean(Metric::OutboxPassSeconds)),
        ),
        format!(
            "          retries {}, dead letters {}, stopped partitions {}",
            sum(Metric::OutboxRetriesTotal),
            sum(Metric::OutboxDeadLetters),
            sum(Metric::OutboxHaltedPartitions),
        ),
        format!("stores    {level}; partitions that recover {}", sum(Metric::PartitionsRecovering)),
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
        MetricScrape::read(
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
    fn the_screen_fits_and_says_what_matters() {
        let lines = r#"{"items": [{"queue_id": "show", "mode": "paused", "waiting": 123456, "active": 500, "max_active": 1000,
            "estimated_wait_seconds": 250, "settings": {}}]}"#;
        let lines = QueueSummary::read_all(lines.as_bytes()).unwrap();
        for lines in [None, Some(lines.as_slice())] {
            let text = screen("http://127.0.0.1:8081", &page(0), &page(1), lines);
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            let row = text.lines().find(|line| line.starts_with("show ")).unwrap();
            assert!(
                row.contains("123,456") && row.contains("500") && row.ends_with("12/50"),
                "{row}"
            );
            assert_eq!(
                row.contains("paused") && row.contains("4m10s") && row.contains("1,000"),
                lines.is_some()
            );
            assert_eq!(text.contains("--admin-key"), lines.is_none());
            assert!(text.contains("9.9.9") && text.contains("JOINS ARE REFUSED"), "{text}");
        }
    }
}
