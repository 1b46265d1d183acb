//! The command as people run it: seeds keep the rules, the same seed does the same again, and what breaks a rule is told.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tcc-simulation")).args(arguments).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[test]
fn seeds_keep_every_rule_and_do_the_same_when_they_run_again() {
    let (output, text) = simulate(&["--seeds", "12", "--twice"]);
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("verdict: 12 seeds kept every rule\n"), "{text}");
    // Whatever ran before it.
    let hash = |text: &str| text.lines().find_map(|line| Some(line.strip_prefix(" hash of all traces")?.trim().to_owned()));
    let (_, of_seven) = simulate(&["--from", "7", "--seeds", "1"]);
    let (_, again) = simulate(&["--from", "7", "--seeds", "1", "--trace"]);
    assert_eq!(hash(&of_seven), hash(&again));
    assert!(hash(&of_seven).is_some(), "{of_seven}");
    assert!(again.lines().any(|line| line.contains("fault") && line.contains("begins:")), "{again}");
}

#[test]
fn a_run_reaches_what_it_is_for() {
    let (output, text) = simulate(&["--seeds", "30", "--from", "100"]);
    assert!(output.status.success(), "{text}");
    for reached in [
        "Trying -> Confirming",
        "Trying -> Cancelling",
        "none -> Cancelled",
        "Tried -> Confirmed",
        "Tried -> Cancelled",
        "none -> Refused",
        "Cancel finds absent",
        "Confirm finds confirmed",
        "Try finds tried",
        "machine stands still",
        "database crash",
        "clock skew",
        "one-way partition",
        "rows lost",
        "payloads forged",
        "Confirm finds absent",
        "violation: another payload",
        "Probe by an operator, done",
        "MarkSettled by an operator, FailedPrecondition",
    ] {
        assert!(text.contains(reached), "{reached} is missing in\n{text}");
    }
}
