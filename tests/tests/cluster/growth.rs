//! What an order costs does not grow: in the smallest size, on every database. What is counted is counted by the database and not by
//! a clock; time and memory are looked at by nobody here.

use std::{fs, time::Duration};

use anyhow::Context;
use serde_json::Value;
use tokio::{process::Command, time::timeout};

const WITHIN: Duration = Duration::from_secs(300);

/// Fills and measures every state, and gives what was found of each. Fails where the books of any do not balance.
async fn states(store: &str) -> anyhow::Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("growth.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcc-cluster"));
    // Callgrind takes too long for a build that is not optimized.
    command.args(["bench", "growth", "--store", store, "--scale", "0.003", "--in-flight", "16", "--counted-orders", "0"]);
    command.arg("--json").arg(&json);
    let output = timeout(WITHIN, command.kill_on_drop(true).output()).await??;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));

    let found: Value = serde_json::from_slice(&fs::read(&json)?)?;
    let states = found["states"].as_array().context("no states")?.clone();
    let names: Vec<&str> = states.iter().filter_map(|state| state["state"].as_str()).collect();
    assert_eq!(names, ["empty", "finished", "held", "stuck"]);
    let rows: Vec<u64> = states.iter().filter_map(|state| state["rows"].as_u64()).collect();
    assert_eq!(rows, [0, 3_000, 300, 30]);
    for state in &states {
        assert_eq!(state["orders"], 1_000, "{state}");
        assert!(state["resident_kib"][0].as_u64().is_some_and(|kib| kib > 0), "{state}");
    }
    Ok(states)
}

/// Of one order: all rows, and the pages of tables. Those of indexes grow with their depth.
fn touched(state: &Value) -> anyhow::Result<[f64; 2]> {
    let [of_tables, of_all] = [true, false].map(|tables_only| {
        let levels = state["index_levels"][0].as_object()?;
        let relations = state["touched"]["per_order"].as_object()?.iter();
        let wanted = relations.filter(|(name, _)| !(tables_only && levels.contains_key(*name)));
        let figures: Vec<[f64; 2]> =
            wanted.map(|(_, touched)| Some([touched["rows"].as_f64()?, touched["pages"].as_f64()?])).collect::<Option<_>>()?;
        Some(
            figures.into_iter().fold([0.0; 2], |[rows, pages], [more_rows, more_pages]| [rows + more_rows, pages + more_pages]),
        )
    });
    let counted = of_all.zip(of_tables).with_context(|| format!("not counted: {state:#}"))?;
    let ([rows, _], [_, pages_of_tables]) = counted;
    Ok([rows, pages_of_tables])
}

#[tokio::test]
async fn an_order_touches_as_many_rows_and_pages_on_a_full_system_as_on_an_empty_one_on_postgres() -> anyhow::Result<()> {
    let states = states("postgres").await?;
    let empty = touched(&states[0])?;
    // The rows of one order are written in several steps: fewer would be a fault of counting.
    assert!(empty.iter().all(|count| *count > 10.0), "{empty:?}");
    for state in &states[1..] {
        for (count, of_empty) in touched(state)?.into_iter().zip(empty) {
            let ratio = count / of_empty;
            assert!((0.9..=1.1).contains(&ratio), "{ratio:.3} times the empty system's {of_empty:.1}: {state:#}");
        }
    }
    // What goes on anyway is reported too, and is not put down to orders. It is a difference, and so never quite nothing.
    let at_rest = |state: &Value| state["touched"]["at_rest_per_second"]["log.tcc_log_branches"]["rows"].as_f64();
    assert!(at_rest(&states[0]).is_some_and(|rows| rows.abs() < 1.0), "{:#}", states[0]);
    assert!(at_rest(&states[3]).is_some_and(|rows| rows > 1.0), "{:#}", states[3]);
    Ok(())
}

#[tokio::test]
async fn every_state_is_measured_on_sqlite() -> anyhow::Result<()> {
    let states = states("sqlite").await?;
    // Nothing is made up where nothing is counted.
    assert!(states.iter().all(|state| state["touched"].is_null() && state["instructions"].is_null()));
    Ok(())
}

#[tokio::test]
async fn every_state_is_measured_on_mariadb() -> anyhow::Result<()> {
    let states = states("mysql").await?;
    assert!(states.iter().all(|state| touched(state).is_ok_and(|[rows, _]| rows > 10.0)));
    Ok(())
}
