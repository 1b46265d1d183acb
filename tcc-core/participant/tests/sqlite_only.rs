//! What only SQLite has: a file that several processes share, its lock, its way of ending transactions by itself, its URLs.

use std::sync::Arc;

use sqlx::{Connection, Sqlite};
use tcc_participant::{
    OpenError, Options, Store, Unknown,
    conformance::{BenchDatabase, Effects, Fault, Fixture, State},
};
use tcc_types::{BranchRowStatus, Op, SettleAnswer, TryCall};
use tempfile::TempDir;
use tokio::task::JoinSet;

fn url_in(folder: &TempDir) -> String {
    format!("sqlite://{}", folder.path().join("participant.db").display())
}

async fn open(folder: &TempDir, options: &Options) -> Store<Sqlite> {
    Store::open(&url_in(folder), options).await.expect("the database opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_stores_on_one_file_race_as_safely_as_one() {
    const BRANCHES: usize = 150;
    let folder = TempDir::new().expect("a folder is made");
    let here = Fixture::new(open(&folder, &Options::default()).await).await;
    let there = Fixture {
        engine: tcc_participant::Engine::new(here.bench.clone(), open(&folder, &Options::default()).await),
        ..here.clone()
    };
    let mut calls: Vec<Arc<TryCall>> = Vec::new();
    for nth in 0..BRANCHES {
        let call = Arc::new(here.new_call());
        calls.push(call.clone());
        let mut tasks = JoinSet::new();
        // A store that has the lock runs what it has in order: in half of the rounds Confirm comes before Cancel in it.
        let stride = 1 + nth % 2;
        for place in 0..6 {
            let f = if place % 2 == 0 { here.clone() } else { there.clone() };
            let call = call.clone();
            match (nth + stride * place) % 3 {
                0 => tasks.spawn(async move {
                    let _ = f.try_branch(&call).await;
                }),
                1 => tasks.spawn(async move {
                    let _ = f.confirm(&call).await;
                }),
                _ => tasks.spawn(async move {
                    let _ = f.cancel(&call).await;
                }),
            };
        }
        tasks.join_all().await;
    }
    let (mut confirmed, mut cancelled) = (0, 0);
    for call in calls {
        let row = here.store().branch_row(&call.key).await.expect("the row is read").expect("its Cancel left a row");
        let effects = Sqlite::effects(there.store(), &call.key).await.expect("the ledger is read");
        match row.status {
            BranchRowStatus::Confirmed => {
                assert_eq!(effects, Effects::SPENT);
                confirmed += 1;
            }
            BranchRowStatus::Cancelled => {
                assert_eq!(effects, if row.empty { Effects::NONE } else { Effects::RELEASED });
                cancelled += 1;
            }
            BranchRowStatus::Tried | BranchRowStatus::Refused => panic!("{} is {:?}", call.key, row.status),
        }
    }
    assert!(confirmed > 0 && cancelled > 0, "no race: {confirmed} confirmed, {cancelled} cancelled");
    assert_eq!(here.books().await.frozen, 0);
}

#[tokio::test]
async fn a_lock_held_elsewhere_is_unknown_and_the_next_delivery_succeeds() {
    let folder = TempDir::new().expect("a folder is made");
    let options = Options { lock_wait_ms_max: 1, attempts_max: 3, ..Options::default() };
    let f = Fixture::new(open(&folder, &options).await).await;
    let call = f.new_call();
    let mut elsewhere = sqlx::SqliteConnection::connect(&url_in(&folder)).await.expect("it connects");
    let lock = elsewhere.begin_with("BEGIN IMMEDIATE").await.expect("it locks");
    assert_eq!(f.engine.try_branch(call.clone()).await, Err(Unknown::Failed));
    lock.rollback().await.expect("it unlocks");
    f.assert_yes(f.try_branch(&call).await);
    f.assert_branch(&call, Some(BranchRowStatus::Tried), Effects::RESERVED).await;
}

#[tokio::test]
async fn a_full_disk_is_unknown_and_the_participant_recovers_without_a_restart() {
    let folder = TempDir::new().expect("a folder is made");
    let f = Fixture::new(open(&folder, &Options::default()).await).await;
    let tried = f.branch_in(State::Tried).await;
    let pages: i64 =
        sqlx::query_scalar("PRAGMA page_count").fetch_one(f.store().write_pool()).await.expect("pages are counted");
    let limit = format!("PRAGMA max_page_count = {}", pages + 4);
    sqlx::query(sqlx::AssertSqlSafe(limit)).execute(f.store().write_pool()).await.expect("the limit is set");
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::Output(500_000));
    assert_eq!(f.engine.try_branch(call.clone()).await, Err(Unknown::Failed));
    f.assert_branch(&call, None, Effects::NONE).await;
    // The disk has room again.
    sqlx::query("PRAGMA max_page_count = 1000000").execute(f.store().write_pool()).await.expect("the limit is lifted");
    f.bench.inject(Op::Try, Fault::Output(500_000));
    f.try_branch(&call).await;
    f.assert_branch(&call, Some(BranchRowStatus::Tried), Effects::RESERVED).await;
    assert_eq!(f.confirm(&tried).await, SettleAnswer::Done);
    f.assert_branch(&tried, Some(BranchRowStatus::Confirmed), Effects::SPENT).await;
}

#[tokio::test]
async fn a_connection_that_lost_its_transaction_is_replaced() {
    let folder = TempDir::new().expect("a folder is made");
    let f = Fixture::new(open(&folder, &Options::default()).await).await;
    let mut transaction = f.store().begin().await.expect("it begins");
    // What SQLite does by itself on some errors: the transaction is over, and sqlx does not know.
    sqlx::query("ROLLBACK").execute(&mut *transaction).await.expect("it rolls back");
    drop(transaction);
    let call = f.new_call();
    f.assert_yes(f.try_branch(&call).await);
    f.assert_branch(&call, Some(BranchRowStatus::Tried), Effects::RESERVED).await;
}

#[tokio::test]
async fn rows_survive_reopening() {
    let folder = TempDir::new().expect("a folder is made");
    let f = Fixture::new(open(&folder, &Options::default()).await).await;
    let call = f.branch_in(State::Tried).await;
    f.engine.close().await;
    let reopened = open(&folder, &Options::default()).await;
    let f = Fixture { engine: tcc_participant::Engine::new(f.bench.clone(), reopened), ..f };
    f.assert_yes(f.try_branch(&call).await);
    assert_eq!(f.confirm(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, Some(BranchRowStatus::Confirmed), Effects::SPENT).await;
}

#[tokio::test]
async fn commits_are_fsynced_and_readers_cannot_write() {
    let folder = TempDir::new().expect("a folder is made");
    let store = open(&folder, &Options::default()).await;
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(store.write_pool()).await.expect("it answers");
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(store.write_pool()).await.expect("it answers");
    assert_eq!((journal.as_str(), synchronous), ("wal", 2));
    let written = sqlx::query("DELETE FROM tcc_branches").execute(store.read_pool()).await;
    assert!(written.is_err(), "the read pool wrote");
}

#[tokio::test]
async fn the_sdks_tables_have_names_of_their_own() {
    let folder = TempDir::new().expect("a folder is made");
    let store = open(&folder, &Options::default()).await;
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .fetch_all(store.read_pool())
        .await
        .expect("tables are listed");
    assert_eq!(tables, ["tcc_branches", "tcc_participant_migrations"]);
}

#[tokio::test]
async fn rows_in_doubt_and_old_rows_are_found_by_their_indexes() {
    let folder = TempDir::new().expect("a folder is made");
    let store = open(&folder, &Options::default()).await;
    for (sql, index) in [
        (
            "EXPLAIN QUERY PLAN SELECT gid FROM tcc_branches WHERE status = 1 AND ask_after <= \
             CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 ORDER BY ask_after LIMIT 5",
            "INDEX tcc_branches_tried (ask_after<?)",
        ),
        ("EXPLAIN QUERY PLAN SELECT COUNT(*) FROM tcc_branches WHERE status = 1", "tcc_branches_tried"),
        (
            "EXPLAIN QUERY PLAN SELECT gid, reserved FROM tcc_branches WHERE status = 1 AND forgotten_at IS NOT NULL \
             AND (gid, branch_id) > ('a', 'b') ORDER BY gid, branch_id LIMIT 5",
            "INDEX tcc_branches_forgotten",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT gid, status FROM tcc_branches WHERE (gid, branch_id) > ('a', 'b') AND gid < 'c' \
             ORDER BY gid, branch_id LIMIT 5",
            "PRIMARY KEY ((gid,branch_id)>(?,?)",
        ),
    ] {
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sql).fetch_all(store.read_pool()).await.expect("it is explained");
        assert!(plan.iter().all(|(.., step)| step.contains(index)), "{plan:?}");
    }
}

#[tokio::test]
async fn a_bad_url_or_limit_is_named() {
    for url in [
        "",
        "postgres://localhost/a",
        "sqlite::memory:",
        "sqlite://a.db?mode=memory",
        "sqlite:",
        "sqlite://",
        "sqlite://?mode=rwc",
        "sqlite://%3Amemory%3A",
        "sqlite://a.db?immutable=1",
        "sqlite:file::memory:",
    ] {
        let error = Store::<Sqlite>::open(url, &Options::default()).await.expect_err(url);
        assert!(matches!(&error, OpenError::Invalid(invalid) if invalid.field == "database_url"), "{error}");
    }
    let folder = TempDir::new().expect("a folder is made");
    let options = Options { attempts_max: 0, ..Options::default() };
    let error = Store::<Sqlite>::open(&url_in(&folder), &options).await.expect_err("no attempts");
    assert!(matches!(&error, OpenError::Invalid(invalid) if invalid.field == "attempts_max"), "{error}");
}

#[tokio::test]
async fn the_folder_of_the_database_is_made() {
    let folder = TempDir::new().expect("a folder is made");
    let url = format!("sqlite://{}", folder.path().join("data/deeper/a.db").display());
    Store::<Sqlite>::open(&url, &Options::default()).await.expect("the database opens");
}
