//! The inventory server. Everything is in the library; this reads its configuration and runs it.

use std::path::PathBuf;

use clap::Parser;
use tcc_inventory::{Config, ENV_PREFIX, run};
use tcc_service::{config, shutdown, telemetry};

/// Messages are many small allocations, often freed by another thread than the one that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps stock, as a participant of global transactions.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// A TOML file; the environment (`TCC_INVENTORY__LISTEN=...`) overrides it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config: Config = config::load(args.config.as_deref(), ENV_PREFIX)?;
    telemetry::init(&config.telemetry, "inventory");
    run(config, |address| tracing::info!(%address, "listening"), shutdown::on_signal()).await
}
