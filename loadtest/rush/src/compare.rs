//! The regression gate: measures two builds of the service alternately in one run, so that a
//! machine whose speed drifts affects both.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;

use crate::bench::{HotPathBench, MeasuredRun};
use crate::stack::ServiceStack;
use crate::table::{MarkdownTable, figure};
use crate::{BoxError, log_progress, machine, print};

const DEFAULT_SCENARIOS: [&str; 7] =
    ["poll", "join", "hold", "charge", "issue", "sold-out", "purchase"];

/// Share of rounds that must agree on a regression. By chance alone seven of eight rounds agree in
/// one run of 28, and the median must also exceed the margin.
const REQUIRED_AGREEMENT: f64 = 0.875;

#[derive(Args)]
pub(crate) struct CompareOptions {
    /// The old build: a binary, or a checkout that is built first
    a: PathBuf,
    /// The new build: a binary, or a checkout that is built first
    b: PathBuf,
    /// Number of connections, each with one request in flight
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Measuring time per build and round, in seconds
    #[arg(long, default_value = "1", value_parser = crate::measuring_time)]
    seconds: Duration,
    /// Number of rounds
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Share by which the new build may be worse
    #[arg(long, default_value_t = 0.07)]
    margin: f64,
    /// Names of scenarios [default: poll, join, hold, charge, issue, sold-out, purchase]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Exits with success if the new build is no worse than the old one.
pub(crate) async fn run(options: &CompareOptions) -> Result<ExitCode, BoxError> {
    let (a, b) = (build(&options.a)?, build(&options.b)?);
    let (a, b) = (ServiceStack::start(Some(a)).await?, ServiceStack::start(Some(b)).await?);
    let passed = compare(options, [&a, &b]).await;
    a.stop().await?;
    b.stop().await?;
    Ok(if passed? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Path of the service binary; builds a checkout for release first.
fn build(path: &Path) -> Result<PathBuf, BoxError> {
    let path = path.canonicalize().map_err(|cause| format!("{}: {cause}", path.display()))?;
    if path.is_file() {
        return Ok(path);
    }
    log_progress(&format!("building {}", path.display()));
    let arguments = ["build", "--release", "--locked", "--bin", "usher", "--target-dir", "target"];
    let built = std::process::Command::new("cargo").args(arguments).current_dir(&path).status()?;
    if !built.success() {
        return Err(format!("the build of {} failed", path.display()).into());
    }
    Ok(path.join("target/release/usher"))
}

async fn compare(options: &CompareOptions, stacks: [&ServiceStack; 2]) -> Result<bool, BoxError> {
    let CompareOptions { connections, rounds, margin, only, seconds, .. } = options;
    let mut benches =
        [HotPathBench::new(stacks[0], *seconds)?, HotPathBench::new(stacks[1], *seconds)?];
    let mut table = MarkdownTable::new(&[
        "scenario",
        "A units/s",
        "B units/s",
        "B / A",
        "min, max",
        "A CPU µs",
        "B CPU µs",
        "B / A",
        "min, max",
        "verdict",
    ]);
    let mut passed = true;
    let names: Vec<&str> = if only.is_empty() {
        DEFAULT_SCENARIOS.to_vec()
    } else {
        only.iter().map(String::as_str).collect()
    };
    for name in names {
        let mut pairs = Vec::new();
        for round in 0..*rounds {
            log_progress(&format!("{name}, round {} of {rounds}", round + 1));
            let mut pair: [Option<MeasuredRun>; 2] = [None, None];
            // The build that runs first alternates.
            let first = usize::from(round % 2 == 1);
            for index in [first, 1 - first] {
                let scenario = benches[index].prepare(name, &format!("r{round}")).await?;
                pair[index] = Some(benches[index].run(&Rc::new(scenario), *connections).await?);
            }
            let [Some(a), Some(b)] = pair else { return Err("a round is incomplete".into()) };
            pairs.push((a, b));
        }
        let rate = RoundRatios::new(&pairs, |run| run.outcome.rate());
        let cost = RoundRatios::new(&pairs, MeasuredRun::cpu_per_unit);
        let a_fails = pairs.iter().any(|(a, _)| !a.outcome.failures.is_empty());
        let b_fails = pairs.iter().any(|(_, b)| !b.outcome.failures.is_empty());
        let regression = find_regression(&rate, &cost, *margin, (a_fails, b_fails));
        passed &= regression.is_none();
        table.add_row(vec![
            name.to_owned(),
            figure(rate.medians.0),
            figure(rate.medians.1),
            figure(rate.median()),
            rate.range(),
            figure(cost.medians.0),
            figure(cost.medians.1),
            figure(cost.median()),
            cost.range(),
            regression.unwrap_or("as good").to_owned(),
        ]);
    }
    print(&format!(
        "{}\n\n{connections} connections, {rounds} rounds of {:.1} s per build. CPU is service + \
         Redis + MySQL per unit. Worse means: by more than {:.0} % in the median, and worse in \
         seven of eight rounds.\n\n{}",
        machine::describe(),
        seconds.as_secs_f64(),
        margin * 100.0,
        table.render()
    ))?;
    Ok(passed)
}

/// B divided by A, per round.
struct RoundRatios {
    sorted: Vec<f64>,
    /// Medians of A and of B.
    medians: (f64, f64),
}

impl RoundRatios {
    fn new(pairs: &[(MeasuredRun, MeasuredRun)], value: impl Fn(&MeasuredRun) -> f64) -> Self {
        Self::from_values(pairs.iter().map(|(a, b)| (value(a), value(b))).collect())
    }

    fn from_values(pairs: Vec<(f64, f64)>) -> Self {
        let sorted = |values: &mut dyn Iterator<Item = f64>| {
            let mut values: Vec<_> = values.collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let a = sorted(&mut pairs.iter().map(|pair| pair.0));
        let b = sorted(&mut pairs.iter().map(|pair| pair.1));
        let ratios = sorted(&mut pairs.iter().map(|(a, b)| b / a));
        Self { sorted: ratios, medians: (middle(&a), middle(&b)) }
    }

    fn median(&self) -> f64 {
        middle(&self.sorted)
    }

    fn range(&self) -> String {
        format!("{}, {}", figure(self.sorted[0]), figure(self.sorted[self.sorted.len() - 1]))
    }

    fn share_of_rounds(&self, holds: impl Fn(f64) -> bool) -> f64 {
        let count = self.sorted.iter().filter(|ratio| holds(**ratio)).count();
        count as f64 / self.sorted.len() as f64
    }
}

fn middle(sorted: &[f64]) -> f64 {
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

fn find_regression(
    rate: &RoundRatios,
    cost: &RoundRatios,
    margin: f64,
    (a_fails, b_fails): (bool, bool),
) -> Option<&'static str> {
    let agreed = |share: f64| share >= REQUIRED_AGREEMENT;
    if b_fails && !a_fails {
        Some("WRONG ANSWERS")
    } else if rate.median() < 1.0 - margin && agreed(rate.share_of_rounds(|ratio| ratio < 1.0)) {
        Some("SLOWER")
    } else if cost.median() > 1.0 + margin && agreed(cost.share_of_rounds(|ratio| ratio > 1.0)) {
        Some("COSTS MORE")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative_to_100(b: &[f64]) -> RoundRatios {
        RoundRatios::from_values(b.iter().map(|b| (100.0, *b)).collect())
    }

    #[test]
    fn slower_build_is_found_and_noise_is_not() {
        let even = relative_to_100(&[98.0, 101.0, 99.0, 103.0]);
        let regression =
            |rate: &[f64]| find_regression(&relative_to_100(rate), &even, 0.05, (false, false));
        assert_eq!(regression(&[90.0, 91.0, 89.0, 97.0]), Some("SLOWER"));
        assert_eq!(regression(&[120.0, 130.0, 125.0, 118.0]), None);
        assert_eq!(regression(&[97.0, 96.0, 98.0, 95.5]), None, "within the margin");
        assert_eq!(regression(&[80.0, 85.0, 84.0, 103.0]), None, "worse in 3 of 4 rounds only");
    }

    #[test]
    fn build_with_higher_cost_or_wrong_answers_is_found() {
        let even = relative_to_100(&[100.0; 4]);
        let costly = relative_to_100(&[110.0, 112.0, 109.0, 108.0]);
        assert_eq!(find_regression(&even, &costly, 0.05, (false, false)), Some("COSTS MORE"));
        assert_eq!(find_regression(&even, &costly, 0.15, (false, false)), None);
        assert_eq!(find_regression(&even, &even, 0.05, (false, true)), Some("WRONG ANSWERS"));
        assert_eq!(find_regression(&even, &even, 0.05, (true, true)), None);
    }

    #[test]
    fn median_of_an_even_count_is_between_two_values() {
        assert_eq!(relative_to_100(&[90.0, 100.0, 110.0, 130.0]).median(), 1.05);
        assert_eq!(relative_to_100(&[90.0, 120.0, 100.0]).medians, (100.0, 100.0));
    }
}
