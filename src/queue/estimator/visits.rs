//! How long visits last, by measured behaviour and the current settings.

use super::MAX_POLL_MS;
use super::age_bins::{AGE_BINS, age_bin, bin_of_seconds, bin_start, seconds};
use super::input::{ForecastInput, VisitSample};
use super::survival::{CurveCursor, HazardGuess, SurvivalCurve};

/// The assumed time between promotion and show-up before any was measured.
const PRIOR_SHOW_SECONDS: f64 = 1.5;

/// How long visits last: measured behaviour and the current settings.
#[derive(Debug, Clone)]
pub(super) struct VisitModel {
    /// Visits that end before their own deadline, by age.
    stay: SurvivalCurve,
    /// The time from promotion to show-up.
    claim: SurvivalCurve,
    /// The time by which a hold extends a visit.
    extension: SurvivalCurve,
    /// The share of visits at their own deadline that a hold extends.
    extended_share: f64,
    /// The share of promoted users who do not show up.
    no_show_share: f64,
    /// The average time from promotion to show-up of the other users, in seconds.
    show_seconds: f64,
    /// The longest visit without a hold, in seconds; infinite for sliding visits without limit.
    visit_seconds: f64,
    claim_seconds: f64,
    sliding: bool,
}

/// A visit as the forecast sees it. Times are in seconds from the snapshot.
#[derive(Debug, Clone, Copy)]
struct RunningVisit {
    starts_in: f64,
    age: f64,
    /// The visit's own deadline, counted from its start if that is in the future.
    own: f64,
    /// The end of its hold if that is later.
    last: Option<f64>,
}

/// Adds the chance of a lapse at a known moment.
fn add_lapse(at: f64, chance: f64, step: f64, sums: &mut [f64]) {
    for (k, sum) in sums.iter_mut().enumerate() {
        if k as f64 * step >= at {
            *sum += chance;
        }
    }
}

impl VisitModel {
    pub(super) fn measure(input: &ForecastInput) -> Self {
        let ForecastInput { limits, turnover, now_ms, .. } = input;
        let half_life = turnover.half_life_seconds.max(1.0);
        let active_seconds = limits.active_ms as f64 / 1_000.0;
        let claim_seconds = limits.claim_ms as f64 / 1_000.0;
        let limit_seconds = limits.visit_limit_ms.map_or(f64::INFINITY, |ms| ms as f64 / 1_000.0);
        let visit_seconds =
            if limits.sliding { limit_seconds } else { active_seconds.min(limit_seconds) };

        let longest_poll_seconds = 1.0 + (MAX_POLL_MS / 1_000.0).min(claim_seconds / 2.0) * 1.1;
        let mut pending = Vec::new();
        let mut started = Vec::new();
        let mut extended = Vec::new();
        for visit in input.visits {
            match visit.base_ms {
                None => pending.push((visit.age(*now_ms), visit.weight)),
                Some(base) => {
                    started.push((visit.age(*now_ms), visit.weight));
                    if base <= *now_ms {
                        extended.push((seconds(now_ms - base), visit.weight));
                    }
                }
            }
        }

        // Show-ups. A user who does not show up is at risk of doing so until the claim deadline.
        let mut claimed = turnover.shown.clone();
        claimed[age_bin(limits.claim_ms)] += turnover.no_shows;
        let first = Some(1.0 / PRIOR_SHOW_SECONDS);
        let guess = HazardGuess { until: longest_poll_seconds, first };
        let claim = SurvivalCurve::measure(&turnover.shown, &claimed, &pending, half_life, guess);
        let no_show_share = claim.share_at(claim_seconds);
        let show_share = 1.0 - no_show_share;
        let show_seconds = if show_share > 1e-6 {
            (claim.area_to(claim_seconds) - no_show_share * claim_seconds) / show_share
        } else {
            PRIOR_SHOW_SECONDS
        };

        // Stays. A sliding visit lapses because its user stopped, so a lapse is an early end.
        let extended_total: f64 = turnover.extended.iter().sum();
        let mut left = turnover.early.clone();
        let mut ended = turnover.early.clone();
        for bin in 0..AGE_BINS {
            ended[bin] += turnover.lapsed[bin];
            if limits.sliding {
                left[bin] += turnover.lapsed[bin];
            }
        }
        ended[bin_of_seconds(visit_seconds.min(active_seconds))] += extended_total;
        let average = HazardGuess { until: f64::INFINITY, first: None };
        let stay = SurvivalCurve::measure(&left, &ended, &started, half_life, average);

        // Extensions by holds.
        let lapsed_total: f64 = turnover.lapsed.iter().sum();
        let extended_now: f64 = extended.iter().map(|(_, weight)| weight).sum();
        let extension = SurvivalCurve::measure(
            &turnover.extended,
            &turnover.extended,
            &extended,
            half_life,
            average,
        );
        let reached = lapsed_total + extended_total + extended_now;
        let extended_share =
            if reached > 0.0 { (extended_total + extended_now) / reached } else { 0.0 };
        Self {
            stay,
            claim,
            extension,
            extended_share,
            no_show_share,
            show_seconds,
            visit_seconds,
            claim_seconds,
            sliding: limits.sliding,
        }
    }

    /// Adds the chance that a running visit has ended by each of evenly spaced moments.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive")]
    fn add_ends(&self, visit: &RunningVisit, weight: f64, step: f64, sums: &mut [f64]) {
        let RunningVisit { starts_in, age, own, last } = *visit;
        // Before its own deadline, users leave or pay by the age of the visit.
        let share = self.stay.share_at(age);
        let mut stay = CurveCursor::new(&self.stay, age);
        let stays_until = |stay: &mut CurveCursor, after: f64| {
            if share <= 1e-9 { 0.0 } else { stay.share_at(age + after) / share }
        };
        let first = if starts_in > 0.0 { (starts_in / step).ceil() as usize } else { 0 };
        let mut k = first;
        while k < sums.len() {
            let after = k as f64 * step - starts_in;
            if after >= own {
                break;
            }
            sums[k] += weight * (1.0 - stays_until(&mut stay, after));
            k += 1;
        }
        // At the deadline the visit lapses unless a hold extends it.
        let at_deadline = if own > 0.0 { stays_until(&mut stay, own) } else { 1.0 };
        let extended = if last.is_some() { at_deadline } else { at_deadline * self.extended_share };
        let extended_by = (-own).max(0.0);
        let reached = self.extension.share_at(extended_by);
        let mut extension = CurveCursor::new(&self.extension, extended_by);
        while k < sums.len() {
            let after = k as f64 * step - starts_in;
            if extended <= 1e-9 || last.is_some_and(|last| after >= last) {
                break;
            }
            let lasts =
                if reached <= 1e-9 { 0.5 } else { extension.share_at(after - own) / reached };
            sums[k] += weight * (1.0 - extended * lasts);
            k += 1;
        }
        for sum in sums.iter_mut().skip(k) {
            *sum += weight;
        }
    }

    /// A visit that starts in some seconds, for a user who shows up.
    fn next_visit(&self, starts_in: f64) -> RunningVisit {
        RunningVisit { starts_in, age: 0.0, own: self.visit_seconds, last: None }
    }

    /// Adds the chance that a slot given to the next waiting user is free, by the time since.
    /// Entry k is for an admission `offset` steps before moment k.
    pub(super) fn add_ends_of_next(&self, offset: f64, step: f64, sums: &mut [f64]) {
        let shows = 1.0 - self.no_show_share;
        self.add_ends(&self.next_visit(self.show_seconds - offset), shows, step, sums);
        add_lapse(self.claim_seconds - offset, self.no_show_share, step, sums);
    }

    /// Adds the chance that an active user's slot is free by each of evenly spaced moments.
    pub(super) fn add_ends_of(
        &self,
        visit: &VisitSample,
        now_ms: i64,
        step: f64,
        sums: &mut [f64],
    ) {
        let age = visit.age(now_ms);
        let deadline = seconds(visit.deadline_ms - now_ms).max(0.0);
        let Some(base_ms) = visit.base_ms else {
            // Not shown up yet. The longer ago the promotion, the more likely a no-show.
            let no_show = self.chance_of_no_show(age);
            let show = self.remaining_show_seconds(age);
            self.add_ends(&self.next_visit(show), 1.0 - no_show, step, sums);
            add_lapse(deadline, no_show, step, sums);
            return;
        };
        // Use moves the deadline of a sliding visit, so only the limit of the visit is certain.
        let own = if self.sliding {
            (self.visit_seconds - age).max(deadline)
        } else {
            seconds(base_ms - now_ms)
        };
        let last = (deadline > own).then_some(deadline);
        self.add_ends(&RunningVisit { starts_in: 0.0, age, own, last }, 1.0, step, sums);
    }

    /// The chance that a user promoted `age` seconds ago, who has not shown up, never does.
    fn chance_of_no_show(&self, age: f64) -> f64 {
        let pending = self.claim.share_at(age);
        if pending <= 1e-9 { 1.0 } else { (self.no_show_share / pending).min(1.0) }
    }

    /// The expected time until a user shows up who was promoted `age` seconds ago.
    fn remaining_show_seconds(&self, age: f64) -> f64 {
        let shows = self.claim.share_at(age) - self.no_show_share;
        if shows <= 1e-6 {
            return 0.5;
        }
        let rest = (self.claim_seconds - age).max(0.0);
        let area = self.claim.area_to(self.claim_seconds) - self.claim.area_to(age);
        ((area - self.no_show_share * rest) / shows).clamp(0.0, rest)
    }

    /// How long an admitted user occupies a slot on average, in seconds.
    pub(super) fn occupancy_seconds(&self) -> f64 {
        let end = self.visit_seconds.min(bin_start(AGE_BINS));
        let at_deadline = self.stay.share_at(end) * self.extended_share;
        let visit = self.stay.area_to(end) + at_deadline * self.extension.area[AGE_BINS];
        let shown = 1.0 - self.no_show_share;
        shown * (self.show_seconds + visit) + self.no_show_share * self.claim_seconds
    }
}
