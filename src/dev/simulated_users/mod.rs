//! The simulated users of `usher dev`.
//!
//! They visit the demo concert, wait, look at seats, hold some, pay or give up, and cancel what
//! they bought, so that the demo sale keeps moving and never sells out. They are ordinary users:
//! they call the public listener over HTTP and have no privileges.
//!
//! Three rules keep them from starving a person who visits the demo at the same time:
//! - none joins while the queue's estimated wait is longer than [`MAX_WAIT_SECONDS`];
//! - together they take at most [`state::MAX_SEATS`] seats, and none while fewer than
//!   [`state::MIN_FREE_SEATS`] are free;
//! - only a fixed set of [`state::BUYER_COUNT`] accounts buys, and each cancels what it bought.
//!   Before they start they give back what an earlier, killed process left.
//!
//! Start reading at [`SimulatedUsers::run`]; one user is in `user`.

mod client;
mod counters;
mod state;
mod user;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use client::SimulatedClient;
pub use counters::SimulationCounts;
use state::BUYER_COUNT;
pub use state::{
    MAX_MINUTES, MAX_PEOPLE, PACE_PERCENT_RANGE, SimulatedUsers, SimulationSettings,
    SimulationState,
};
use user::SimulatedUser;

/// Users do not join a queue with a longer estimated wait, in seconds.
const MAX_WAIT_SECONDS: u64 = 15;
/// Users do not join a longer queue while its wait is unknown, in users.
const MAX_QUEUE_LENGTH: u64 = 500;
/// How often the length of the queue is read.
const QUEUE_POLL_INTERVAL: Duration = Duration::from_millis(500);

impl SimulatedUsers {
    /// Calls the listener at `public` until `stop` is cancelled.
    pub async fn run(self, public: SocketAddr, stop: CancellationToken) {
        stop.run_until_cancelled(self.drive(SimulatedClient::new(public), &stop)).await;
    }

    /// Starts users as the settings ask for them, and ends the run when its time is over.
    async fn drive(&self, client: SimulatedClient, stop: &CancellationToken) {
        let mut runs = self.0.run.subscribe();
        if runs.wait_for(|(settings, _)| settings.people > 0).await.is_err() {
            return;
        }
        let tasks = TaskTracker::new();
        let watch = self.clone().watch_queue(client.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(watch));
        let mut started = 0;
        loop {
            let (settings, end) = *runs.borrow_and_update();
            // A started user stays a task and sleeps while it is not needed. Buyers start in any
            // case, because they may have something to give back.
            let needed = settings.people.max(BUYER_COUNT);
            for number in started..needed {
                let user = SimulatedUser::new(number, self.clone(), client.clone());
                tasks.spawn(stop.clone().run_until_cancelled_owned(user.live()));
            }
            started = started.max(needed);
            let run_ends = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = runs.changed() => if changed.is_err() { return },
                () = run_ends => {
                    self.configure_until(SimulationSettings { people: 0, ..settings }, None);
                }
            }
        }
    }

    /// Keeps [`state::SharedState::may_join`] up to date.
    async fn watch_queue(self, client: SimulatedClient) {
        loop {
            let response = client.get("/v1/queues/demo").send().await;
            let queue = &response.body;
            let waiting = queue["waiting"].as_u64().unwrap_or(u64::MAX);
            let estimate = queue["estimated_wait_seconds"].as_u64();
            let may_join = match (queue["mode"].as_str(), estimate) {
                (Some("open"), Some(wait)) => wait <= MAX_WAIT_SECONDS,
                (Some("open"), None) => waiting < MAX_QUEUE_LENGTH,
                // The queue admits no one, so users may make it longer.
                (Some("paused" | "prequeue"), _) => true,
                _ => false,
            };
            self.0.may_join.store(may_join, Ordering::Relaxed);
            tokio::time::sleep(QUEUE_POLL_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn run_ends_after_its_duration() {
        let users = SimulatedUsers::new(SimulationSettings::STOPPED);
        assert_eq!(users.state().remaining, Duration::ZERO);
        users.configure(SimulationSettings { minutes: 2, ..SimulationSettings::STOPPED });
        assert_eq!(users.state().remaining, Duration::ZERO, "a run without users has no end");
        let three = SimulationSettings { people: 3, minutes: 2, ..SimulationSettings::STOPPED };
        users.configure(three);
        assert!(users.state().remaining > Duration::from_secs(100));
        let soon = Instant::now() + Duration::from_millis(20);
        users.configure_until(SimulationSettings { minutes: 15, ..three }, Some(soon));
        let stop = CancellationToken::new();
        let closed_port = SocketAddr::from(([127, 0, 0, 1], 9));
        let running = tokio::spawn(users.clone().run(closed_port, stop.clone()));
        let mut runs = users.0.run.subscribe();
        runs.wait_for(|(settings, _)| settings.people == 0).await.unwrap();
        assert_eq!(users.state().settings.minutes, 15, "the other settings stay for the next run");
        stop.cancel();
        running.await.unwrap();
    }
}
