//! What the runtime tells of itself: threads, tasks, how busy it is, and how late its timers are.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Metric;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at the runtime of the caller until `stop` is cancelled. One such task a process is enough; more count the timers' lateness more often.
pub async fn watch_runtime(stop: CancellationToken) {
    let runtime = Handle::current().metrics();
    let mut before = (Instant::now(), busy(&runtime));
    loop {
        let due = Instant::now() + EVERY;
        if stop.run_until_cancelled(tokio::time::sleep_until(due)).await.is_none() {
            return;
        }
        let now = (Instant::now(), busy(&runtime));
        Metric::RuntimeLateSeconds.histogram(&[]).record(now.0.saturating_duration_since(due));
        let passed = (now.0 - before.0) * u32::try_from(runtime.num_workers()).unwrap_or(1).max(1);
        let worked = now.1.saturating_sub(before.1);
        // A thread's own time is told when it goes to sleep, so a long turn may be told late: no more than all of it.
        Metric::RuntimeBusyRatio
            .gauge(&[])
            .set((worked.as_secs_f64() / passed.as_secs_f64().max(0.001)).min(1.0));
        Metric::RuntimeWorkers.gauge(&[]).set(runtime.num_workers() as f64);
        Metric::RuntimeTasks.gauge(&[]).set(runtime.num_alive_tasks() as f64);
        Metric::RuntimeTasksWaiting.gauge(&[]).set(runtime.global_queue_depth() as f64);
        before = now;
    }
}

/// For how long all threads together have been at work.
fn busy(runtime: &RuntimeMetrics) -> Duration {
    (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_runtime_is_looked_at_until_it_is_told_to_stop() {
        let metrics = super::super::install();
        let stop = CancellationToken::new();
        let watch = tokio::spawn(watch_runtime(stop.clone()));
        let told = async {
            while !metrics.render().contains("usher_runtime_workers 1\n") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(EVERY * 60, told).await.unwrap();
        stop.cancel();
        watch.await.unwrap();
    }
}
