//! The network between machines: turmoil's, and over it links that can be cut in either direction, or reset. What is sent into a cut link
//! waits, as TCP does, until it is healed.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

use crate::{place::Host, world::World};

/// All links that were ever used or broken.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<BTreeMap<(Host, Host), Link>>);

/// From one machine to another.
#[derive(Debug, Default)]
struct Link {
    /// How many faults cut it at the moment.
    cuts: u32,
    /// How often it was reset: older connections are broken.
    resets: u64,
    waiting: Vec<Waker>,
}

impl Links {
    /// Nothing goes this way any more.
    pub(crate) fn cut(&self, from: Host, to: Host) {
        self.change(from, to, |link| link.cuts += 1);
    }

    /// Takes one [`Self::cut`] back.
    pub(crate) fn heal(&self, from: Host, to: Host) {
        self.change(from, to, |link| link.cuts = link.cuts.saturating_sub(1));
    }

    /// Breaks the connections between two machines.
    pub(crate) fn reset(&self, one: Host, other: Host) {
        for (from, to) in [(one, other), (other, one)] {
            self.change(from, to, |link| link.resets += 1);
        }
    }

    fn change(&self, from: Host, to: Host, change: impl FnOnce(&mut Link)) {
        let mut links = self.lock();
        let link = links.entry((from, to)).or_default();
        change(link);
        let waiting = std::mem::take(&mut link.waiting);
        drop(links);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn resets(&self, from: Host, to: Host) -> u64 {
        self.lock().get(&(from, to)).map_or(0, |link| link.resets)
    }

    /// Whether something goes this way on a connection of that age; who has to wait is woken at the next change.
    fn poll(&self, from: Host, to: Host, resets: u64, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut links = self.lock();
        let link = links.entry((from, to)).or_default();
        if link.resets != resets {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        }
        if !link.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            link.waiting.push(context.waker().clone());
        }
        if link.cuts > 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Host, Host), Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a connection.
pub(crate) struct Wire {
    io: TcpStream,
    world: Arc<World>,
    here: Host,
    there: Host,
    resets: u64,
}

impl Wire {
    fn new(io: TcpStream, world: Arc<World>, here: Host, there: Host) -> Self {
        let resets = world.links.resets(here, there);
        Self { io, world, here, there, resets }
    }

    async fn connect(world: Arc<World>, here: Host, there: Host) -> io::Result<Self> {
        // Neither the question nor the answer gets through a cut link.
        for (from, to) in [(here, there), (there, here)] {
            let resets = world.links.resets(from, to);
            std::future::poll_fn(|context| world.links.poll(from, to, resets, context)).await?;
        }
        let io = TcpStream::connect((there.name(), Host::PORT)).await?;
        Ok(Self::new(io, world, here, there))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.world.links.poll(self.there, self.here, self.resets, cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.io).poll_read(cx, buffer),
            held => held,
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.world.links.poll(self.here, self.there, self.resets, cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.io).poll_write(cx, bytes),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// How `here` connects: a channel for whatever address it is given, which must name a machine.
pub(crate) fn connector(world: &Arc<World>, here: Host) -> impl Fn(&Endpoint) -> Channel + Clone + use<> {
    let world = Arc::clone(world);
    move |endpoint| {
        let world = Arc::clone(&world);
        endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| {
            let (world, there) = (Arc::clone(&world), uri.host().and_then(Host::of_name));
            async move {
                let there = there.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
                Wire::connect(world, here, there).await.map(TokioIo::new)
            }
        }))
    }
}

/// Channels to the gateways, for whoever is neither a gateway nor a participant.
pub(crate) fn gateways(world: &Arc<World>, here: Host, count: u8) -> Result<Vec<Channel>, tonic::transport::Error> {
    let connect = connector(world, here);
    let channel = |number| {
        let endpoint = Endpoint::from_shared(Host::Gateway(number).url())?.connect_timeout(Duration::from_millis(300));
        let endpoint = endpoint.http2_keep_alive_interval(Duration::from_secs(1)).keep_alive_timeout(Duration::from_secs(1));
        Ok(connect(&endpoint))
    };
    (0..count).map(channel).collect()
}

/// Everybody who connects to `here`.
pub(crate) async fn incoming(world: &Arc<World>, here: Host) -> io::Result<impl Stream<Item = io::Result<Wire>> + use<>> {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), Host::PORT)).await?;
    let world = Arc::clone(world);
    Ok(futures::stream::unfold((listener, world), move |(listener, world)| async move {
        let accepted = async {
            let (io, address) = listener.accept().await?;
            let there = turmoil::reverse_lookup(address.ip()).and_then(|name| Host::of_name(&name));
            let there = there.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
            Ok(Wire::new(io, Arc::clone(&world), here, there))
        };
        let accepted = accepted.await;
        Some((accepted, (listener, world)))
    }))
}
