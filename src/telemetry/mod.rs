//! What the process tells about itself: metrics for Prometheus and log lines for people.
//!
//! [`Metric`] names every metric there is, with its kind, unit and labels; nothing else in the crate spells a metric's name.
//! [`install`] sets the recorder up, [`log::init`] the log. Both belong to the process, not to an instance of the app, because
//! `metrics` and `tracing` do; so both may be called again without harm.

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

/// How often histograms are emptied into their buckets. Without that they keep every sample until the next scrape.
const UPKEEP: Duration = Duration::from_secs(5);

/// Makes the process record metrics and gives the handle that renders them. The first call decides; later ones get its handle.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::error!(
                    "another metrics recorder is installed already: /metrics stays empty"
                );
            }
            Metric::describe_all();
            handle
        })
        .clone()
}

/// A builder that knows the buckets of every histogram: one without buckets would be rendered as a summary.
fn builder() -> PrometheusBuilder {
    Metric::ALL.iter().filter(|metric| !metric.buckets().is_empty()).fold(
        PrometheusBuilder::new(),
        |builder, metric| {
            builder
                .set_buckets_for_metric(Matcher::Full(metric.name().to_owned()), metric.buckets())
                .expect("only an empty list is refused, and those are filtered out")
        },
    )
}

/// Keeps the recorder's memory bounded until `stop` is cancelled. One such task a process is enough; more are harmless.
pub async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_gives_the_same_recorder() {
        let first = install();
        let second = install();
        Metric::PartitionsRecovering.gauge(&[]).set(3.0);
        for handle in [first, second] {
            assert!(handle.render().contains("usher_partitions_recovering 3"));
        }
    }

    #[test]
    fn every_histogram_is_rendered_with_buckets() {
        let recorder = builder().build_recorder();
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
    async fn upkeep_ends_when_it_is_told_to() {
        let stop = CancellationToken::new();
        stop.cancel();
        upkeep(install(), stop).await;
    }
}
