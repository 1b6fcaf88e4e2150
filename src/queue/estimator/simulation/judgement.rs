//! The accuracy of the reported waits, weighted by the time until the next report.

use super::QueueSimulation;

impl QueueSimulation {
    /// Compares the reported waits with the real ones.
    pub(super) fn judge(&self) -> EstimateJudgement {
        let mut judgement = EstimateJudgement::default();
        let from = if self.scenario.rate_limited { Some(0) } else { self.turned_over };
        let null_until = self.freed_after_filled.map(|at| at + 3_000);
        for user in self.users.iter().filter(|user| !user.is_no_show && !user.answers.is_empty()) {
            let Some(admitted) = user.admitted else { continue };
            let last_change = self.changed.iter().filter(|at| **at <= admitted).max();
            let from = match (from, last_change) {
                (_, Some(change)) => change + 2_000,
                (Some(from), None) => from,
                (None, None) => continue,
            };
            let late = user.joined + (admitted - user.joined) / 10;
            judgement.users += 1;
            let mut bad_run = 0;
            let mut worst_run = 0;
            let mut highest_run = 0;
            let mut high_run = 0;
            for (i, (at, reported)) in user.answers.iter().enumerate() {
                let until = user.answers.get(i + 1).map_or(admitted, |next| next.0).min(admitted);
                // In steps of 100 ms.
                let mut time = *at;
                while time < until {
                    let truth = (admitted - time) as f64 / 1_000.0;
                    let step = 100.min(until - time);
                    if time >= from {
                        match reported {
                            Some(reported) => {
                                judgement.judged += step;
                                let reported = *reported as f64;
                                if (reported - truth).abs() <= 0.25 * truth + 3.0 {
                                    judgement.close += step;
                                }
                                let high = reported > 2.5 * truth + 3.0;
                                let low = reported < (truth - 3.0) / 2.5;
                                let counts = time >= late;
                                if counts && (high || low) {
                                    bad_run += step
                                } else {
                                    bad_run = 0
                                }
                                if counts && high { high_run += step } else { high_run = 0 }
                            }
                            None => {
                                let allowed = self
                                    .paused
                                    .iter()
                                    .any(|(from, to)| at >= from && *at <= to + 3_000)
                                    || null_until.is_none_or(|until| *at <= until);
                                judgement.null += step;
                                if !allowed {
                                    judgement.judged += step;
                                    judgement.bad_null += step;
                                }
                                bad_run = 0;
                            }
                        }
                        worst_run = worst_run.max(bad_run);
                        highest_run = highest_run.max(high_run);
                    }
                    time += step;
                }
            }
            if worst_run > 10_000 {
                judgement.violations += 1;
                if highest_run > 10_000 {
                    judgement.too_high += 1;
                }
            }
        }
        judgement
    }
}

/// What a comparison found. Times are in milliseconds, summed over users.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EstimateJudgement {
    pub(super) users: u64,
    pub(super) judged: i64,
    /// The time within 25 % and 3 s.
    pub(super) close: i64,
    /// Users with an answer that was wrong by a factor above 2.5 for more than 10 s.
    pub(super) violations: u64,
    /// Those of them with an answer that was too high.
    pub(super) too_high: u64,
    pub(super) null: i64,
    pub(super) bad_null: i64,
}

impl EstimateJudgement {
    pub(super) fn add(&mut self, other: &Self) {
        self.users += other.users;
        self.judged += other.judged;
        self.close += other.close;
        self.violations += other.violations;
        self.too_high += other.too_high;
        self.null += other.null;
        self.bad_null += other.bad_null;
    }

    pub(super) fn close_share(&self) -> f64 {
        self.close as f64 / (self.judged.max(1)) as f64
    }

    pub(super) fn violation_share(&self) -> f64 {
        self.violations as f64 / self.users.max(1) as f64
    }
}
