//! Streams of a transaction's states: from its driver here, and from the log for what other gateways do. Changes nothing.

use std::time::Duration;

use tcc_types::Gid;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

use crate::{Coordinator, Error, TxView, view::steps};

/// Changes that a slow watcher may be behind; beyond them it gets fewer, later ones.
const WATCH_QUEUED_MAX: usize = 16;

impl Coordinator {
    /// Streams a transaction's states until it has ended.
    ///
    /// # Errors
    /// There is none, or too many are being watched.
    pub async fn watch(&self, gid: Gid) -> Result<ReceiverStream<Result<TxView, Error>>, Error> {
        let place = self.0.admission.watch()?;
        let first = self.get(gid).await?;
        let (sender, receiver) = mpsc::channel(WATCH_QUEUED_MAX);
        let this = self.clone();
        self.0.tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                // The transaction goes on, so the stream must not look as if it had ended.
                () = this.0.draining.cancelled() => drop(sender.try_send(Err(Error::Draining))),
                () = sender.closed() => {}
                () = this.feed(first, &sender) => {}
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// Sends every change until the end, or until nobody listens.
    async fn feed(&self, first: TxView, sender: &mpsc::Sender<Result<TxView, Error>>) {
        let gid = first.gid;
        let mut shown = first.clone();
        let mut next = Some(first);
        loop {
            if let Some(view) = next.take() {
                let ended = view.status.has_ended();
                shown.clone_from(&view);
                if sender.send(Ok(view)).await.is_err() || ended {
                    return;
                }
            }
            let interval = Duration::from_millis(self.0.config.watch_interval_ms);
            if let Some(mut handle) = self.0.table.get(gid) {
                let current = handle.view.borrow_and_update().clone();
                // One that has not heard what others decided shows what was true before.
                if current != shown && steps(current.status) >= steps(shown.status) {
                    next = Some(current);
                    continue;
                }
                let changed = timeout(interval, handle.view.changed()).await;
                if changed.is_ok() || !self.0.log.is_shared() {
                    continue;
                }
                // What another gateway did is not told: look.
            } else {
                sleep(interval).await;
            }
            match self.get(gid).await {
                // What only a driver knows (votes) is not taken back by what the log has.
                Ok(view) if steps(view.status) > steps(shown.status) => next = Some(view),
                Ok(_) => {}
                Err(error) => warn!(%gid, %error, "not read for a watcher"),
            }
        }
    }
}
