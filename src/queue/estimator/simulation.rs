//! A simulation of queues: the reported waits against the real ones.
//!
//! It steps from event to event and follows the scripts: joins, polls, promotions by the rate and
//! by free slots, show-ups, early ends, holds that extend a visit, and lapses. Users poll as asked.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "simulated times and counts are small"
)]

mod judgement;
mod polls;
mod scenario;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use super::age_bins::age_bin;
use super::{AdmissionForecast, AdmissionLimits, TurnoverCounts};
use judgement::EstimateJudgement;
use scenario::{OperatorChange, QueueScenario, SeededNumbers, scenarios};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SimulationEvent {
    Change(usize),
    Join(usize),
    Hold(usize),
    End(usize),
    Poll(usize),
    Promote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VisitorState {
    New,
    Waiting,
    Active,
    Gone,
}

struct SimulatedVisitor {
    state: VisitorState,
    is_no_show: bool,
    order: usize,
    joined: i64,
    admitted: Option<i64>,
    start: i64,
    base: i64,
    deadline: i64,
    /// Moments in milliseconds and the wait reported.
    answers: Vec<(i64, Option<u64>)>,
}

/// The state in Redis, and the users.
struct QueueSimulation {
    scenario: QueueScenario,
    random: SeededNumbers,
    limits: AdmissionLimits,
    open: bool,
    now: i64,
    events: BinaryHeap<Reverse<(i64, u64, SimulationEvent)>>,
    sequence: u64,
    users: Vec<SimulatedVisitor>,
    waiting: VecDeque<usize>,
    admitted_total: usize,
    joined_total: usize,
    active: BTreeSet<(i64, usize)>,
    log: VecDeque<(i64, u64)>,
    turnover: TurnoverCounts,
    decay_origin: i64,
    snapshot: Option<(i64, AdmissionForecast)>,
    promote_at: i64,
    /// Moments for the judgement.
    turned_over: Option<i64>,
    filled: Option<i64>,
    freed_after_filled: Option<i64>,
    changed: Vec<i64>,
    paused: Vec<(i64, i64)>,
}

impl QueueSimulation {
    fn new(scenario: &QueueScenario, seed: u64) -> Self {
        let limits = AdmissionLimits {
            per_interval: scenario.per_interval,
            interval_ms: scenario.interval_ms,
            max_active: scenario.max_active,
            active_ms: scenario.active_seconds * 1_000,
            claim_ms: scenario.claim_seconds * 1_000,
            sliding: false,
            visit_limit_ms: None,
        };
        let mut simulation = Self {
            scenario: scenario.clone(),
            random: SeededNumbers::new(seed),
            limits,
            open: true,
            now: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            users: Vec::new(),
            waiting: VecDeque::new(),
            admitted_total: 0,
            joined_total: 0,
            active: BTreeSet::new(),
            log: VecDeque::new(),
            turnover: TurnoverCounts::new(half_life(&limits)),
            decay_origin: 0,
            snapshot: None,
            promote_at: i64::MAX,
            turned_over: None,
            filled: None,
            freed_after_filled: None,
            changed: Vec::new(),
            paused: Vec::new(),
        };
        let mut joins: Vec<f64> = (0..scenario.users)
            .map(|_| simulation.random.between(0.0, scenario.join_seconds))
            .collect();
        joins.sort_by(f64::total_cmp);
        for join in joins {
            let user = simulation.users.len();
            let is_no_show = simulation.random.unit() < scenario.no_show;
            simulation.users.push(SimulatedVisitor {
                state: VisitorState::New,
                is_no_show,
                order: 0,
                joined: 0,
                admitted: None,
                start: 0,
                base: 0,
                deadline: 0,
                answers: Vec::new(),
            });
            simulation.at(ms(join), SimulationEvent::Join(user));
        }
        for (i, (at, _)) in scenario.changes.iter().enumerate() {
            simulation.at(ms(*at), SimulationEvent::Change(i));
        }
        simulation
    }

    fn at(&mut self, time: i64, event: SimulationEvent) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    fn run(&mut self) {
        self.schedule_promotion(0);
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            if time > ms(self.scenario.until) {
                break;
            }
            self.now = time;
            match event {
                SimulationEvent::Change(i) => self.change(self.scenario.changes[i].1),
                SimulationEvent::Join(user) => self.join(user),
                SimulationEvent::Hold(user) => self.hold(user),
                SimulationEvent::End(user) => {
                    if self.users[user].state == VisitorState::Active {
                        self.vacate(user);
                    }
                }
                SimulationEvent::Poll(user) => self.poll(user),
                SimulationEvent::Promote => {
                    if time == self.promote_at {
                        self.promote();
                    }
                }
            }
        }
    }

    fn schedule_promotion(&mut self, after: i64) {
        let still = self
            .users
            .iter()
            .any(|user| matches!(user.state, VisitorState::New | VisitorState::Waiting));
        if still || !self.active.is_empty() {
            self.promote_at = self.now + after;
            self.at(self.promote_at, SimulationEvent::Promote);
        }
    }

    fn change(&mut self, change: OperatorChange) {
        match change {
            OperatorChange::Pause => {
                self.open = false;
                self.paused.push((self.now, i64::MAX));
            }
            OperatorChange::Resume => {
                self.open = true;
                if let Some(last) = self.paused.last_mut() {
                    last.1 = self.now;
                }
            }
            OperatorChange::MaxActive(max) => self.limits.max_active = max,
            OperatorChange::Rate(per_interval, interval_ms) => {
                (self.limits.per_interval, self.limits.interval_ms) = (per_interval, interval_ms);
            }
        }
        self.changed.push(self.now);
    }

    fn running(&self) -> u64 {
        (self.active.len() - self.active.range(..(self.now + 1, 0)).count()) as u64
    }

    fn allowance(&mut self) -> (u64, i64) {
        let interval = self.limits.interval_ms as i64;
        while self.log.front().is_some_and(|(at, _)| at + interval <= self.now) {
            self.log.pop_front();
        }
        let sum: u64 = self.log.iter().map(|(_, count)| count).sum();
        if sum < self.limits.per_interval {
            return (self.limits.per_interval - sum, 0);
        }
        (0, self.log.front().map_or(0, |(at, _)| at + interval - self.now))
    }

    fn note_admissions(&mut self, count: u64) {
        match self.log.back_mut() {
            Some((at, before)) if *at == self.now => *before += count,
            _ => self.log.push_back((self.now, count)),
        }
        // More than 64 entries are merged from the oldest end under the later time.
        while self.log.len() > 64 {
            if let Some((_, count)) = self.log.pop_front() {
                self.log[0].1 += count;
            }
        }
        if self.running() >= self.limits.max_active && self.filled.is_none() {
            self.filled = Some(self.now);
            self.turnover.ended_when_filled = Some(self.turnover.ended);
        }
    }

    fn join(&mut self, user: usize) {
        self.users[user].order = self.joined_total;
        self.users[user].joined = self.now;
        self.joined_total += 1;
        let room = self.open && self.running() < self.limits.max_active && self.allowance().0 > 0;
        if room && self.waiting.is_empty() {
            self.admitted_total += 1;
            self.users[user].admitted = Some(self.now);
            self.users[user].is_no_show = false;
            self.active.insert((0, user));
            self.users[user].deadline = 0;
            self.users[user].state = VisitorState::Active;
            self.show_up(user);
            self.note_admissions(1);
            return;
        }
        self.users[user].state = VisitorState::Waiting;
        self.waiting.push_back(user);
        if !self.users[user].is_no_show {
            self.poll(user);
        }
    }

    fn show_up(&mut self, user: usize) {
        let stay = self.scenario.stay.draw(&mut self.random);
        let active_ms = self.limits.active_ms as i64;
        let base = self.now + active_ms;
        self.active.remove(&(self.users[user].deadline, user));
        self.active.insert((base, user));
        let it = &mut self.users[user];
        (it.start, it.base, it.deadline) = (self.now, base, base);
        let ends = stay.is_finite().then(|| self.now + ms(stay)).filter(|at| *at < base);
        if let Some(at) = ends {
            self.at(at, SimulationEvent::End(user));
        }
        if self.random.unit() < self.scenario.hold {
            let last = ends.unwrap_or(base);
            let at = self.now + (self.random.unit() * (last - self.now) as f64) as i64;
            self.at(at, SimulationEvent::Hold(user));
        }
    }

    fn hold(&mut self, user: usize) {
        if self.users[user].state != VisitorState::Active || self.users[user].base <= self.now {
            return;
        }
        let until = self.now + self.scenario.hold_seconds as i64 * 1_000;
        if until > self.users[user].deadline {
            self.active.remove(&(self.users[user].deadline, user));
            self.active.insert((until, user));
            self.users[user].deadline = until;
        }
        if self.random.unit() < self.scenario.pay {
            let after = self.random.unit() * self.scenario.hold_seconds as f64;
            self.at(self.now + ms(after), SimulationEvent::End(user));
        }
    }

    /// The weight that an event of now has in counts whose origin is earlier.
    fn growth(&self) -> f64 {
        ((self.now - self.decay_origin) as f64 / 1_000.0 / self.turnover.half_life_seconds).exp2()
    }

    fn vacate(&mut self, user: usize) {
        let it = &self.users[user];
        self.active.remove(&(it.deadline, user));
        let weight = self.growth();
        let age = (self.now.min(it.deadline) - it.start).max(0) as u64;
        if it.base == 0 {
            self.turnover.no_shows += weight;
        } else if self.now < it.base {
            self.turnover.early[age_bin(age)] += weight;
        } else if it.deadline <= it.base {
            self.turnover.lapsed[age_bin(age)] += weight;
        } else {
            let beyond = (self.now.min(it.deadline) - it.base).max(0) as u64;
            self.turnover.extended[age_bin(beyond)] += weight;
        }
        self.turnover.ended += 1;
        self.users[user].state = VisitorState::Gone;
        if self.turned_over.is_none() && self.turnover.ended >= self.limits.max_active {
            self.turned_over = Some(self.now);
        }
        if self.filled.is_some() && self.freed_after_filled.is_none() {
            self.freed_after_filled = Some(self.now);
        }
    }

    fn promote(&mut self) {
        let lapsed: Vec<usize> =
            self.active.range(..(self.now + 1, 0)).take(500).map(|(_, user)| *user).collect();
        let allowed = self.allowance().0;
        let running = self.running();
        let mut count = 0;
        if self.open {
            let room = self.limits.max_active.saturating_sub(running);
            count = allowed.min(room).min(self.waiting.len() as u64).min(500);
        }
        for user in lapsed {
            self.vacate(user);
        }
        for _ in 0..count {
            let Some(user) = self.waiting.pop_front() else { break };
            self.admitted_total += 1;
            let deadline = self.now + self.limits.claim_ms as i64;
            let it = &mut self.users[user];
            it.admitted = Some(self.now);
            it.state = VisitorState::Active;
            (it.start, it.base, it.deadline) = (self.now, 0, deadline);
            self.active.insert((deadline, user));
        }
        if count > 0 {
            self.note_admissions(count);
        }
        let (allowed, more_in) = self.allowance();
        let running = self.running();
        let wait = if !self.open || self.waiting.is_empty() || running >= self.limits.max_active {
            self.active.first().map_or(250, |(deadline, _)| (deadline - self.now).max(0))
        } else if allowed > 0 {
            0
        } else {
            more_in
        };
        self.schedule_promotion(wait.clamp(5, 250));
    }
}

fn half_life(limits: &AdmissionLimits) -> f64 {
    (limits.active_ms as f64 / 500.0).clamp(300.0, 7_200.0)
}

fn ms(seconds: f64) -> i64 {
    (seconds * 1_000.0).round() as i64
}

#[test]
fn estimates_are_close_to_the_real_waits() {
    println!("{:>8} {:>10} {:>6}  scenario", "close %", "far off %", "users");
    let mut wrong = Vec::new();
    for scenario in scenarios() {
        let mut total = EstimateJudgement::default();
        let seeds = if cfg!(debug_assertions) { 1 } else { 4 };
        for seed in 0..seeds {
            let mut simulation = QueueSimulation::new(&scenario, seed);
            simulation.run();
            total.add(&simulation.judge());
        }
        let (close, far) = (total.close_share(), total.violation_share());
        println!("{:8.1} {:10.2} {:6}  {}", 100.0 * close, 100.0 * far, total.users, scenario.name);
        if total.judged > 0 && (close < 0.5 || far > 0.02 || total.bad_null > 0) {
            wrong.push(scenario.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
