//! What becomes of connections to a server that is gone without a word, and of reads beside listings that take long.

#![allow(clippy::unwrap_used, reason = "a test's helpers, too, fail by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use sqlx::{Connection, PgConnection};
use tcc_log::{DatabaseLog, LogOptions, TxLog, conformance::samples::transaction};
use tcc_servers::{Kind, shared};
use tcc_types::SystemClock;
use tokio::{task::JoinSet, time::timeout};

use self::support::Network;

/// Far shorter than the time after which TCP gives a connection up, far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

async fn open(url: &str) -> Arc<DatabaseLog> {
    let options = LogOptions {
        database_url: url.to_owned(),
        connect_timeout_ms: 6_000,
        write_timeout_ms: 3_000,
        ..LogOptions::default()
    };
    Arc::new(DatabaseLog::open(options, Arc::new(SystemClock)).await.unwrap())
}

async fn connections_that_are_silently_lost_are_given_up(kind: Kind) {
    let server = shared(kind);
    let network = Network::to(server.port()).await;
    let log = open(&network.url(&server.create_database(), server.port())).await;
    let new = transaction(log.now(), 2);
    log.begin(new.clone()).await.unwrap();
    // All of them are open, and used just now.
    for loaded in join_all((0..16).map(|_| log.load(new.gid))).await {
        assert!(loaded.unwrap().is_some());
    }
    network.swallow();
    // Each connection may fail once; four read, one writes.
    let mut failures = 0;
    while log.load(new.gid).await.is_err() {
        failures += 1;
        assert!(failures <= 4, "it goes on using what is lost");
    }
    while log.probe().await.is_err() {
        failures += 1;
        assert!(failures <= 5, "it goes on using what is lost");
    }
    for loaded in join_all((0..16).map(|_| log.load(new.gid))).await {
        failures += u32::from(loaded.is_err());
    }
    assert!(failures <= 5, "it goes on using what is lost");
    // Lost again, and closed at once: nothing waits for what does not answer.
    network.swallow();
    log.close().await;
}

#[tokio::test]
async fn connections_that_postgres_silently_lost_are_given_up() {
    timeout(PATIENCE, connections_that_are_silently_lost_are_given_up(Kind::Postgres)).await.expect("nothing hangs");
}

#[tokio::test]
async fn connections_that_mysql_silently_lost_are_given_up() {
    timeout(PATIENCE, connections_that_are_silently_lost_are_given_up(Kind::Mysql)).await.expect("nothing hangs");
}

#[tokio::test]
async fn listings_that_take_long_leave_connections_for_others_and_end_with_an_error_to_retry() {
    let url = shared(Kind::Postgres).create_database();
    let log = open(&url).await;
    let new = transaction(log.now(), 1);
    log.begin(new.clone()).await.unwrap();
    let mut tool = PgConnection::connect(&url).await.unwrap();
    let mut holder = tool.begin().await.unwrap();
    sqlx::query("LOCK TABLE tcc_log_audit IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
    let mut listings = JoinSet::new();
    for _ in 0..8 {
        let log = Arc::clone(&log);
        listings.spawn(async move { log.list_audit(None, None, 10).await });
    }
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database \
                   WHERE NOT granted AND d.datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *holder).await.unwrap() < 2 {}
    assert!(log.load(new.gid).await.unwrap().is_some());
    for listed in listings.join_all().await {
        assert!(listed.is_err_and(|error| error.is_retryable()));
    }
    holder.rollback().await.unwrap();
    assert_eq!(log.list_audit(None, None, 10).await.unwrap().len(), 0);
}
