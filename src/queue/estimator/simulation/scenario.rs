//! Simulated queues: settings, users and changes by the operator.

/// A small deterministic random number generator (SplitMix64).
pub(super) struct SeededNumbers(u64);

impl SeededNumbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }
}

/// How long users stay unless their visit lapses before.
#[derive(Debug, Clone, Copy)]
pub(super) enum StayLength {
    /// Until the visit lapses.
    Full,
    /// They leave after this many seconds.
    Fixed(f64),
    /// They leave after a random time with this average in seconds.
    Exponential(f64),
    /// They leave after a random time between two bounds in seconds.
    Uniform(f64, f64),
}

impl StayLength {
    pub(super) fn draw(self, random: &mut SeededNumbers) -> f64 {
        match self {
            Self::Full => f64::INFINITY,
            Self::Fixed(seconds) => seconds,
            Self::Exponential(mean) => -mean * (1.0 - random.unit()).ln(),
            Self::Uniform(from, to) => random.between(from, to),
        }
    }
}

/// A change of the queue by its operator.
#[derive(Debug, Clone, Copy)]
pub(super) enum OperatorChange {
    Pause,
    Resume,
    MaxActive(u64),
    Rate(u64, u64),
}

#[derive(Debug, Clone)]
pub(super) struct QueueScenario {
    pub(super) name: String,
    pub(super) per_interval: u64,
    pub(super) interval_ms: u64,
    pub(super) max_active: u64,
    pub(super) active_seconds: u64,
    pub(super) claim_seconds: u64,
    /// Users who join within the first seconds.
    pub(super) users: usize,
    /// The seconds within which they join.
    pub(super) join_seconds: f64,
    pub(super) stay: StayLength,
    pub(super) no_show: f64,
    /// The share of users who make a hold, at a random age of their visit.
    pub(super) hold: f64,
    pub(super) hold_seconds: u64,
    /// The share of holds that end in a payment, which ends the visit at a random time.
    pub(super) pay: f64,
    /// Seconds and changes, in ascending order.
    pub(super) changes: Vec<(f64, OperatorChange)>,
    pub(super) rate_limited: bool,
    /// No event is simulated after this, in seconds.
    pub(super) until: f64,
}

impl QueueScenario {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            per_interval: 100,
            interval_ms: 1_000,
            max_active: 100,
            active_seconds: 300,
            claim_seconds: 60,
            users: 300,
            join_seconds: 3.0,
            stay: StayLength::Full,
            no_show: 0.0,
            hold: 0.0,
            hold_seconds: 120,
            pay: 0.5,
            changes: Vec::new(),
            rate_limited: false,
            until: 20_000.0,
        }
    }
}

/// Visits of at most a minute, so that the test takes seconds.
fn small(name: &str, stay: StayLength, no_show: f64) -> QueueScenario {
    let mut scenario = QueueScenario::new(name);
    (scenario.max_active, scenario.users) = (50, 300);
    (scenario.active_seconds, scenario.claim_seconds) = (60, 12);
    (scenario.hold_seconds, scenario.stay, scenario.no_show) = (30, stay, no_show);
    scenario
}

pub(super) fn scenarios() -> Vec<QueueScenario> {
    use OperatorChange::{MaxActive, Pause, Rate, Resume};
    let stays = [
        StayLength::Full,
        StayLength::Fixed(25.0),
        StayLength::Exponential(20.0),
        StayLength::Uniform(4.0, 60.0),
    ];
    let changes = [
        ("opening", vec![]),
        ("pause", vec![(80.0, Pause), (100.0, Resume)]),
        ("cap raised", vec![(80.0, MaxActive(100))]),
        ("cap lowered", vec![(80.0, MaxActive(20))]),
        ("rate changed", vec![(80.0, Rate(1, 2_000))]),
    ];
    let mut all = Vec::new();
    for stay in stays {
        for no_show in [0.0, 0.3, 0.6] {
            // A debug build takes ten times as long.
            let few = cfg!(debug_assertions) && no_show != 0.3;
            for (what, changes) in &changes[..if few { 1 } else { changes.len() }] {
                let name = format!("{stay:?}, {no_show} no-shows, {what}");
                let scenario = small(&name, stay, no_show);
                all.push(QueueScenario { changes: changes.clone(), ..scenario });
            }
            if few {
                continue;
            }
            let name = format!("{stay:?}, {no_show} no-shows, ");
            let rate = small(&(name.clone() + "rate only"), stay, no_show);
            let limits = QueueScenario { per_interval: 5, max_active: 1_000, ..rate };
            all.push(QueueScenario { rate_limited: true, ..limits });
            let both = small(&(name.clone() + "rate and slots"), stay, no_show);
            all.push(QueueScenario { per_interval: 1, ..both });
            all.push(QueueScenario { hold: 0.5, ..small(&(name + "holds"), stay, no_show) });
        }
    }
    all
}
