//! The result of one workload as Markdown.

use crate::compared_strategies::USHER;
use crate::load::{StrategyOutcome, WorkloadKind};
use crate::table::{MarkdownTable, figure};

pub(crate) fn table(
    kind: WorkloadKind,
    outcomes: &[StrategyOutcome],
    skipped: &[String],
) -> String {
    let mut table = MarkdownTable::new(&[
        "strategy",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "answered",
        "lost",
        "above quota",
        "duplicates",
        "unsold",
        "Usher ×",
    ]);
    let usher = outcomes.iter().find(|it| it.name == USHER);
    for outcome in outcomes {
        let ratio = usher.map_or(f64::NAN, StrategyOutcome::rate) / outcome.rate();
        let anomalies = &outcome.anomalies;
        let count = |count: u64| if count == 0 { "–".to_owned() } else { count.to_string() };
        table.add_row(vec![
            outcome.name.to_owned(),
            figure(outcome.rate()),
            figure(outcome.latency_ms(0.5)),
            figure(outcome.latency_ms(0.99)),
            answered(outcome),
            count(anomalies.lost),
            count(anomalies.above_quota),
            count(anomalies.duplicates),
            count(anomalies.unsold),
            figure(ratio),
        ]);
    }
    if let Some(usher) = usher
        && !usher.write_delay.is_zero()
    {
        let name = format!("{USHER}, until all changes are in MySQL");
        table.add_row(vec![name, figure(usher.written_rate())]);
    }
    let skipped: String = skipped.iter().map(|reason| format!("\nSkipped: {reason}.\n")).collect();
    format!("### {}\n\n{}{skipped}\n", kind.title(), table.render())
}

/// Share of requests with a correct answer, and the most frequent reason of the others.
fn answered(outcome: &StrategyOutcome) -> String {
    let share = format!("{:.1} %", (outcome.answered_share() * 1_000.0).floor() / 10.0);
    match outcome.tally.failures.iter().max_by_key(|(_, count)| **count) {
        Some((failure, _)) => format!("{share} ({})", failure.word()),
        None => share,
    }
}
