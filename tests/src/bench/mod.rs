//! `tcc-cluster bench`: how fast the whole system is, beside an older build and beside the bare database.
//!
//! Every run stands alone: fresh processes on a fresh server and fresh databases, stock, a warm-up, a measured window, the end of
//! everything that was begun, the books. Nothing that a run leaves behind can help or hinder the next.

mod args;
mod books;
mod cell;
mod counters;
mod coupons;
mod figures;
mod floor;
mod growth;
mod load;
mod machine;
mod open_loop;
mod orders;
mod picture;
mod preload;
mod progress;
mod report;
mod running;
mod summary;
mod system;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};

pub use self::{
    args::{BenchArgs, Other, Profile},
    growth::GrowthArgs,
};
use self::{
    cell::{Cell, Contender, plan},
    figures::Run,
    machine::{Machine, load_average},
    progress::Progress,
    report::Report,
    summary::summarize,
    system::Conditions,
};
use crate::harness::{ClusterConfig, Databases, Owner, ServerChoice, Store};

/// Runs it, and prints what it found. It fails if any run has no figure.
pub async fn run(args: BenchArgs) -> ExitCode {
    let done = match (&args.other, &args.gateway) {
        (Some(Other::Growth(args)), _) => growth::run(args).await,
        (None, Some(gateway)) => running::run(&args, gateway).await,
        (None, None) => start(&args).await,
    };
    done.unwrap_or_else(|error| {
        println!("error: {error:#}");
        ExitCode::from(2)
    })
}

/// Fsyncs are counted by a library that must be there before this process is: so it is started anew with it.
async fn start(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if preload::counted_in().is_some() {
        return measure(args, None).await;
    }
    match preload::build() {
        Ok(library) => preload::start_anew(&library, args.fsync_delay_us).await,
        Err(error) => {
            ensure!(args.fsync_delay_us == 0, "--fsync-delay-us: {error:#}");
            measure(args, Some(format!("{error:#}"))).await
        }
    }
}

async fn measure(args: &BenchArgs, fsyncs_not_counted: Option<String>) -> anyhow::Result<ExitCode> {
    let measures = args.measures();
    let own = std::env::current_exe().context("where this binary is")?;
    let older = args.against.as_deref();
    if let Some(older) = older {
        ensure!(older.is_file(), "--against {}: there is no such file", older.display());
    }
    let conditions = Conditions {
        warm_up: Duration::from_secs(args.warm_up_seconds),
        measured: Duration::from_secs(measures.seconds),
        channels: args.channels,
        coupons_issued: args.coupons_issued,
        log_filter: args.log.clone(),
        settings: args.set.clone(),
        server_settings: args.server_settings.clone(),
        fsync_file: preload::counted_in(),
    };
    let cells = plan(&measures, args.coupons, older.is_some());
    let progress = Progress::new(cells.len() as u64 * u64::from(measures.repeat));
    let mut runs = Vec::new();
    for repetition in 1..=measures.repeat {
        for &cell in &cells {
            let before = load_average();
            let outcome = one(cell, &own, older, &conditions).await.with_context(|| report::name(cell))?;
            let run = Run { cell, repetition, machine_load: [before, load_average()], outcome };
            progress.step(report::brief(&run));
            runs.push(run);
        }
    }
    progress.finish();
    let mut databases = Vec::new();
    for store in &measures.stores {
        databases.push(describe(*store, &conditions.server_settings).await?);
    }
    let lines = summarize(&runs);
    let fsync_delay_us = args.fsync_delay_us;
    let report = Report { machine: Machine::look(), databases, measures, fsync_delay_us, fsyncs_not_counted, lines, runs };
    println!("{}", report.text());
    if let Some(file) = &args.json {
        report.write_json(file)?;
    }
    if let Some(file) = &args.picture {
        picture::draw(file, &report.lines)?;
    }
    let balanced = report.lines.iter().all(|line| line.problems.is_empty());
    Ok(if balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn one(
    cell: Cell,
    own: &Path,
    older: Option<&Path>,
    conditions: &Conditions,
) -> anyhow::Result<Result<figures::Figures, Vec<String>>> {
    match cell.contender {
        Contender::Ours => system::run(cell, own, conditions).await,
        Contender::Against => system::run(cell, older.context("there is no older build")?, conditions).await,
        Contender::Floor => floor::run(cell, conditions).await,
    }
}

/// Asks a server as those that were measured what it is.
async fn describe(store: Store, more: &[(String, String)]) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let config = ClusterConfig {
        store,
        server: ServerChoice::Own,
        server_settings: machine::server_settings(store, more),
        ..ClusterConfig::temporary(folder.path().to_owned())
    };
    let databases = Databases::open(&config, folder.path()).await?;
    machine::database(store, databases.url(Owner::Log)).await
}
