//! `rush` measures Usher from outside and prints Markdown.
//!
//! Progress goes to standard error, results to standard output. Each command stops every process
//! that it started.

mod bench;
mod closed_loop;
mod compare;
mod connection;
mod document;
mod machine;
mod memory;
mod open_loop;
mod redis_connection;
mod resource_usage;
mod scenario;
mod setup;
mod stack;
mod table;
mod usher_process;
mod writer_speed;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Measures the throughput, latency and cost of Usher.
#[derive(Parser)]
#[command(name = "rush", arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: RushCommand,
}

#[derive(Subcommand)]
enum RushCommand {
    /// Measure throughput, latency and CPU time of the hot paths at saturation
    Bench(bench::BenchOptions),
    /// Compare two builds of the service; exit code 1 means that the second one is worse
    Compare(compare::CompareOptions),
    #[command(flatten)]
    OpenLoop(open_loop::OpenLoopCommand),
}

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rush: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: RushCommand) -> Result<ExitCode, BoxError> {
    // One thread: the generator shares the cores with the service, so a second thread would take
    // more from the service than it adds to the load.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = async {
        match command {
            RushCommand::Bench(options) => bench::run(options).await,
            RushCommand::Compare(options) => compare::run(&options).await,
            RushCommand::OpenLoop(command) => open_loop::run(command).await,
        }
    };
    runtime.block_on(async {
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted, all processes are stopped".into()),
        }
    })
}

/// Parses a measuring time in seconds, from 0.1 to 600.
fn measuring_time(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("must be a number of seconds from 0.1 to 600".to_owned()),
    }
}

fn log_progress(text: &str) {
    eprintln!("rush: {text}");
}

fn print(text: &str) -> Result<(), BoxError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
