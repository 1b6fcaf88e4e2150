//! The scheduler: admits users from the front of every queue and ends lapsed active slots.
//!
//! There is no leader. Every instance calls `lua/queue/promote.lua` for every busy queue. The bucket in
//! Redis limits the rate, so ten schedulers admit no more users than one. The script returns when
//! the next call can admit users, and the scheduler sleeps until then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::arrivals::ArrivalTimes;
use super::{Error, QueueService, store};
use crate::ids::QueueId;
use crate::redis;
use crate::store_error::StoreError;
use crate::telemetry::Metric;

/// A change of a queue's settings takes effect after this time at the latest.
const MAX_PROMOTE_PAUSE: Duration = Duration::from_millis(250);
/// Keeps a queue of a million users from occupying Redis completely.
const MIN_PROMOTE_PAUSE: Duration = Duration::from_millis(5);
const MAX_CONCURRENT_PROMOTIONS: usize = 16;

/// Runs until `stop` is cancelled.
pub async fn run(queue: Arc<QueueService>, stop: CancellationToken) {
    let mut due: HashMap<QueueId, Instant> = HashMap::new();
    let arrivals = Mutex::new(HashMap::new());
    let mut next_look = Instant::now();
    loop {
        let now = Instant::now();
        if next_look <= now {
            queue.refresh_busy().await;
            next_look = now + MAX_PROMOTE_PAUSE;
            let busy = queue.recently_busy();
            due.retain(|id, _| busy.binary_search(id).is_ok());
            for id in busy {
                due.entry(id).or_insert(now);
            }
            lock(&arrivals).retain(|id, _| {
                let exists = queue.settings(id).is_some();
                if !exists {
                    report_users(id, 0, 0);
                }
                exists
            });
        }
        let is_due = |(id, at): (&QueueId, &Instant)| (*at <= now).then(|| id.clone());
        let due_ids: Vec<QueueId> = due.iter().filter_map(is_due).collect();
        let (queue, arrivals) = (&queue, &arrivals);
        let promotions = futures::stream::iter(due_ids)
            .map(async |id| (id.clone(), promote(queue, &id, arrivals).await));
        let pauses: Vec<_> = promotions.buffer_unordered(MAX_CONCURRENT_PROMOTIONS).collect().await;
        let now = Instant::now();
        due.extend(pauses.into_iter().map(|(id, pause)| (id, now + pause)));
        let next = due.values().min().map_or(next_look, |next| next_look.min(*next));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

fn report_users(id: &QueueId, waiting: u64, active: u64) {
    let labels = [("queue", id.as_str())];
    Metric::QueueWaiting.gauge(&labels).set(waiting as f64);
    Metric::QueueActive.gauge(&labels).set(active as f64);
}

type ArrivalsByQueue = Mutex<HashMap<QueueId, ArrivalTimes>>;

fn lock(arrivals: &ArrivalsByQueue) -> MutexGuard<'_, HashMap<QueueId, ArrivalTimes>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the users that one call admitted, and how long each of them waited.
fn count_admitted(arrivals: &ArrivalsByQueue, id: &QueueId, outcome: &store::PromoteOutcome) {
    let mut arrivals = lock(arrivals);
    let arrivals = arrivals.entry(id.clone()).or_default();
    arrivals.record(outcome.newest, outcome.now);
    let Some((from, to)) = outcome.scores.filter(|_| outcome.promoted > 0) else { return };
    let labels = [("queue", id.as_str())];
    Metric::QueueAdmittedTotal.counter(&labels).increment(outcome.promoted);
    let waited = Metric::QueueWaitSeconds.histogram(&labels);
    // The script returns only the lowest and the highest score. Assume even distances between them.
    let last = u128::from(outcome.promoted - 1).max(1);
    for nth in 0..outcome.promoted {
        let step = u128::from(to.saturating_sub(from)) * u128::from(nth) / last;
        let score = from + u64::try_from(step).unwrap_or_default();
        if let Some(waited_ms) = arrivals.waited(score, outcome.now) {
            waited.record(waited_ms as f64 / 1_000.0);
        }
    }
    arrivals.remove_before(to);
}

/// Promotes users of one queue and returns the pause until the next call.
async fn promote(queue: &QueueService, id: &QueueId, arrivals: &ArrivalsByQueue) -> Duration {
    match queue.promote(id).await {
        Ok(outcome) => {
            let labels = [("queue", id.as_str())];
            report_users(id, outcome.waiting, outcome.active);
            Metric::QueuePromotedTotal.counter(&labels).increment(outcome.promoted);
            Metric::QueueNoShowsTotal.counter(&labels).increment(outcome.no_shows);
            Metric::QueueAbandonedTotal.counter(&labels).increment(outcome.abandoned);
            Metric::QueueAdmittedTotal.counter(&labels).increment(0);
            count_admitted(arrivals, id, &outcome);
            outcome
                .wait_ms
                .map_or(MAX_PROMOTE_PAUSE, Duration::from_millis)
                .clamp(MIN_PROMOTE_PAUSE, MAX_PROMOTE_PAUSE)
        }
        // The queue was deleted.
        Err(Error::NotFound) => MAX_PROMOTE_PAUSE,
        Err(Error::Store(StoreError::Redis(
            redis::Error::Recovering(_) | redis::Error::OutOfCapacity(_),
        ))) => MAX_PROMOTE_PAUSE,
        Err(error) => {
            tracing::warn!(queue = %id, %error, "promoting users failed");
            MAX_PROMOTE_PAUSE
        }
    }
}

impl QueueService {
    /// Admits the users that the bucket allows.
    ///
    /// Publishes the settings when Redis has another version than this instance. This reverts a
    /// change that was published but whose commit failed.
    async fn promote(&self, id: &QueueId) -> Result<store::PromoteOutcome, Error> {
        let outcome = self.with_settings(id, || store::promote(self.redis(), id)).await?;
        if self.settings(id).is_some_and(|known| known.version != outcome.version) {
            self.publish_settings(id).await?;
            self.reload().await?;
        }
        Ok(outcome)
    }
}
