//! What sqlx's traits promise, kept by a database in memory.

use std::{sync::Mutex, time::Duration};

use sqlx::SqlSafeStr;
use tcc_types::Timestamp;

use super::*;
use crate::{
    lease::{Lease, Place, Transaction},
    memory::{Calm, Passing, Step, gone},
};

/// Stands still until it is set.
#[derive(Debug, Default)]
struct Hand(Mutex<i64>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(*self.0.lock().unwrap())
    }
}

/// Nobody gets through.
#[derive(Debug)]
struct Wall;

impl Weather for Wall {
    fn pass(&self, _: Step) -> Passing<'_> {
        Box::pin(std::future::pending())
    }
}

const WAIT_MAX: Duration = Duration::from_secs(10);

fn pool(database: &Memory<u32>, connections_max: u32) -> Pool<MemoryDatabase<u32>> {
    MemoryOptions::new(database.clone(), Arc::new(Calm), Arc::<Hand>::default()).pool(connections_max, WAIT_MAX)
}

async fn add(conn: &mut MemoryConnection<u32>, number: u32) {
    let added = |sum: &mut u32| {
        *sum += number;
        Ok(())
    };
    conn.write(|sum, _| added(sum)).await.unwrap();
}

#[tokio::test]
async fn a_transaction_of_sqlx_commits_rolls_back_and_has_savepoints() {
    let database = Memory::new(0);
    let pool = pool(&database, 1);
    let mut transaction = pool.begin().await.unwrap();
    add(&mut transaction, 1).await;
    let mut inner = transaction.begin().await.unwrap();
    add(&mut inner, 10).await;
    let mut innermost = inner.begin().await.unwrap();
    add(&mut innermost, 100).await;
    innermost.commit().await.unwrap();
    drop(inner);
    let mut inner = transaction.begin().await.unwrap();
    add(&mut inner, 1_000).await;
    inner.commit().await.unwrap();
    assert!(transaction.is_in_transaction());
    assert_eq!(database.visible(), 0);
    transaction.commit().await.unwrap();
    assert_eq!(database.visible(), 1_001);

    let mut dropped = pool.begin().await.unwrap();
    add(&mut dropped, 1).await;
    drop(dropped);
    let mut rolled_back = pool.begin().await.unwrap();
    add(&mut rolled_back, 1).await;
    rolled_back.rollback().await.unwrap();
    let mut conn = pool.acquire().await.unwrap();
    assert!(!conn.is_in_transaction());
    assert_eq!(conn.read(|sum, _| *sum).await.unwrap(), 1_001);
}

#[tokio::test]
async fn after_an_error_a_transaction_goes_on_from_its_savepoint_or_not_at_all() {
    let database = Memory::new(0);
    let pool = pool(&database, 1);
    for saved in [false, true] {
        let mut transaction = pool.begin().await.unwrap();
        add(&mut transaction, 1).await;
        let mut inner = if saved { transaction.begin().await.unwrap() } else { transaction };
        let failed = inner.write(|_, _| Err::<(), _>(MemoryError::Check.into())).await;
        assert!(failed.is_err_and(|error| error.as_database_error().is_some_and(|error| error.is_check_violation())));
        assert!(inner.read(|sum, _| *sum).await.is_err());
        if !saved {
            inner.commit().await.unwrap_err();
            continue;
        }
        inner.rollback().await.unwrap();
    }
    assert_eq!(database.visible(), 0);
}

#[tokio::test]
async fn nothing_is_written_or_committed_outside_of_a_transaction() {
    let database = Memory::new(0);
    let mut conn = pool(&database, 1).acquire().await.unwrap();
    conn.write(|_, _| Ok(())).await.unwrap_err();
    MemoryTransactions::commit(&mut conn).await.unwrap_err();
    MemoryTransactions::begin(&mut conn, Some("BEGIN".into_sql_str())).await.unwrap();
    assert!(matches!(
        MemoryTransactions::begin(&mut conn, Some("BEGIN".into_sql_str())).await,
        Err(sqlx::Error::InvalidSavePointStatement)
    ));
    add(&mut conn, 1).await;
    MemoryTransactions::start_rollback(&mut conn);
    assert!(!conn.is_in_transaction());
    assert_eq!(database.visible(), 0);
}

#[tokio::test]
async fn a_statement_is_told_the_databases_time_when_it_runs() {
    let clock = Arc::new(Hand::default());
    let options = MemoryOptions::new(Memory::new(0_u32), Arc::new(Calm), Arc::<Hand>::clone(&clock));
    let mut transaction = options.pool(1, WAIT_MAX).begin().await.unwrap();
    for micros in [0, 7] {
        *clock.0.lock().unwrap() = micros;
        assert_eq!(transaction.write(|_, now| Ok(now.as_micros())).await.unwrap(), micros);
        assert_eq!(transaction.read(|_, now| now.as_micros()).await.unwrap(), micros);
    }
}

#[tokio::test]
async fn a_transaction_on_a_lease_is_rolled_back_where_it_is_dropped_and_others_go_on() {
    let database = Memory::new(0);
    let pool = pool(&database, 2);
    for _ in 0..3 {
        let lease = Lease::take(&pool, Place::Server).await.unwrap();
        let mut transaction = Transaction::begin(lease, "BEGIN").await.unwrap();
        add(&mut transaction, 1).await;
    }
    let lease = Lease::take(&pool, Place::Server).await.unwrap();
    let mut transaction = Transaction::begin(lease, "BEGIN").await.unwrap();
    add(&mut transaction, 5).await;
    transaction.commit().await.unwrap();
    assert_eq!(database.durable(), 5);
}

#[tokio::test]
async fn a_connection_that_was_lost_is_replaced() {
    let database = Memory::new(0);
    let pool = pool(&database, 1);
    let mut lost = pool.acquire().await.unwrap();
    database.crash();
    assert_eq!(lost.read(|sum, _| *sum).await.unwrap_err().to_string(), gone().to_string());
    lost.return_to_pool().await;
    let mut other = pool.acquire().await.unwrap();
    assert_eq!(other.read(|sum, _| *sum).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_connect_is_told_so_by_tokios_clock() {
    let options = MemoryOptions::new(Memory::new(0_u32), Arc::new(Wall), Arc::<Hand>::default());
    let began = tokio::time::Instant::now();
    let error = options.pool(1, WAIT_MAX).acquire().await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Io(_)), "{error}");
    assert_eq!(began.elapsed(), WAIT_MAX / 2);
}

#[tokio::test]
async fn a_url_names_no_database_in_memory() {
    assert!(Pool::<MemoryDatabase<u32>>::connect("memory://stock").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_idle_is_tested_before_it_is_used() {
    for (idle, is_replaced) in [(Duration::from_millis(900), false), (Duration::from_millis(1_100), true)] {
        let database = Memory::new(7);
        let pool = pool(&database, 1);
        pool.acquire().await.unwrap().return_to_pool().await;
        database.crash();
        tokio::time::advance(idle).await;
        assert_eq!(pool.acquire().await.unwrap().read(|sum, _| *sum).await.is_ok(), is_replaced, "{idle:?}");
    }
}

/// Reads are never answered.
#[derive(Debug)]
struct Silent;

impl Weather for Silent {
    fn pass(&self, step: Step) -> Passing<'_> {
        Box::pin(async move { if step == Step::Read { std::future::pending().await } else { Ok(()) } })
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_answer_does_not_come_back() {
    let options = MemoryOptions::new(Memory::new(0_u32), Arc::new(Silent), Arc::<Hand>::default());
    let pool = options.pool(1, WAIT_MAX);
    let began = tokio::time::Instant::now();
    pool.acquire().await.unwrap().return_to_pool().await;
    assert_eq!((began.elapsed(), pool.size()), (TEST_MAX, 0));
    pool.close().await;
}
