//! Checks the configurations of the size for each change, up to the first that breaks a rule. For the mutants, each of which is a build of its
//! own; people have `tcc-cluster model`.

use std::process::ExitCode;

fn main() -> ExitCode {
    for configuration in tcc_model::all(false) {
        let report = tcc_model::check(&configuration);
        if let Some(finding) = report.findings.first() {
            println!("BROKEN {} ({})", finding.rule, report.name);
            return ExitCode::from(tcc_model::BROKEN);
        }
    }
    ExitCode::SUCCESS
}
