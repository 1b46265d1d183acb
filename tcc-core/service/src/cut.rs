//! A connection that a token can cut, and that is cut by itself when its peer never begins to speak.
//!
//! The server's connections run as tasks of their own that end when their peers do; only an error from the socket itself ends
//! them for sure, and so the end of the process stays bounded.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// What a client of HTTP/2 sends first. Once it is there, the server's keepalive watches over the connection.
const PREFACE_BYTES: usize = 24;
/// How long that may take: silent connections must not fill the places of those that have something to say.
const PREFACE_WAIT_MAX: Duration = Duration::from_secs(10);

/// A TCP connection whose reads and writes fail once its token is cancelled.
pub(crate) struct Cuttable {
    io: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    preface: Option<Preface>,
    _place: OwnedSemaphorePermit,
}

struct Preface {
    missing_bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Cuttable {
    /// It keeps `place` until it is dropped.
    pub(crate) fn new(io: TcpStream, cut: &CancellationToken, place: OwnedSemaphorePermit) -> Self {
        let preface = Preface { missing_bytes: PREFACE_BYTES, deadline: Box::pin(sleep(PREFACE_WAIT_MAX)) };
        Self { io, cut: Box::pin(cut.clone().cancelled_owned()), preface: Some(preface), _place: place }
    }

    /// Fails once cut; until then this task is woken by the cut.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let Some(preface) = &mut self.preface {
            preface.missing_bytes = preface.missing_bytes.saturating_sub(buffer.filled().len() - before);
            if preface.missing_bytes == 0 {
                self.preface = None;
            } else if read.is_pending() && preface.deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer did not begin to speak")));
            }
        }
        read
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Connected for Cuttable {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}
