//! Which connections come in: no more than a limit, and never in a hurry when there is no room for another.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

use crate::cut::Cuttable;

/// What a failed accept needs before the next one: when there are no file descriptors left, it would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, without end; each holds one of the places until it is dropped.
pub(crate) fn connections(
    listener: TcpListener,
    connections_max: usize,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Cuttable>> + Send {
    let places = Arc::new(Semaphore::new(connections_max));
    futures::stream::unfold((listener, places, cut), move |(listener, places, cut)| async move {
        let place = place(&places, connections_max).await?;
        let (io, _) = accepted(|| listener.accept()).await;
        if let Err(error) = io.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set on a connection");
        }
        let connection = Cuttable::new(io, &cut, place);
        Some((Ok(connection), (listener, places, cut)))
    })
}

/// A place for one more connection. Those that find none wait in the operating system's queue.
async fn place(places: &Arc<Semaphore>, connections_max: usize) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return Some(place);
    }
    tracing::warn!(connections_max, "no further connection is accepted until one ends");
    places.clone().acquire_owned().await.ok()
}

/// The next connection; failures are waited out.
async fn accepted<F>(mut accept: impl FnMut() -> F) -> (TcpStream, SocketAddr)
where
    F: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            // One peer went away before its turn: that says nothing about the next one.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted: trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_accept_is_followed_by_a_pause_and_the_next_try() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let _peer = std::net::TcpStream::connect(address).unwrap();
        let mut failures = 3;
        let (began, listener) = (Instant::now(), &listener);
        accepted(|| {
            failures -= 1;
            let fails = failures >= 0;
            async move { if fails { Err(io::Error::other("too many open files")) } else { listener.accept().await } }
        })
        .await;
        // The clock of this test moves only when everything sleeps.
        assert!(began.elapsed() >= 3 * ACCEPT_PAUSE);
    }
}
