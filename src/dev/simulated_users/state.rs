//! What the driver and all simulated users share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::counters::{SimulationCounters, SimulationCounts};

/// The largest number of simulated users.
pub const MAX_PEOPLE: u32 = 5_000;
/// The longest duration of one run, in minutes.
pub const MAX_MINUTES: u32 = 60;
/// Allowed speeds, in percent of the default.
pub const PACE_PERCENT_RANGE: std::ops::RangeInclusive<u32> = 25..=400;

/// Seats that all simulated users together hold and own at most.
pub(super) const MAX_SEATS: usize = 28;
/// Simulated users hold no seats while fewer seats than these are free.
pub(super) const MIN_FREE_SEATS: usize = 16;
/// The first users by number pay for their seats. All others release them.
pub(super) const BUYER_COUNT: u32 = 200;

/// How many users to simulate, how fast, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulationSettings {
    /// Users at the same time; 0 stops all of them.
    pub people: u32,
    /// Speed in percent of the default.
    pub pace_percent: u32,
    /// The run ends after this time.
    pub minutes: u32,
}

impl SimulationSettings {
    /// No users; pace and duration have their defaults.
    pub const STOPPED: Self = Self { people: 0, pace_percent: 100, minutes: 15 };

    pub(super) fn ends_at(self) -> Option<Instant> {
        let duration = Duration::from_secs(u64::from(self.minutes) * 60);
        (self.people > 0).then(|| Instant::now() + duration)
    }
}

/// The settings of the current run and its end.
pub(super) type CurrentRun = (SimulationSettings, Option<Instant>);

/// A group of simulated users and its controls. Clones control the same group.
#[derive(Clone)]
pub struct SimulatedUsers(pub(super) Arc<SharedState>);

pub(super) struct SharedState {
    pub(super) run: watch::Sender<CurrentRun>,
    pub(super) counters: SimulationCounters,
    /// Bounds the seats that simulated users hold and own.
    pub(super) seat_permits: Arc<Semaphore>,
    /// Whether the queue is short enough to join.
    pub(super) may_join: AtomicBool,
}

/// What simulated users do at the moment.
#[derive(Debug, Clone, Copy)]
pub struct SimulationState {
    /// The settings of the current run; `people` is 0 once it ended.
    pub settings: SimulationSettings,
    /// Time until the run ends.
    pub remaining: Duration,
    pub counts: SimulationCounts,
}

impl SimulatedUsers {
    /// The users do nothing until [`Self::run`] runs.
    pub fn new(settings: SimulationSettings) -> Self {
        Self(Arc::new(SharedState {
            run: watch::Sender::new((settings, settings.ends_at())),
            counters: SimulationCounters::default(),
            seat_permits: Arc::new(Semaphore::new(MAX_SEATS)),
            may_join: AtomicBool::new(true),
        }))
    }

    /// Changes the settings and restarts the duration of the run.
    pub fn configure(&self, settings: SimulationSettings) {
        self.configure_until(settings, settings.ends_at());
    }

    pub(super) fn configure_until(&self, settings: SimulationSettings, end: Option<Instant>) {
        self.0.run.send_replace((settings, end));
    }

    /// The state at this moment.
    pub fn state(&self) -> SimulationState {
        let (settings, end) = *self.0.run.borrow();
        let now = Instant::now();
        let remaining = end.map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
        SimulationState { settings, remaining, counts: self.0.counters.counts() }
    }
}
