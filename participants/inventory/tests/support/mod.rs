//! Every test on every database: a fresh, empty one of its kind for each. PostgreSQL and MariaDB are private servers that the
//! tests of one file share.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::time::Duration;

use prost::{Message, Name};
use sqlx::{AssertSqlSafe, MySql, Postgres, Sqlite};
use tcc_inventory::{Line, Receipt, StockDatabase};
use tcc_participant::{DatabaseKind, Store};
use tcc_proto::inventory::v1::{ReserveStock, StockLine};
use tcc_servers::{Kind, shared};
use tcc_types::{BranchId, BranchKey, Clock, Gid, LogName, Payload, SystemClock, SystemEntropy, Timestamp, TryCall};
use tempfile::TempDir;

/// Makes a test of each generic `async fn name<D: TestDatabase>()` for each database: `postgres::name`.
macro_rules! on_every_database {
    ($($test:ident),+ $(,)?) => {
        support::on_every_database! { @in sqlite sqlx::Sqlite: $($test),+ }
        support::on_every_database! { @in postgres sqlx::Postgres: $($test),+ }
        support::on_every_database! { @in mysql sqlx::MySql: $($test),+ }
    };
    (@in $module:ident $database:ty: $($test:ident),+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    super::$test::<$database>().await;
                }
            )+
        }
    };
}
pub(crate) use on_every_database;

/// A database that the tests run on.
pub(crate) trait TestDatabase: StockDatabase {
    /// Which.
    const KIND: DatabaseKind;

    /// What somebody does to the tables beside the framework.
    fn execute(store: &Store<Self>, statement: String) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// One column of what is in the tables.
    fn integers(store: &Store<Self>, select: String) -> impl Future<Output = Result<Vec<i64>, sqlx::Error>> + Send;
}

macro_rules! test_database {
    ($database:ident, $kind:ident) => {
        impl TestDatabase for $database {
            const KIND: DatabaseKind = DatabaseKind::$kind;

            async fn execute(store: &Store<Self>, statement: String) -> Result<(), sqlx::Error> {
                sqlx::query(AssertSqlSafe(statement)).execute(store.write_pool()).await.map(drop)
            }

            async fn integers(store: &Store<Self>, select: String) -> Result<Vec<i64>, sqlx::Error> {
                let cast = match Self::KIND {
                    DatabaseKind::Mysql => "SIGNED",
                    DatabaseKind::Postgres | DatabaseKind::Sqlite => "BIGINT",
                };
                let columns = select.replacen("SELECT ", "", 1);
                let (column, from) = columns.split_once(" FROM ").unwrap();
                let select = format!("SELECT CAST({column} AS {cast}) FROM {from}");
                sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(store.write_pool()).await
            }
        }
    };
}
test_database!(Sqlite, Sqlite);
test_database!(Postgres, Postgres);
test_database!(MySql, Mysql);

/// A fresh, empty database, as long as this lives.
pub(crate) struct Fresh {
    /// Where it is.
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

impl Fresh {
    pub(crate) fn of(kind: DatabaseKind) -> Self {
        match kind {
            DatabaseKind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                // Its folder is made too.
                Self { url: format!("sqlite://{}/below/test.db", folder.path().display()), _folder: Some(folder) }
            }
            DatabaseKind::Postgres => Self { url: shared(Kind::Postgres).create_database(), _folder: None },
            DatabaseKind::Mysql => Self { url: shared(Kind::Mysql).create_database(), _folder: None },
        }
    }
}

pub(crate) fn in_a_minute() -> Timestamp {
    SystemClock.now().plus(Duration::from_secs(60))
}

pub(crate) fn key() -> BranchKey {
    BranchKey { gid: Gid::mint(SystemClock.now(), &SystemEntropy), branch: BranchId::new("stock").unwrap() }
}

pub(crate) fn receipt(id: &str, sku: &str, quantity: i64) -> Receipt {
    Receipt { id: id.to_owned(), line: Line::new(sku, quantity).unwrap() }
}

pub(crate) fn try_call(key: &BranchKey, lines: &[(&str, i64)]) -> TryCall {
    let lines = lines.iter().map(|(sku, quantity)| StockLine { sku: (*sku).to_owned(), quantity: *quantity }).collect();
    let value = ReserveStock { lines }.encode_to_vec().into();
    TryCall {
        key: key.clone(),
        payload: Payload { type_url: ReserveStock::type_url(), value },
        not_after: in_a_minute(),
        ask_after: in_a_minute(),
        coordinator: LogName::new("test").unwrap(),
    }
}

/// What a task draws; the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}
