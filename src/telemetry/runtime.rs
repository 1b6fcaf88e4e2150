//! Metrics of the tokio runtime: threads, tasks, load and timer delay.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metric::Metric;

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Samples the runtime of the caller until `stop` is cancelled. One task per process is enough.
pub async fn watch_runtime(stop: CancellationToken) {
    let runtime = Handle::current().metrics();
    let mut last = (Instant::now(), busy_time(&runtime));
    loop {
        let due = Instant::now() + SAMPLE_INTERVAL;
        if stop.run_until_cancelled(tokio::time::sleep_until(due)).await.is_none() {
            return;
        }
        let now = (Instant::now(), busy_time(&runtime));
        Metric::RuntimeLateSeconds.histogram(&[]).record(now.0.saturating_duration_since(due));
        let available = (now.0 - last.0) * u32::try_from(runtime.num_workers()).unwrap_or(1).max(1);
        let busy = now.1.saturating_sub(last.1);
        // A thread reports its busy time when it parks, so a long poll may count later than it
        // happened. The ratio is capped at 1.
        Metric::RuntimeBusyRatio
            .gauge(&[])
            .set((busy.as_secs_f64() / available.as_secs_f64().max(0.001)).min(1.0));
        Metric::RuntimeWorkers.gauge(&[]).set(runtime.num_workers() as f64);
        Metric::RuntimeTasks.gauge(&[]).set(runtime.num_alive_tasks() as f64);
        Metric::RuntimeTasksWaiting.gauge(&[]).set(runtime.global_queue_depth() as f64);
        last = now;
    }
}

/// The busy time of all threads together.
fn busy_time(runtime: &RuntimeMetrics) -> Duration {
    (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runtime_is_sampled_until_cancelled() {
        let metrics = super::super::install();
        let stop = CancellationToken::new();
        let watch = tokio::spawn(watch_runtime(stop.clone()));
        let recorded = async {
            while !metrics.render().contains("usher_runtime_workers 1\n") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SAMPLE_INTERVAL * 60, recorded).await.unwrap();
        stop.cancel();
        watch.await.unwrap();
    }
}
