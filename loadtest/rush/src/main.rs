//! `rush` measures Usher as a whole and its Redis scripts by themselves, and prints the results as Markdown.
//!
//! Progress goes to standard error, tables to standard output. Everything that is started is stopped at the end, by its handle.

mod bare;
mod bench;
mod bystanders;
mod closed;
mod compare;
mod connection;
mod forms;
mod halls;
mod issues;
mod lanes;
mod machine;
mod memory;
mod meter;
mod open;
mod prepare;
mod primaries;
mod redis;
mod scale;
mod scenario;
mod stack;
mod table;
mod writer;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// What anything here may fail with: it is told and the run ends.
type Failure = Box<dyn std::error::Error>;

// The allocator of the service, so that the bare server beside it differs in its layers alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Usher.
#[derive(Parser)]
#[command(name = "rush", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput, latency and processor time of the hot paths, each beside a no-op request of the same run
    Bench(Bench),
    /// What joins, polls and promotions cost Redis, and what a waiting user weighs, as the line grows
    Scale(Scale),
    /// What issuing costs Redis, and what an issue weighs, as more and more of one coupon are issued
    Issues(Issues),
    /// What holds and the map cost Redis a seat, in small halls and large ones
    Halls(Halls),
    /// What the same work costs a script in two forms: command by command or in bulk, MessagePack or plain strings
    Forms,
    #[command(flatten)]
    Crowd(open::Crowd),
    /// A normal load beside thousands of connections that are idle or dribble
    Bystanders(Bystanders),
    /// A normal load beside ten times the joins that the service is told to take
    Flood(Flood),
    /// Joins and coupons on a Redis Cluster of one, two and three primaries
    Primaries(Primaries),
    /// Two builds of the service in turns; the exit code says whether the second is worse than the first
    Compare(Compare),
    /// How far from the order of arrival a line spread over lanes lets people in (a simulation)
    Lanes(Lanes),
    /// Runs one process' share of a crowd, told on standard input (the crowd starts it by itself)
    #[command(hide = true)]
    Worker,
    /// Serves a bare axum no-op on a free port until its standard input ends (the bench starts it by itself)
    #[command(hide = true)]
    Bare,
}

/// What the bench takes.
#[derive(Args)]
struct Bench {
    /// Connections, each with one request under way
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    connections: Vec<usize>,
    /// How long each scenario is measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Scenarios by name; all when left out
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The service's binary, to compare builds [default: `usher` beside this one]
    #[arg(long)]
    usher: Option<PathBuf>,
}

/// What the table of growth takes.
#[derive(Args)]
struct Scale {
    /// Lengths of the line
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    waiting: Vec<usize>,
}

/// What a comparison takes.
#[derive(Args)]
struct Compare {
    /// A binary, or a checkout that is built first: what was
    a: PathBuf,
    /// A binary, or a checkout that is built first: what is to be judged
    b: PathBuf,
    /// Connections, each with one request under way
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// How long each build is measured in each round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The share by which the second may be worse
    #[arg(long, default_value_t = 0.07)]
    margin: f64,
    /// Scenarios by name; the usual ones when left out
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// What the measure beside idle connections takes.
#[derive(Args)]
struct Bystanders {
    /// Idle and dribbling connections
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Polls of the normal load
    #[arg(long, default_value_t = 4_000.0)]
    per_second: f64,
    /// How long each of five rows is measured
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
}

/// What the measure beside a flood takes.
#[derive(Args)]
struct Flood {
    /// Joins a second that the service takes; ten times as many are sent
    #[arg(long, default_value_t = 1_000)]
    capacity: u32,
    /// Polls of the normal load
    #[arg(long, default_value_t = 4_000.0)]
    per_second: f64,
    /// How long each of five rows is measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

/// What the clusters take.
#[derive(Args)]
struct Primaries {
    /// Primaries of the clusters; each must divide twelve
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    primaries: Vec<usize>,
    /// How long each is measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// What the simulation takes.
#[derive(Args)]
struct Lanes {
    /// Users in line
    #[arg(long, default_value_t = 1_000_000)]
    users: u32,
    /// Lanes
    #[arg(long, value_delimiter = ',', default_value = "4,16,64")]
    lanes: Vec<usize>,
}

/// What the table of one coupon takes.
#[derive(Args)]
struct Issues {
    /// How many are issued
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    issues: Vec<u64>,
}

/// What the table of halls takes.
#[derive(Args)]
struct Halls {
    /// Seats of a hall
    #[arg(long, value_delimiter = ',', default_value = "50,500,5000,50000")]
    seats: Vec<usize>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rush: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    if matches!(command, Command::Bare) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(bare::serve())?;
        return Ok(ExitCode::SUCCESS);
    }
    // One thread: the generator shares the machine with what it measures, and a second one would take more than it gives.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = async {
        match command {
            Command::Bench(bench) => {
                let seconds = measured_for(bench.seconds)?;
                bench::run(&bench.connections, seconds, &bench.only, bench.usher).await?;
            }
            Command::Compare(it) => {
                let comparison = compare::Comparison {
                    builds: [it.a, it.b],
                    connections: it.connections,
                    time: measured_for(it.seconds)?,
                    rounds: usize::try_from(it.rounds)?,
                    margin: it.margin,
                    only: it.only,
                };
                return compare::run(&comparison).await;
            }
            Command::Bystanders(it) => {
                let time = measured_for(it.seconds)?;
                bystanders::run(it.connections, it.per_second.clamp(1.0, 1e6), time).await?;
            }
            Command::Flood(it) => {
                let time = measured_for(it.seconds)?;
                bystanders::flood(it.capacity.clamp(1, 100_000), it.per_second.clamp(1.0, 1e6), time).await?;
            }
            Command::Primaries(it) => {
                let time = measured_for(it.seconds)?;
                primaries::run(&it.primaries, time).await?;
            }
            Command::Lanes(it) => lanes::run(it.users, &it.lanes)?,
            Command::Scale(scale) => scale::run(&scale.waiting).await?,
            Command::Issues(issues) => issues::run(&issues.issues).await?,
            Command::Halls(halls) => halls::run(&halls.seats).await?,
            Command::Forms => forms::run().await?,
            Command::Crowd(crowd) => return open::run(crowd).await,
            Command::Worker => open::worker::run().await?,
            Command::Bare => {}
        }
        Ok(ExitCode::SUCCESS)
    };
    runtime.block_on(async {
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted; everything was stopped".into()),
        }
    })
}

/// How long something is measured, within reason.
fn measured_for(seconds: f64) -> Result<Duration, Failure> {
    Ok(Duration::try_from_secs_f64(seconds.clamp(0.1, 600.0))?)
}

/// Says on standard error how far things are.
fn progress(text: &str) {
    eprintln!("rush: {text}");
}

/// Prints a part of the result.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
