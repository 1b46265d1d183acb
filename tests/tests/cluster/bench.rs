//! The benchmark runs, on every database, in the smallest size: whoever changes the system learns at once that it can no longer be
//! measured. No figure is looked at, only that there is one: a run whose books do not balance has none.

use std::{fs, time::Duration};

use anyhow::Context;
use serde_json::Value;
use tokio::{process::Command, time::timeout};

const WITHIN: Duration = Duration::from_secs(300);

async fn every_cell_has_a_figure(store: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (json, picture) = (folder.path().join("bench.json"), folder.path().join("bench.svg"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcc-cluster"));
    command.args(["bench", "--store", store, "--in-flight", "4", "--rate", "20", "--skus", "3", "--refused", "20"]);
    command.args(["--coupons", "--coupons-issued", "20000", "--seconds", "1", "--floor-clients", "3"]);
    command.args(["--against", env!("CARGO_BIN_EXE_tcc-cluster")]);
    command.arg("--json").arg(&json).arg("--picture").arg(&picture);
    let output = timeout(WITHIN, command.kill_on_drop(true).output()).await??;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));

    let found: Value = serde_json::from_slice(&fs::read(&json)?)?;
    let cells = found["cells"].as_array().context("no cells")?;
    let contenders: Vec<&str> = cells.iter().filter_map(|cell| cell["contender"].as_str()).collect();
    assert_eq!(contenders, ["ours", "floor", "against", "ours", "against"]);
    for cell in cells {
        let median = cell["medians"]["orders_per_second"]["median"].as_f64();
        assert!(median.is_some_and(|orders| orders > 0.0), "{cell}");
        assert!(cell["times_floor"].as_f64().is_some_and(|ratio| ratio > 0.0), "{cell}");
        let fsyncs = &cell["medians"]["fsyncs_per_order"];
        // Where there is no C compiler the report says so, and nothing is made up.
        assert_eq!(fsyncs.is_null(), !found["fsyncs_not_counted"].is_null(), "{cell}");
    }
    assert!(fs::read_to_string(&picture)?.contains("<svg"));
    Ok(())
}

#[tokio::test]
async fn every_cell_has_a_figure_on_sqlite() -> anyhow::Result<()> {
    every_cell_has_a_figure("sqlite").await
}

#[tokio::test]
async fn every_cell_has_a_figure_on_postgres() -> anyhow::Result<()> {
    every_cell_has_a_figure("postgres").await
}

#[tokio::test]
async fn every_cell_has_a_figure_on_mariadb() -> anyhow::Result<()> {
    every_cell_has_a_figure("mysql").await
}
