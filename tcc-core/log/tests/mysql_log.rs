//! What is special to the log on MySQL and MariaDB: several processes, one database, and what happens when it goes wrong.

#![allow(clippy::unwrap_used, reason = "a test's helpers, too, fail by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use sqlx::{Connection, Executor, MySqlConnection};
use tcc_log::{
    Begun, DatabaseLog, Decided, Due, Enlisted, Error, LogOptions, NewTransaction, Park, TxLog,
    conformance::samples::{self, audit, cancel, confirm, initiator, transaction},
};
use tcc_servers::{Kind, PASSWORD, Server, shared};
use tcc_types::{Gid, LogName, SystemClock, TxStatus};
use tokio::task::JoinSet;

use self::support::{Cut, Network};

fn options(url: &str) -> LogOptions {
    LogOptions { database_url: url.to_owned(), ..LogOptions::default() }
}

async fn open(options: LogOptions) -> Result<DatabaseLog, Error> {
    DatabaseLog::open(options, Arc::new(SystemClock)).await
}

async fn fresh() -> (String, DatabaseLog) {
    let url = shared(Kind::Mysql).create_database();
    let log = open(options(&url)).await.unwrap();
    (url, log)
}

async fn tool(url: &str) -> MySqlConnection {
    MySqlConnection::connect(url).await.unwrap()
}

/// A transaction of another writer that holds the rows of all transactions that are there, and no gap between them.
async fn holder(url: &str) -> MySqlConnection {
    let mut tool = tool(url).await;
    let hold = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION; \
                UPDATE tcc_log_transactions SET branch_count = branch_count";
    sqlx::raw_sql(hold).execute(&mut tool).await.unwrap();
    tool
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
async fn gateways_that_start_at_once_on_a_fresh_database_all_open_it() {
    let url = shared(Kind::Mysql).create_database();
    let opened = join_all((0..4).map(|_| open(options(&url)))).await;
    let logs: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let new = transaction(logs[0].now(), 1);
    assert!(is_new(&logs[0].begin(new.clone()).await));
    for log in &logs {
        assert!(log.is_shared());
        assert_eq!(status(log, new.gid).await, Some(TxStatus::Trying));
    }
}

#[tokio::test]
async fn a_migration_that_was_interrupted_is_run_again() {
    let (url, log) = fresh().await;
    log.close().await;
    let mut tool = tool(&url).await;
    tool.execute("DELETE FROM tcc_log_migrations WHERE version > 1").await.unwrap();
    tool.execute("UPDATE tcc_log_migrations SET success = FALSE").await.unwrap();
    tool.execute("DROP TRIGGER tcc_log_audit_is_never_deleted").await.unwrap();
    let log = open(options(&url)).await.unwrap();
    log.audit(audit(samples::gid(log.now()), "b0")).await.unwrap();
    let error = tool.execute("DELETE FROM tcc_log_audit").await.unwrap_err();
    assert!(error.to_string().contains("append-only"), "{error}");
}

#[tokio::test]
async fn a_database_keeps_its_name() {
    let (url, _log) = fresh().await;
    let other = LogOptions { name: LogName::new("other").unwrap(), ..options(&url) };
    let error = open(other).await.unwrap_err();
    assert!(matches!(&error, Error::Unusable(text) if text.contains("`main`") && text.contains("`other`")), "{error}");
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let (url, log) = fresh().await;
    let new = transaction(log.now(), 2);
    log.begin(new.clone()).await.unwrap();
    log.decide(confirm(log.now(), new.gid, 2)).await.unwrap();
    let (stored, owner) = (log.load(new.gid).await.unwrap(), log.take_owner().await.unwrap());
    log.close().await;
    let log = open(options(&url)).await.unwrap();
    assert!(stored.is_some());
    assert_eq!(log.load(new.gid).await.unwrap(), stored);
    assert!(log.take_owner().await.unwrap() > owner);
}

#[tokio::test]
async fn released_leases_are_only_counted_where_others_may_hold_them() {
    let (_url, log) = fresh().await;
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let stored = log.load(new.gid).await.unwrap();
    assert_eq!(log.release_leases().await.unwrap(), 1);
    assert_eq!(log.load(new.gid).await.unwrap(), stored);
}

#[tokio::test]
async fn the_audit_record_cannot_be_changed_by_hand() {
    let (url, log) = fresh().await;
    let line = log.audit(audit(samples::gid(log.now()), "b0")).await.unwrap();
    let mut tool = tool(&url).await;
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

/// A list of rows travels as JSON, where some characters are written otherwise.
#[tokio::test]
async fn texts_and_bytes_of_every_kind_are_kept() {
    let (_url, log) = fresh().await;
    let text = "\"quoted\" \\back/slash\\ \n\t\r\u{0}\u{1f}\u{7f} äöü 接続拒否 😀 \u{2028} trailing  ";
    let mut new = transaction(log.now(), 4);
    new.branches[0].payload.value = (0..=u8::MAX).collect::<Vec<_>>().into();
    new.branches[1].payload.value = Vec::new().into();
    new.branches[2].payload.type_url = text.to_owned();
    new.branches[3].payload.type_url = String::new();
    log.begin(new.clone()).await.unwrap();
    log.decide(cancel(log.now(), new.gid)).await.unwrap();
    let mut progress = samples::stuck(log.now());
    progress.stuck.as_mut().unwrap().detail = text.to_owned();
    let branches = vec![(samples::branch_id("b0"), progress.clone())];
    let park = Park { gid: new.gid, owner: samples::OWNER, next_attempt_at: log.now(), branches };
    log.park(park).await.unwrap();
    let stored = log.load(new.gid).await.unwrap().unwrap();
    for (stored, new) in stored.branches.iter().zip(&new.branches) {
        assert_eq!(stored.payload, new.payload);
    }
    assert_eq!(stored.branches[0].progress, progress);
}

/// InnoDB shows a commit before it is on the disk; what another gateway did is told only after a commit that takes it along.
#[tokio::test]
async fn what_another_gateway_did_is_told_by_a_commit_that_wrote() {
    let (url, one) = fresh().await;
    let two = open(options(&url)).await.unwrap();
    let mut tool = tool(&url).await;
    let new = samples::open(one.now(), 1);
    one.begin(new.clone()).await.unwrap();
    one.decide(cancel(one.now(), new.gid)).await.unwrap();
    let mut found = 0_i64;
    let mut is_written = async || {
        let now = sqlx::query_scalar("SELECT found FROM tcc_log_transactions").fetch_one(&mut tool).await.unwrap();
        std::mem::replace(&mut found, now) != now
    };
    assert!(!is_written().await);
    assert!(matches!(two.begin(new.clone()).await, Ok(Begun::Exists(_))));
    assert!(is_written().await);
    assert!(matches!(two.decide(confirm(two.now(), new.gid, 1)).await, Ok(Decided::Stands { .. })));
    assert!(is_written().await);
    assert!(matches!(two.enlist(new.gid, samples::branch("late"), 4).await, Ok(Enlisted::Closed(_))));
    assert!(is_written().await);
}

#[tokio::test]
async fn a_bad_write_fails_alone() {
    let (url, log) = fresh().await;
    tool(&url).await.execute("ALTER TABLE tcc_log_transactions ADD CHECK (initiator <> 'poison')").await.unwrap();
    let news: Vec<_> = (0..20).map(|index| of(&log, if index == 7 { "poison" } else { "shop" })).collect();
    let begun = join_all(news.iter().map(|new| log.begin(new.clone()))).await;
    for (index, (begun, new)) in begun.iter().zip(&news).enumerate() {
        if index == 7 {
            assert!(matches!(begun, Err(Error::Unusable(_))), "{begun:?}");
            assert_eq!(status(&log, new.gid).await, None);
        } else {
            assert!(is_new(begun), "{index}: {begun:?}");
            assert_eq!(log.load(new.gid).await.unwrap().unwrap().branches.len(), 2);
        }
    }
}

#[tokio::test]
async fn a_row_that_another_holds_is_waited_for_and_then_told_unavailable() {
    let url = shared(Kind::Mysql).create_database();
    // One second is the shortest that the server knows; five times it, and another five, must fit.
    let log = open(LogOptions { lock_wait_ms: 1, write_timeout_ms: 60_000, ..options(&url) }).await.unwrap();
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let mut holder = holder(&url).await;
    let decided = log.decide(cancel(log.now(), new.gid)).await;
    assert!(matches!(decided, Err(Error::Unavailable(_))), "{decided:?}");
    assert!(log.stats().conflicts > 0);
    // Neither reading nor other rows wait for it.
    assert_eq!(status(&log, new.gid).await, Some(TxStatus::Trying));
    assert!(is_new(&log.begin(transaction(log.now(), 1)).await));
    holder.execute("ROLLBACK").await.unwrap();
    let decided = log.decide(cancel(log.now(), new.gid)).await;
    assert!(matches!(decided, Ok(Decided::Stands { status: TxStatus::Cancelling, .. })), "{decided:?}");
}

#[tokio::test]
async fn a_write_that_waits_for_a_row_does_not_hold_up_the_others() {
    let url = shared(Kind::Mysql).create_database();
    let log = Arc::new(open(LogOptions { lock_wait_ms: 20_000, write_timeout_ms: 120_000, ..options(&url) }).await.unwrap());
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let (mut holder, mut tool) = (holder(&url).await, tool(&url).await);
    let (waiter, decide) = (Arc::clone(&log), cancel(log.now(), new.gid));
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { waiter.decide(decide).await });
    let who_waits = "SELECT COUNT(*) FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p \
                     ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT'";
    while sqlx::query_scalar::<_, i64>(who_waits).fetch_one(&mut tool).await.unwrap() == 0 {
        assert!(waiting.try_join_next().is_none());
        // The server makes this table anew at most ten times a second, and only for who has not read it in between.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for _ in 0..3 {
        assert!(is_new(&log.begin(transaction(log.now(), 1)).await));
    }
    assert!(waiting.try_join_next().is_none(), "a begin waited for it");
    holder.execute("ROLLBACK").await.unwrap();
    let decided = waiting.join_next().await.unwrap().unwrap();
    assert!(matches!(decided, Ok(Decided::Stands { status: TxStatus::Cancelling, .. })), "{decided:?}");
}

#[tokio::test]
async fn a_claim_leaves_out_what_another_holds() {
    let (url, log) = fresh().await;
    let due = |log: &DatabaseLog| NewTransaction { next_attempt_at: samples::past(log.now()), ..transaction(log.now(), 1) };
    let (held, free) = (due(&log), due(&log));
    log.begin(held.clone()).await.unwrap();
    let mut holder = holder(&url).await;
    log.begin(free.clone()).await.unwrap();
    let claimed = log.claim(samples::OTHER, Due::Fresh, 10, samples::LEASE).await.unwrap();
    assert_eq!(claimed.iter().map(|record| record.gid).collect::<Vec<_>>(), [free.gid]);
    assert_eq!(log.stats().conflicts, 0);
    holder.execute("ROLLBACK").await.unwrap();
    let claimed = log.claim(samples::OTHER, Due::Fresh, 10, samples::LEASE).await.unwrap();
    assert_eq!(claimed.iter().map(|record| record.gid).collect::<Vec<_>>(), [held.gid]);
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_unavailable_and_the_next_goes_on() {
    let url = shared(Kind::Mysql).create_database();
    // Waiting for a row would take longer than a batch may.
    let log = open(LogOptions { write_timeout_ms: 500, lock_wait_ms: 3_600_000, ..options(&url) }).await.unwrap();
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let mut holder = holder(&url).await;
    let decided = log.decide(cancel(log.now(), new.gid)).await;
    assert!(matches!(decided, Err(Error::Unavailable(_))), "{decided:?}");
    holder.execute("ROLLBACK").await.unwrap();
    // What was given up may still hold the row for a moment.
    let mut decided = log.decide(cancel(log.now(), new.gid)).await;
    while matches!(decided, Err(Error::Unavailable(_))) {
        decided = log.decide(cancel(log.now(), new.gid)).await;
    }
    assert!(matches!(decided, Ok(Decided::Stands { .. })), "{decided:?}");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_unknown_and_settled_by_repeating() {
    let server = shared(Kind::Mysql);
    let network = Network::to(server.port()).await;
    let log = open(options(&network.url(&server.create_database(), server.port()))).await.unwrap();
    for (cut, was_done) in [(Cut::Before, false), (Cut::After, true)] {
        let new = transaction(log.now(), 1);
        network.cut_next_commit(cut);
        let begun = log.begin(new.clone()).await;
        assert!(matches!(begun, Err(Error::Unknown(_))), "{begun:?}");
        let again = log.begin(new.clone()).await.unwrap();
        assert_eq!(matches!(again, Begun::Exists(_)), was_done, "{again:?}");

        network.cut_next_commit(cut);
        let decided = log.decide(confirm(log.now(), new.gid, 1)).await;
        assert!(matches!(decided, Err(Error::Unknown(_))), "{decided:?}");
        // Whichever is asked for next, what was done stands.
        let stands = if was_done { TxStatus::Confirming } else { TxStatus::Cancelling };
        let decided = log.decide(cancel(log.now(), new.gid)).await.unwrap();
        assert!(matches!(decided, Decided::Stands { status, .. } if status == stands), "{decided:?}");
    }
}

#[tokio::test]
async fn an_operator_that_ends_the_connections_does_no_harm() {
    let (url, log) = fresh().await;
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let mut tool = tool(&url).await;
    let others = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    let ids: Vec<i64> = sqlx::query_scalar(others).fetch_all(&mut tool).await.unwrap();
    assert!(!ids.is_empty());
    for id in ids {
        tool.execute(sqlx::AssertSqlSafe(format!("KILL CONNECTION {id}"))).await.unwrap();
    }
    // Each writer meets its dead connection before anything is written.
    for _ in 0..4 {
        let begun = log.begin(new.clone()).await;
        assert!(matches!(begun, Ok(Begun::Exists(_))), "{begun:?}");
    }
    assert_eq!(status(&log, new.gid).await, Some(TxStatus::Trying));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_and_is_back_is_written_to_again() {
    let server = tokio::task::spawn_blocking(|| Server::start(Kind::Mysql).unwrap()).await.unwrap();
    let server = Arc::new(server);
    let of_server = Arc::clone(&server);
    let url = tokio::task::spawn_blocking(move || of_server.create_database()).await.unwrap();
    let log = open(options(&url)).await.unwrap();
    let (durable, lost) = (transaction(log.now(), 1), transaction(log.now(), 1));
    log.begin(durable.clone()).await.unwrap();
    let of_server = Arc::clone(&server);
    tokio::task::spawn_blocking(move || of_server.kill().unwrap()).await.unwrap();
    for _ in 0..3 {
        let begun = log.begin(lost.clone()).await;
        assert!(matches!(begun, Err(Error::Unavailable(_))), "{begun:?}");
        assert!(log.probe().await.is_err_and(|error| error.is_retryable()));
    }
    let of_server = Arc::clone(&server);
    tokio::task::spawn_blocking(move || of_server.restart().unwrap()).await.unwrap();
    log.probe().await.unwrap();
    assert!(is_new(&log.begin(lost).await));
    assert!(matches!(log.begin(durable).await, Ok(Begun::Exists(_))));
}

#[tokio::test]
async fn no_error_shows_the_password() {
    let (url, _log) = fresh().await;
    assert!(url.contains(PASSWORD));
    let missing = [url.replace("tcc:", "nobody:"), format!("{url}_missing"), url.replace("127.0.0.1", "nowhere.invalid")];
    for missing in missing {
        let error = open(options(&missing)).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains(PASSWORD), "{error}");
    }
    assert!(!format!("{:?}", options(&url)).contains(PASSWORD));
}

/// Two gateways write batches in which the same transactions occur in another order each: nothing surfaces but what stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_that_write_the_same_transactions_agree() {
    let (url, one) = fresh().await;
    let two = open(options(&url)).await.unwrap();
    let logs = [Arc::new(one), Arc::new(two)];
    for round in 0..5 {
        let news: Vec<_> = (0..64).map(|_| samples::open(logs[0].now(), 1)).collect();
        let mut callers = JoinSet::new();
        for (side, log) in logs.iter().enumerate() {
            for index in 0..news.len() {
                let new = if side == 0 { news[index].clone() } else { news[news.len() - 1 - index].clone() };
                let log = Arc::clone(log);
                callers.spawn(async move {
                    let begun = log.begin(new.clone()).await.unwrap();
                    let enlisted = log.enlist(new.gid, samples::branch("late"), 4).await.unwrap();
                    let decide = if side == 0 { confirm(log.now(), new.gid, 2) } else { cancel(log.now(), new.gid) };
                    let decided = log.decide(decide).await.unwrap();
                    log.finish(new.gid).await.unwrap();
                    (new.gid, matches!(begun, Begun::Inserted { .. }), enlisted, decided)
                });
            }
        }
        let mut begun = 0;
        for (gid, was_new, enlisted, decided) in callers.join_all().await {
            begun += usize::from(was_new);
            let stored = logs[0].load(gid).await.unwrap().unwrap();
            assert_eq!(stored.branch_count as usize, stored.branches.len(), "round {round}");
            assert!(!matches!(enlisted, Enlisted::Full | Enlisted::Missing), "{enlisted:?}");
            match decided {
                Decided::Stands { decided_at, branch_count, .. } => {
                    assert_eq!((Some(decided_at), branch_count), (stored.decided_at, stored.branch_count));
                }
                // Never: whoever decides first has enlisted the branch.
                decided @ (Decided::CountMoved { .. } | Decided::Missing) => panic!("{decided:?}"),
            }
        }
        assert_eq!(begun, news.len());
    }
    println!("between the two gateways: {:?}", logs.map(|log| log.stats()));
}
