//! The demo crowd of `usher dev`: simulated users who come to the demo concert, wait, look, hold, give up, pay, and cancel again, so
//! that its seats turn and never run out.
//!
//! They are users like others and call the public listener by HTTP; no door is open to them alone. What keeps them from starving a
//! person who comes to the page meanwhile:
//! - nobody of the crowd gets in line while the wait is longer than [`LONGEST_WAIT`];
//! - together they take no more than [`SEATS`] seats, and none once fewer than [`LEFT_FREE`] are free;
//! - they buy with few and always the same accounts ([`BUYERS`]), and cancel what they have bought. What a crowd that was killed left behind, the next one
//!   gives back before anybody comes.
//!
//! The room knows nothing of Usher but its HTTP contract.

mod client;
mod member;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use client::SimulatedClient;
use member::SimulatedUser;
pub use tally::SimulationCounts;
use tally::SimulationTally;

/// The largest crowd, in people.
pub const MOST_PEOPLE: u32 = 5_000;
/// The longest time that a crowd stays without being asked again, in minutes.
pub const MOST_MINUTES: u32 = 60;
/// How fast they act, in percent of the usual: the slowest and the fastest.
pub const PACES: std::ops::RangeInclusive<u32> = 25..=400;

/// Nobody of the crowd joins a line with a longer estimated wait, in seconds.
const LONGEST_WAIT: u64 = 15;
/// The same in people, while the wait is not known.
const LONGEST_LINE: u64 = 500;
/// The seats that the crowd holds and owns at most.
const SEATS: usize = 28;
/// With no more seats free than these the crowd takes none.
const LEFT_FREE: usize = 16;
/// So many of them pay; the others give their seats back.
const BUYERS: u32 = 200;
/// How often the line is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How many there should be, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulationSettings {
    /// At once; 0 sends all of them home.
    pub people: u32,
    /// In percent of the usual pace.
    pub pace_percent: u32,
    /// After so many minutes they go home by themselves.
    pub minutes: u32,
}

impl SimulationSettings {
    /// Nobody.
    pub const NOBODY: Self = Self { people: 0, pace_percent: 100, minutes: 15 };
}

/// A crowd, and how it is told what to be like. Clones are the same crowd.
#[derive(Clone)]
pub struct SimulatedUsers(Arc<SimulationInner>);

struct SimulationInner {
    wish: watch::Sender<(SimulationSettings, Option<Instant>)>,
    tally: SimulationTally,
    seats: Arc<Semaphore>,
    /// Whether the line is short enough to get in.
    short: AtomicBool,
}

/// What a crowd is like at the moment.
#[derive(Debug, Clone, Copy)]
pub struct SimulationState {
    /// What was wished for, or nobody once its time is over.
    pub wish: SimulationSettings,
    /// Until it goes home.
    pub left: Duration,
    /// What it does, and has done since the process started.
    pub counts: SimulationCounts,
}

impl SimulatedUsers {
    /// A crowd that is still at home; it comes when [`Self::run`] runs.
    pub fn new(wish: SimulationSettings) -> Self {
        Self(Arc::new(SimulationInner {
            wish: watch::Sender::new((wish, ends(wish))),
            tally: SimulationTally::default(),
            seats: Arc::new(Semaphore::new(SEATS)),
            short: AtomicBool::new(true),
        }))
    }

    /// Changes what it should be like, and begins its time anew.
    pub fn wish(&self, wish: SimulationSettings) {
        self.wish_until(wish, ends(wish));
    }

    fn wish_until(&self, wish: SimulationSettings, ends: Option<Instant>) {
        self.0.wish.send_replace((wish, ends));
    }

    /// What it is like at the moment.
    pub fn state(&self) -> SimulationState {
        let (wish, ends) = *self.0.wish.borrow();
        let left =
            ends.map_or(Duration::ZERO, |ends| ends.saturating_duration_since(Instant::now()));
        SimulationState { wish, left, counts: self.0.tally.counts() }
    }

    /// Lets it call the listener at `public` until `stop`.
    pub async fn run(self, public: SocketAddr, stop: CancellationToken) {
        stop.run_until_cancelled(self.come_and_go(SimulatedClient::new(public), &stop)).await;
    }

    async fn come_and_go(&self, client: SimulatedClient, stop: &CancellationToken) {
        let mut wishes = self.0.wish.subscribe();
        if wishes.wait_for(|(wish, _)| wish.people > 0).await.is_err() {
            return;
        }
        let people = TaskTracker::new();
        people.spawn(stop.clone().run_until_cancelled_owned(self.clone().look(client.clone())));
        let mut known = 0;
        loop {
            let (wish, ends) = *wishes.borrow_and_update();
            // Whoever has come once stays a task, which sleeps while it is not wanted. Buyers come in any case: they may have something to give back.
            let wanted = wish.people.max(BUYERS);
            for number in known..wanted {
                let member = SimulatedUser::new(number, self.clone(), client.clone());
                people.spawn(stop.clone().run_until_cancelled_owned(member.live()));
            }
            known = known.max(wanted);
            let over = async {
                match ends {
                    Some(ends) => tokio::time::sleep_until(ends).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                () = over => drop(self.0.wish.send_replace((SimulationSettings { people: 0, ..wish }, None))),
            }
        }
    }

    /// Keeps an eye on the line.
    async fn look(self, client: SimulatedClient) {
        loop {
            let answer = client.get("/v1/queues/demo").send().await;
            let line = &answer.body;
            let waiting = line["waiting"].as_u64().unwrap_or(u64::MAX);
            let short = match (line["mode"].as_str(), line["estimated_wait_seconds"].as_u64()) {
                (Some("open"), Some(wait)) => wait <= LONGEST_WAIT,
                (Some("open"), None) => waiting < LONGEST_LINE,
                // It stands still for everybody, and grows.
                (Some("paused" | "prequeue"), _) => true,
                _ => false,
            };
            self.0.short.store(short, Ordering::Relaxed);
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn ends(wish: SimulationSettings) -> Option<Instant> {
    (wish.people > 0).then(|| Instant::now() + Duration::from_secs(u64::from(wish.minutes) * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_goes_home_by_itself() {
        let crowd = SimulatedUsers::new(SimulationSettings::NOBODY);
        assert_eq!(crowd.state().left, Duration::ZERO);
        crowd.wish(SimulationSettings { people: 0, minutes: 2, ..SimulationSettings::NOBODY });
        assert_eq!(crowd.state().left, Duration::ZERO, "nobody has no time");
        crowd.wish(SimulationSettings { people: 3, minutes: 2, ..SimulationSettings::NOBODY });
        assert!(crowd.state().left > Duration::from_secs(100));
        let soon = Instant::now() + Duration::from_millis(20);
        crowd
            .wish_until(SimulationSettings { people: 3, ..SimulationSettings::NOBODY }, Some(soon));
        let stop = CancellationToken::new();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let running = tokio::spawn(crowd.clone().run(nowhere, stop.clone()));
        let mut wishes = crowd.0.wish.subscribe();
        wishes.wait_for(|(wish, _)| wish.people == 0).await.unwrap();
        assert_eq!(
            crowd.state().wish.minutes,
            SimulationSettings::NOBODY.minutes,
            "the rest is kept for the next time"
        );
        stop.cancel();
        running.await.unwrap();
    }
}
