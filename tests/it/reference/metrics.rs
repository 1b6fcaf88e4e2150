//! `metrics.md`: every metric of the process.

use std::fmt::Write;

use usher::telemetry::{Metric, MetricKind};

use super::cell;

const INTRODUCTION: &str = "# Metrics

`GET /metrics` on the admin listener, without a key, in the text format of Prometheus. Names end
with their base unit, counters with `_total`. No label contains a user, a reservation or a payment. The
labels of queues, concerts and coupons have as many values as operators create, all other labels
have few values. Counters with known label values start at zero, so that their rates are right from
the first event.

Dashboards: [grafana/dashboards](../../grafana/dashboards); rules:
[grafana/prometheus](../../grafana/prometheus); what to do for each alert:
[operate.md](../operate.md#alerts).
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
