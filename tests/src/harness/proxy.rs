//! A TCP proxy that harms what goes through it, on demand: between two servers, or a server and its database.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
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
    time::sleep,
};

const BUFFER_BYTES: usize = 64 * 1024;
/// What both databases' drivers send to commit, in the clear.
const COMMIT: &[u8] = b"COMMIT";

/// One direction of what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From whoever has connected.
    Request,
    /// Back to them.
    Answer,
}

/// What becomes of everything that passes, and of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Everything goes through.
    Flows,
    /// Connections are cut, and new ones are closed at once.
    Cut,
    /// Nothing goes through and nothing is closed: whoever waits, waits.
    Stalls,
    /// As `Stalls`, in one direction only.
    StallsOneWay(Way),
    /// Everything goes through so much later.
    Slow(Duration),
}

impl Traffic {
    fn stalls(self, way: Way) -> bool {
        match self {
            Self::Flows | Self::Cut | Self::Slow(_) => false,
            Self::Stalls => true,
            Self::StallsOneWay(stalled) => stalled == way,
        }
    }
}

/// What is done once, to the next that it fits; the connection is cut with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// A commit does not arrive at the database: it never happens.
    LosesCommit,
    /// A commit arrives, and what the database answers is lost: it has happened, and nobody is told.
    LosesCommitAnswer,
    /// A request arrives, and the next that comes back is lost.
    LosesAnswer,
    /// Half of something arrives.
    CutsHalfway(Way),
}

impl Harm {
    fn fits(self, way: Way, chunk: &[u8]) -> bool {
        let commits = || chunk.windows(COMMIT.len()).any(|text| text == COMMIT);
        match (self, way) {
            (Self::LosesCommit | Self::LosesCommitAnswer, Way::Request) => commits(),
            (Self::LosesAnswer, Way::Request) => true,
            (Self::CutsHalfway(half), way) => half == way,
            (Self::LosesCommit | Self::LosesCommitAnswer | Self::LosesAnswer, Way::Answer) => false,
        }
    }
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    traffic: watch::Sender<Traffic>,
    /// How often everything was cut.
    cuts: watch::Sender<usize>,
    harms: Mutex<VecDeque<Harm>>,
    harmed: watch::Sender<usize>,
}

impl Shared {
    fn harms(&self) -> MutexGuard<'_, VecDeque<Harm>> {
        self.harms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next harm, if this is what it waits for.
    fn harm(&self, way: Way, chunk: &[u8]) -> Option<Harm> {
        let mut harms = self.harms();
        if harms.front()?.fits(way, chunk) { harms.pop_front() } else { None }
    }

    fn done(&self) {
        self.harmed.send_modify(|harmed| *harmed += 1);
    }
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
            cuts: watch::Sender::new(0),
            harms: Mutex::default(),
            harmed: watch::Sender::new(0),
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

    /// Cuts the connections that are open, with everything that is under way on them. New ones are as before.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Done once, after what is still to be done.
    pub fn harm(&self, harm: Harm) {
        self.shared.harms().push_back(harm);
    }

    /// Everything flows, and what was to be harmed is not.
    pub fn calm(&self) {
        self.shared.harms().clear();
        self.set(Traffic::Flows);
    }

    /// How often [`Self::harm`] has been done.
    #[must_use]
    pub fn harmed(&self) -> usize {
        *self.shared.harmed.borrow()
    }

    /// Waits until so much harm has been done since the start.
    pub async fn until_harmed(&self, times: usize) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.shared.harmed.subscribe().wait_for(|harmed| *harmed >= times).await;
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
            Traffic::Flows | Traffic::Stalls | Traffic::StallsOneWay(_) | Traffic::Slow(_) => {
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
    let (mut cuts, mut traffic) = (shared.cuts.subscribe(), shared.traffic.subscribe());
    let losing = Losing::default();
    tokio::select! {
        // First of all: what stalled until now does not pass on the way out.
        biased;
        _ = cuts.changed() => {}
        _ = traffic.wait_for(|traffic| *traffic == Traffic::Cut) => {}
        () = requests(from_client, to_server, &shared, &losing) => {}
        () = answers(from_server, to_client, &shared, &losing) => {}
    }
}

/// Set once this connection's request has gone to the server and its answer is to be lost.
#[derive(Default)]
struct Losing {
    answer: AtomicBool,
    answered: Notify,
}

/// From the client to the server, until either is gone or harm has been done.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, losing: &Losing) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let chunk = &buffer[..count];
        pass(shared, Way::Request).await;
        let harm = shared.harm(Way::Request, chunk);
        match harm {
            None => {
                if to.write_all(chunk).await.is_err() {
                    return;
                }
                continue;
            }
            Some(Harm::LosesCommit) => {}
            Some(Harm::LosesCommitAnswer | Harm::LosesAnswer) => {
                losing.answer.store(true, Ordering::SeqCst);
                if to.write_all(chunk).await.is_ok() {
                    losing.answered.notified().await;
                }
            }
            Some(Harm::CutsHalfway(_)) => {
                let _ = to.write_all(&chunk[..count / 2]).await;
            }
        }
        shared.done();
        return;
    }
}

/// From the server to the client, until either is gone or harm has been done.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, losing: &Losing) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let chunk = &buffer[..count];
        pass(shared, Way::Answer).await;
        if losing.answer.load(Ordering::SeqCst) {
            losing.answered.notify_one();
            // The other half ends the connection.
            std::future::pending::<()>().await;
        }
        if shared.harm(Way::Answer, chunk).is_some() {
            let _ = to.write_all(&chunk[..count / 2]).await;
            shared.done();
            return;
        }
        if to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

/// Waits for as long as the traffic wants it.
async fn pass(shared: &Shared, way: Way) {
    let mut traffic = shared.traffic.subscribe();
    let traffic = traffic.wait_for(|traffic| !traffic.stalls(way)).await.map(|traffic| *traffic);
    if let Ok(Traffic::Slow(by)) = traffic {
        sleep(by).await;
    }
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
        proxy.harm(Harm::LosesCommitAnswer);
        proxy.harm(Harm::LosesCommit);
        for lost in 1..=2 {
            let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
            assert_eq!(ask(&mut connection, b"SELECT").await, Some(6));
            assert_eq!(ask(&mut connection, b"COMMIT").await, None);
            proxy.until_harmed(lost).await;
        }
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"COMMIT").await, Some(6));
    }

    #[tokio::test]
    async fn an_answer_is_lost_after_its_request_has_arrived() {
        let (address, _server) = server().await;
        let proxy = Proxy::start(address).await.expect("a proxy");
        proxy.harm(Harm::LosesAnswer);
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"SELECT").await, None);
        assert_eq!(proxy.harmed(), 1);
    }

    #[tokio::test]
    async fn half_of_a_request_arrives_and_then_nothing() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let proxy = Proxy::start(listener.local_addr().expect("its address")).await.expect("a proxy");
        proxy.harm(Harm::CutsHalfway(Way::Request));
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        connection.write_all(b"SELECT").await.expect("the proxy listens");
        let (mut server, _) = listener.accept().await.expect("a connection");
        let mut arrived = Vec::new();
        server.read_to_end(&mut arrived).await.expect("an orderly end");
        assert_eq!(arrived, b"SEL");
    }

    #[tokio::test(start_paused = true)]
    async fn one_way_stalls_and_the_other_flows() {
        let (address, _server) = server().await;
        let proxy = Proxy::start(address).await.expect("a proxy");
        proxy.set(Traffic::StallsOneWay(Way::Answer));
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        let mut asked = std::pin::pin!(ask(&mut connection, b"SELECT"));
        assert!(tokio::time::timeout(Duration::from_secs(5), &mut asked).await.is_err(), "an answer came");
        proxy.calm();
        assert_eq!(asked.await, Some(6), "the request had arrived, and its answer waited");
    }
}
