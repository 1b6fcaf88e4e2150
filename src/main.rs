//! The `usher` command: an allocator, a runtime and an exit code around the library.

use std::process::ExitCode;

use usher::cli::CommandLine;

// Many small allocations of many sizes, from all threads: measurably cheaper than the system's allocator.
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
    let job = CommandLine::read().prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(job.run())?)
}
