//! The scheduler: lets the front of every line in, and takes lapsed slots back.
//!
//! There is no leader. Every instance calls `lua/queue/promote.lua` for every queue; the bucket in Redis decides, so ten schedulers let in
//! no more than one. The script says when a further call can help, and the scheduler sleeps until then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Error, Queue, store};
use crate::ids::QueueId;
use crate::redis;
use crate::telemetry::Metric;

/// The longest sleep between two looks at a queue: how late a change of its settings is noticed at most.
const LONGEST: Duration = Duration::from_millis(250);
/// The shortest, so that a line of a million does not keep Redis busy with nothing else.
const SHORTEST: Duration = Duration::from_millis(5);
/// Queues that are looked at side by side.
const PARALLEL: usize = 16;

/// Runs until `stop`.
pub async fn run(queue: Arc<Queue>, stop: CancellationToken) {
    let mut due: HashMap<QueueId, Instant> = HashMap::new();
    loop {
        let now = Instant::now();
        let known = queue.ids();
        due.retain(|id, _| known.contains(id));
        let ripe: Vec<QueueId> =
            known.into_iter().filter(|id| due.get(id).is_none_or(|at| *at <= now)).collect();
        let queue = &queue;
        let looks = futures::stream::iter(ripe).map(async |id| (id.clone(), look(queue, &id).await));
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

/// One look at one queue; gives the pause until the next.
async fn look(queue: &Queue, id: &QueueId) -> Duration {
    match queue.promote(id).await {
        Ok(done) => {
            let labels = [("queue", id.as_str())];
            Metric::QueueWaiting.gauge(&labels).set(done.waiting as f64);
            Metric::QueueActive.gauge(&labels).set(done.active as f64);
            Metric::QueuePromotedTotal.counter(&labels).increment(done.promoted);
            Metric::QueueNoShowsTotal.counter(&labels).increment(done.no_shows);
            done.wait_ms.map_or(LONGEST, Duration::from_millis).clamp(SHORTEST, LONGEST)
        }
        Err(Error::Redis(redis::Error::Recovering(_) | redis::Error::NoRoom(_))) => LONGEST,
        Err(error) => {
            tracing::warn!(queue = %id, %error, "promoting");
            LONGEST
        }
    }
}

impl Queue {
    /// Lets in whom the bucket allows. Lays the settings anew when Redis holds others than this instance knows: a change whose commit failed
    /// after it was laid is undone here.
    async fn promote(&self, id: &QueueId) -> Result<store::Promoted, Error> {
        let done = self.with_settings(id, || store::promote(self.redis(), id)).await?;
        if self.settings(id).is_some_and(|known| known.version != done.version) {
            self.lay(id).await?;
            self.reload().await?;
        }
        Ok(done)
    }
}
