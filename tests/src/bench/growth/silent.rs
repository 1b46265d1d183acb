//! A participant that takes every connection and every byte, and never says a word.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet};

/// It listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Silent {
    url: String,
    swallowed: Arc<AtomicU64>,
    _listening: JoinSet<()>,
}

impl Silent {
    pub(crate) async fn listen() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let swallowed = Arc::new(AtomicU64::new(0));
        let mut listening = JoinSet::new();
        listening.spawn(accept(listener, Arc::clone(&swallowed)));
        Ok(Self { url, swallowed, _listening: listening })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Bytes that nobody will ever hear of again.
    pub(crate) fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, swallowed: Arc<AtomicU64>) {
    let mut open = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let swallowed = Arc::clone(&swallowed);
        open.spawn(async move {
            let mut bytes = [0_u8; 4_096];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                swallowed.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
    }
}
