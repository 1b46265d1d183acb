//! `tcc-cluster survive` in the size of CI. The full size is by command: `cargo run --release -- survive --help`.

use std::path::PathBuf;

use tcc_cluster::{
    harness::Store,
    store_args::StoreArgs,
    survive::{Summary, SurviveArgs, Target, attempt},
};
use tokio::sync::Mutex;

/// Each of them is to have the machine for itself: figures of two at once mean nothing.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn survive(store: Store, kill: Target, every_ms: u64, for_seconds: u64) -> anyhow::Result<Summary> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let args = SurviveArgs {
        store: StoreArgs::private(store, 3),
        kill,
        every_ms,
        for_seconds,
        // Each always has an order under way, so that every kill of a gateway finds some.
        clients: 12,
        orders_per_second: None,
        reconcile: true,
        log: "warn".to_owned(),
    };
    let summary = attempt(&args, PathBuf::from(env!("CARGO_BIN_EXE_tcc-cluster"))).await?;
    println!("{store}\n{}\n{}", summary.table(), summary.verdict());
    let found = [summary.lost(), summary.doubled(), summary.leaked(), summary.contradicted()];
    assert_eq!((found, summary.sentences().count()), ([0; 4], 0), "{}", summary.verdict());
    assert!(summary.acknowledged > 0 && summary.confirmed > 0, "there was no load");
    assert!(summary.kills > 0, "there was no fault");
    assert!(summary.reconciled() > 0, "the reconciler never came to an end");
    Ok(summary)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_gateways_on_postgresql_lose_double_leak_and_contradict_nothing() -> anyhow::Result<()> {
    let summary = survive(Store::Postgres, Target::Gateway, 2_000, 12).await?;
    assert!(!summary.waits.is_empty(), "nothing was taken over");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_gateways_on_mariadb_lose_double_leak_and_contradict_nothing() -> anyhow::Result<()> {
    let summary = survive(Store::Mysql, Target::Gateway, 2_000, 12).await?;
    assert!(!summary.waits.is_empty(), "nothing was taken over");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgresql_loses_doubles_leaks_and_contradicts_nothing() -> anyhow::Result<()> {
    let summary = survive(Store::Postgres, Target::Database, 3_500, 13).await?;
    assert!(!summary.waits.is_empty(), "no order was taken after a return");
    Ok(())
}
