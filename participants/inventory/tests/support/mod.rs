//! Every test on every database: a fresh, empty one of its kind for each. PostgreSQL and MariaDB are private servers that the
//! tests of one file share.

#![allow(dead_code, reason = "no test file uses all of it")]

use sqlx::{AssertSqlSafe, MySql, Postgres, Sqlite};
use tcc_inventory::StockDatabase;
use tcc_participant::{DatabaseKind, Store};
use tcc_servers::{Kind, shared};
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
}

macro_rules! test_database {
    ($database:ident, $kind:ident) => {
        impl TestDatabase for $database {
            const KIND: DatabaseKind = DatabaseKind::$kind;

            async fn execute(store: &Store<Self>, statement: String) -> Result<(), sqlx::Error> {
                sqlx::query(AssertSqlSafe(statement)).execute(store.write_pool()).await.map(drop)
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
