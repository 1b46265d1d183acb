//! A TCP proxy that harms what goes through it, on demand: between two servers, or a server and its database.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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
    sync::{oneshot, watch},
    task::JoinSet,
    time::sleep,
};

const BUFFER_BYTES: usize = 64 * 1024;
/// What both databases' drivers send to commit, in the clear.
const COMMIT: &[u8] = b"COMMIT";
/// After a connection could not be taken.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(10);

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
    /// Nothing more arrives on that connection, in either direction, and nobody is told that it is gone; others are as before. As when
    /// a firewall forgets it.
    Swallows,
}

impl Harm {
    fn fits(self, way: Way, chunk: &[u8]) -> bool {
        match (self, way) {
            (Self::LosesCommit | Self::LosesCommitAnswer, Way::Request) => commits(chunk),
            (Self::LosesAnswer | Self::Swallows, Way::Request) => true,
            (Self::CutsHalfway(half), way) => half == way,
            (Self::LosesCommit | Self::LosesCommitAnswer | Self::LosesAnswer | Self::Swallows, Way::Answer) => false,
        }
    }
}

/// The word is in other statements too: READ COMMITTED.
fn commits(chunk: &[u8]) -> bool {
    let ends = |at: usize| chunk.get(at + COMMIT.len()).is_none_or(|next| !next.is_ascii_alphabetic());
    chunk.windows(COMMIT.len()).enumerate().any(|(at, text)| text == COMMIT && ends(at))
}

/// A harm that is to be done, and whom to tell.
type ToDo = (Harm, oneshot::Sender<()>);

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    traffic: watch::Sender<Traffic>,
    /// How often everything was cut.
    cuts: watch::Sender<usize>,
    /// How often it was told to be calm: what was to be harmed before is not.
    calms: AtomicUsize,
    harms: Mutex<VecDeque<ToDo>>,
    touched: AtomicUsize,
}

impl Shared {
    fn harms(&self) -> MutexGuard<'_, VecDeque<ToDo>> {
        self.harms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next harm, if this is what it waits for.
    fn harm(&self, way: Way, chunk: &[u8]) -> Option<ToDo> {
        let mut harms = self.harms();
        if harms.front()?.0.fits(way, chunk) { harms.pop_front() } else { None }
    }

    fn touch(&self) {
        self.touched.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits for as long as the traffic wants it; false: it was cut off meanwhile.
    async fn pass(&self, way: Way) -> bool {
        let (before, mut traffic) = (*self.cuts.borrow(), self.traffic.subscribe());
        let now = *traffic.borrow_and_update();
        if now.stalls(way) {
            self.touch();
            // The sender lives as long as `self`.
            let _ = traffic.wait_for(|traffic| !traffic.stalls(way)).await;
        }
        if let Traffic::Slow(by) = now {
            self.touch();
            sleep(by).await;
        }
        *self.cuts.borrow() == before
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
            calms: AtomicUsize::default(),
            harms: Mutex::default(),
            touched: AtomicUsize::default(),
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

    /// Done once, after what is still to be done. Tells when it is; an error: it was not, and will not be.
    pub fn harm(&self, harm: Harm) -> oneshot::Receiver<()> {
        let (tell, done) = oneshot::channel();
        self.shared.harms().push_back((harm, tell));
        done
    }

    /// Everything flows, and what was to be harmed is not.
    pub fn calm(&self) {
        self.shared.calms.fetch_add(1, Ordering::SeqCst);
        self.shared.harms().clear();
        self.set(Traffic::Flows);
    }

    /// How often anything was held up, slowed down, cut off or refused.
    #[must_use]
    pub fn touched(&self) -> usize {
        self.shared.touched.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        let traffic = *shared.traffic.borrow();
        match traffic {
            Traffic::Cut => shared.touch(),
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
        _ = cuts.changed() => shared.touch(),
        _ = traffic.wait_for(|traffic| *traffic == Traffic::Cut) => shared.touch(),
        () = requests(from_client, to_server, &shared, &losing) => {}
        () = answers(from_server, to_client, &shared, &losing) => {}
    }
}

/// What is to become of what comes back on this connection.
#[derive(Default)]
struct Losing {
    /// Set once a request has gone to the server and what comes back next is to be lost.
    next: Mutex<Option<Lost>>,
    /// All of it is lost.
    swallows: AtomicBool,
}

struct Lost {
    /// Of [`Shared::calms`]: it counts only until the next.
    calms: usize,
    tell: oneshot::Sender<()>,
}

impl Losing {
    fn set(&self, lost: Lost) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(lost);
    }

    fn take(&self, shared: &Shared) -> Option<oneshot::Sender<()>> {
        let lost = self.next.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        (lost.calms == shared.calms.load(Ordering::SeqCst)).then_some(lost.tell)
    }
}

/// From the client to the server, until either is gone or harm has been done.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, losing: &Losing) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let chunk = &buffer[..count];
        if !shared.pass(Way::Request).await {
            return;
        }
        let calms = shared.calms.load(Ordering::SeqCst);
        match shared.harm(Way::Request, chunk) {
            None => {}
            Some((Harm::LosesCommitAnswer | Harm::LosesAnswer, tell)) => losing.set(Lost { calms, tell }),
            Some((Harm::Swallows, tell)) => {
                losing.swallows.store(true, Ordering::SeqCst);
                let _ = tell.send(());
                // Until the client gives it up.
                while let Ok(1..) = from.read(&mut buffer).await {}
                return;
            }
            Some((Harm::LosesCommit, tell)) => {
                let _ = tell.send(());
                return;
            }
            Some((Harm::CutsHalfway(_), tell)) => {
                let _ = to.write_all(&chunk[..count / 2]).await;
                let _ = tell.send(());
                return;
            }
        }
        if to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

/// From the server to the client, until either is gone or harm has been done.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, losing: &Losing) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let chunk = &buffer[..count];
        if !shared.pass(Way::Answer).await {
            return;
        }
        if losing.swallows.load(Ordering::SeqCst) {
            continue;
        }
        if let Some(tell) = losing.take(shared) {
            let _ = tell.send(());
            return;
        }
        if let Some((_, tell)) = shared.harm(Way::Answer, chunk) {
            let _ = to.write_all(&chunk[..count / 2]).await;
            let _ = tell.send(());
            return;
        }
        if to.write_all(chunk).await.is_err() {
            return;
        }
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
        for harmed in [proxy.harm(Harm::LosesCommitAnswer), proxy.harm(Harm::LosesCommit)] {
            let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
            assert_eq!(ask(&mut connection, b"SELECT").await, Some(6));
            assert_eq!(ask(&mut connection, b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await, Some(47));
            assert_eq!(ask(&mut connection, b"COMMIT").await, None);
            harmed.await.expect("it is done");
        }
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"COMMIT").await, Some(6));
    }

    #[tokio::test]
    async fn an_answer_is_lost_after_its_request_has_arrived() {
        let (address, _server) = server().await;
        let proxy = Proxy::start(address).await.expect("a proxy");
        let mut harmed = proxy.harm(Harm::LosesAnswer);
        harmed.try_recv().expect_err("nothing was asked yet");
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"SELECT").await, None);
        harmed.await.expect("it is done");
    }

    #[tokio::test]
    async fn half_of_a_request_arrives_and_then_nothing() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let proxy = Proxy::start(listener.local_addr().expect("its address")).await.expect("a proxy");
        let harmed = proxy.harm(Harm::CutsHalfway(Way::Request));
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        connection.write_all(b"SELECT").await.expect("the proxy listens");
        let (mut server, _) = listener.accept().await.expect("a connection");
        let mut arrived = Vec::new();
        server.read_to_end(&mut arrived).await.expect("an orderly end");
        assert_eq!(arrived, b"SEL");
        harmed.await.expect("it is done");
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
        assert_eq!(proxy.touched(), 1);
    }

    #[tokio::test]
    async fn what_stalled_is_lost_if_it_is_cut() {
        let (address, _server) = server().await;
        let proxy = Proxy::start(address).await.expect("a proxy");
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"SELECT").await, Some(6));
        assert_eq!(proxy.touched(), 0);
        proxy.set(Traffic::Stalls);
        connection.write_all(b"SELECT").await.expect("the proxy listens");
        while proxy.touched() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        proxy.cut();
        proxy.calm();
        assert_eq!(connection.read(&mut [0]).await.unwrap_or(0), 0, "it is closed");
    }

    #[tokio::test]
    async fn a_connection_that_is_swallowed_is_silent_and_others_are_not() {
        let (address, _server) = server().await;
        let proxy = Proxy::start(address).await.expect("a proxy");
        let mut silent = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut silent, b"SELECT").await, Some(6));
        let swallowed = proxy.harm(Harm::Swallows);
        let mut other = TcpStream::connect(proxy.address()).await.expect("a connection");
        let silence = tokio::time::timeout(Duration::from_millis(200), ask(&mut silent, b"SELECT")).await;
        assert!(silence.is_err(), "{silence:?}");
        swallowed.await.expect("it is done");
        proxy.calm();
        assert_eq!(ask(&mut other, b"COMMIT").await, Some(6));
        let silence = tokio::time::timeout(Duration::from_millis(200), ask(&mut silent, b"SELECT")).await;
        assert!(silence.is_err(), "{silence:?}");
    }

    #[tokio::test]
    async fn what_was_to_be_harmed_is_not_once_all_is_calm() {
        let (address, _server) = server().await;
        let proxy = Proxy::start(address).await.expect("a proxy");
        let harmed = proxy.harm(Harm::LosesCommit);
        proxy.calm();
        harmed.await.expect_err("it will not be done");
        let mut connection = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(ask(&mut connection, b"COMMIT").await, Some(6));
    }
}
