//! Whether the log can be written to. While it cannot, nothing new is taken in; what was begun goes on by itself when it can.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::{info, warn};

use crate::{Error, core::Core};

/// The switch, and who turns it.
#[derive(Debug)]
pub(crate) struct Readiness {
    ready: watch::Sender<bool>,
    doubted: Notify,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { ready: watch::Sender::new(true), doubted: Notify::new() }
    }
}

impl Readiness {
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// For whatever begins a transaction.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if *self.ready.borrow() {
            return Ok(());
        }
        Err(Error::Unavailable("the transaction log cannot be written to now; nothing was started".to_owned()))
    }

    /// A write failed: the log is looked at now, not only at the next interval. Too much of a load is no failure.
    pub(crate) fn note(&self, error: &tcc_log::Error) {
        match error {
            tcc_log::Error::Unknown(_) | tcc_log::Error::Unavailable(_) => self.doubted.notify_one(),
            // Its own limit, and what no look can mend.
            _ => {}
        }
    }

    fn set(&self, ready: bool) {
        let changed = self.ready.send_if_modified(|is| std::mem::replace(is, ready) != ready);
        match (changed, ready) {
            (true, true) => info!("the transaction log can be written to again"),
            (true, false) => warn!("the transaction log cannot be written to: nothing new is begun until it can"),
            (false, _) => {}
        }
    }
}

/// Writes a probe at each interval where the database is a server of its own, and wherever a write has failed; runs until the
/// coordinator drains.
pub(crate) async fn run(core: Arc<Core>) {
    let interval = Duration::from_millis(core.config.probe_interval_ms);
    loop {
        let doubted = tokio::select! {
            () = core.draining.cancelled() => return,
            () = core.readiness.doubted.notified() => true,
            () = sleep(interval) => false,
        };
        let ready = *core.readiness.ready.borrow();
        if !doubted && ready && !core.log.is_shared() {
            continue;
        }
        let probed = tokio::select! {
            () = core.draining.cancelled() => return,
            probed = core.log.probe() => probed,
        };
        match probed {
            Ok(()) => core.readiness.set(true),
            Err(tcc_log::Error::Overloaded { .. }) => {}
            Err(error) => {
                if ready {
                    warn!(%error, "the transaction log did not take a probe");
                }
                core.readiness.set(false);
            }
        }
    }
}
