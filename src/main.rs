//! The `usher` binary: sets the allocator, starts the runtime, and maps the result to an exit code.

use std::process::ExitCode;

use usher::cli::CommandLine;

// Measurably cheaper than the allocator of the system: the service makes many small allocations on
// all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("usher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let command = CommandLine::parse_or_exit().prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(command.run())?)
}
