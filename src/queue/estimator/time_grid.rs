//! Expected admissions at evenly spaced moments.

use super::age_bins::seconds;
use super::input::ForecastInput;
use super::visits::VisitModel;

/// Steps of one time grid.
pub(super) const STEPS: usize = 160;

/// Expected admissions at evenly spaced moments.
pub(super) struct TimeGrid {
    step: f64,
    /// Admissions by the end of each step.
    pub(super) admitted: Vec<f64>,
    /// The variance of the admissions by the end of each step.
    pub(super) variance: Vec<f64>,
    /// The first step in which slots are the limit.
    pub(super) slot_limited_from: Option<usize>,
}

impl TimeGrid {
    pub(super) fn forecast(input: &ForecastInput, model: &VisitModel, step: f64) -> Self {
        let limits = &input.limits;
        let free = limits.max_active as f64 - input.active as f64;
        let restoring = seconds(input.restoring_until_ms - input.now_ms);
        // The expected number of ends, and its variance.
        let mut ended = vec![0.0; STEPS + 1];
        let mut spread = vec![0.0; STEPS + 1];
        let mut chances = vec![0.0; STEPS + 1];
        for visit in input.visits {
            chances.fill(0.0);
            model.add_ends_of(visit, input.now_ms, step, &mut chances);
            for ((chance, ended), spread) in chances.iter().zip(&mut ended).zip(&mut spread) {
                *ended += visit.weight * chance;
                *spread += visit.weight * chance * (1.0 - chance);
            }
        }
        // An admission is at the middle of its step.
        let mut end_of_next = vec![0.0; STEPS + 1];
        model.add_ends_of_next(step / 2.0, step, &mut end_of_next);
        let at_once = end_of_next[0].min(0.9);

        let interval = limits.interval_ms as f64 / 1_000.0;
        let per_interval = limits.per_interval as f64;
        let occupancy = model.occupancy_seconds();
        let mut grid = Self {
            step,
            admitted: vec![0.0; STEPS + 1],
            variance: vec![0.0; STEPS + 1],
            slot_limited_from: None,
        };
        // The latest admission is first, so that both sequences ascend in the sum below.
        let mut new = vec![0.0; STEPS + 1];
        for k in 1..=STEPS {
            let time = k as f64 * step;
            let before = grid.admitted[k - 1];
            let ended_of_new: f64 =
                new[STEPS + 1 - k..STEPS].iter().zip(&end_of_next[1..k]).map(|(a, b)| a * b).sum();
            let by_slots = (free + ended[k] + ended_of_new - before) / (1.0 - at_once);
            // At most `per_interval` within the interval that ends now.
            let interval_ago = time - interval;
            let by_rate = if interval_ago <= 0.0 {
                per_interval - recent_admissions_since(input, interval_ago) - before
            } else if interval >= step {
                per_interval + grid.admitted_by(interval_ago) - before
            } else {
                per_interval * step / interval
            };
            let allowed = if time <= restoring { 0.0 } else { by_rate.max(0.0) };
            if grid.slot_limited_from.is_none() && by_slots < allowed - 1e-6 {
                grid.slot_limited_from = Some(k);
            }
            let admitted = by_slots.min(allowed).max(0.0);
            // Admissions vary with the ends of visits, also with those of one occupancy before.
            // They do not vary while the rate is the limit and enough slots are free.
            let spread_of_new: f64 = new[STEPS + 1 - k..STEPS]
                .iter()
                .zip(&end_of_next[1..k])
                .map(|(count, chance)| count * chance * (1.0 - chance))
                .sum();
            let cycle_ago = time - occupancy;
            let carried = if cycle_ago > 0.0 { grid.variance_by(cycle_ago) } else { 0.0 };
            let variance = spread[k] + spread_of_new + carried;
            let unused = (by_slots - admitted).max(0.0) / (2.0 * variance.sqrt()).max(1e-6);
            grid.variance[k] = variance * (1.0 - unused).max(0.0);
            new[STEPS - k] = admitted;
            grid.admitted[k] = before + admitted;
        }
        grid
    }

    pub(super) fn admitted_by(&self, time: f64) -> f64 {
        self.read(&self.admitted, time)
    }

    fn variance_by(&self, time: f64) -> f64 {
        self.read(&self.variance, time)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the grid")]
    fn read(&self, values: &[f64], time: f64) -> f64 {
        let at = (time / self.step).clamp(0.0, STEPS as f64);
        let whole = (at as usize).min(STEPS - 1);
        let (from, to) = (values[whole], values[whole + 1]);
        from + (to - from) * (at - whole as f64)
    }
}

/// Admissions before the snapshot and after a moment, which is in seconds from the snapshot.
fn recent_admissions_since(input: &ForecastInput, from: f64) -> f64 {
    let counted = input.recent_admissions.iter();
    counted
        .filter(|(at, _)| seconds(at - input.now_ms) > from)
        .map(|(_, count)| *count as f64)
        .sum()
}
