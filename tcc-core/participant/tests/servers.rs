//! What only PostgreSQL and MySQL servers have: defaults of their own, deadlocks, connections that an administrator kills,
//! processes that start at the same time, plans.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor, MySql, Postgres, Row};
use tcc_participant::{
    BranchContext, ConnectionOf, Database, Engine, OpenError, Options, Participant, Result, Store, Tried, Unknown,
    conformance::{BenchDatabase, Effects, Fixture, Kept, State, Want, races},
    status_of_sql,
};
use tcc_servers::{Kind, Server};
use tcc_types::{BranchId, BranchRowStatus, Decision, SettleAnswer, TryAnswer, TryCall};
use tokio::{sync::Barrier, task::JoinSet};
use tonic::Code;

const TRIED: Option<BranchRowStatus> = Some(BranchRowStatus::Tried);
const CANCELLED: Option<BranchRowStatus> = Some(BranchRowStatus::Cancelled);

/// Two branches that lock two rows in opposite order: the first two handlers wait for each other in between.
struct Opposite<D> {
    handled: AtomicU32,
    both_hold_one: Barrier,
    database: std::marker::PhantomData<fn() -> D>,
}

impl<D> Opposite<D> {
    fn new() -> Self {
        Self { handled: AtomicU32::new(0), both_hold_one: Barrier::new(2), database: std::marker::PhantomData }
    }
}

impl<D: Database> Participant for Opposite<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    type Db = D;
    type Payload = Want;
    type Reserved = Kept;

    async fn on_try(&self, conn: &mut ConnectionOf<Self>, branch: &BranchContext, _: Want) -> Result<Tried<Kept>> {
        let mut locks = ["UPDATE locks SET n = n + 1 WHERE id = 1", "UPDATE locks SET n = n + 1 WHERE id = 2"];
        if branch.branch_id().as_str() == "b" {
            locks.reverse();
        }
        let nth = self.handled.fetch_add(1, Ordering::SeqCst);
        conn.execute(locks[0]).await?;
        if nth < 2 {
            self.both_hold_one.wait().await;
        }
        conn.execute(locks[1]).await?;
        Ok(Tried::reserved(Kept::default()))
    }

    async fn on_confirm(&self, _: &mut ConnectionOf<Self>, _: &BranchContext, _: Kept) -> Result<()> {
        Ok(())
    }

    async fn on_cancel(&self, _: &mut ConnectionOf<Self>, _: &BranchContext, _: Kept) -> Result<()> {
        Ok(())
    }
}

async fn execute<D: Database>(store: &Store<D>, sql: &str)
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    let mut conn = store.write_pool().acquire().await.expect("a connection comes free");
    conn.execute(AssertSqlSafe(sql.to_owned())).await.expect("it executes");
}

/// On a database whose sessions are serializable by default.
async fn each_statement_sees_what_was_committed_before_it<D: BenchDatabase>(f: &Fixture<D>) {
    let call = f.new_call();
    let mut transaction = f.store().begin().await.expect("it begins");
    let look = D::look(&mut transaction, &[&call.key]).await.expect("it looks");
    assert_eq!(look.rows, [None]);
    f.assert_yes(f.try_branch(&call).await);
    let mut look = D::look(&mut transaction, &[&call.key]).await.expect("it looks");
    assert_eq!(look.rows.remove(0).map(|row| row.status()), TRIED, "a snapshot of the transaction's beginning");
    transaction.rollback().await.expect("it rolls back");
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
}

async fn a_deadlock_between_handlers_runs_one_of_them_anew<D: BenchDatabase>(store: Store<D>)
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    execute(&store, "CREATE TABLE locks (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)").await;
    execute(&store, "INSERT INTO locks VALUES (1, 0), (2, 0)").await;
    let f = Fixture::new(store.clone()).await;
    let engine = Engine::new(Opposite::<D>::new(), store);
    let mut tries = JoinSet::new();
    for branch in ["a", "b"] {
        let mut call = f.new_call();
        call.key.branch = BranchId::new(branch).expect("it is well-formed");
        let engine = engine.clone();
        tries.spawn(async move { engine.try_branch(call).await });
    }
    for answer in tries.join_all().await {
        assert_eq!(answer, Ok(TryAnswer::Reserved(None)));
    }
    assert_eq!((engine.retries(), engine.participant().handled.load(Ordering::SeqCst)), (1, 3));
    // The connection of the one that was rolled back comes round too, and holds no transaction.
    for _ in 0..2 * engine.store().options().write_connections_max {
        assert_eq!(engine.try_branch(f.new_call()).await, Ok(TryAnswer::Reserved(None)));
    }
    assert_eq!(engine.retries(), 1);
}

async fn a_lock_held_elsewhere_is_unknown_and_the_next_delivery_succeeds<D: BenchDatabase>(url: &str) {
    let options = Options { lock_wait_ms_max: 1_000, attempts_max: 1, ..Options::default() };
    let f = Fixture::new(Store::<D>::open(url, &options).await.expect("the database opens")).await;
    let call = f.branch_in(State::Tried).await;
    let mut elsewhere = f.store().begin().await.expect("it begins");
    assert!(D::settle_tried(&mut elsewhere, &[(&call.key, Decision::Confirm)]).await.expect("it answers")[0].is_some());
    assert_eq!(f.engine.cancel(Fixture::<D>::cancel_of(&call)).await, Err(Unknown::Failed));
    elsewhere.rollback().await.expect("it rolls back");
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CANCELLED, Effects::RELEASED).await;
}

/// `kill` ends all other connections to the database.
async fn killed_connections_are_replaced<D: BenchDatabase>(f: &Fixture<D>, kill: impl AsyncFn()) {
    let tried = f.branch_in(State::Tried).await;
    let mut cut = f.store().begin().await.expect("it begins");
    kill().await;
    let error = D::look(&mut cut, &[&tried.key]).await.expect_err("its connection is killed");
    assert_eq!(status_of_sql("order.v1", &error).code(), Code::Unavailable, "{error}");
    drop(cut);
    // Each connection that was idle may fail once.
    let call = f.new_call();
    let mut unknown = 0;
    while f.engine.try_branch(call.clone()).await.is_err() {
        unknown += 1;
        assert!(unknown <= f.store().options().write_connections_max, "it does not recover");
    }
    while f.engine.confirm(Fixture::<D>::confirm_of(&tried)).await.is_err() {
        unknown += 1;
        assert!(unknown <= f.store().options().write_connections_max, "it does not recover");
    }
}

async fn processes_may_start_at_the_same_time<D: Database>(url: &str) {
    let mut opening = JoinSet::new();
    for _ in 0..6 {
        let url = url.to_owned();
        let options = Options { write_connections_max: 2, read_connections_max: 1, ..Options::default() };
        opening.spawn(async move { Store::<D>::open(&url, &options).await });
    }
    for opened in opening.join_all().await {
        let store = opened.expect("the database opens");
        assert_eq!(store.count_tried().await.expect("it counts"), 0);
    }
}

async fn bad_urls_are_named_and_not_repeated<D: Database>(scheme: &str) {
    for url in ["sqlite://a.db".to_owned(), String::new(), format!("{scheme}://user:secret@host"), format!("{scheme}://%%%")] {
        let error = Store::<D>::open(&url, &Options::default()).await.map(drop).expect_err(&url);
        assert!(matches!(&error, OpenError::Invalid(invalid) if invalid.field == "database_url"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

macro_rules! server_tests {
    ($module:ident, $db:ty, $kind:expr, $scheme:literal, $server:path) => {
        mod $module {
            use super::*;

            type Db = $db;

            pub(super) async fn open(url: &str) -> Store<Db> {
                Store::open(url, &Options::default()).await.expect("the database opens")
            }

            pub(super) fn url() -> String {
                tcc_servers::shared($kind).create_database()
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn isolation_is_ours_whatever_the_servers_default_is() {
                let (url, _server) = $server().await;
                let f = Fixture::new(open(&url).await).await;
                each_statement_sees_what_was_committed_before_it(&f).await;
                races::racing_tries_and_cancels_release_once(f).await;
            }

            #[tokio::test]
            async fn a_deadlock_between_handlers_runs_one_of_them_anew() {
                super::a_deadlock_between_handlers_runs_one_of_them_anew(open(&url()).await).await;
            }

            #[tokio::test]
            async fn a_lock_held_elsewhere_is_unknown_and_the_next_delivery_succeeds() {
                super::a_lock_held_elsewhere_is_unknown_and_the_next_delivery_succeeds::<Db>(&url()).await;
            }

            #[tokio::test]
            async fn processes_may_start_at_the_same_time() {
                super::processes_may_start_at_the_same_time::<Db>(&url()).await;
            }

            #[tokio::test]
            async fn bad_urls_are_named_and_not_repeated() {
                super::bad_urls_are_named_and_not_repeated::<Db>($scheme).await;
            }

            #[tokio::test]
            async fn readers_cannot_write_and_a_broken_constraint_is_internal() {
                let store = open(&url()).await;
                const BROKEN: &str = "INSERT INTO tcc_branches (gid, branch_id, status, not_after, created_at, changed_at) \
                     VALUES ('g', 'b', 9, 0, 0, 0)";
                assert!(sqlx::query("DELETE FROM tcc_branches").execute(store.read_pool()).await.is_err());
                let error = sqlx::query(BROKEN).execute(store.write_pool()).await.expect_err("the code is unknown");
                assert_eq!(status_of_sql("order.v1", &error).code(), Code::Internal, "{error}");
            }
        }
    };
}

server_tests!(postgres, Postgres, Kind::Postgres, "postgres", super::serializable_postgres);
server_tests!(mysql, MySql, Kind::Mysql, "mysql", super::serializable_mysql);

async fn serializable_postgres() -> (String, ()) {
    let url = postgres::url();
    let mut conn = sqlx::PgConnection::connect(&url).await.expect("it connects");
    let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut conn).await.expect("it answers");
    for setting in ["default_transaction_isolation = 'serializable'", "synchronous_commit = off", "jit = on"] {
        let alter = format!("ALTER DATABASE \"{database}\" SET {setting}");
        sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut conn).await.expect("it is set");
    }
    (url, ())
}

/// A server of its own: such defaults are the whole server's.
async fn serializable_mysql() -> (String, Server) {
    let server = Server::start(Kind::Mysql).expect("it starts");
    let url = server.create_database();
    let mut conn = sqlx::MySqlConnection::connect(&url).await.expect("it connects");
    let set = "SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET GLOBAL autocommit = 0";
    sqlx::raw_sql(set).execute(&mut conn).await.expect("it is set");
    (url, server)
}

/// A commit that only read would not wait for a standby that the first one has to be on, nor for the disk where a database shows
/// commits before they are there. `writer` tells who locked or changed the row last; there is one.
async fn what_is_told_again_is_told_by_a_commit_that_wrote<D: BenchDatabase>(f: &Fixture<D>, writer: impl AsyncFn() -> String) {
    let call = f.branch_in(State::Tried).await;
    let mut before = writer().await;
    let mut written = async |what: &str| {
        let after = writer().await;
        assert_ne!(after, before, "{what} wrote nothing");
        before = after;
    };
    f.assert_yes(f.try_branch(&call).await);
    written("a repeated yes").await;
    let late = TryCall { not_after: f.new_late_call().not_after, ..call.clone() };
    f.assert_yes(f.try_branch(&late).await);
    written("a late repeated yes").await;
    for what in ["a Confirm", "a repeated Confirm"] {
        assert_eq!(f.confirm(&call).await, SettleAnswer::Done);
        written(what).await;
    }
    assert!(matches!(f.cancel(&call).await, SettleAnswer::Violation(_)));
    written("a Cancel that comes too late").await;
}

#[tokio::test]
async fn what_postgres_is_asked_again_is_told_by_a_commit_that_wrote() {
    let f = Fixture::new(postgres::open(&postgres::url()).await).await;
    let writer = async || {
        let row = sqlx::query("SELECT xmin::text || ' ' || xmax::text FROM tcc_branches").fetch_one(f.store().read_pool());
        row.await.expect("a row").get::<String, _>(0)
    };
    what_is_told_again_is_told_by_a_commit_that_wrote(&f, writer).await;
}

#[tokio::test]
async fn what_mysql_is_asked_again_is_told_by_a_commit_that_wrote() {
    let f = Fixture::new(mysql::open(&mysql::url()).await).await;
    let writer = async || {
        const SQL: &str = "SELECT CONCAT(status, ' ', found, ' ', COALESCE(touched_by, 0)) FROM tcc_branches";
        sqlx::query_scalar(SQL).fetch_one(f.store().read_pool()).await.expect("a row")
    };
    what_is_told_again_is_told_by_a_commit_that_wrote(&f, writer).await;
}

#[tokio::test]
async fn sessions_of_postgres_are_set_up() {
    let (url, ()) = serializable_postgres().await;
    let store = postgres::open(&url).await;
    for pool in [store.write_pool(), store.read_pool()] {
        let show = async |name: &str| -> String {
            sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(pool).await.expect("it answers")
        };
        assert_eq!(show("transaction_isolation").await, "read committed");
        assert_eq!((show("synchronous_commit").await, show("jit").await), ("on".to_owned(), "off".to_owned()));
        assert_eq!(show("enable_seqscan").await, "off");
        assert_eq!((show("lock_timeout").await, show("statement_timeout").await), ("2s".to_owned(), "10s".to_owned()));
    }
}

#[tokio::test]
async fn sessions_of_mysql_are_set_up() {
    let store = mysql::open(&mysql::url()).await;
    for pool in [store.write_pool(), store.read_pool()] {
        let show = async |sql: &'static str| -> String { sqlx::query_scalar(sql).fetch_one(pool).await.expect("it answers") };
        assert_eq!(show("SELECT @@tx_isolation").await, "READ-COMMITTED");
        assert_eq!(show("SELECT @@time_zone").await, "+00:00");
        assert!(show("SELECT @@sql_mode").await.contains("STRICT_ALL_TABLES"));
        assert_eq!(show("SELECT CONCAT(@@innodb_lock_wait_timeout, ' ', @@max_statement_time)").await, "2 10.000000");
    }
}

#[tokio::test]
async fn connections_that_postgres_killed_are_replaced() {
    let url = postgres::url();
    let f = Fixture::new(postgres::open(&url).await).await;
    let kill = async || {
        const SQL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let mut conn = sqlx::PgConnection::connect(&url).await.expect("it connects");
        sqlx::query(SQL).execute(&mut conn).await.expect("they are killed");
    };
    killed_connections_are_replaced(&f, kill).await;
}

#[tokio::test]
async fn connections_that_mysql_killed_are_replaced() {
    let url = mysql::url();
    let f = Fixture::new(mysql::open(&url).await).await;
    let kill = async || {
        const SQL: &str = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
             WHERE db = DATABASE() AND id <> CONNECTION_ID()";
        let mut conn = sqlx::MySqlConnection::connect(&url).await.expect("it connects");
        let ids: Vec<i64> = sqlx::query_scalar(SQL).fetch_all(&mut conn).await.expect("they are listed");
        for id in ids {
            sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut conn).await.expect("it is killed");
        }
    };
    killed_connections_are_replaced(&f, kill).await;
}

#[tokio::test]
async fn a_migration_that_mysql_interrupted_runs_again() {
    let url = mysql::url();
    let store = mysql::open(&url).await;
    let count = "SELECT COUNT(*) FROM tcc_participant_migrations";
    let count: i64 = sqlx::query_scalar(count).fetch_one(store.write_pool()).await.expect("they are counted");
    for version in 1..=count {
        let interrupted = format!("UPDATE tcc_participant_migrations SET success = FALSE WHERE version = {version}");
        execute(&store, &interrupted).await;
        mysql::open(&url).await;
    }
    Fixture::new(store).await.branch_in(State::Tried).await;
}

#[tokio::test]
async fn postgres_finds_rows_in_doubt_and_old_rows_by_their_indexes() {
    let store = postgres::open(&postgres::url()).await;
    execute(
        &store,
        "INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, not_after, \
         ask_after, created_at, changed_at) SELECT lpad(n::text, 36, '0'), 'b', CASE WHEN n % 1000 = 0 THEN 1 ELSE 3 END, 0, '', \
         '', 'c', 0, n, 0, 0 FROM generate_series(1, 20000) AS n",
    )
    .await;
    execute(&store, "ANALYZE tcc_branches").await;
    for (sql, index, bound) in [
        (
            "SELECT gid FROM tcc_branches WHERE status = 1 AND ask_after <= (SELECT 5000 + random()::bigint) \
             ORDER BY ask_after LIMIT 10",
            "tcc_branches_tried",
            "Index Cond: (ask_after <= ",
        ),
        ("SELECT COUNT(*) FROM tcc_branches WHERE status = 1", "tcc_branches_tried", ""),
        (
            "SELECT gid FROM tcc_branches WHERE (gid, branch_id) > ('0', '') AND gid < '00001' ORDER BY gid, branch_id LIMIT 10",
            "tcc_branches_pkey",
            "(gid < '00001'::text)",
        ),
        (
            "SELECT gid FROM tcc_branches WHERE status = 1 AND forgotten_at IS NOT NULL ORDER BY gid, branch_id LIMIT 10",
            "tcc_branches_forgotten",
            "",
        ),
    ] {
        let explain = AssertSqlSafe(format!("EXPLAIN (COSTS OFF) {sql}"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(store.read_pool()).await.expect("it is explained");
        let plan = plan.join("\n");
        assert!(plan.contains(index) && plan.contains(bound) && !plan.contains("Sort") && !plan.contains("Filter"), "{plan}");
    }
}

#[tokio::test]
async fn mysql_finds_rows_in_doubt_and_old_rows_by_their_indexes() {
    let store = mysql::open(&mysql::url()).await;
    execute(
        &store,
        "INSERT INTO tcc_branches (gid, branch_id, status, `empty`, type_url, request_fingerprint, coordinator, not_after, \
         ask_after, created_at, changed_at) SELECT lpad(seq, 36, '0'), 'b', CASE WHEN seq % 1000 = 0 THEN 1 ELSE 3 END, 0, '', \
         '', 'c', 0, seq, 0, 0 FROM seq_1_to_20000",
    )
    .await;
    execute(&store, "ANALYZE TABLE tcc_branches").await;
    const TRIED_KEY: (&str, &str) = ("range", "tcc_branches_tried");
    for (sql, (access, index), key_bytes) in [
        ("SELECT gid FROM tcc_branches WHERE status = 1 AND ask_after <= ? ORDER BY ask_after LIMIT 10", TRIED_KEY, "10"),
        (
            "SELECT gid FROM tcc_branches WHERE gid >= ? AND gid < '00001' ORDER BY gid, branch_id LIMIT 10",
            ("range", "PRIMARY"),
            "38",
        ),
        (
            "UPDATE tcc_branches FORCE INDEX (PRIMARY) SET status = 3 WHERE gid = ? AND branch_id = 'b' AND status = 1",
            ("range", "PRIMARY"),
            "104",
        ),
        (
            "DELETE FROM tcc_branches WHERE gid = ? AND branch_id = 'b' AND status + 0 = 3 AND status + 0 <> 1",
            ("range", "PRIMARY"),
            "104",
        ),
    ] {
        let explain = AssertSqlSafe(format!("EXPLAIN {sql}"));
        let plan = sqlx::query(explain).bind("0000000000000000000000000000000000500").fetch_one(store.write_pool()).await;
        let plan = plan.expect("it is explained");
        let text = |column: &str| plan.try_get::<Option<String>, _>(column).expect("it is there").unwrap_or_default();
        let found = (text("type"), text("key"), text("key_len"));
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), (access, index, key_bytes), "{sql}");
        assert!(!text("Extra").contains("filesort"), "{sql}: {}", text("Extra"));
    }
}
