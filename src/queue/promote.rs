//! The scheduler: lets the front of every line in, and takes lapsed slots back.
//!
//! There is no leader. Every instance calls `lua/queue/promote.lua` for every queue; the bucket in Redis decides, so ten schedulers let in
//! no more than one. The script says when a further call can help, and the scheduler sleeps until then.

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

/// The longest sleep between two looks at a queue: how late a change of its settings is noticed at most.
const LONGEST: Duration = Duration::from_millis(250);
/// The shortest, so that a line of a million does not keep Redis busy with nothing else.
const SHORTEST: Duration = Duration::from_millis(5);
/// Queues that are looked at side by side.
const PARALLEL: usize = 16;

/// Runs until `stop`.
pub async fn run(queue: Arc<QueueService>, stop: CancellationToken) {
    let mut due: HashMap<QueueId, Instant> = HashMap::new();
    let arrivals = Mutex::new(HashMap::new());
    loop {
        let now = Instant::now();
        let known = queue.ids();
        due.retain(|id, _| known.contains(id));
        lock(&arrivals).retain(|id, _| known.contains(id));
        let ripe: Vec<QueueId> =
            known.into_iter().filter(|id| due.get(id).is_none_or(|at| *at <= now)).collect();
        let (queue, arrivals) = (&queue, &arrivals);
        let looks = futures::stream::iter(ripe)
            .map(async |id| (id.clone(), look(queue, &id, arrivals).await));
        let looked: Vec<_> = looks.buffer_unordered(PARALLEL).collect().await;
        let now = Instant::now();
        due.extend(looked.into_iter().map(|(id, pause)| (id, now + pause)));
        let next = due.values().min().copied().unwrap_or(now + LONGEST);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// When places were dealt, by queue.
type ArrivalsByQueue = Mutex<HashMap<QueueId, ArrivalTimes>>;

fn lock(arrivals: &ArrivalsByQueue) -> MutexGuard<'_, HashMap<QueueId, ArrivalTimes>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts those whom one call let in, and for how long each of them had waited.
fn count_admitted(arrivals: &ArrivalsByQueue, id: &QueueId, done: &store::PromoteOutcome) {
    let mut arrivals = lock(arrivals);
    let arrivals = arrivals.entry(id.clone()).or_default();
    arrivals.note(done.newest, done.now);
    let Some((from, to)) = done.scores.filter(|_| done.promoted > 0) else { return };
    let labels = [("queue", id.as_str())];
    Metric::QueueAdmittedTotal.counter(&labels).increment(done.promoted);
    let waited = Metric::QueueWaitSeconds.histogram(&labels);
    // Who stood between the two is not told: as many as there are, at even distances.
    let last = u128::from(done.promoted - 1).max(1);
    for nth in 0..done.promoted {
        let step = u128::from(to.saturating_sub(from)) * u128::from(nth) / last;
        let score = from + u64::try_from(step).unwrap_or_default();
        if let Some(waited_ms) = arrivals.waited(score, done.now) {
            waited.record(waited_ms as f64 / 1_000.0);
        }
    }
    arrivals.forget_before(to);
}

/// One look at one queue; gives the pause until the next.
async fn look(queue: &QueueService, id: &QueueId, arrivals: &ArrivalsByQueue) -> Duration {
    match queue.promote(id).await {
        Ok(done) => {
            let labels = [("queue", id.as_str())];
            Metric::QueueWaiting.gauge(&labels).set(done.waiting as f64);
            Metric::QueueActive.gauge(&labels).set(done.active as f64);
            Metric::QueuePromotedTotal.counter(&labels).increment(done.promoted);
            Metric::QueueNoShowsTotal.counter(&labels).increment(done.no_shows);
            Metric::QueueAdmittedTotal.counter(&labels).increment(0);
            count_admitted(arrivals, id, &done);
            done.wait_ms.map_or(LONGEST, Duration::from_millis).clamp(SHORTEST, LONGEST)
        }
        Err(Error::Store(StoreError::Redis(
            redis::Error::Recovering(_) | redis::Error::NoRoom(_),
        ))) => LONGEST,
        Err(error) => {
            tracing::warn!(queue = %id, %error, "promoting");
            LONGEST
        }
    }
}

impl QueueService {
    /// Lets in whom the bucket allows. Lays the settings anew when Redis holds others than this instance knows: a change whose commit failed
    /// after it was laid is undone here.
    async fn promote(&self, id: &QueueId) -> Result<store::PromoteOutcome, Error> {
        let done = self.with_settings(id, || store::promote(self.redis(), id)).await?;
        if self.settings(id).is_some_and(|known| known.version != done.version) {
            self.lay(id).await?;
            self.reload().await?;
        }
        Ok(done)
    }
}
