//! The command on SQLite databases that are written to by hand: what it prints, and how it exits.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails its test")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection, raw_sql, sqlite::SqliteConnectOptions};
use tcc_reconcile::{Config, Outcome, Progress, Reconciler, Url};
use tcc_types::{Clock, Gid, SystemClock, SystemEntropy, Timestamp};
use tempfile::TempDir;

/// A log and a participant `points`, and one transaction of one branch.
struct System {
    folder: TempDir,
    gid: Gid,
    now: Timestamp,
}

async fn open(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

async fn run_sql(path: &Path, sql: String) {
    raw_sql(AssertSqlSafe(sql)).execute(&mut open(path).await).await.unwrap();
}

impl System {
    async fn new() -> Self {
        let now = SystemClock.now();
        let system = Self { folder: tempfile::tempdir().unwrap(), gid: Gid::mint(now, &SystemEntropy), now };
        let mut log = open(&system.path("log")).await;
        tcc_migrations::log::sqlite().run_direct(None, &mut log, false).await.unwrap();
        let mut points = open(&system.path("points")).await;
        tcc_migrations::participant::sqlite().run_direct(None, &mut points, false).await.unwrap();
        system.log("INSERT INTO tcc_log_identity (only_row, name) VALUES (1, 'main')".to_owned()).await;
        system
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.db"))
    }

    fn url(&self, name: &str) -> String {
        format!("sqlite://{}", self.path(name).display())
    }

    async fn log(&self, sql: String) {
        run_sql(&self.path("log"), sql).await;
    }

    async fn points(&self, sql: String) {
        run_sql(&self.path("points"), sql).await;
    }

    fn gid_bytes(&self) -> String {
        let hex: String = self.gid.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("x'{hex}'")
    }

    /// The transaction as it is once it has ended: confirmed.
    fn transaction(&self) -> String {
        let (gid, now) = (self.gid_bytes(), self.now.as_micros());
        format!(
            "INSERT INTO tcc_log_transactions (gid, status, initiator, try_order, decides, branch_count, try_until, decide_by, \
             created_at, decided_at, finished_at, next_attempt_at) \
             VALUES ({gid}, 3, 'shop', 1, 1, 1, {now}, {now}, {now}, {now}, {now}, {now}); \
             INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) \
             VALUES ({gid}, 'p', 0, 'points', 'type.googleapis.com/a.B', x'')"
        )
    }

    /// The branch's row: 1 tried, 3 confirmed, 4 cancelled.
    fn row(&self, status: u8) -> String {
        let (gid, now) = (self.gid, self.now.as_micros());
        format!(
            "INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, not_after, \
             ask_after, created_at, changed_at) \
             VALUES ('{gid}', 'p', {status}, 0, 'type.googleapis.com/a.B', x'00', 'main', {now}, {now} + 3600000000, {now}, {now})"
        )
    }

    fn command(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcc-reconcile"));
        let points = format!("points={}", self.url("points"));
        command.args(["--log", &self.url("log"), "--participant", &points, "--grace-ms", "100"]).args(more).output().unwrap()
    }
}

fn told(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn what_agrees_exits_with_0_and_what_disagrees_with_1_and_its_ids() {
    let system = System::new().await;
    assert_eq!(told(&system.command(&[])).0, Some(0), "an empty system agrees");
    system.log(system.transaction()).await;
    system.points(system.row(3)).await;
    let (code, text) = told(&system.command(&[]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("log main: 0 disagreements, 0 overdue; compared 1 transactions, 1 rows"), "{text}");

    system.points(format!("UPDATE tcc_branches SET status = 4 WHERE gid = '{}'", system.gid)).await;
    let (code, text) = told(&system.command(&[]));
    assert_eq!(code, Some(1), "{text}");
    let wanted = format!("cancelled_but_transaction_confirmed transaction {} branch p participant points", system.gid);
    assert!(text.contains(&wanted) && text.contains("to do: "), "{text}");

    let (code, text) = told(&system.command(&["--format", "json"]));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["disagreements"][0]["gid"]), (Some(1), &system.gid.to_string().into()));
    assert_eq!(report["disagreements"][0]["says"][1], "points has it as Cancelled");
}

#[tokio::test]
async fn what_is_overdue_fails_only_a_strict_run() {
    let system = System::new().await;
    system.log(system.transaction()).await;
    let due = "UPDATE tcc_log_transactions SET status = 2, finished_at = NULL, next_attempt_at = next_attempt_at - 60000000";
    system.log(due.to_owned()).await;
    system.points(system.row(1)).await;
    let (code, text) = told(&system.command(&[]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("overdue transaction_overdue transaction {}", system.gid)), "{text}");
    assert_eq!(told(&system.command(&["--strict"])).0, Some(1));
}

#[tokio::test]
async fn what_cannot_be_looked_at_exits_with_2_and_tells_no_password() {
    let system = System::new().await;
    let (code, text) = told(&system.command(&["--log-name", "other"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("log_name: this database is the transaction log `main`, not `other`"), "{text}");
    let (code, text) = told(&system.command(&["--inventory", "postgres://u:hush@127.0.0.1:1/a"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("could not look: the database of inventory") && !text.contains("hush"), "{text}");
    let no_log = Command::new(env!("CARGO_BIN_EXE_tcc-reconcile")).output().unwrap();
    let (code, text) = told(&no_log);
    assert_eq!(code, Some(2));
    assert!(text.contains("log: the URL of the log's database is missing"), "{text}");
}

#[tokio::test]
async fn more_than_can_be_looked_at_again_is_no_agreement() {
    let system = System::new().await;
    let config = system.folder.path().join("reconcile.toml");
    std::fs::write(&config, "candidates_max = 1\n").unwrap();
    system.points(system.row(1)).await;
    let second = System { folder: system.folder, gid: Gid::mint(system.now, &SystemEntropy), now: system.now };
    second.points(second.row(1)).await;
    let (code, text) = told(&second.command(&["--config", &config.display().to_string()]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("incomplete: 1 more than candidates_max") && text.contains("1 disagreements"), "{text}");
}

#[tokio::test]
async fn what_is_gone_at_the_second_look_was_work_in_flight() {
    let system = System::new().await;
    // A reservation whose transaction is read before it is there.
    system.points(system.row(1)).await;
    let config = Config {
        log: Url(system.url("log")),
        participants: [("points".parse().unwrap(), Url(system.url("points")))].into(),
        grace_ms: 50,
        ..Config::default()
    };
    let begun = AtomicBool::new(false);
    let begin = |progress| {
        if matches!(progress, Progress::LookingAgain { left: 1 }) && !begun.swap(true, Ordering::Relaxed) {
            let (path, sql) = (system.path("log"), system.transaction());
            let undecided = "UPDATE tcc_log_transactions SET status = 1, decided_at = NULL, finished_at = NULL, \
                 next_attempt_at = next_attempt_at + 3600000000";
            let begin = async move { run_sql(&path, format!("{sql}; {undecided}")).await };
            let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            std::thread::scope(|scope| scope.spawn(move || runtime().block_on(begin)).join().unwrap());
        }
    };
    let mut reconciler = Reconciler::open(config.clone()).await.unwrap();
    let report = reconciler.run(&begin).await.unwrap();
    assert!(begun.load(Ordering::Relaxed), "it was not seen at the first look");
    assert_eq!((report.outcome(true), report.counts.in_flight), (Outcome::Agree, 1), "{report}");

    // The same disagreement stands if nobody does anything.
    system.log("DELETE FROM tcc_log_transactions".to_owned()).await;
    let report = tokio::time::timeout(Duration::from_secs(60), reconciler.run(&|_| {})).await.unwrap().unwrap();
    assert_eq!(report.outcome(false), Outcome::Disagree, "{report}");
}
