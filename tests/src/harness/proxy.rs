//! A TCP proxy that harms what goes through it, on demand: between a server and its database.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    task::JoinSet,
};

const BUFFER_BYTES: usize = 64 * 1024;
/// What both databases' drivers send to commit, in the clear.
const COMMIT: &[u8] = b"COMMIT";

/// What becomes of the next connections and commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Everything goes through.
    Flows,
    /// Connections are cut, and new ones are closed at once.
    Cut,
    /// Nothing goes through and nothing is closed: whoever waits, waits.
    Stalls,
}

/// Which part of a commit gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCommit {
    /// The connection is cut before it arrives: it never happens.
    Request,
    /// The connection is cut after the database has answered: it has happened, and nobody is told.
    Answer,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    traffic: watch::Sender<Traffic>,
    /// Commits to be lost, next one last.
    to_lose: Mutex<Vec<LostCommit>>,
    lost: watch::Sender<usize>,
}

/// A running proxy. Dropped, it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and hands everything on to `target`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for a proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            traffic: watch::Sender::new(Traffic::Flows),
            to_lose: Mutex::default(),
            lost: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for connections that are open and for new ones.
    pub fn set(&self, traffic: Traffic) {
        self.shared.traffic.send_replace(traffic);
    }

    /// The next commits that pass are lost like this, in this order.
    pub fn lose(&self, commits: &[LostCommit]) {
        let mut to_lose = self.shared.to_lose.lock().unwrap_or_else(PoisonError::into_inner);
        to_lose.splice(0..0, commits.iter().rev().copied());
    }

    /// Waits until so many commits have been lost since the start.
    pub async fn until_lost(&self, commits: usize) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.shared.lost.subscribe().wait_for(|lost| *lost >= commits).await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else { continue };
        let traffic = *shared.traffic.borrow();
        match traffic {
            Traffic::Cut => drop(client),
            Traffic::Flows | Traffic::Stalls => {
                connections.spawn(connect(client, Arc::clone(&shared)));
            }
        }
    }
}

async fn connect(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(shared.target).await else { return };
    // Small messages both ways: waiting to fill packets would only slow everything down.
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = shared.traffic.subscribe();
    let losing = Losing::default();
    tokio::select! {
        _ = cut.wait_for(|traffic| *traffic == Traffic::Cut) => {}
        () = requests(from_client, to_server, &shared, &losing) => {}
        () = answers(from_server, to_client, &shared, &losing) => {}
    }
}

/// Set once this connection's commit has gone to the server and its answer is to be lost.
#[derive(Default)]
struct Losing {
    answer: std::sync::atomic::AtomicBool,
    answered: Notify,
}

/// From the client to the server, until either is gone or a commit has been lost.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, losing: &Losing) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        flowing(shared).await;
        let commits = buffer[..count].windows(COMMIT.len()).any(|text| text == COMMIT);
        let lost = if commits { shared.to_lose.lock().unwrap_or_else(PoisonError::into_inner).pop() } else { None };
        match lost {
            Some(LostCommit::Request) => {
                shared.lost.send_modify(|lost| *lost += 1);
                return;
            }
            Some(LostCommit::Answer) => {
                losing.answer.store(true, std::sync::atomic::Ordering::SeqCst);
                if to.write_all(&buffer[..count]).await.is_ok() {
                    losing.answered.notified().await;
                }
                shared.lost.send_modify(|lost| *lost += 1);
                return;
            }
            None if to.write_all(&buffer[..count]).await.is_err() => return,
            None => {}
        }
    }
}

/// From the server to the client, until either is gone.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, losing: &Losing) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        flowing(shared).await;
        if losing.answer.load(std::sync::atomic::Ordering::SeqCst) {
            losing.answered.notify_one();
            // The other half ends the connection.
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn flowing(shared: &Shared) {
    let _ = shared.traffic.subscribe().wait_for(|traffic| *traffic != Traffic::Stalls).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every request with its length.
    async fn server() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.expect("a connection");
                connections.spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(count @ 1..) = client.read(&mut buffer).await {
                        let length = u8::try_from(count).expect("a short request");
                        client.write_all(&[length]).await.expect("the client listens");
                    }
                });
            }
        });
        (address, tasks)
    }

    async fn ask(connection: &mut TcpStream, text: &[u8]) -> Option<u8> {
        connection.write_all(text).await.ok()?;
        connection.read_u8().await.ok()
    }

    #[tokio::test]
    async fn what_flows_arrives_and_what_is_cut_is_gone() {
        let (address, _server) = server().await;
        let proxy = Proxy::start(address).await.expect("a proxy");
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"SELECT").await, Some(6));
        proxy.set(Traffic::Cut);
        assert_eq!(connection.read(&mut [0]).await.unwrap_or(0), 0, "it is closed");
        proxy.set(Traffic::Flows);
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"COMMIT").await, Some(6));
    }

    #[tokio::test]
    async fn commits_are_lost_in_the_given_order_and_nothing_else_is() {
        let (address, _server) = server().await;
        let proxy = Proxy::start(address).await.expect("a proxy");
        proxy.lose(&[LostCommit::Answer, LostCommit::Request]);
        for lost in 1..=2 {
            let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
            assert_eq!(ask(&mut connection, b"SELECT").await, Some(6));
            assert_eq!(ask(&mut connection, b"COMMIT").await, None);
            proxy.until_lost(lost).await;
        }
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"COMMIT").await, Some(6));
    }
}
