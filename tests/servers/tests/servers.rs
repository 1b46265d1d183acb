//! What tests may rely on: servers that keep what they committed when they are killed, and that never outlive their process.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails its test")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use tcc_servers::{Kind, Options, PASSWORD, Server, shared};

const WITHIN: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

enum Client {
    Postgres(PgConnection),
    Mysql(MySqlConnection),
}

impl Client {
    async fn to(url: &str) -> sqlx::Result<Self> {
        if url.starts_with("mysql") {
            return Ok(Self::Mysql(MySqlConnection::connect(url).await?));
        }
        Ok(Self::Postgres(PgConnection::connect(url).await?))
    }

    async fn run(&mut self, sql: &str) -> sqlx::Result<()> {
        match self {
            Self::Postgres(client) => client.execute(AssertSqlSafe(sql)).await.map(|_| ()),
            Self::Mysql(client) => client.execute(AssertSqlSafe(sql)).await.map(|_| ()),
        }
    }

    async fn number(&mut self, sql: &str) -> sqlx::Result<i64> {
        match self {
            Self::Postgres(client) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(client).await,
            Self::Mysql(client) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(client).await,
        }
    }
}

async fn run(url: &str, sql: &str) -> sqlx::Result<()> {
    Client::to(url).await?.run(sql).await
}

async fn number(url: &str, sql: &str) -> i64 {
    Client::to(url).await.unwrap().number(sql).await.unwrap()
}

fn exists(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // A process of another user exists too.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + WITHIN;
    while !is_so() {
        assert!(Instant::now() < give_up, "this did not happen within {WITHIN:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn keeps_what_was_committed(kind: Kind) {
    let server = Server::start(kind).unwrap();
    let (url, port) = (server.create_database(), server.port());
    block_on(async {
        run(&url, "CREATE TABLE notes (id BIGINT PRIMARY KEY)").await.unwrap();
        for id in 1..=50 {
            run(&url, &format!("INSERT INTO notes VALUES ({id})")).await.unwrap();
        }
        // One that is open when the server dies, and must not come back.
        let mut open = Client::to(&url).await.unwrap();
        open.run("BEGIN").await.unwrap();
        open.run("INSERT INTO notes VALUES (51)").await.unwrap();
        server.kill().unwrap();
        open.run("COMMIT").await.expect_err("the server of this connection is dead");
    });
    assert_eq!(server.pid(), None);
    block_on(run(&url, "SELECT 1")).expect_err("a killed server answered");
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_eq!(block_on(number(&url, "SELECT count(*) FROM notes")), 50);
    server.stop().unwrap();
    server.restart().unwrap();
    assert_eq!(block_on(number(&url, "SELECT count(*) FROM notes")), 50);
    let folder = server.data_folder();
    drop(server);
    assert!(!folder.exists(), "{} is still there", folder.display());
}

#[test]
fn postgres_keeps_what_was_committed_when_it_is_killed() {
    keeps_what_was_committed(Kind::Postgres);
}

#[test]
fn mariadb_keeps_what_was_committed_when_it_is_killed() {
    keeps_what_was_committed(Kind::Mysql);
}

fn keeps_what_was_committed_before_its_disk_was_full(kind: Kind) {
    const ROWS: i64 = 20_000;
    let server = Server::start(kind).unwrap();
    let url = server.create_database();
    let wide = "x".repeat(500);
    let kept = block_on(async {
        run(&url, "CREATE TABLE notes (id BIGINT PRIMARY KEY, text VARCHAR(500))").await.unwrap();
        run(&url, "INSERT INTO notes VALUES (1, 'one')").await.unwrap();
        server.limit_files(Some(1)).unwrap();
        let mut client = Client::to(&url).await;
        for id in 2..ROWS {
            let Ok(client) = &mut client else { return 1 };
            if client.run(&format!("INSERT INTO notes VALUES ({id}, '{wide}')")).await.is_err() {
                return id - 1;
            }
        }
        panic!("{kind} wrote {ROWS} rows to a full disk");
    });
    server.limit_files(None).unwrap();
    server.revive().unwrap();
    // The next one may have been committed and its answer lost.
    let there = block_on(number(&url, "SELECT count(*) FROM notes"));
    assert!((kept..=kept + 1).contains(&there), "{kept} rows were acknowledged, {there} are there");
    block_on(run(&url, "INSERT INTO notes VALUES (-1, 'there is room again')")).unwrap();
}

#[test]
fn postgres_keeps_what_was_committed_before_its_disk_was_full() {
    keeps_what_was_committed_before_its_disk_was_full(Kind::Postgres);
}

#[test]
fn mariadb_keeps_what_was_committed_before_its_disk_was_full() {
    keeps_what_was_committed_before_its_disk_was_full(Kind::Mysql);
}

// A backend in the middle of a statement does not notice the death of its parent: it must be killed too, or it would commit later.
#[test]
fn a_kill_takes_the_backends_that_are_busy() {
    let server = Server::start(Kind::Postgres).unwrap();
    let url = server.create_database();
    block_on(async {
        let mut busy = Client::to(&url).await.unwrap();
        let pid = busy.number("SELECT pg_backend_pid()::bigint").await.unwrap();
        let pid = u32::try_from(pid).unwrap();
        let sleep = busy.run("SELECT count(*) FROM generate_series(1, 100000000000)");
        let kill = async {
            eventually_busy(&server.url("postgres"), pid).await;
            assert!(exists(pid));
            server.kill().unwrap();
            eventually("the backend is gone", || !exists(pid));
        };
        let (slept, ()) = tokio::join!(sleep, kill);
        slept.expect_err("its backend is dead");
    });
}

async fn eventually_busy(url: &str, pid: u32) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'");
    while number(url, &sql).await == 0 {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[test]
fn servers_of_one_kind_do_not_meet() {
    for kind in Kind::ALL {
        let (one, other) = (Server::start(kind).unwrap(), Server::start(kind).unwrap());
        assert_ne!(one.port(), other.port());
        assert_ne!(one.data_folder(), other.data_folder());
        block_on(async {
            let (here, there) = (one.create_database(), other.create_database());
            run(&here, "CREATE TABLE notes (id BIGINT PRIMARY KEY)").await.unwrap();
            run(&there, "SELECT * FROM notes").await.expect_err("the other server has the table too");
            one.kill().unwrap();
            run(&there, "SELECT 1").await.unwrap();
        });
    }
}

#[test]
fn every_database_of_the_shared_server_is_another_and_empty() {
    for kind in Kind::ALL {
        assert!(std::ptr::eq(shared(kind), shared(kind)));
        // Also from inside a runtime, where most tests are.
        let (one, other) = block_on(async { (shared(kind).create_database(), shared(kind).create_database()) });
        assert_ne!(one, other);
        assert!(one.contains(PASSWORD));
        block_on(async {
            run(&one, "CREATE TABLE notes (id BIGINT PRIMARY KEY)").await.unwrap();
            run(&other, "CREATE TABLE notes (id BIGINT PRIMARY KEY)").await.unwrap();
        });
    }
}

#[test]
fn what_makes_commits_durable_is_on() {
    let postgres = shared(Kind::Postgres).url("postgres");
    for name in ["fsync", "full_page_writes", "synchronous_commit"] {
        let sql = format!("SELECT count(*) FROM pg_settings WHERE name = '{name}' AND setting = 'on'");
        assert_eq!(block_on(number(&postgres, &sql)), 1, "{name}");
    }
    let mariadb = shared(Kind::Mysql).url("mysql");
    assert_eq!(block_on(number(&mariadb, "SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED)")), 1);
    assert_eq!(block_on(number(&mariadb, "SELECT CAST(@@innodb_doublewrite AS SIGNED)")), 1);
}

#[test]
fn a_server_may_be_given_settings_of_its_own() {
    let options = |name: &str| Options { settings: vec![(name.to_owned(), "23".to_owned())], parent: None };
    let postgres = Server::start_with(Kind::Postgres, &options("max_connections")).unwrap();
    let sql = "SELECT setting::bigint FROM pg_settings WHERE name = 'max_connections'";
    assert_eq!(block_on(number(&postgres.url("postgres"), sql)), 23);
    let mariadb = Server::start_with(Kind::Mysql, &options("max-connections")).unwrap();
    assert_eq!(block_on(number(&mariadb.url("mysql"), "SELECT CAST(@@max_connections AS SIGNED)")), 23);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let wrong = Options { settings: vec![("no_such_setting".to_owned(), "1".to_owned())], parent: None };
    for kind in Kind::ALL {
        let error = format!("{:#}", Server::start_with(kind, &wrong).expect_err("it started"));
        assert!(error.contains("no_such_setting") || error.contains("no-such-setting"), "{error}");
    }
}

#[test]
fn a_server_dies_with_the_process_that_started_it() {
    for (kind, word) in [(Kind::Postgres, "postgres"), (Kind::Mysql, "mysql")] {
        let mut holder = Command::new(env!("CARGO_BIN_EXE_tcc-servers"))
            .arg(word)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        let mut next = |name: &str| lines.next().unwrap().unwrap().strip_prefix(name).unwrap().to_owned();
        let url = next("url ");
        let pid: u32 = next("pid ").parse().unwrap();
        let data = PathBuf::from(next("data "));
        block_on(run(&url, "SELECT 1")).unwrap();
        assert!(exists(pid) && data.exists());
        // SIGKILL: it can do nothing about its server any more.
        holder.kill().unwrap();
        holder.wait().unwrap();
        let folder = data.parent().map(Path::to_owned).unwrap();
        eventually(&format!("{kind} and {} are gone", folder.display()), || !exists(pid) && !folder.exists());
    }
}
