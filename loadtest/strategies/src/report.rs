//! The table.

use crate::contenders::USHER;
use crate::load::{Outcome, Workload};
use crate::table::{Table, figure};

/// What came of one workload, as Markdown.
pub(crate) fn table(workload: Workload, outcomes: &[Outcome], skipped: &[String]) -> String {
    let mut table = Table::new(&[
        "strategy",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "answered",
        "lost",
        "above quota",
        "doubled",
        "unsold",
        "Usher ×",
    ]);
    let usher = outcomes.iter().find(|it| it.name == USHER);
    for outcome in outcomes {
        let ratio = usher.map_or(f64::NAN, Outcome::rate) / outcome.rate();
        let verdict = &outcome.verdict;
        let count = |count: u64| if count == 0 { "–".to_owned() } else { count.to_string() };
        table.row(vec![
            outcome.name.to_owned(),
            figure(outcome.rate()),
            figure(outcome.quantile_ms(0.5)),
            figure(outcome.quantile_ms(0.99)),
            answered(outcome),
            count(verdict.lost),
            count(verdict.above),
            count(verdict.doubled),
            count(verdict.unsold),
            figure(ratio),
        ]);
    }
    if let Some(usher) = usher
        && !usher.settling.is_zero()
    {
        let rate = usher.settled_rate();
        let name = format!("{USHER}, until all is in MySQL");
        table.row(vec![name, figure(rate), String::new(), String::new(), String::new()]);
    }
    let skipped: String = skipped.iter().map(|why| format!("Skipped: {why}.\n")).collect();
    format!("### {}\n\n{}\n{skipped}\n", workload.title(), table.render())
}

/// The share of requests that got a right answer, and why the most of the others did not.
fn answered(outcome: &Outcome) -> String {
    let share = format!("{:.1} %", (outcome.success() * 1_000.0).floor() / 10.0);
    match outcome.tally.failed.iter().max_by_key(|(_, count)| **count) {
        Some((why, _)) => format!("{share} ({})", why.word()),
        None => share,
    }
}
