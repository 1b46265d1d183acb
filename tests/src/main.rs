//! The `tcc-cluster` command: the demo, a cluster to play with, a small client, and the hidden roles that the cluster's own
//! processes are. Everything is in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tcc_cluster::{bench, chaos, cli, demo, harness, model, serve, simulate, survive};

/// Messages are many small allocations, often freed by another thread than the one that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Orders over gRPC, all or nothing, on this machine.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: demo::DemoArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything in a temporary folder, places orders, kills a participant on the way, and checks the books (default).
    Demo(demo::DemoArgs),
    /// Keeps everything up on fixed ports, with its data in a folder that stays.
    Serve(serve::ServeArgs),
    /// Kills gateways, the database server or a participant again and again under steady orders, and tells what was lost.
    Survive(survive::SurviveArgs),
    /// Breaks everything at once, by a seeded plan: kills, stopped processes, harmed links, full disks; and tells what was lost.
    Chaos(chaos::ChaosArgs),
    /// Measures orders per second and latency, beside an older build and beside the bare database.
    Bench(Box<bench::BenchArgs>),
    /// Explores the protocol under a model checker: every order of messages, crashes and takeovers, within bounds.
    Model(model::ModelArgs),
    /// Runs the whole system in one process under virtual time, with seeded faults, and holds the rules against every commit.
    Simulate(simulate::SimulateArgs),
    /// Places, reads, confirms and cancels orders at a running gateway.
    Order(cli::OrderArgs),
    /// Reads stock.
    Stock(cli::StockArgs),
    /// Reads coupons.
    Coupon(cli::CouponArgs),
    /// Asks a server whether it serves.
    Health(cli::HealthArgs),
    /// One process of a cluster.
    #[command(hide = true)]
    Role {
        /// Which.
        role: harness::Role,
        /// Its configuration, as JSON.
        #[arg(long, env = "TCC_CLUSTER_CONFIG_JSON", hide_env_values = true)]
        config_json: String,
        /// Stand still at this fail point.
        #[arg(long)]
        park_at: Option<String>,
    },
}

fn main() -> ExitCode {
    // A seed of the simulation runs where nothing else has begun yet.
    tcc_simulation::child().unwrap_or_else(command)
}

#[tokio::main]
async fn command() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Demo(cli.demo)) {
        Command::Demo(args) => return demo::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Survive(args) => return survive::run(args).await,
        Command::Chaos(args) => return chaos::run(args).await,
        Command::Bench(args) => return bench::run(*args).await,
        Command::Model(args) => return model::run(&args),
        Command::Simulate(args) => return simulate::run(args).await,
        Command::Order(args) => cli::order(args).await,
        Command::Stock(args) => cli::stock(args).await,
        Command::Coupon(args) => cli::coupon(args).await,
        Command::Health(args) => cli::health(args).await,
        Command::Role { role, config_json, park_at } => harness::role::run(role, &config_json, park_at.as_deref()).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
