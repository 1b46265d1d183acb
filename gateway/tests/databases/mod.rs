//! Every test on every database: a fresh, empty one of its kind for each. PostgreSQL and MariaDB are private servers that the
//! tests of one file share. The one in memory takes of SQL only what [`memory`] reads.

#![allow(dead_code, reason = "no test file uses all of it")]

mod memory;

use sqlx::{AssertSqlSafe, MySql, Postgres, Sqlite};
use tcc_gateway::{OrderDatabase, memory::OrderTables};
use tcc_participant::{
    DatabaseKind, Options, Store,
    memory::{Memory, MemoryDatabase},
};
use tcc_servers::{Kind, shared};
use tempfile::TempDir;

/// Makes a test of each generic `async fn name<D: TestDatabase>()` for each database: `postgres::name`.
macro_rules! on_every_database {
    ($($test:ident),+ $(,)?) => {
        databases::on_every_database! { @in memory super::databases::InMemory: $($test),+ }
        databases::on_every_database! { @in sqlite sqlx::Sqlite: $($test),+ }
        databases::on_every_database! { @in postgres sqlx::Postgres: $($test),+ }
        databases::on_every_database! { @in mysql sqlx::MySql: $($test),+ }
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

/// The database in memory.
pub(crate) type InMemory = MemoryDatabase<OrderTables>;

/// A database that the tests run on.
pub(crate) trait TestDatabase: OrderDatabase {
    /// What it calls the column of an order's lines.
    const LINES: &'static str;

    /// A new one.
    fn fresh() -> Fresh;

    /// Opens it, with its tables in it.
    fn opened(fresh: &Fresh, options: &Options) -> impl Future<Output = Store<Self>> + Send;

    /// What somebody does to the tables beside the framework.
    fn execute(store: &Store<Self>, statement: String) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

macro_rules! test_database {
    ($database:ident, $kind:ident, $lines:literal) => {
        impl TestDatabase for $database {
            const LINES: &'static str = $lines;

            fn fresh() -> Fresh {
                Fresh::of(DatabaseKind::$kind)
            }

            async fn opened(fresh: &Fresh, options: &Options) -> Store<Self> {
                let store = Store::open(&fresh.url, options).await.unwrap();
                store.migrate(Self::migrator()).await.unwrap();
                store
            }

            async fn execute(store: &Store<Self>, statement: String) -> Result<(), sqlx::Error> {
                sqlx::query(AssertSqlSafe(statement)).execute(store.write_pool()).await.map(drop)
            }
        }
    };
}
test_database!(Sqlite, Sqlite, "lines");
test_database!(Postgres, Postgres, "lines");
// A word of its own there.
test_database!(MySql, Mysql, "`lines`");

/// A fresh, empty database, as long as this lives.
pub(crate) struct Fresh {
    /// Where it is.
    pub(crate) url: String,
    /// The one in memory.
    pub(crate) memory: Memory<OrderTables>,
    _folder: Option<TempDir>,
}

impl Fresh {
    fn of(kind: DatabaseKind) -> Self {
        match kind {
            DatabaseKind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                // Its folder is made too.
                let url = format!("sqlite://{}/below/test.db", folder.path().display());
                Self { _folder: Some(folder), ..Self::at(url) }
            }
            DatabaseKind::Postgres => Self::at(shared(Kind::Postgres).create_database()),
            DatabaseKind::Mysql => Self::at(shared(Kind::Mysql).create_database()),
        }
    }

    fn at(url: String) -> Self {
        Self { url, memory: Memory::new(OrderTables::default()), _folder: None }
    }
}
