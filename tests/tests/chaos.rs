//! `tcc-cluster chaos` in the size of CI. The full size is by command: `cargo run --release -- chaos --help`.

use std::path::PathBuf;

use tcc_cluster::{
    chaos::{ChaosArgs, Summary, attempt},
    harness::Store,
};
use tokio::sync::Mutex;

/// Each of them is to have the machine for itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn chaos(store: Store, seed: u64) -> anyhow::Result<Summary> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir()?;
    let (json, picture) = (folder.path().join("chaos.json"), folder.path().join("chaos.svg"));
    let args = ChaosArgs {
        store,
        minutes: 0.75,
        seed: Some(seed),
        gateways: None,
        clients: 128,
        orders_per_second: 100,
        json: Some(json.clone()),
        picture: Some(picture.clone()),
        log: "warn".to_owned(),
    };
    let summary = attempt(&args, PathBuf::from(env!("CARGO_BIN_EXE_tcc-cluster"))).await?;
    println!("{}\n{}", summary.table(), summary.verdict());
    assert_eq!(summary.sentences().count(), 0, "{}", summary.verdict());
    assert!(summary.acknowledged > 0 && summary.confirmed > 0 && summary.cancelled > 0, "there was no load");
    let faults = summary.faults();
    for kind in ["kill -9", "SIGSTOP"] {
        assert!(faults.contains_key(kind), "there was no {kind}: {faults:?}");
    }
    assert!(faults.len() > 5, "{faults:?}");
    assert!(summary.looks().iter().all(|looks| *looks > 0), "nobody looked on: {:?}", summary.looks());
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json)?)?;
    assert_eq!(report["orders"]["acknowledged"], summary.acknowledged);
    assert!(std::fs::metadata(picture)?.len() > 0);
    Ok(summary)
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_in_chaos_loses_doubles_oversells_leaks_and_contradicts_nothing() -> anyhow::Result<()> {
    let summary = chaos(Store::Postgres, 5).await?;
    assert!(summary.faults().contains_key("kill -9 of the database"), "{:?}", summary.faults());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_in_chaos_loses_doubles_oversells_leaks_and_contradicts_nothing() -> anyhow::Result<()> {
    let summary = chaos(Store::Mysql, 2).await?;
    assert!(summary.faults().contains_key("kill -9 of the database"), "{:?}", summary.faults());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_in_chaos_loses_doubles_oversells_leaks_and_contradicts_nothing() -> anyhow::Result<()> {
    let summary = chaos(Store::Sqlite, 3).await?;
    assert!(summary.faults().contains_key("full disk"), "{:?}", summary.faults());
    Ok(())
}
