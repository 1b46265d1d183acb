//! The simulation as a program of its own, for builds that need nothing else; people have `tcc-cluster simulate`.

use std::process::ExitCode;

use clap::Parser;

/// Messages are many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: tcc_simulation::SimulateArgs,
}

fn main() -> ExitCode {
    tcc_simulation::child().unwrap_or_else(parent)
}

#[tokio::main]
async fn parent() -> ExitCode {
    tcc_simulation::simulate(&Cli::parse().args).await
}
