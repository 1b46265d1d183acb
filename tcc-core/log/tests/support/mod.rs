//! A stretch of network between a log and its database's server that can lose a commit, or the answer to it, or
//! whole connections without a word.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    task::JoinSet,
};

/// What happens to the next commit.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Cut {
    /// It passes.
    Nothing = 0,
    /// It never arrives, and the connection is gone.
    Before = 1,
    /// It is done, but instead of its answer the connection is gone.
    After = 2,
}

/// The stretch; gone when it is dropped.
pub(crate) struct Network {
    port: u16,
    cut: Arc<AtomicU8>,
    /// How often it was lost what there was.
    swallowed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Network {
    /// To the server on this port.
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicU8::new(Cut::Nothing as u8));
        let (mut tasks, of_task) = (JoinSet::new(), Arc::clone(&cut));
        let swallowed = Arc::new(AtomicU64::new(0));
        let of_connections = Arc::clone(&swallowed);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let cut = Arc::clone(&of_task);
                let swallowed = Arc::clone(&of_connections);
                connections.spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", server)).await?;
                    carry(client, server, &cut, &swallowed).await
                });
            }
        });
        Self { port, cut, swallowed, _tasks: tasks }
    }

    /// The same URL, by way of here.
    pub(crate) fn url(&self, url: &str, server: u16) -> String {
        url.replace(&format!(":{server}/"), &format!(":{}/", self.port))
    }

    /// Carries nothing any more over the connections that there are, and does not close them; new ones work.
    #[allow(dead_code, reason = "not every test that has a network loses its connections")]
    pub(crate) fn swallow(&self) {
        self.swallowed.fetch_add(1, Ordering::SeqCst);
    }

    /// Loses the next commit so.
    #[allow(dead_code, reason = "not every test that has a network loses a commit")]
    pub(crate) fn cut_next_commit(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, server: TcpStream, cut: &AtomicU8, swallowed: &AtomicU64) -> std::io::Result<()> {
    let of_now = swallowed.load(Ordering::SeqCst);
    // Both ends stay open, and hear nothing.
    let unless_swallowed = async || {
        if swallowed.load(Ordering::SeqCst) != of_now {
            std::future::pending::<()>().await;
        }
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut sent = Vec::new();
    let mut answered = Vec::new();
    loop {
        tokio::select! {
            read = some(&mut from_client, &mut sent) => {
                let read = read?;
                unless_swallowed().await;
                if read == 0 {
                    return Ok(());
                }
                // PostgreSQL ends a text with a zero, MySQL with its packet.
                let commits = sent.strip_suffix(b"\0").unwrap_or(&sent).ends_with(b"COMMIT");
                match if commits { cut.swap(Cut::Nothing as u8, Ordering::SeqCst) } else { Cut::Nothing as u8 } {
                    before if before == Cut::Before as u8 => return Ok(()),
                    after if after == Cut::After as u8 => {
                        to_server.write_all(&sent).await?;
                        // Its answer: now it is done.
                        some(&mut from_server, &mut answered).await?;
                        return Ok(());
                    }
                    _ => to_server.write_all(&sent).await?,
                }
            }
            read = some(&mut from_server, &mut answered) => {
                let read = read?;
                unless_swallowed().await;
                if read == 0 {
                    return Ok(());
                }
                to_client.write_all(&answered).await?;
            }
        }
    }
}

/// What there is next; nothing at the end.
async fn some(from: &mut OwnedReadHalf, into: &mut Vec<u8>) -> std::io::Result<usize> {
    into.clear();
    from.read_buf(into).await
}
