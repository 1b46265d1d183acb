//! Every configuration of the size for each change is exhausted, and every rule holds in all of its states.

use tcc_model::Symmetry;

#[test]
fn every_rule_holds_in_every_state() {
    for configuration in tcc_model::all(false) {
        let report = tcc_model::check_and_explain(&configuration, Symmetry::Reduced);
        println!("{report}");
        assert!(report.exhausted && report.findings.is_empty(), "{report}");
    }
}
