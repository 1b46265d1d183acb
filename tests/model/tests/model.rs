//! Every configuration of the size for each change is exhausted, and every rule holds in all of its states; and together they have every feature,
//! and every pair of features that meet.

use std::collections::BTreeSet;

use tcc_model::{Bounds, Kind, Symmetry, Time};

#[test]
fn every_rule_holds_in_every_state() {
    for configuration in tcc_model::all(false) {
        let report = tcc_model::check_and_explain(&configuration, Symmetry::Reduced);
        println!("{report}");
        assert!(report.exhausted && report.findings.is_empty(), "{report}");
    }
}

/// Symmetry must only save work: what it leaves out is like what it keeps.
#[test]
fn symmetry_loses_no_rule() {
    for configuration in tcc_model::all(false).iter().filter(|one| one.name == "hold") {
        let [reduced, all] = [Symmetry::Reduced, Symmetry::Ignored].map(|symmetry| tcc_model::check(configuration, symmetry));
        assert!(reduced.exhausted && all.exhausted);
        assert!(reduced.states < all.states && reduced.states * 2 >= all.states, "{reduced}\n{all}");
    }
}

/// What a configuration has.
fn features(bounds: &Bounds) -> BTreeSet<&'static str> {
    let any = |is: fn(&tcc_model::Planned) -> bool| bounds.transactions.iter().any(is);
    let has = [
        ("crash", bounds.crashes > 0),
        ("takeover", bounds.takeovers > 0),
        ("two gateways", bounds.gateways > 1),
        ("lost answer", bounds.unanswered > 0),
        ("unknown commit", bounds.lost_commits > 0),
        ("time", bounds.time != Time::Stands),
        ("two transactions", bounds.transactions.len() > 1),
        ("repeated Submit", any(|one| one.submits > 1)),
        ("hold", any(|one| one.confirms > 0 && one.enlists == 0)),
        ("Cancel", any(|one| one.cancels > 0)),
        ("Enlist", any(|one| one.enlists > 0)),
        ("in order", any(|one| one.try_order == tcc_machine::TryOrder::Sequential)),
        ("other request", any(|one| one.meets_another)),
        ("in doubt", bounds.asks),
        ("lost Begin", bounds.lost_begins > 0),
        ("operator", bounds.orders > 0),
        ("retention", bounds.retention),
        ("skew", bounds.skews_ms.iter().any(|skew| *skew != 0)),
    ];
    has.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[test]
fn every_pair_of_features_that_meet_is_in_a_configuration() {
    let worlds: Vec<_> = tcc_model::all(false)
        .into_iter()
        .filter_map(|configuration| match configuration.kind {
            Kind::Protocol(bounds) => Some(features(&bounds)),
            Kind::Statements(_) => None,
        })
        .collect();
    let pairs = [
        ("two gateways", "crash"),
        ("two gateways", "takeover"),
        ("crash", "unknown commit"),
        ("crash", "lost answer"),
        ("takeover", "repeated Submit"),
        ("two transactions", "crash"),
        ("two transactions", "lost answer"),
        ("hold", "time"),
        ("hold", "Cancel"),
        ("hold", "two gateways"),
        ("hold", "in doubt"),
        ("hold", "crash"),
        ("Cancel", "repeated Submit"),
        ("Cancel", "crash"),
        ("Cancel", "time"),
        ("Enlist", "two gateways"),
        ("Enlist", "crash"),
        ("Enlist", "takeover"),
        ("Enlist", "Cancel"),
        ("Enlist", "time"),
        ("in order", "crash"),
        ("in order", "time"),
        ("in order", "lost answer"),
        ("other request", "crash"),
        ("other request", "takeover"),
        ("in doubt", "crash"),
        ("in doubt", "two gateways"),
        ("in doubt", "repeated Submit"),
        ("in doubt", "Cancel"),
        ("in doubt", "skew"),
        ("in doubt", "operator"),
        ("in doubt", "retention"),
        ("lost Begin", "repeated Submit"),
        ("lost Begin", "Cancel"),
        ("lost Begin", "in doubt"),
        ("operator", "crash"),
        ("operator", "takeover"),
        ("operator", "lost answer"),
        ("retention", "repeated Submit"),
        ("retention", "Cancel"),
        ("retention", "crash"),
        ("retention", "takeover"),
        ("retention", "lost answer"),
        ("skew", "lost answer"),
        ("skew", "time"),
    ];
    let missing: Vec<_> =
        pairs.iter().filter(|(one, other)| !worlds.iter().any(|has| has.contains(one) && has.contains(other))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
