//! Checks the configurations of the size for each change, up to the first that breaks a rule; those that are named by arguments come first, and
//! after `--only` nothing else. For the mutants, each of which is a build of its own; people have `tcc-cluster model`.

use std::process::ExitCode;

use tcc_model::Symmetry;

fn main() -> ExitCode {
    let mut named: Vec<_> = std::env::args().skip(1).collect();
    let only = named.iter().position(|argument| argument == "--only").map(|at| named.remove(at)).is_some();
    let is_named = |name: &str| named.iter().any(|one| one == name);
    let mut configurations = tcc_model::all(only);
    configurations.retain(|one| !only || is_named(one.name));
    configurations.sort_by_key(|one| !is_named(one.name));
    for configuration in &configurations {
        let report = tcc_model::check(configuration, Symmetry::Reduced);
        if only {
            println!("{report}");
        }
        if let Some(finding) = report.findings.first() {
            println!("BROKEN {} ({})", finding.rule, report.name);
            return ExitCode::from(tcc_model::BROKEN);
        }
    }
    ExitCode::SUCCESS
}
