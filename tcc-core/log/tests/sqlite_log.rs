//! What is special to the log on SQLite: one process, one file, one writer, and what happens when a commit goes wrong.

#![allow(clippy::unwrap_used, reason = "a test's helpers, too, fail by panicking")]

use std::{path::Path, sync::Arc};

use futures::future::join_all;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tcc_log::{
    Begun, DatabaseLog, Decided, Error, LogOptions, NewTransaction, TxLog,
    conformance::samples::{self, audit, cancel, confirm, initiator, transaction},
};
use tcc_types::{Gid, LogName, SystemClock, TxStatus};
use tempfile::TempDir;

fn options(folder: &TempDir) -> LogOptions {
    // A folder that is not there yet.
    let database_url = format!("sqlite://{}", folder.path().join("data/log.db").display());
    LogOptions { database_url, ..LogOptions::default() }
}

async fn open(options: LogOptions) -> Result<DatabaseLog, Error> {
    DatabaseLog::open(options, Arc::new(SystemClock)).await
}

async fn fresh() -> (TempDir, DatabaseLog) {
    let folder = tempfile::tempdir().unwrap();
    let log = open(options(&folder)).await.unwrap();
    (folder, log)
}

/// A connection that does not ask for the lock, as an operator's tool would.
async fn foreign(folder: &TempDir) -> SqliteConnection {
    SqliteConnectOptions::new().filename(folder.path().join("data/log.db")).connect().await.unwrap()
}

/// Starts all calls while the writer cannot write, so that all but the first share a batch.
async fn as_one_batch<F: Future>(folder: &TempDir, calls: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut foreign = foreign(folder).await;
    foreign.execute("BEGIN IMMEDIATE").await.unwrap();
    // `join` polls the calls first, and a call is in the queue once it was polled.
    let release = async {
        foreign.execute("COMMIT").await.unwrap();
        foreign.close().await.unwrap();
    };
    futures::join!(join_all(calls), release).0
}

fn of(log: &DatabaseLog, name: &str) -> NewTransaction {
    NewTransaction { initiator: initiator(name), ..transaction(log.now(), 2) }
}

fn is_new(begun: &Result<Begun, Error>) -> bool {
    matches!(begun, Ok(Begun::Inserted { .. }))
}

async fn status(log: &DatabaseLog, gid: Gid) -> Option<TxStatus> {
    log.load(gid).await.unwrap().map(|record| record.status)
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let (folder, log) = fresh().await;
    let new = transaction(log.now(), 2);
    log.begin(new.clone()).await.unwrap();
    log.decide(confirm(log.now(), new.gid, 2)).await.unwrap();
    log.audit(audit(new.gid, "b0")).await.unwrap();
    let (stored, lines) = (log.load(new.gid).await.unwrap(), log.list_audit(None, None, 10).await.unwrap());
    log.close().await;
    drop(log);
    let log = open(options(&folder)).await.unwrap();
    assert!(stored.is_some());
    assert_eq!(log.load(new.gid).await.unwrap(), stored);
    assert_eq!(log.list_audit(None, None, 10).await.unwrap(), lines);
    assert_eq!(log.release_leases().await.unwrap(), 1);
}

#[tokio::test]
async fn a_second_gateway_on_the_file_is_refused_until_the_first_has_closed() {
    let (folder, log) = fresh().await;
    match open(options(&folder)).await {
        Err(error @ Error::InUse { .. }) => {
            assert!(error.to_string().contains("data/log.db"), "{error}");
            assert!(!error.is_retryable());
        }
        other => panic!("{other:?}"),
    }
    log.close().await;
    open(options(&folder)).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn another_path_to_the_file_is_the_same_file() {
    let (folder, _log) = fresh().await;
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("data/log.db"), &link).unwrap();
    std::os::unix::fs::symlink(folder.path().join("data"), folder.path().join("folder")).unwrap();
    for path in [link.as_path(), &folder.path().join("folder/log.db"), &folder.path().join("data/../data/log.db")] {
        let database_url = format!("sqlite:{}", Path::display(path));
        let second = open(LogOptions { database_url, ..options(&folder) }).await;
        assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
    }
}

#[tokio::test]
async fn a_database_keeps_its_name() {
    let (folder, log) = fresh().await;
    log.close().await;
    let other = LogOptions { name: LogName::new("other").unwrap(), ..options(&folder) };
    let error = open(other).await.unwrap_err();
    assert!(matches!(&error, Error::Unusable(text) if text.contains("`main`") && text.contains("`other`")), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let text = "not a database, but somebody's letter".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let database_url = format!("sqlite:{}", path.display());
    let error = open(LogOptions { database_url, ..LogOptions::default() }).await.unwrap_err();
    assert!(matches!(error, Error::Unusable(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn an_unknown_option_is_an_error_that_names_it() {
    let error = serde_json::from_str::<LogOptions>(r#"{"batch_maximum": 3}"#).unwrap_err();
    assert!(error.to_string().contains("batch_maximum"), "{error}");
    let options = serde_json::from_str::<LogOptions>("{}").unwrap();
    assert_eq!((options.name.as_str(), options.write_queue_max, options.batch_max), ("main", 8_192, 512));
}

#[tokio::test]
async fn queued_writes_share_a_commit() {
    let (folder, log) = fresh().await;
    let news: Vec<_> = (0..100).map(|_| transaction(log.now(), 2)).collect();
    let before = log.stats();
    let begun = as_one_batch(&folder, news.iter().map(|new| log.begin(new.clone()))).await;
    assert!(begun.iter().all(is_new));
    let after = log.stats();
    assert_eq!(after.writes - before.writes, 100);
    assert!(after.commits - before.commits <= 2, "{after:?}");
}

#[tokio::test]
async fn a_bad_write_fails_alone() {
    let (folder, log) = fresh().await;
    let trigger = "CREATE TRIGGER poison BEFORE INSERT ON tcc_log_transactions WHEN NEW.initiator = 'poison' \
                   BEGIN SELECT RAISE(ABORT, 'poisoned'); END";
    foreign(&folder).await.execute(trigger).await.unwrap();
    let news: Vec<_> = (0..20).map(|index| of(&log, if index == 7 { "poison" } else { "shop" })).collect();
    let begun = as_one_batch(&folder, news.iter().map(|new| log.begin(new.clone()))).await;
    for (index, (begun, new)) in begun.iter().zip(&news).enumerate() {
        if index == 7 {
            assert!(matches!(begun, Err(Error::Unusable(text)) if text.contains("poisoned")), "{begun:?}");
            assert_eq!(status(&log, new.gid).await, None);
        } else {
            assert!(is_new(begun), "{index}: {begun:?}");
            let record = log.load(new.gid).await.unwrap().unwrap();
            assert_eq!(record.branches.len(), 2);
        }
    }
}

#[tokio::test]
async fn a_failed_commit_is_unknown_to_its_whole_batch_and_settled_by_repeating() {
    let (folder, log) = fresh().await;
    // A deferred foreign key is checked by COMMIT and by nothing before it.
    let mut tool = foreign(&folder).await;
    tool.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)").await.unwrap();
    tool.execute("CREATE TABLE child (parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)").await.unwrap();
    let trigger = "CREATE TRIGGER poison AFTER INSERT ON tcc_log_transactions WHEN NEW.initiator = 'poison' \
                   BEGIN INSERT INTO child VALUES (1); END";
    tool.execute(trigger).await.unwrap();
    // The first is a batch of its own: it was taken before the others were queued.
    let news: Vec<_> = ["shop", "shop", "poison", "shop"].map(|name| of(&log, name)).to_vec();
    let begun = as_one_batch(&folder, news.iter().map(|new| log.begin(new.clone()))).await;
    assert!(begun[1..].iter().all(|begun| matches!(begun, Err(Error::Unknown(_)))), "{begun:?}");
    for new in &news[1..] {
        assert_eq!(status(&log, new.gid).await, None);
    }
    // The writer goes on, and repeating the same write tells what stands.
    tool.execute("DROP TRIGGER poison").await.unwrap();
    for new in &news[1..] {
        let begun = log.begin(new.clone()).await;
        assert!(is_new(&begun), "{begun:?}");
    }
}

#[tokio::test]
async fn a_foreign_lock_makes_writes_unavailable_not_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(LogOptions { busy_timeout_ms: 1, ..options(&folder) }).await.unwrap();
    let mut tool = foreign(&folder).await;
    tool.execute("BEGIN IMMEDIATE").await.unwrap();
    let new = transaction(log.now(), 1);
    let begun = log.begin(new.clone()).await;
    assert!(matches!(begun, Err(Error::Unavailable(_))), "{begun:?}");
    // Reading goes on meanwhile.
    assert_eq!(status(&log, new.gid).await, None);
    tool.execute("ROLLBACK").await.unwrap();
    let begun = log.begin(new.clone()).await;
    assert!(is_new(&begun), "{begun:?}");
}

#[tokio::test]
async fn a_full_queue_refuses_what_is_new_and_lets_decisions_wait() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(LogOptions { write_queue_max: 1, ..options(&folder) }).await.unwrap();
    let under_way = transaction(log.now(), 1);
    log.begin(under_way.clone()).await.unwrap();
    // At most one is taken by the writer and one is queued; of three, one at least finds the queue full.
    let news: Vec<_> = (0..3).map(|_| transaction(log.now(), 1)).collect();
    let mut tool = foreign(&folder).await;
    tool.execute("BEGIN IMMEDIATE").await.unwrap();
    let begins = join_all(news.iter().map(|new| log.begin(new.clone())));
    let release = async { tool.execute("COMMIT").await.unwrap() };
    let (begun, decided, ..) = futures::join!(begins, log.decide(cancel(log.now(), under_way.gid)), release);
    let overloaded = begun.iter().filter(|begun| matches!(begun, Err(Error::Overloaded { limit: 1 }))).count();
    assert!(overloaded >= 1, "{begun:?}");
    assert_eq!(overloaded + begun.iter().filter(|begun| is_new(begun)).count(), 3, "{begun:?}");
    assert!(matches!(decided, Ok(Decided::Stands { status: TxStatus::Cancelling, .. })), "{decided:?}");
    for (begun, new) in begun.iter().zip(&news) {
        assert_eq!(status(&log, new.gid).await.is_some(), is_new(begun));
    }
}

#[tokio::test]
async fn a_dropped_call_that_was_queued_is_still_written_and_harms_nobody() {
    let (folder, log) = fresh().await;
    let (dropped, kept) = (transaction(log.now(), 1), transaction(log.now(), 1));
    let calls = [(&dropped, true), (&kept, false)].map(|(new, drops)| {
        let call = log.begin(new.clone());
        async move {
            if drops {
                // Polled once, so it is in the queue; then its caller goes away.
                assert!(futures::poll!(call).is_pending());
            } else {
                assert!(is_new(&call.await));
            }
        }
    });
    as_one_batch(&folder, calls).await;
    log.close().await;
    let log = open(options(&folder)).await.unwrap();
    assert_eq!(status(&log, dropped.gid).await, Some(TxStatus::Trying));
    assert_eq!(status(&log, kept.gid).await, Some(TxStatus::Trying));
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_refuses_more() {
    let (folder, log) = fresh().await;
    let news: Vec<_> = (0..50).map(|_| transaction(log.now(), 1)).collect();
    // The calls are polled first, so all of them are queued when the log is closed.
    let (begun, ()) = futures::join!(join_all(news.iter().map(|new| log.begin(new.clone()))), log.close());
    assert!(begun.iter().all(is_new), "{begun:?}");
    let gid = news[0].gid;
    assert!(matches!(log.begin(transaction(log.now(), 1)).await, Err(Error::Unavailable(_))));
    assert!(matches!(log.decide(cancel(log.now(), gid)).await, Err(Error::Unavailable(_))));
    assert!(matches!(log.load(gid).await, Err(Error::Unavailable(_))));
    log.close().await;
    let again = open(options(&folder)).await.unwrap();
    for new in &news {
        assert_eq!(status(&again, new.gid).await, Some(TxStatus::Trying));
    }
}

#[tokio::test]
async fn a_log_that_is_dropped_writes_what_is_queued_and_lets_go_of_the_file() {
    let (folder, log) = fresh().await;
    let new = transaction(log.now(), 1);
    assert!(futures::poll!(log.begin(new.clone())).is_pending());
    drop(log);
    let log = loop {
        match open(options(&folder)).await {
            Ok(log) => break log,
            Err(Error::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(status(&log, new.gid).await, Some(TxStatus::Trying));
}

#[tokio::test]
async fn the_audit_record_cannot_be_changed_by_hand() {
    let (folder, log) = fresh().await;
    let line = log.audit(audit(samples::gid(log.now()), "b0")).await.unwrap();
    let mut tool = foreign(&folder).await;
    for text in [
        "UPDATE tcc_log_audit SET actor = 'mallory'",
        "DELETE FROM tcc_log_audit",
        "REPLACE INTO tcc_log_audit SELECT * FROM tcc_log_audit",
    ] {
        let error = tool.execute(text).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    assert_eq!(log.list_audit(None, None, 10).await.unwrap(), [line]);
}

/// One that is decided, and so may be finished.
async fn decided(log: &DatabaseLog) -> Gid {
    let new = transaction(log.now(), 1);
    let gid = new.gid;
    log.begin(new).await.unwrap();
    log.decide(confirm(log.now(), gid, 1)).await.unwrap();
    gid
}

#[tokio::test]
async fn an_end_is_committed_with_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(LogOptions { finish_delay_ms: 1_000, ..options(&folder) }).await.unwrap();
    let gid = decided(&log).await;
    let before = log.stats();
    let next_write = async {
        // The writer has taken the end up by now, or it never will.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        log.begin(transaction(log.now(), 1)).await
    };
    let (finished, begun) = futures::join!(log.finish(gid), next_write);
    assert!(finished.is_ok() && is_new(&begun));
    let after = log.stats();
    assert_eq!((after.writes - before.writes, after.commits - before.commits), (2, 1));
    assert_eq!(status(&log, gid).await, Some(TxStatus::Confirmed));
}

#[tokio::test]
async fn an_end_without_any_other_write_is_committed_too() {
    let (_folder, log) = fresh().await;
    let gid = decided(&log).await;
    log.finish(gid).await.unwrap();
    assert_eq!(status(&log, gid).await, Some(TxStatus::Confirmed));
}

#[tokio::test]
async fn an_end_that_waits_is_written_when_the_log_closes() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(LogOptions { finish_delay_ms: 1_000, ..options(&folder) }).await.unwrap();
    let gid = decided(&log).await;
    let closing = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        log.close().await;
    };
    let (finished, ()) = futures::join!(log.finish(gid), closing);
    assert!(finished.is_ok());
    drop(log);
    let log = open(options(&folder)).await.unwrap();
    assert_eq!(status(&log, gid).await, Some(TxStatus::Confirmed));
}
