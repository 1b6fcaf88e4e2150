//! The result of an open-loop run as Markdown.

use std::collections::BTreeMap;

use super::checks::PromiseCheck;
use super::generator::LoadResult;
use crate::table::{MarkdownTable, figure};

pub(super) struct LoadReport {
    pub(super) title: String,
    pub(super) machine: String,
    pub(super) result: LoadResult,
    pub(super) checks: Vec<PromiseCheck>,
}

impl LoadReport {
    pub(super) fn all_kept(&self) -> bool {
        self.checks.iter().all(|check| check.kept)
    }

    pub(super) fn text(&self) -> String {
        let mut users = BTreeMap::<_, usize>::new();
        for user in &self.result.observations {
            *users.entry(user.outcome).or_default() += 1;
        }
        let users: Vec<_> =
            users.iter().map(|(outcome, count)| format!("{}: {count}", outcome.name())).collect();
        let mut text = format!(
            "{}\n\n{}.\n\n{}\nUsers: {}.\n\n",
            self.machine,
            self.title,
            self.step_table(),
            users.join(", ")
        );
        for check in &self.checks {
            let verdict = if check.kept { "kept" } else { "BROKEN" };
            text.push_str(&format!("- {verdict}: {} ({})\n", check.name, check.detail));
        }
        text
    }

    fn step_table(&self) -> String {
        let mut table = MarkdownTable::new(&[
            "step",
            "answers",
            "per second",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "p99 ms from sending",
            "failed",
        ]);
        for (step, series) in &self.result.steps {
            let (due, sent) = (&series.from_due, &series.from_sent);
            let ms = |micros: u64| figure(micros as f64 / 1e3);
            let failed: Vec<_> =
                series.failures.iter().map(|(status, count)| format!("{count}×{status}")).collect();
            table.add_row(vec![
                step.name().to_owned(),
                due.len().to_string(),
                figure(due.len() as f64 / self.result.elapsed.as_secs_f64()),
                ms(due.value_at_quantile(0.5)),
                ms(due.value_at_quantile(0.99)),
                ms(due.value_at_quantile(0.999)),
                ms(due.max()),
                ms(sent.value_at_quantile(0.99)),
                if failed.is_empty() { "0".to_owned() } else { failed.join(" ") },
            ]);
        }
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::open_loop::latency::{LatencySeries, RequestStep};
    use crate::open_loop::observation::{UserObservation, UserOutcome};

    #[test]
    fn report_shows_steps_outcomes_and_broken_promises() {
        let mut join = LatencySeries::default();
        let due = Instant::now();
        for _ in 0..100 {
            join.record(due, due, due + Duration::from_millis(2));
        }
        join.failures.insert(503, 3);
        let user = |number| UserObservation {
            outcome: UserOutcome::SoldOut,
            ..UserObservation::new(number)
        };
        let mut report = LoadReport {
            title: "100 users".to_owned(),
            machine: "2 cores".to_owned(),
            result: LoadResult {
                elapsed: Duration::from_secs(4),
                steps: BTreeMap::from([(RequestStep::Join, join)]),
                observations: (0..100).map(user).collect(),
            },
            checks: vec![PromiseCheck { name: "quota", kept: true, detail: "5 of 5".to_owned() }],
        };
        let text = report.text();
        assert!(text.contains("3×503") && text.contains("Users: sold out: 100."), "{text}");
        assert!(text.contains("- kept: quota (5 of 5)") && report.all_kept(), "{text}");
        report.checks[0].kept = false;
        assert!(report.text().contains("- BROKEN: quota") && !report.all_kept());
    }
}
