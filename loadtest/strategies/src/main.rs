//! `strategies` compares ways of keeping concurrent requests apart: the same naive service over MySQL behind each of them, and Usher beside them.
//!
//! Progress goes to standard error, tables to standard output, plots beside the binaries. It fails when Usher's answers and its books disagree.

mod brokers;
// A connection that costs the generator little, and Markdown: as in the other load generator, each in one place.
#[allow(dead_code, reason = "the two programs use different parts of it")]
#[path = "../../rush/src/connection.rs"]
mod connection;
mod contenders;
mod load;
mod plot;
mod report;
mod shop;
mod stack;
mod strategies;
#[allow(dead_code, reason = "the two programs use different parts of it")]
#[path = "../../rush/src/table.rs"]
mod table;
#[cfg(test)]
mod tests;
mod usher_books;
mod work;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::load::Workload;
use crate::stack::Stack;

/// What anything here may fail with: it is told and the run ends.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Compares locking strategies with Usher.
#[derive(Parser)]
#[command(name = "strategies")]
struct Cli {
    /// Workloads; all when left out
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
}

fn main() -> ExitCode {
    match run(Cli::parse().only) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strategies: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(only: Vec<Workload>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = compare(only) => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted; everything was stopped".into()),
        }
    })
}

async fn compare(only: Vec<Workload>) -> Result<(), Failure> {
    let all = [Workload::Wallet, Workload::Wallets, Workload::Token, Workload::Coupon];
    let stack = Stack::start().await?;
    let (contenders, skipped) = contenders::all(&stack).await?;
    let mut sound = true;
    for workload in all.into_iter().filter(|it| only.is_empty() || only.contains(it)) {
        let mut outcomes = Vec::new();
        for contender in &contenders {
            progress(&format!("{}: {}", workload.title(), contender.name));
            outcomes.push(contender.face(workload).await?);
        }
        sound &= outcomes
            .iter()
            .filter(|it| it.name.starts_with(contenders::USHER))
            .all(|it| it.verdict.anomalies() == 0);
        print(&report::table(workload, &outcomes, &skipped))?;
        let plot = std::env::current_exe()?.with_file_name(format!("strategies-{}.svg", workload.name()));
        std::fs::write(&plot, plot::svg(workload, &outcomes))?;
        progress(&format!("plot: {}", plot.display()));
    }
    stack.stop().await?;
    if sound { Ok(()) } else { Err("Usher's books do not hold what its clients were told".into()) }
}

/// Says on standard error how far things are.
fn progress(text: &str) {
    eprintln!("strategies: {text}");
}

/// Prints a part of the result.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
