//! The share of visits that last longer than an age, measured from ended and running visits.

use super::age_bins::{AGE_BINS, bin_of_seconds, bin_start, bin_width};

/// The weight of the average hazard in each age bin, in users. It fills bins without data.
const PRIOR_USERS: f64 = 0.5;
/// A hazard is measured from at least this time at risk, summed over users.
const MIN_EXPOSURE_SECONDS: f64 = 0.5;

/// The hazard assumed at ages without data: that of the latest ages with data, and none after
/// `until` seconds. At ages with data it has the weight of [`PRIOR_USERS`].
#[derive(Debug, Clone, Copy)]
pub(super) struct HazardGuess {
    pub(super) until: f64,
    /// The hazard before any was measured, per second; `None` for the average of all ages.
    pub(super) first: Option<f64>,
}

/// The hazard between half of an age and that age.
#[derive(Debug, Default)]
struct HazardWindow {
    /// The events and the time at risk of each bin.
    bins: Vec<(f64, f64)>,
    first: usize,
    events: f64,
    exposure: f64,
    /// The sums of the latest window with data.
    latest: (f64, f64),
}

impl HazardWindow {
    fn add(&mut self, bin: usize, events: f64, exposure: f64) {
        self.bins.push((events, exposure));
        self.events += events;
        self.exposure += exposure;
        while bin_start(self.first + 1) < bin_start(bin + 1) / 2.0 {
            self.events -= self.bins[self.first].0;
            self.exposure -= self.bins[self.first].1;
            self.first += 1;
        }
        if exposure > MIN_EXPOSURE_SECONDS {
            self.latest = (self.events.max(0.0), self.exposure);
        }
    }

    /// The hazard of the latest ages, mixed with some events at a usual hazard.
    fn hazard(&self, usual: f64, usual_events: f64) -> f64 {
        if usual <= 0.0 {
            return 0.0;
        }
        let (events, exposure) = self.latest;
        (events + usual_events) / (exposure + usual_events / usual)
    }
}

/// The share of visits (or of another span) that last longer than an age.
#[derive(Debug, Clone)]
pub(super) struct SurvivalCurve {
    /// The share at the start of each bin, and at the end of the last one.
    at: [f64; AGE_BINS + 1],
    /// The integral of the share from 0 to the start of each bin, in seconds.
    pub(super) area: [f64; AGE_BINS + 1],
}

impl SurvivalCurve {
    /// The Kaplan-Meier estimate from ended spans and from those still running.
    ///
    /// `events` are the ends to predict, by age; `ended` are all ends, also those for another
    /// reason; `running` are the age and weight of each span that has not ended.
    pub(super) fn measure(
        events: &[f64],
        ended: &[f64],
        running: &[(f64, f64)],
        half_life_seconds: f64,
        guess: HazardGuess,
    ) -> Self {
        let mut running_in = [0.0; AGE_BINS];
        let mut part_of_bin = [0.0; AGE_BINS];
        for &(age, weight) in running {
            let bin = bin_of_seconds(age);
            running_in[bin] += weight;
            let part = ((age - bin_start(bin)) / bin_width(bin)).clamp(0.0, 1.0);
            part_of_bin[bin] += weight * part;
        }
        // The weight of a user in the population at risk is the weight at the moment at which the
        // user passed the age, so it decays by the time between that age and the present or last.
        let mut at_risk = [0.0; AGE_BINS];
        let mut beyond = 0.0;
        for bin in (0..AGE_BINS).rev() {
            at_risk[bin] =
                beyond + events[bin] + 0.5 * (ended[bin] - events[bin]).max(0.0) + part_of_bin[bin];
            let decay = (-bin_width(bin.saturating_sub(1)) / half_life_seconds).exp2();
            beyond = (beyond + ended[bin] + running_in[bin]) * decay;
        }
        let total: f64 = events.iter().sum();
        let exposure: f64 = (0..AGE_BINS).map(|bin| at_risk[bin] * bin_width(bin)).sum();
        let average = if exposure > 0.0 { total / exposure } else { 0.0 };
        let mut curve = Self { at: [1.0; AGE_BINS + 1], area: [0.0; AGE_BINS + 1] };
        let mut window = HazardWindow::default();
        let (first, events_of_first) = match guess.first {
            Some(first) => (first, 0.02),
            None => (average, 0.5),
        };
        for bin in 0..AGE_BINS {
            let width = bin_width(bin);
            window.add(bin, events[bin], at_risk[bin] * width);
            let guessed = if bin_start(bin) < guess.until {
                window.hazard(first, events_of_first)
            } else {
                0.0
            };
            let usual = 1.0 - (-guessed * width).exp();
            let hazard = (events[bin] + PRIOR_USERS * usual) / (at_risk[bin] + PRIOR_USERS);
            curve.at[bin + 1] = curve.at[bin] * (1.0 - hazard.clamp(0.0, 1.0));
            let mean = f64::midpoint(curve.at[bin], curve.at[bin + 1]);
            curve.area[bin + 1] = curve.area[bin] + mean * width;
        }
        curve
    }

    pub(super) fn share_at(&self, age: f64) -> f64 {
        let bin = bin_of_seconds(age);
        let part = ((age - bin_start(bin)) / bin_width(bin)).clamp(0.0, 1.0);
        self.at[bin] + (self.at[bin + 1] - self.at[bin]) * part
    }

    /// The integral of the share from 0 to an age, in seconds.
    pub(super) fn area_to(&self, age: f64) -> f64 {
        let bin = bin_of_seconds(age);
        let inside = (age - bin_start(bin)).clamp(0.0, bin_width(bin));
        self.area[bin] + inside * f64::midpoint(self.at[bin], self.share_at(age))
    }
}

/// Reads a curve at ascending ages without a search for each of them.
pub(super) struct CurveCursor<'a> {
    curve: &'a SurvivalCurve,
    bin: usize,
    start: f64,
    end: f64,
    slope: f64,
}

impl<'a> CurveCursor<'a> {
    pub(super) fn new(curve: &'a SurvivalCurve, age: f64) -> Self {
        let mut cursor = Self { curve, bin: bin_of_seconds(age), start: 0.0, end: 0.0, slope: 0.0 };
        cursor.enter_bin();
        cursor
    }

    fn enter_bin(&mut self) {
        self.start = bin_start(self.bin);
        self.end = if self.bin + 1 < AGE_BINS { bin_start(self.bin + 1) } else { f64::INFINITY };
        let change = self.curve.at[self.bin + 1] - self.curve.at[self.bin];
        self.slope = change / bin_width(self.bin);
    }

    pub(super) fn share_at(&mut self, age: f64) -> f64 {
        // The age is infinite at the deadline of a sliding visit without a limit.
        while age >= self.end && self.bin + 1 < AGE_BINS {
            self.bin += 1;
            self.enter_bin();
        }
        (self.curve.at[self.bin] + (age - self.start) * self.slope).max(0.0)
    }
}
