//! Polls of simulated users, and the snapshots from which they are answered.

use std::time::Duration;

use super::super::age_bins::age_bin;
use super::super::input::sampled_ranks;
use super::super::{AdmissionForecast, ForecastInput, VisitSample, poll_after, sample_weight};
use super::{QueueSimulation, SimulationEvent, VisitorState};

/// A snapshot is used for this long.
const SNAPSHOT_MS: i64 = if cfg!(debug_assertions) { 500 } else { 250 };

impl QueueSimulation {
    fn forecast(&mut self) -> AdmissionForecast {
        let running: Vec<usize> =
            self.active.range((self.now + 1, 0)..).map(|(_, user)| *user).collect();
        let ranks = sampled_ranks(running.len());
        let count = ranks.len();
        let visits: Vec<VisitSample> = ranks
            .into_iter()
            .enumerate()
            .map(|(i, rank)| {
                let user = &self.users[running[rank]];
                VisitSample {
                    weight: sample_weight(i, count, running.len() as u64),
                    deadline_ms: user.deadline,
                    start_ms: user.start,
                    base_ms: (user.base > 0).then_some(user.base),
                }
            })
            .collect();
        let shrink = 1.0 / self.growth();
        let mut turnover = self.turnover.clone();
        turnover.no_shows *= shrink;
        let all = [
            &mut turnover.shown,
            &mut turnover.early,
            &mut turnover.lapsed,
            &mut turnover.extended,
        ];
        all.into_iter().flatten().for_each(|count| *count *= shrink);
        self.allowance();
        let log: Vec<(i64, u64)> = self.log.iter().copied().collect();
        AdmissionForecast::new(&ForecastInput {
            limits: self.limits,
            now_ms: self.now,
            open: self.open,
            restoring_until_ms: 0,
            waiting: self.waiting.len() as u64,
            active: running.len() as u64,
            recent_admissions: &log,
            visits: &visits,
            turnover: &turnover,
        })
    }

    pub(super) fn poll(&mut self, user: usize) {
        match self.users[user].state {
            VisitorState::Active => {
                if self.users[user].base == 0 && self.users[user].deadline > self.now {
                    let after = (self.now - self.users[user].start).max(0) as u64;
                    self.turnover.shown[age_bin(after)] += self.growth();
                    self.show_up(user);
                }
                return;
            }
            VisitorState::Waiting => {}
            VisitorState::New | VisitorState::Gone => return,
        }
        if self.snapshot.as_ref().is_none_or(|(at, _)| self.now - at > SNAPSHOT_MS) {
            self.snapshot = Some((self.now, self.forecast()));
        }
        let position = self.users[user].order + 1 - self.admitted_total;
        let reported = self
            .snapshot
            .as_ref()
            .and_then(|(_, forecast)| forecast.estimated_wait_seconds(position as u64));
        self.users[user].answers.push((self.now, reported));
        let jitter = self.random.between(-1.0, 1.0);
        let claim = Duration::from_millis(self.limits.claim_ms);
        let unsettled = self.snapshot.as_ref().is_some_and(|(_, forecast)| forecast.is_unsettled());
        let after = poll_after(reported, unsettled, claim, None, jitter);
        // The request itself takes a moment.
        let after = i64::try_from(after.as_millis()).unwrap_or(0) + 20;
        self.at(self.now + after, SimulationEvent::Poll(user));
    }
}
