//! What becomes of connections to a server that is gone without a word: they are given up, and new ones are used.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{MySql, Postgres};
use tcc_participant::{
    Options, Store,
    conformance::{BenchDatabase, Fixture},
};
use tcc_servers::{Kind, shared};
use tcc_types::SettleAnswer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::timeout,
};

/// Far shorter than the time after which TCP gives a connection up, far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECTIONS: u32 = 4;

/// A stretch of network before a server; gone when it is dropped.
struct Network {
    port: u16,
    swallowed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Network {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let swallowed = Arc::new(AtomicU64::new(0));
        let of_task = Arc::clone(&swallowed);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut directions = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server listens");
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let of_now = of_task.load(Ordering::SeqCst);
                directions.spawn(carry(from_client, to_server, of_now, Arc::clone(&of_task)));
                directions.spawn(carry(from_server, to_client, of_now, Arc::clone(&of_task)));
            }
        });
        Self { port, swallowed, _tasks: tasks }
    }

    /// Carries nothing any more over the connections that there are, and does not close them; new ones work.
    fn swallow(&self) {
        self.swallowed.fetch_add(1, Ordering::SeqCst);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, of_now: u64, swallowed: Arc<AtomicU64>) {
    let mut some = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut some).await {
        if swallowed.load(Ordering::SeqCst) != of_now {
            // Both ends stay open, and hear nothing.
            std::future::pending::<()>().await;
        }
        if to.write_all(&some[..count]).await.is_err() {
            break;
        }
    }
}

async fn lost_connections_are_given_up<D: BenchDatabase>(kind: Kind) {
    let server = shared(kind);
    let network = Network::to(server.port()).await;
    let url = server.create_database().replace(&format!(":{}/", server.port()), &format!(":{}/", network.port));
    let options = Options {
        write_connections_max: CONNECTIONS,
        read_connections_max: CONNECTIONS,
        transaction_ms_max: 1_000,
        connection_wait_ms_max: 4_000,
        ..Options::default()
    };
    let f = Fixture::new(Store::<D>::open(&url, &options).await.expect("the database opens")).await;
    // All connections are open, and used just now; one is within a transaction.
    let calls: Vec<_> = (0..16).map(|_| f.new_call()).collect();
    for answer in try_all(&f, &calls).await {
        assert!(answer, "nothing is lost yet");
    }
    let cut = f.store().begin().await.expect("it begins");
    network.swallow();
    drop(cut);

    // Each connection may fail once.
    let mut failures = 0;
    let more: Vec<_> = (0..16).map(|_| f.new_call()).collect();
    while !try_all(&f, &more).await.into_iter().all(|answer| answer) {
        failures += 1;
        assert!(failures <= CONNECTIONS, "it goes on writing where nobody hears");
    }
    while f.store().tried_due(10).await.is_err() || f.store().branch_row(&more[0].key).await.is_err() {
        failures += 1;
        assert!(failures <= 2 * CONNECTIONS, "it goes on reading where nobody answers");
    }
    for call in calls.iter().chain(&more) {
        assert_eq!(f.confirm(call).await, SettleAnswer::Done);
    }
    // Lost again, and closed at once: nothing waits for what does not answer.
    network.swallow();
    f.engine.close().await;
}

/// Which of them are answered.
async fn try_all<D: BenchDatabase>(f: &Fixture<D>, calls: &[tcc_types::TryCall]) -> Vec<bool> {
    let mut tries = JoinSet::new();
    for call in calls {
        let (engine, call) = (f.engine.clone(), call.clone());
        tries.spawn(async move { engine.try_branch(call).await.is_ok() });
    }
    tries.join_all().await
}

#[tokio::test]
async fn connections_that_postgres_silently_lost_are_given_up() {
    timeout(PATIENCE, lost_connections_are_given_up::<Postgres>(Kind::Postgres)).await.expect("nothing hangs");
}

#[tokio::test]
async fn connections_that_mysql_silently_lost_are_given_up() {
    timeout(PATIENCE, lost_connections_are_given_up::<MySql>(Kind::Mysql)).await.expect("nothing hangs");
}
