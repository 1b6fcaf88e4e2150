//! The gate against slow changes: two builds of the service, measured in turns in one run, so that a machine that drifts drifts for both.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use crate::bench::{Bench, Run};
use crate::redis::Redis;
use crate::stack::Stack;
use crate::table::{Table, figure};
use crate::{Failure, machine, print, progress};

/// The scenarios that are compared when none is named.
const USUAL: [&str; 7] = ["poll", "join", "hold", "charge", "issue", "sold-out", "purchase"];

/// The share of rounds that must agree on a regression: seven of eight. By chance alone they do so one time in twenty-eight, and the median
/// must be beyond the margin besides.
const AGREE: f64 = 0.875;

/// What is compared, and how.
pub(crate) struct Comparison {
    /// Binaries, or checkouts that are built.
    pub(crate) builds: [PathBuf; 2],
    pub(crate) connections: usize,
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
    /// The share by which the second build may be worse.
    pub(crate) margin: f64,
    pub(crate) only: Vec<String>,
}

/// Compares, and answers whether the second build is no worse than the first.
pub(crate) async fn run(comparison: &Comparison) -> Result<ExitCode, Failure> {
    let [a, b] = &comparison.builds;
    let (a, b) = (Stack::start(Some(binary(a)?)).await?, Stack::start(Some(binary(b)?)).await?);
    let compared = compare(comparison, [&a, &b]).await;
    a.stop().await?;
    b.stop().await?;
    Ok(if compared? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The service of a checkout, built for release, or the binary itself.
fn binary(path: &Path) -> Result<PathBuf, Failure> {
    let path = path.canonicalize().map_err(|cause| format!("{}: {cause}", path.display()))?;
    if path.is_file() {
        return Ok(path);
    }
    progress(&format!("building {}", path.display()));
    let build = ["build", "--release", "--locked", "--bin", "usher", "--target-dir", "target"];
    let built = std::process::Command::new("cargo").args(build).current_dir(&path).status()?;
    if !built.success() {
        return Err(format!("{} can't be built", path.display()).into());
    }
    Ok(path.join("target/release/usher"))
}

async fn compare(comparison: &Comparison, stacks: [&Stack; 2]) -> Result<bool, Failure> {
    let Comparison { connections, rounds, margin, only, time, .. } = comparison;
    let mut benches = Vec::new();
    for stack in stacks {
        benches.push(Bench::new(stack, Redis::open(stack.redis_port())?, *time));
    }
    let mut table = Table::new(&[
        "scenario",
        "A units/s",
        "B units/s",
        "B / A",
        "least, most",
        "A CPU µs",
        "B CPU µs",
        "B / A",
        "least, most",
        "verdict",
    ]);
    let mut sound = true;
    let names: Vec<&str> =
        if only.is_empty() { USUAL.to_vec() } else { only.iter().map(String::as_str).collect() };
    for name in names {
        let mut pairs = Vec::new();
        for round in 0..*rounds {
            progress(&format!("{name}, round {} of {rounds}", round + 1));
            let mut pair: [Option<Run>; 2] = [None, None];
            // Whoever is first in one round is second in the next.
            for at in [round % 2, 1 - round % 2] {
                let scenario = Rc::new(benches[at].prepare(name, &format!("r{round}")).await?);
                pair[at] = Some(benches[at].run(&scenario, stacks[at].target.public, *connections).await?);
            }
            let [Some(a), Some(b)] = pair else { return Err("a round without its runs".into()) };
            pairs.push((a, b));
        }
        let rate = Ratios::new(&pairs, |run| run.outcome.rate());
        let cost = Ratios::new(&pairs, Run::cpu_each);
        let fails =
            |of: fn(&(Run, Run)) -> &Run| pairs.iter().any(|pair| !of(pair).outcome.failures.is_empty());
        let verdict = verdict(&rate, &cost, *margin, (fails(|pair| &pair.0), fails(|pair| &pair.1)));
        sound &= verdict.is_none();
        let shown = |ratios: &Ratios| {
            format!("{}, {}", figure(ratios.sorted[0]), figure(ratios.sorted[ratios.sorted.len() - 1]))
        };
        table.row(vec![
            name.to_owned(),
            figure(rate.medians.0),
            figure(rate.medians.1),
            figure(rate.median()),
            shown(&rate),
            figure(cost.medians.0),
            figure(cost.medians.1),
            figure(cost.median()),
            shown(&cost),
            verdict.unwrap_or("as good").to_owned(),
        ]);
    }
    print(&format!(
        "{}\n\n{connections} connections, {rounds} rounds of {:.1} s for each build in turns; CPU is service + Redis + MySQL a unit; worse means by more \
         than {:.0} % in the median, and worse in seven rounds of eight:\n\n{}",
        machine::describe(),
        time.as_secs_f64(),
        margin * 100.0,
        table.render()
    ))?;
    Ok(sound)
}

/// B over A, round by round.
struct Ratios {
    sorted: Vec<f64>,
    medians: (f64, f64),
}

impl Ratios {
    fn new(pairs: &[(Run, Run)], of: impl Fn(&Run) -> f64) -> Self {
        Self::of(pairs.iter().map(|(a, b)| (of(a), of(b))).collect())
    }

    fn of(pairs: Vec<(f64, f64)>) -> Self {
        let sorted = |values: Vec<f64>| {
            let mut values = values;
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |values: Vec<f64>| middle(&sorted(values));
        let medians = (
            median(pairs.iter().map(|pair| pair.0).collect()),
            median(pairs.iter().map(|pair| pair.1).collect()),
        );
        Self { sorted: sorted(pairs.iter().map(|(a, b)| b / a).collect()), medians }
    }

    fn median(&self) -> f64 {
        middle(&self.sorted)
    }

    /// The share of rounds in which this holds.
    fn share(&self, holds: impl Fn(f64) -> bool) -> f64 {
        self.sorted.iter().filter(|ratio| holds(**ratio)).count() as f64 / self.sorted.len() as f64
    }
}

fn middle(sorted: &[f64]) -> f64 {
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

/// Why B is worse, if it is.
fn verdict(
    rate: &Ratios,
    cost: &Ratios,
    margin: f64,
    (a_fails, b_fails): (bool, bool),
) -> Option<&'static str> {
    if b_fails && !a_fails {
        Some("WRONG ANSWERS")
    } else if rate.median() < 1.0 - margin && rate.share(|ratio| ratio < 1.0) >= AGREE {
        Some("SLOWER")
    } else if cost.median() > 1.0 + margin && cost.share(|ratio| ratio > 1.0) >= AGREE {
        Some("COSTS MORE")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against_100(b: &[f64]) -> Ratios {
        Ratios::of(b.iter().map(|b| (100.0, *b)).collect())
    }

    #[test]
    fn a_slower_build_is_found_and_noise_is_not() {
        let even = against_100(&[98.0, 101.0, 99.0, 103.0]);
        let verdict = |rate: &[f64]| verdict(&against_100(rate), &even, 0.05, (false, false));
        assert_eq!(verdict(&[90.0, 91.0, 89.0, 97.0]), Some("SLOWER"));
        assert_eq!(verdict(&[120.0, 130.0, 125.0, 118.0]), None);
        assert_eq!(verdict(&[97.0, 96.0, 98.0, 95.5]), None, "within the margin");
        assert_eq!(verdict(&[80.0, 85.0, 84.0, 103.0]), None, "worse in three rounds of four");
    }

    #[test]
    fn a_build_that_costs_more_or_answers_wrong_is_found() {
        let even = against_100(&[100.0; 4]);
        let dear = against_100(&[110.0, 112.0, 109.0, 108.0]);
        assert_eq!(verdict(&even, &dear, 0.05, (false, false)), Some("COSTS MORE"));
        assert_eq!(verdict(&even, &dear, 0.15, (false, false)), None);
        assert_eq!(verdict(&even, &even, 0.05, (false, true)), Some("WRONG ANSWERS"));
        assert_eq!(verdict(&even, &even, 0.05, (true, true)), None);
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_two() {
        assert_eq!(against_100(&[90.0, 100.0, 110.0, 130.0]).median(), 1.05);
        assert_eq!(against_100(&[90.0, 120.0, 100.0]).medians, (100.0, 100.0));
    }
}
