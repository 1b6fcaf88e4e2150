//! `metrics.md`: every metric of the process.

use std::fmt::Write;

use usher::telemetry::{Metric, MetricKind};

use super::cell;

const INTRODUCTION: &str = "# Metrics

`GET /metrics` on the admin listener, without a key, in Prometheus' text format. Units are base units and end the name; counters end in `_total`. No label holds a user,
a reservation or a payment: queues, concerts and coupons are as many as operators make, all other labels have few values.
Counters with known values of their labels stand at zero from the start, so that their rates are right from the first event on.
Dashboards: [grafana/dashboards](../../grafana/dashboards); rules: [grafana/prometheus](../../grafana/prometheus); what to do for each alert: [operate.md](../operate.md#alerts).
";

pub(super) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (kind, title) in [
        (MetricKind::Counter, "Counters"),
        (MetricKind::Gauge, "Gauges"),
        (MetricKind::Histogram, "Histograms"),
    ] {
        write!(page, "\n## {title}\n\n| name | labels | |\n|:--|:--|:--|\n").unwrap();
        for metric in Metric::ALL.iter().copied().filter(|metric| metric.kind() == kind) {
            let labels: Vec<_> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
            let mut about = metric.description().to_owned();
            if kind == MetricKind::Histogram {
                let buckets: Vec<_> = metric.buckets().iter().map(ToString::to_string).collect();
                write!(about, " Up to {}.", buckets.join(", ")).unwrap();
            }
            writeln!(page, "| `{}` | {} | {} |", metric.name(), labels.join(", "), cell(&about))
                .unwrap();
        }
    }
    page
}
