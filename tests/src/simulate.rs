//! `tcc-cluster simulate`: the simulation, and the faults that it must find.

use std::process::ExitCode;

use clap::Args;

use crate::mutants::{self, Subject};

const SUBJECT: Subject = Subject {
    list: "tests/simulation/mutants.toml",
    crates: &[
        "proto",
        "tcc-core/types",
        "tcc-core/wire",
        "tcc-core/machine",
        "tcc-core/barrier",
        "tcc-core/database",
        "tcc-core/log",
        "tcc-core/coordinator",
        "tcc-core/participant",
        "tcc-core/client",
        "tcc-core/service",
        "participants/inventory",
        "participants/coupon",
        "gateway",
        "migrations",
        "tests/preload",
        "tests/servers",
        "tests/simulation",
    ],
    package: "tcc-simulation",
    build: BUILD,
    build_quickly: BUILD,
    arguments: &["--seeds", "100", "--jobs", "1"],
    broken: 1,
    names_rule: "  broken: ",
};

const BUILD: &[&str] = &[
    "--release",
    "--config",
    "profile.release.lto=false",
    "--config",
    "profile.release.codegen-units=16",
    "--config",
    "profile.release.debug=false",
];

/// Which seeds, or the test of the test.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    #[command(flatten)]
    seeds: tcc_simulation::SimulateArgs,
    /// Puts faults into a copy of the source, one at a time, and looks whether a hundred seeds find each. Needs the source and cargo.
    #[arg(long)]
    mutants: bool,
    /// With --mutants: only those whose names contain this; may be repeated.
    #[arg(long, requires = "mutants")]
    only: Vec<String>,
}

/// Runs what was asked for.
pub async fn run(args: SimulateArgs) -> ExitCode {
    if !args.mutants {
        return tcc_simulation::simulate(&args.seeds).await;
    }
    mutants::run(&SUBJECT, &args.only).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}
