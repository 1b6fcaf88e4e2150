//! The wait estimate: a forecast of admissions, computed once per snapshot.
//!
//! [`AdmissionForecast::new`] predicts how many waiting users are admitted by each future moment.
//! A poll looks up the moment at which the count reaches the user's position.
//!
//! # Model
//!
//! Two bounds limit admissions: the rate (`promote_per_interval` in any `interval_ms`) and the
//! slots (`max_active`). The rate is known from the settings and the recent admissions. A slot
//! becomes free when a visit ends, and there are four ways in which a visit ends:
//!
//! - A promoted user does not show up: the slot lapses at the claim deadline. The share of these
//!   users is measured, and so is the time until the other users show up.
//! - The user leaves or pays early. The chance is measured by the age of the visit
//!   (Kaplan-Meier estimator, recent visits weigh more).
//! - The visit lapses at its own deadline, which is known for each active user.
//! - A hold extends the visit beyond its own deadline. The share of these visits and the length
//!   of the extension are measured.
//!
//! The forecast steps forward in time. Each step computes the expected number of visits that have
//! ended, both of the users active now and of the users admitted within the forecast, and admits
//! as many users as both bounds allow. It needs no memory of past forecasts, so each instance
//! computes the same one from the same state in Redis.
//!
//! # Time steps
//!
//! A grid of [`time_grid::STEPS`] steps covers the near future in small steps. When the waiting users need
//! more time, a further grid with steps [`STEP_GROWTH`] times as long continues the curve. Beyond
//! four average visits the curve continues at the long-term rate.

mod age_bins;
mod input;
#[cfg(test)]
mod simulation;
mod survival;
#[cfg(test)]
mod tests;
mod time_grid;
mod visits;

use std::time::Duration;

pub(super) use input::{
    AdmissionLimits, ForecastInput, TurnoverCounts, VisitSample, sample_weight,
};

use time_grid::{STEPS, TimeGrid};
use visits::VisitModel;

/// The length of a step of the finest time grid, in seconds.
const FINEST_STEP_SECONDS: f64 = 0.5;
/// By how much a step of the next grid is longer.
const STEP_GROWTH: f64 = 4.0;
/// No grid is computed beyond this number of average visits.
const HORIZON_VISITS: f64 = 4.0;
/// The wait of position p is the moment at which the expected admissions reach p less this.
const POSITION_OFFSET: f64 = 0.5;

/// An estimate may differ from the real wait by this factor, …
const TOLERABLE_FACTOR: f64 = 2.2;
/// … and by this many seconds in addition. A larger difference is tolerable …
const TOLERABLE_SECONDS: f64 = 3.0;
/// … for this many seconds.
const TOLERABLE_SPAN: f64 = 10.0;
/// How far from the expected number of admissions the estimate is tolerable, in standard
/// deviations: the first one for which it can be.
const DEVIATIONS: [f64; 6] = [2.4, 2.0, 1.6, 1.2, 0.8, 0.5];

/// The poll interval of users at the front, in milliseconds.
const MIN_POLL_MS: f64 = 1_000.0;
/// The poll interval of users far behind, in milliseconds.
const MAX_POLL_MS: f64 = 10_000.0;
/// The longest poll interval while the forecast is unsettled, in milliseconds.
const UNSETTLED_POLL_MS: f64 = 2_500.0;
/// Whether users show up is unknown for this long after their promotion, in seconds.
const UNSETTLED_SECONDS: f64 = 8.0;
/// A forecast is unsettled when this share of the slots was given to users just now.
const UNSETTLED_SHARE: f64 = 0.1;
/// The poll interval while the wait is unknown, in milliseconds.
const UNKNOWN_WAIT_POLL_MS: f64 = 5_000.0;

/// Counts along the curve of a forecast, when more or fewer visits end than expected.
#[derive(Debug, Clone)]
struct AdmissionBounds {
    early: Vec<f64>,
    late: Vec<f64>,
}

/// How many waiting users are admitted by each future moment.
#[derive(Debug, Clone)]
pub(super) struct AdmissionForecast {
    /// Seconds from the snapshot and the expected admissions by then, both ascending.
    curve: Vec<(f64, f64)>,
    /// The standard deviation of each of these numbers.
    deviations: Vec<f64>,
    /// Admissions that are reached early or late by chance, for each of [`DEVIATIONS`].
    bounds: Vec<AdmissionBounds>,
    /// Admissions per second beyond the curve.
    later_rate: f64,
    /// Positions beyond this have no estimate yet.
    known_admissions: f64,
    is_unsettled: bool,
}

impl AdmissionForecast {
    pub(super) fn new(input: &ForecastInput) -> Self {
        if !input.open {
            return Self {
                curve: Vec::new(),
                deviations: Vec::new(),
                bounds: Vec::new(),
                later_rate: 0.0,
                known_admissions: 0.0,
                is_unsettled: false,
            };
        }
        let limits = &input.limits;
        let model = VisitModel::measure(input);
        let occupancy = model.occupancy_seconds().max(0.1);
        let rate = limits.per_interval as f64 * 1_000.0 / limits.interval_ms as f64;
        let is_known = input.turnover.is_known();
        let just_promoted: f64 = input
            .visits
            .iter()
            .filter(|visit| visit.base_ms.is_none() && visit.age(input.now_ms) < UNSETTLED_SECONDS)
            .map(|visit| visit.weight)
            .sum();
        let mut forecast = Self {
            curve: vec![(0.0, 0.0)],
            deviations: vec![0.0],
            bounds: Vec::new(),
            later_rate: rate.min(limits.max_active as f64 / occupancy),
            known_admissions: f64::INFINITY,
            is_unsettled: just_promoted > UNSETTLED_SHARE * input.active as f64,
        };
        // Each interval is stepped through when it is longer than a step.
        let wanted = input.waiting as f64 + 1.0;
        let interval = limits.interval_ms as f64 / 1_000.0;
        let horizon = HORIZON_VISITS * occupancy.max(interval).max(1.0);
        let mut step = FINEST_STEP_SECONDS;
        loop {
            let grid = TimeGrid::forecast(input, &model, step);
            let full_at = (!is_known).then_some(grid.slot_limited_from).flatten();
            forecast.append(&grid, step, full_at);
            if forecast.known_admissions.is_finite() || forecast.reached() >= wanted {
                break;
            }
            if step * STEPS as f64 >= horizon {
                break;
            }
            step *= STEP_GROWTH;
        }
        forecast.bounds = DEVIATIONS.map(|factor| forecast.bounds_at(factor)).to_vec();
        forecast
    }

    /// The curve, moved up and down by a number of standard deviations.
    fn bounds_at(&self, factor: f64) -> AdmissionBounds {
        let moved = |factor: f64| {
            let mut highest = 0.0_f64;
            let move_point = |(&(_, admitted), deviation): (&(f64, f64), &f64)| {
                highest = highest.max(admitted + factor * deviation);
                highest
            };
            self.curve.iter().zip(&self.deviations).map(move_point).collect()
        };
        AdmissionBounds { early: moved(factor), late: moved(-factor) }
    }

    /// Continues the curve with the part of a coarser grid that lies beyond it.
    fn append(&mut self, grid: &TimeGrid, step: f64, unknown_from: Option<usize>) {
        let (from, reached) = self.curve.last().copied().unwrap_or_default();
        let offset = reached - grid.admitted_by(from);
        for (k, admitted) in grid.admitted.iter().enumerate() {
            let time = k as f64 * step;
            if unknown_from.is_some_and(|unknown| k >= unknown) {
                self.known_admissions = self.reached();
                return;
            }
            if time > from {
                let admitted = (admitted + offset).max(self.reached());
                self.curve.push((time, admitted));
                self.deviations.push(grid.variance[k].max(0.0).sqrt());
            }
        }
    }

    fn reached(&self) -> f64 {
        self.curve.last().map_or(0.0, |(_, admitted)| *admitted)
    }

    /// Whether many users were promoted just now, so that it is about to be known how many of them
    /// show up. Then users poll more often.
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_unsettled
    }

    /// Seconds until the user at a 1-based position is admitted. `None` while it is unknown.
    fn wait_seconds(&self, position: u64) -> Option<f64> {
        let wanted = position as f64 - POSITION_OFFSET;
        if self.curve.is_empty() || position as f64 > self.known_admissions + POSITION_OFFSET {
            return None;
        }
        let middle = self.reached_at(wanted, |at| self.curve[at].1)?;
        // Most queues turn over evenly, and the bounds are close to the middle. Otherwise the
        // estimate moves towards a bound that it would miss by more than the tolerable factor.
        for bounds in &self.bounds {
            let early = self.reached_at(wanted, |at| bounds.early[at])?;
            let late = self.reached_at(wanted, |at| bounds.late[at])?;
            let highest = early.max(TOLERABLE_SPAN) * TOLERABLE_FACTOR + TOLERABLE_SECONDS;
            let lowest = (late - TOLERABLE_SPAN - TOLERABLE_SECONDS) / TOLERABLE_FACTOR;
            if lowest <= highest {
                return Some(middle.min(highest).max(lowest));
            }
        }
        Some(middle)
    }

    /// The moment at which an ascending count reaches a number.
    fn reached_at(&self, wanted: f64, count: impl Fn(usize) -> f64) -> Option<f64> {
        let (mut from, mut to) = (0, self.curve.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            if count(middle) < wanted { from = middle + 1 } else { to = middle }
        }
        if let Some((time, _)) = self.curve.get(from) {
            let Some(before) = from.checked_sub(1) else { return Some(*time) };
            let (low, high) = (count(before), count(from));
            let part = if high > low { (wanted - low) / (high - low) } else { 1.0 };
            return Some(self.curve[before].0 + (time - self.curve[before].0) * part);
        }
        let last = self.curve.len().checked_sub(1)?;
        let rest = wanted - count(last);
        (self.later_rate > 1e-9).then(|| self.curve[last].0 + rest / self.later_rate)
    }

    /// The estimate of the wire: whole seconds, at least 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    pub(super) fn estimated_wait_seconds(&self, position: u64) -> Option<u64> {
        self.wait_seconds(position).map(|seconds| seconds.ceil().clamp(1.0, 1e12) as u64)
    }
}

/// When a waiting user should poll next: after a tenth of the wait, between 1 and 10 seconds, or
/// after 5 seconds while the wait is unknown. `jitter`, from -1 to 1, varies it by 10 % so that
/// users do not poll in step. It is at most half of `claim` and half of `abandon_after`, so that
/// a user who polls as asked never loses the place.
pub(super) fn poll_after(
    wait_seconds: Option<u64>,
    is_unsettled: bool,
    claim: Duration,
    abandon_after: Option<Duration>,
    jitter: f64,
) -> Duration {
    let longest = if is_unsettled { UNSETTLED_POLL_MS } else { MAX_POLL_MS };
    let base = wait_seconds
        .map_or(UNKNOWN_WAIT_POLL_MS, |wait| (wait as f64 * 100.0).clamp(MIN_POLL_MS, longest));
    let limit = abandon_after.map_or(claim, |abandon| abandon.min(claim)) / 2;
    // The limit is applied before the jitter, so that limited users do not poll in step either.
    let base = base.min(limit.as_secs_f64() * 1_000.0 / 1.1);
    Duration::from_secs_f64(base * (1.0 + 0.1 * jitter.clamp(-1.0, 1.0)) / 1_000.0)
}
