//! `strategies` compares ways to serialize concurrent requests: one naive service over MySQL behind
//! each of them, and Usher.
//!
//! Progress goes to standard error, tables to standard output. The command fails if Usher's stored
//! state disagrees with its answers.

mod brokers;
mod compared_strategies;
mod load;
mod naive_service;
mod report;
mod servers;
mod strategies;
#[cfg(test)]
mod tests;
mod usher_state;
mod work_item;

// Shared with `rush`.
#[allow(dead_code, reason = "rush uses more of it")]
#[path = "../../rush/src/connection.rs"]
mod connection;
#[path = "../../rush/src/document.rs"]
mod document;
#[allow(dead_code, reason = "rush uses more of it")]
#[path = "../../rush/src/machine.rs"]
mod machine;
#[path = "../../rush/src/table.rs"]
mod table;
#[allow(dead_code, reason = "rush uses more of it")]
#[path = "../../rush/src/usher_process.rs"]
mod usher_process;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::load::WorkloadKind;
use crate::servers::StrategyServers;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Compares locking strategies with Usher.
#[derive(Parser)]
#[command(name = "strategies")]
struct CommandLine {
    /// Workloads [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<WorkloadKind>,
    /// Also replace the section `strategies` of this Markdown file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strategies: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: CommandLine) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = compare(options) => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted, all processes are stopped".into()),
        }
    })
}

async fn compare(options: CommandLine) -> Result<(), BoxError> {
    let servers = StrategyServers::start().await?;
    let (strategies, skipped) = compared_strategies::all(&servers).await?;
    let wanted = |kind: &WorkloadKind| options.only.is_empty() || options.only.contains(kind);
    let mut text = format!("{}\n\n", machine::describe());
    print(&text)?;
    let mut correct = true;
    for kind in WorkloadKind::ALL.into_iter().filter(wanted) {
        let mut outcomes = Vec::new();
        for strategy in &strategies {
            log_progress(&format!("{}: {}", kind.title(), strategy.name));
            outcomes.push(strategy.measure(kind).await?);
        }
        let usher = outcomes.iter().filter(|it| it.name == compared_strategies::USHER);
        correct &= usher.map(|it| it.anomalies.errors()).sum::<u64>() == 0;
        let table = report::table(kind, &outcomes, &skipped);
        print(&table)?;
        text.push_str(&table);
    }
    servers.stop().await?;
    if let Some(path) = &options.write {
        document::write_section(path, "strategies", &text)?;
    }
    if correct { Ok(()) } else { Err("Usher's stored state disagrees with its answers".into()) }
}

fn log_progress(text: &str) {
    eprintln!("strategies: {text}");
}

fn print(text: &str) -> Result<(), BoxError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
