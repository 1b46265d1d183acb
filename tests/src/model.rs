//! `tcc-cluster model`: runs the model checker and prints what it explored.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use tcc_model::Symmetry;

use crate::mutants::{self, Subject};

const SUBJECT: Subject = Subject {
    list: "tests/model/mutants.toml",
    crates: &["tcc-core/types", "tcc-core/machine", "tcc-core/barrier", "tests/model"],
    package: "tcc-model",
    build: &[],
    build_quickly: &["--config", "profile.dev.package.tcc-model.opt-level=0"],
    arguments: &[],
    broken: tcc_model::BROKEN,
    names_rule: "BROKEN ",
};

/// Which configurations.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Also larger ones, which take minutes each.
    #[arg(long)]
    full: bool,
    /// Only these, by name; may be repeated. With --mutants: only those whose names contain this.
    #[arg(long)]
    only: Vec<String>,
    /// Names them, and runs none.
    #[arg(long)]
    list: bool,
    /// Puts faults into a copy of the source, one at a time, and looks whether the checker finds them. Needs the source and cargo.
    #[arg(long, conflicts_with_all = ["full", "list", "without_symmetry"])]
    mutants: bool,
    /// Counts states that differ only by which gateway, or which of several transactions that are alike, is which: for comparison.
    #[arg(long)]
    without_symmetry: bool,
}

/// Explores each, and fails if one breaks a rule or is not exhausted.
#[must_use]
pub fn run(args: &ModelArgs) -> ExitCode {
    if args.mutants {
        return mutants::run(&SUBJECT, &args.only).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        });
    }
    let mut configurations = tcc_model::all(args.full || !args.only.is_empty());
    if let Some(unknown) = args.only.iter().find(|name| configurations.iter().all(|one| one.name != **name)) {
        let names: Vec<_> = configurations.iter().map(|one| one.name).collect();
        eprintln!("no configuration is called {unknown:?}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    configurations.retain(|one| args.only.is_empty() || args.only.iter().any(|name| name == one.name));
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    if args.list {
        table.set_header(["configuration", "what it is for"]);
        for one in &configurations {
            table.add_row([one.name, one.about]);
        }
        println!("{table}");
        return ExitCode::SUCCESS;
    }
    table.set_header(["configuration", "states", "steps", "depth", "seconds", "exhausted", "rules"]);
    for column in 1..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let symmetry = if args.without_symmetry { Symmetry::Ignored } else { Symmetry::Reduced };
    let mut holds = true;
    for configuration in &configurations {
        eprintln!("{}: {}", configuration.name, configuration.about);
        let report = tcc_model::check_and_explain(configuration, symmetry);
        holds &= report.exhausted && report.findings.is_empty();
        for finding in &report.findings {
            eprintln!("BROKEN {}\n{}", finding.rule, finding.trace);
        }
        table.add_row([
            report.name.to_owned(),
            report.states.to_string(),
            report.steps.to_string(),
            report.depth.to_string(),
            format!("{:.1}", report.took.as_secs_f64()),
            if report.exhausted { "yes" } else { "NO" }.to_owned(),
            if report.findings.is_empty() { "all hold".to_owned() } else { format!("{} broken", report.findings.len()) },
        ]);
    }
    println!("{table}");
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
