//! Every test on every database: a fresh, empty one of its kind for each. PostgreSQL and MariaDB are private servers that the
//! tests of one file share. The one in memory takes of SQL only what [`memory`] reads.

#![allow(dead_code, reason = "no test file uses all of it")]

mod memory;

use std::time::Duration;

use prost::{Message, Name};
use sqlx::{AssertSqlSafe, MySql, Postgres, Sqlite};
use tcc_coupon::{CouponDatabase, NewCoupon, memory::CouponTables};
use tcc_participant::{
    DatabaseKind, Options, Store,
    memory::{Memory, MemoryDatabase},
};
use tcc_proto::coupon::v1::LockCoupon;
use tcc_servers::{Kind, shared};
use tcc_types::{BranchId, BranchKey, Clock, Gid, LogName, Payload, SystemClock, SystemEntropy, Timestamp, TryCall};
use tempfile::TempDir;

/// Makes a test of each generic `async fn name<D: TestDatabase>()` for each database: `postgres::name`. After `@sql` the one in memory
/// is left out: it has no URL.
macro_rules! on_every_database {
    ($($test:ident),+ $(,)?) => {
        support::on_every_database! { @in memory super::support::InMemory: $($test),+ }
        support::on_every_database! { @sql $($test),+ }
    };
    (@sql $($test:ident),+ $(,)?) => {
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

/// The database in memory.
pub(crate) type InMemory = MemoryDatabase<CouponTables>;

/// A database that the tests run on.
pub(crate) trait TestDatabase: CouponDatabase {
    /// A new one.
    fn fresh() -> Fresh;

    /// Opens it, with its tables in it.
    fn opened(fresh: &Fresh, options: &Options) -> impl Future<Output = Store<Self>> + Send;

    /// What somebody does to the tables beside the framework.
    fn execute(store: &Store<Self>, statement: String) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

macro_rules! test_database {
    ($database:ident, $kind:ident) => {
        impl TestDatabase for $database {
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
test_database!(Sqlite, Sqlite);
test_database!(Postgres, Postgres);
test_database!(MySql, Mysql);

/// A fresh, empty database, as long as this lives.
pub(crate) struct Fresh {
    /// Where it is.
    pub(crate) url: String,
    /// The one in memory.
    pub(crate) memory: Memory<CouponTables>,
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
        Self { url, memory: Memory::new(CouponTables::default()), _folder: None }
    }
}

pub(crate) fn in_a_minute() -> Timestamp {
    SystemClock.now().plus(Duration::from_secs(60))
}

pub(crate) fn a_minute_ago() -> Timestamp {
    SystemClock.now().minus(Duration::from_secs(60))
}

pub(crate) fn coupon(coupon_id: &str, user_id: &str, expires_at: Timestamp) -> NewCoupon {
    NewCoupon { coupon_id: coupon_id.to_owned(), user_id: user_id.to_owned(), discount_minor: 500, expires_at }
}

pub(crate) fn key() -> BranchKey {
    BranchKey { gid: Gid::mint(SystemClock.now(), &SystemEntropy), branch: BranchId::new("coupon").unwrap() }
}

pub(crate) fn try_call(key: &BranchKey, coupon_id: &str, user_id: &str) -> TryCall {
    let value = LockCoupon { coupon_id: coupon_id.to_owned(), user_id: user_id.to_owned() }.encode_to_vec().into();
    TryCall {
        key: key.clone(),
        payload: Payload { type_url: LockCoupon::type_url(), value },
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
