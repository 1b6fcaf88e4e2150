//! Generates the load: several threads, each with a single-threaded runtime and its share of the
//! arrivals.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

use super::client::LoadClient;
use super::latency::{LatencySeries, RequestStep};
use super::observation::UserObservation;
use super::simulated_users::{self, WaitingUser};
use crate::{BoxError, log_progress};

const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadKind {
    Journeys,
    Coupons,
    Polls,
}

impl LoadKind {
    /// Name of the command, and of the section in the document.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Journeys => "journeys",
            Self::Coupons => "coupons",
            Self::Polls => "polls",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct LoadPlan {
    pub(super) kind: LoadKind,
    /// The public listener.
    pub(super) address: SocketAddr,
    /// Id of the queue and its concert, or of the coupon.
    pub(super) name: String,
    pub(super) schedule: String,
    pub(super) seats: u64,
    /// Determines the user ids together with the user's number.
    pub(super) seed: u128,
    /// Users of all threads. Users who poll are waiting before the run begins.
    pub(super) users: u64,
    /// Arrivals of all threads: users who arrive, or polls.
    pub(super) arrivals: u64,
    /// Arrivals per second of all threads.
    pub(super) rate: f64,
    pub(super) threads: u64,
    /// Connections per thread, which the users of the thread share.
    pub(super) connections: usize,
}

impl LoadPlan {
    /// Numbers and due times of one thread's arrivals: every `threads`-th of all arrivals.
    fn arrivals_of(&self, thread: u64) -> impl Iterator<Item = (u64, Duration)> + use<> {
        let (step, rate) = (usize::try_from(self.threads).unwrap_or(usize::MAX), self.rate);
        let numbers = (thread..self.arrivals).step_by(step);
        numbers.map(move |number| (number, Duration::from_secs_f64(number as f64 / rate)))
    }
}

/// Counters of all threads, shown while the load runs.
#[derive(Debug, Default)]
pub(super) struct LoadProgress {
    pub(super) arrived: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) admitted: AtomicU64,
    pub(super) won: AtomicU64,
}

impl LoadProgress {
    fn line(&self, elapsed: Duration) -> String {
        let [arrived, finished, admitted, won] =
            [&self.arrived, &self.finished, &self.admitted, &self.won]
                .map(|counter| counter.load(Ordering::Relaxed));
        let seconds = elapsed.as_secs();
        format!(
            "{seconds} s: {arrived} arrived, {admitted} admitted, {won} won, {finished} finished"
        )
    }
}

/// What the threads measured and their users observed.
#[derive(Default)]
pub(super) struct LoadResult {
    pub(super) elapsed: Duration,
    pub(super) steps: BTreeMap<RequestStep, LatencySeries>,
    pub(super) observations: Vec<UserObservation>,
}

impl LoadResult {
    fn merge(&mut self, other: Self) {
        for (step, series) in &other.steps {
            self.steps.entry(*step).or_default().merge(series);
        }
        self.observations.extend(other.observations);
    }
}

pub(super) async fn run(plan: LoadPlan) -> Result<LoadResult, BoxError> {
    log_progress("preparing the users");
    let progress = Arc::new(LoadProgress::default());
    let (ready, mut all_ready) = mpsc::unbounded_channel();
    let (start, started) = watch::channel(None);
    let mut results = Vec::new();
    for thread in 0..plan.threads {
        let (plan, progress) = (plan.clone(), progress.clone());
        let (ready, started, (send, result)) = (ready.clone(), started.clone(), oneshot::channel());
        std::thread::spawn(move || {
            let result = run_thread(thread, plan, progress, ready, started);
            // The receiver is gone only if the run has failed.
            let _ = send.send(result);
        });
        results.push(result);
    }
    drop(ready);
    let mut waiting = plan.threads;
    while waiting > 0 && all_ready.recv().await.is_some() {
        waiting -= 1;
    }
    // If a thread failed before it was ready, its error is found in the results below.
    let begun = Instant::now();
    start.send_replace(Some(begun));
    let collect = async {
        let mut all = LoadResult::default();
        for result in results {
            all.merge(result.await.map_err(|_| "a load thread panicked")??);
        }
        Ok(LoadResult { elapsed: begun.elapsed(), ..all })
    };
    tokio::select! {
        result = collect => result,
        () = show_progress(&progress, begun) => Err("the progress output ended".into()),
    }
}

async fn show_progress(progress: &LoadProgress, begun: Instant) {
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        log_progress(&progress.line(begun.elapsed()));
    }
}

fn run_thread(
    thread: u64,
    plan: LoadPlan,
    progress: Arc<LoadProgress>,
    ready: mpsc::UnboundedSender<()>,
    mut started: watch::Receiver<Option<Instant>>,
) -> Result<LoadResult, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let plan = Rc::new(plan);
    LocalSet::new().block_on(&runtime, async {
        let client = LoadClient::open(plan.address, plan.connections, progress).await?;
        let client = Rc::new(client);
        let waiting = join_waiting_users(&client, &plan, thread).await?;
        ready.send(())?;
        drop(ready);
        let begun = started.wait_for(Option::is_some).await?.ok_or("no start time")?;
        client.begin(begun);
        generate(&client, &plan, thread, &waiting, begun).await;
        let mut observations = client.observations.take();
        observations.extend(waiting.iter().filter_map(|user| user.take_observation()));
        let steps = client.latencies.take();
        Ok(LoadResult { steps, observations, ..LoadResult::default() })
    })
}

/// Starts each arrival when it is due, and waits until the last one has finished.
async fn generate(
    client: &Rc<LoadClient>,
    plan: &Rc<LoadPlan>,
    thread: u64,
    waiting: &[Rc<WaitingUser>],
    begun: Instant,
) {
    let mut tasks = JoinSet::new();
    for (number, after) in plan.arrivals_of(thread) {
        let due = begun + after;
        tokio::time::sleep_until(due.into()).await;
        let (client, plan) = (client.clone(), plan.clone());
        match plan.kind {
            LoadKind::Journeys => tasks.spawn_local(async move {
                simulated_users::run_journey(&client, &plan, number, due).await;
            }),
            LoadKind::Coupons => tasks.spawn_local(async move {
                simulated_users::request_coupon(&client, &plan, number, due).await;
            }),
            LoadKind::Polls => {
                let turn =
                    usize::try_from(number / plan.threads).unwrap_or(0) % waiting.len().max(1);
                let Some(user) = waiting.get(turn).cloned() else { return };
                tasks.spawn_local(async move { user.poll(&client, &plan, due).await })
            }
        };
        // Finished tasks must not accumulate in a long run.
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

/// Lets this thread's share of polling users join, as fast as the connections allow.
async fn join_waiting_users(
    client: &Rc<LoadClient>,
    plan: &Rc<LoadPlan>,
    thread: u64,
) -> Result<Vec<Rc<WaitingUser>>, BoxError> {
    if plan.kind != LoadKind::Polls {
        return Ok(Vec::new());
    }
    let step = usize::try_from(plan.threads)?;
    let numbers = Rc::new(std::cell::RefCell::new((thread..plan.users).step_by(step)));
    let mut tasks = JoinSet::new();
    for _ in 0..plan.connections {
        let (client, plan, numbers) = (client.clone(), plan.clone(), numbers.clone());
        tasks.spawn_local(async move {
            let mut joined = Vec::new();
            loop {
                let Some(number) = numbers.borrow_mut().next() else { return Some(joined) };
                joined.push(Rc::new(WaitingUser::join(&client, &plan, number).await?));
            }
        });
    }
    let mut users = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        users.extend(joined?.ok_or("a user could not join the queue")?);
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_arrivals_without_gaps_or_overlap() {
        let plan = LoadPlan {
            kind: LoadKind::Journeys,
            address: ([127, 0, 0, 1], 1).into(),
            name: String::new(),
            schedule: String::new(),
            seats: 1,
            seed: 0,
            users: 1_001,
            arrivals: 1_001,
            rate: 250.0,
            threads: 3,
            connections: 1,
        };
        let mut all: Vec<_> = (0..3).flat_map(|thread| plan.arrivals_of(thread)).collect();
        all.sort_unstable();
        let expected: Vec<_> =
            (0..1_001).map(|number| (number, Duration::from_millis(4 * number))).collect();
        assert_eq!(all, expected);
    }
}
