//! Metrics for Prometheus, and the log.
//!
//! [`Metric`] lists all metrics with kind, unit and labels; metric names appear nowhere else.
//! [`install`] installs the recorder and [`log::init`] the log. Both are global to the process, as
//! `metrics` and `tracing` are, so repeated calls are harmless.

pub mod log;
mod metric;
mod runtime;

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio_util::sync::CancellationToken;

pub use metric::{Metric, MetricKind};
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use runtime::watch_runtime;

/// How often samples of histograms are moved into their buckets. Otherwise they use memory until
/// the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the metrics recorder and returns the handle that renders it. Later calls return the
/// same handle.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = recorder_builder().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::error!("another metrics recorder is installed: /metrics will be empty");
            }
            Metric::describe_all();
            handle
        })
        .clone()
}

/// Sets the buckets of all histograms, because a histogram without buckets is rendered as a
/// summary.
fn recorder_builder() -> PrometheusBuilder {
    Metric::ALL.iter().filter(|metric| !metric.buckets().is_empty()).fold(
        PrometheusBuilder::new(),
        |builder, metric| {
            builder
                .set_buckets_for_metric(Matcher::Full(metric.name().to_owned()), metric.buckets())
                .expect("only an empty list is an error")
        },
    )
}

/// Bounds the memory of the recorder until `stop` is cancelled. One task per process is enough.
pub async fn run_upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_returns_the_same_recorder() {
        let first = install();
        let second = install();
        Metric::PartitionsRecovering.gauge(&[]).set(3.0);
        for handle in [first, second] {
            assert!(handle.render().contains("usher_partitions_recovering 3"));
        }
    }

    #[test]
    fn every_histogram_is_rendered_with_buckets() {
        let recorder = recorder_builder().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            for metric in Metric::ALL.iter().filter(|metric| metric.kind() == MetricKind::Histogram)
            {
                let labels: Vec<_> = metric.labels().iter().map(|label| (*label, "x")).collect();
                metric.histogram(&labels).record(0.003);
            }
        });
        let text = handle.render();
        for metric in Metric::ALL.iter().filter(|metric| metric.kind() == MetricKind::Histogram) {
            assert!(
                text.contains(&format!("# TYPE {} histogram", metric.name())),
                "{}: {text}",
                metric.name()
            );
        }
    }

    #[tokio::test]
    async fn upkeep_ends_when_cancelled() {
        let stop = CancellationToken::new();
        stop.cancel();
        run_upkeep(install(), stop).await;
    }
}
