//! What is special to the log on PostgreSQL: several processes, one database, and what happens when it goes wrong.

#![allow(clippy::unwrap_used, reason = "a test's helpers, too, fail by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use sqlx::{Connection, Executor, PgConnection};
use tcc_log::{
    Begun, DatabaseLog, Decide, Decided, Due, Enlisted, Error, LogOptions, NewTransaction, TxLog,
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
    let url = shared(Kind::Postgres).create_database();
    let log = open(options(&url)).await.unwrap();
    (url, log)
}

async fn tool(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
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
    let url = shared(Kind::Postgres).create_database();
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
async fn what_another_gateway_did_is_told_by_a_commit_that_wrote() {
    let (url, one) = fresh().await;
    let two = open(options(&url)).await.unwrap();
    let mut tool = tool(&url).await;
    let new = samples::open(one.now(), 1);
    one.begin(new.clone()).await.unwrap();
    one.decide(cancel(one.now(), new.gid)).await.unwrap();
    let mut locker = "0".to_owned();
    let mut is_written = async || {
        let text = "SELECT xmax::text FROM tcc_log_transactions";
        let now: String = sqlx::query_scalar(text).fetch_one(&mut tool).await.unwrap();
        std::mem::replace(&mut locker, now.clone()) != now
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
async fn what_this_version_cannot_read_does_not_keep_the_rest_from_being_taken_up() {
    let (url, log) = fresh().await;
    let long_ago = log.now().minus(Duration::from_secs(3_600));
    let due = |name: &str| NewTransaction { next_attempt_at: long_ago, ..of(&log, name) };
    let (later, known) = (due("later"), due("shop"));
    for new in [&later, &known] {
        log.begin(new.clone()).await.unwrap();
        log.decide(Decide { next_attempt_at: long_ago, ..cancel(log.now(), new.gid) }).await.unwrap();
    }
    let damage = "UPDATE tcc_log_transactions SET cause = '{\"ALaterVersions\":{}}' WHERE initiator = 'later'";
    tool(&url).await.execute(damage).await.unwrap();
    let owner = log.take_owner().await.unwrap();
    let claimed = log.claim(owner, Due::Fresh, 10, Duration::from_secs(60)).await.unwrap();
    assert_eq!(claimed.iter().map(|record| record.gid).collect::<Vec<_>>(), [known.gid]);
    // It is not in the way next time either.
    assert!(log.claim(owner, Due::Fresh, 10, Duration::from_secs(60)).await.unwrap().is_empty());
    assert!(matches!(log.load(later.gid).await, Err(Error::Unusable(_))));
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
    for text in ["UPDATE tcc_log_audit SET actor = 'mallory'", "DELETE FROM tcc_log_audit", "TRUNCATE tcc_log_audit"] {
        let error = tool.execute(text).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    assert_eq!(log.list_audit(None, None, 10).await.unwrap(), [line]);
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
async fn a_failed_commit_is_unknown_and_settled_by_repeating() {
    let (url, log) = fresh().await;
    // A deferred constraint is checked by COMMIT and by nothing before it.
    let mut tool = tool(&url).await;
    tool.execute("CREATE TABLE parent (id int PRIMARY KEY)").await.unwrap();
    let column =
        "ALTER TABLE tcc_log_transactions ADD COLUMN parent int DEFAULT 1 REFERENCES parent DEFERRABLE INITIALLY DEFERRED";
    tool.execute(column).await.unwrap();
    let new = transaction(log.now(), 1);
    let begun = log.begin(new.clone()).await;
    assert!(matches!(begun, Err(Error::Unknown(_))), "{begun:?}");
    assert_eq!(status(&log, new.gid).await, None);
    tool.execute("INSERT INTO parent VALUES (1)").await.unwrap();
    let begun = log.begin(new.clone()).await;
    assert!(is_new(&begun), "{begun:?}");
}

#[tokio::test]
async fn a_row_that_another_holds_is_waited_for_and_then_told_unavailable() {
    let url = shared(Kind::Postgres).create_database();
    let log = open(LogOptions { lock_wait_ms: 1, ..options(&url) }).await.unwrap();
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let mut tool = tool(&url).await;
    tool.execute("BEGIN; UPDATE tcc_log_transactions SET branch_count = branch_count").await.unwrap();
    let decided = log.decide(cancel(log.now(), new.gid)).await;
    assert!(matches!(decided, Err(Error::Unavailable(_))), "{decided:?}");
    assert!(log.stats().conflicts > 0);
    // Neither reading nor other rows wait for it.
    assert_eq!(status(&log, new.gid).await, Some(TxStatus::Trying));
    assert!(is_new(&log.begin(transaction(log.now(), 1)).await));
    tool.execute("ROLLBACK").await.unwrap();
    let decided = log.decide(cancel(log.now(), new.gid)).await;
    assert!(matches!(decided, Ok(Decided::Stands { status: TxStatus::Cancelling, .. })), "{decided:?}");
}

#[tokio::test]
async fn a_write_that_waits_for_a_row_does_not_hold_up_the_others() {
    let url = shared(Kind::Postgres).create_database();
    let log = Arc::new(open(LogOptions { lock_wait_ms: 20_000, write_timeout_ms: 120_000, ..options(&url) }).await.unwrap());
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let (mut holder, mut tool) = (tool(&url).await, tool(&url).await);
    holder.execute("BEGIN; UPDATE tcc_log_transactions SET branch_count = branch_count").await.unwrap();
    let (waiter, decide) = (Arc::clone(&log), cancel(log.now(), new.gid));
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { waiter.decide(decide).await });
    let who_waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(who_waits).fetch_one(&mut tool).await.unwrap() == 0 {
        assert!(waiting.try_join_next().is_none());
        tokio::time::sleep(Duration::from_millis(5)).await;
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
async fn a_batch_that_takes_too_long_is_unavailable_and_the_next_goes_on() {
    let url = shared(Kind::Postgres).create_database();
    // Waiting for a row would take longer than a batch may.
    let log = open(LogOptions { write_timeout_ms: 200, lock_wait_ms: 3_600_000, ..options(&url) }).await.unwrap();
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let mut tool = tool(&url).await;
    tool.execute("BEGIN; UPDATE tcc_log_transactions SET branch_count = branch_count").await.unwrap();
    let decided = log.decide(cancel(log.now(), new.gid)).await;
    assert!(matches!(decided, Err(Error::Unavailable(_))), "{decided:?}");
    tool.execute("ROLLBACK").await.unwrap();
    let decided = log.decide(cancel(log.now(), new.gid)).await;
    assert!(matches!(decided, Ok(Decided::Stands { .. })), "{decided:?}");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_unknown_and_settled_by_repeating() {
    let server = shared(Kind::Postgres);
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
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    tool(&url).await.execute(end).await.unwrap();
    // Each writer meets its dead connection before anything is written.
    for _ in 0..4 {
        let begun = log.begin(new.clone()).await;
        assert!(matches!(begun, Ok(Begun::Exists(_))), "{begun:?}");
    }
    assert_eq!(status(&log, new.gid).await, Some(TxStatus::Trying));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_and_is_back_is_written_to_again() {
    let server = tokio::task::spawn_blocking(|| Server::start(Kind::Postgres).unwrap()).await.unwrap();
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

/// A private server with these settings, and a database on it.
async fn server_with(settings: &[(&str, &str)]) -> (Server, String) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let start = move || {
        let server = Server::start_with(Kind::Postgres, &tcc_servers::Options { settings, parent: None }).unwrap();
        let url = server.create_database();
        (server, url)
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

/// Repeats a Begun as a coordinator does, until it is told what stands.
async fn begun_at_last(log: &DatabaseLog, new: &NewTransaction) -> Begun {
    loop {
        match log.begin(new.clone()).await {
            Ok(begun) => return begun,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn while_the_server_has_no_connection_left_the_log_is_unavailable_and_then_goes_on() {
    let (_server, url) = server_with(&[("max_connections", "10")]).await;
    let log = open(options(&url)).await.unwrap();
    let before = transaction(log.now(), 1);
    log.begin(before.clone()).await.unwrap();
    let mut taken = vec![tool(&url).await];
    let others =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    taken[0].execute(others).await.unwrap();
    // Those of the log, too: it connects anew only when it has something to write.
    while let Ok(more) = PgConnection::connect(&url).await {
        taken.push(more);
    }
    let refused = log.begin(transaction(log.now(), 1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(log.load(before.gid).await.is_err_and(|error| error.is_retryable()));
    for connection in taken {
        connection.close().await.unwrap();
    }
    begun_at_last(&log, &transaction(log.now(), 1)).await;
    assert!(matches!(log.begin(before).await, Ok(Begun::Exists(_))));
}

/// How far the server's process may extend files, set as its own user, who may do that in any container.
#[cfg(target_os = "linux")]
fn limit_files(pid: i32, bytes: &str) {
    use std::os::unix::{fs::MetadataExt, process::CommandExt};

    let owner = std::fs::metadata(format!("/proc/{pid}")).unwrap();
    let mut limit = std::process::Command::new("prlimit");
    limit.args([format!("--pid={pid}"), format!("--fsize={bytes}:")]).uid(owner.uid()).gid(owner.gid());
    assert!(limit.status().unwrap().success());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn while_the_disk_is_full_the_log_is_unavailable_and_then_goes_on() {
    let (_server, url) = server_with(&[]).await;
    // One writer: each has a server process of its own, and only those that are there already can be limited.
    let log = open(LogOptions { batches_in_flight_max: 1, ..options(&url) }).await.unwrap();
    let mut tool = tool(&url).await;
    let others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let pids: Vec<i32> = sqlx::query_scalar(others).fetch_all(&mut tool).await.unwrap();
    pids.iter().for_each(|pid| limit_files(*pid, "8192"));
    let new = transaction(log.now(), 1);
    for _ in 0..3 {
        let refused = log.begin(new.clone()).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(status(&log, new.gid).await, None);
    pids.iter().for_each(|pid| limit_files(*pid, "unlimited"));
    assert!(matches!(begun_at_last(&log, &new).await, Begun::Inserted { .. }));
    assert_eq!(status(&log, new.gid).await, Some(TxStatus::Trying));
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
