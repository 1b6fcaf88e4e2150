//! The coalescer: combines concurrent requests for one entity into batches, without a timer.
//!
//! A request for an idle entity is sent at once. Requests that arrive during a call wait and form
//! the next batch, up to [`MAX_BATCH`]. So an idle service adds no latency, and under load one
//! script call answers many requests: a single call costs Redis about 12 µs, in a batch of fifty
//! little more than 1 µs per request.
//!
//! A caller that gives up only drops its receiver: the batch runs in a separate task, and the
//! others get their answers.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Error, LuaScript};
use crate::telemetry::Metric;

/// The most requests in one call. Keeps a script well below a millisecond and its arguments within
/// the limit of Lua's `unpack`.
pub const MAX_BATCH: usize = 256;

/// A batched operation: makes one call for several requests of one entity.
pub trait BatchOperation: Send + Sync + 'static {
    /// What the requests of one call have in common.
    type Entity: Hash + Eq + Clone + Send + Sync + 'static;
    type Request: Send + Sync + 'static;
    type Answer: Send + 'static;

    /// The script; its name is the label of the metrics.
    fn script(&self) -> &'static LuaScript;

    /// Makes one call and returns one answer per request, in order.
    fn call(
        &self,
        entity: &Self::Entity,
        requests: &[Self::Request],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, Error>> + Send;
}

/// Collects the requests of one [`BatchOperation`].
pub struct Coalescer<B: BatchOperation> {
    shared: Arc<CoalescerShared<B>>,
}

struct CoalescerShared<B: BatchOperation> {
    batch: B,
    max_waiting: usize,
    lanes: Mutex<EntityLanes<B>>,
}

/// The waiting requests of each entity. An entity has a lane exactly while a task makes its calls.
type EntityLanes<B> = HashMap<<B as BatchOperation>::Entity, VecDeque<BatchWaiter<B>>>;

struct BatchWaiter<B: BatchOperation> {
    request: B::Request,
    answer: oneshot::Sender<Result<B::Answer, Error>>,
}

impl<B: BatchOperation> Coalescer<B> {
    /// At most `max_waiting` requests wait for one entity.
    pub fn new(batch: B, max_waiting: usize) -> Self {
        let shared = CoalescerShared { batch, max_waiting, lanes: Mutex::new(HashMap::new()) };
        Metric::CoalescerRefusedTotal.counter(&shared.labels()).increment(0);
        Self { shared: Arc::new(shared) }
    }

    /// Adds a request to the next batch of its entity and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when too many requests wait already; otherwise the error of the call.
    pub async fn submit(&self, entity: B::Entity, request: B::Request) -> Result<B::Answer, Error> {
        let (answer, answered) = oneshot::channel();
        let waiter = BatchWaiter { request, answer };
        let idle = {
            let mut lanes = self.shared.lanes();
            match lanes.get_mut(&entity) {
                Some(lane) if lane.len() >= self.shared.max_waiting => {
                    Metric::CoalescerRefusedTotal.counter(&self.shared.labels()).increment(1);
                    return Err(Error::Overloaded);
                }
                Some(lane) => {
                    lane.push_back(waiter);
                    false
                }
                None => {
                    lanes.insert(entity.clone(), VecDeque::from([waiter]));
                    true
                }
            }
        };
        if idle {
            tokio::spawn(drive(self.shared.clone(), entity));
        }
        answered.await.unwrap_or_else(|_| Err(Error::Unavailable("the call was abandoned".into())))
    }
}

impl<B: BatchOperation> CoalescerShared<B> {
    fn lanes(&self) -> MutexGuard<'_, EntityLanes<B>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn labels(&self) -> [(&'static str, &'static str); 1] {
        [("script", self.batch.script().name())]
    }

    /// Takes the next batch of an entity; removes its lane when no request waits.
    fn take(&self, entity: &B::Entity) -> Vec<BatchWaiter<B>> {
        let mut lanes = self.lanes();
        match lanes.get_mut(entity) {
            Some(lane) if !lane.is_empty() => {
                let count = lane.len().min(MAX_BATCH);
                Metric::CoalescerWaiting.gauge(&self.labels()).set((lane.len() - count) as f64);
                lane.drain(..count).collect()
            }
            _ => {
                lanes.remove(entity);
                Vec::new()
            }
        }
    }
}

/// Removes the lane of a task that panicked, so that its entity is not stuck and its waiters get an
/// error.
struct LaneGuard<'a, B: BatchOperation>(&'a CoalescerShared<B>, &'a B::Entity);

impl<B: BatchOperation> Drop for LaneGuard<'_, B> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lanes().remove(self.1);
        }
    }
}

async fn drive<B: BatchOperation>(shared: Arc<CoalescerShared<B>>, entity: B::Entity) {
    let _guard = LaneGuard(&shared, &entity);
    loop {
        // Requests that are ready in this turn of the runtime join the batch. With many entities
        // this halves the number of calls.
        tokio::task::yield_now().await;
        let waiters = shared.take(&entity);
        if waiters.is_empty() {
            return;
        }
        let (requests, senders): (Vec<_>, Vec<_>) =
            waiters.into_iter().map(|w| (w.request, w.answer)).unzip();
        Metric::CoalescerBatchSize.histogram(&shared.labels()).record(requests.len() as f64);
        let in_flight = Metric::CoalescerInFlight.gauge(&shared.labels());
        in_flight.increment(1.0);
        let answers = shared.batch.call(&entity, &requests).await;
        in_flight.decrement(1.0);
        send_answers(senders, answers);
    }
}

/// Sends each waiter its answer. A closed receiver is no error: its caller gave up.
fn send_answers<A>(
    senders: Vec<oneshot::Sender<Result<A, Error>>>,
    answers: Result<Vec<A>, Error>,
) {
    let failure = match answers {
        Ok(answers) if answers.len() == senders.len() => {
            for (sender, answer) in senders.into_iter().zip(answers) {
                let _ = sender.send(Ok(answer));
            }
            return;
        }
        Ok(answers) => {
            Error::Protocol(format!("{} answers to {} requests", answers.len(), senders.len()))
        }
        Err(error) => error,
    };
    for sender in senders {
        let _ = sender.send(Err(failure.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::redis::scripts;

    /// Doubles numbers. Each call needs a permit; the batch sizes are recorded.
    struct DoublingBatch {
        permits: Arc<Semaphore>,
        sizes: Arc<Mutex<Vec<usize>>>,
        panics: AtomicUsize,
    }

    impl BatchOperation for DoublingBatch {
        type Entity = &'static str;
        type Request = u64;
        type Answer = u64;

        fn script(&self) -> &'static LuaScript {
            &scripts::QUEUE_JOIN
        }

        async fn call(&self, _: &&'static str, requests: &[u64]) -> Result<Vec<u64>, Error> {
            let permit = self.permits.acquire().await.unwrap();
            permit.forget();
            self.sizes.lock().unwrap().push(requests.len());
            if requests.contains(&13) {
                return Err(Error::Unavailable("thirteen".into()));
            }
            assert!(
                !requests.contains(&666) || self.panics.fetch_add(1, Ordering::SeqCst) > 0,
                "a defect"
            );
            Ok(requests.iter().map(|n| n * 2).collect())
        }
    }

    type CoalescerParts = (Arc<Coalescer<DoublingBatch>>, Arc<Semaphore>, Arc<Mutex<Vec<usize>>>);

    fn double(max_waiting: usize) -> CoalescerParts {
        let permits = Arc::new(Semaphore::new(0));
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let batch = DoublingBatch {
            permits: permits.clone(),
            sizes: sizes.clone(),
            panics: AtomicUsize::new(0),
        };
        (Arc::new(Coalescer::new(batch, max_waiting)), permits, sizes)
    }

    /// Submits a request and lets the runtime turn until it waits or is in flight.
    async fn spawn(
        on: &Arc<Coalescer<DoublingBatch>>,
        n: u64,
    ) -> tokio::task::JoinHandle<Result<u64, Error>> {
        let on = on.clone();
        let task = tokio::spawn(async move { on.submit("a", n).await });
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        task
    }

    #[tokio::test]
    async fn first_request_is_sent_at_once_and_the_rest_form_the_next_batch() {
        let (coalescer, permits, sizes) = double(1000);
        let mut tasks = Vec::new();
        for n in 1000..1300 {
            tasks.push(spawn(&coalescer, n).await);
        }
        permits.add_permits(3);
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Ok(2 * (1000 + n as u64)));
        }
        assert_eq!(*sizes.lock().unwrap(), [1, 256, 43]);
    }

    #[tokio::test]
    async fn caller_that_gives_up_does_not_affect_the_others() {
        let (coalescer, permits, sizes) = double(1000);
        let first = spawn(&coalescer, 1).await;
        let second = spawn(&coalescer, 2).await;
        let third = spawn(&coalescer, 3).await;
        first.abort();
        second.abort();
        permits.add_permits(2);
        assert_eq!(third.await.unwrap(), Ok(6));
        assert_eq!(*sizes.lock().unwrap(), [1, 2]);
    }

    #[tokio::test]
    async fn full_lane_rejects_requests() {
        let (coalescer, permits, _) = double(2);
        let waiting =
            [spawn(&coalescer, 1).await, spawn(&coalescer, 2).await, spawn(&coalescer, 3).await];
        assert_eq!(coalescer.submit("a", 4).await, Err(Error::Overloaded));
        permits.add_permits(2);
        for task in waiting {
            assert!(task.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn failed_call_fails_only_its_batch() {
        let (coalescer, permits, _) = double(1000);
        let first = spawn(&coalescer, 13).await;
        let second = spawn(&coalescer, 2).await;
        permits.add_permits(2);
        assert_eq!(first.await.unwrap(), Err(Error::Unavailable("thirteen".into())));
        assert_eq!(second.await.unwrap(), Ok(4));
    }

    #[tokio::test]
    async fn panic_in_a_call_frees_the_lane() {
        let (coalescer, permits, _) = double(1000);
        permits.add_permits(2);
        assert!(matches!(coalescer.submit("a", 666).await, Err(Error::Unavailable(_))));
        assert_eq!(coalescer.submit("a", 2).await, Ok(4));
    }
}
