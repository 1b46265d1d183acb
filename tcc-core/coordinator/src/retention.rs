//! Deletes transactions that ended long ago, in bounded batches. Only what has ended: every branch of it was acknowledged.

use std::{sync::Arc, time::Duration};

use tcc_log::RENEW_MAX;
use tcc_types::Gid;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::core::Core;

/// Transactions that are looked at in one commit.
const BATCH_MAX: u32 = RENEW_MAX as u32;

/// Runs until the coordinator drains.
pub(crate) async fn run(core: Arc<Core>) {
    let interval = Duration::from_millis(core.config.retention_interval_ms);
    loop {
        // Several gateways on one log do not all come at the same moment.
        let pause = interval / 2 + core.entropy.jitter(interval);
        tokio::select! {
            () = core.draining.cancelled() => return,
            () = sleep(pause) => {}
        }
        tokio::select! {
            () = core.draining.cancelled() => return,
            () = sweep(&core) => {}
        }
    }
}

/// One walk from the oldest transaction to the youngest that is old enough.
async fn sweep(core: &Core) {
    let mut after: Option<Gid> = None;
    let mut transactions = 0;
    loop {
        let ended_before = core.log.now().minus(Duration::from_millis(core.config.retention_ms));
        match core.log.delete_ended(after, ended_before, BATCH_MAX).await {
            Ok(deleted) => {
                transactions += deleted.transactions;
                after = deleted.next;
            }
            Err(error) => {
                warn!(%error, "finished transactions are not deleted now");
                return;
            }
        }
        if after.is_none() {
            break;
        }
        // Whoever places an order comes first.
        sleep(Duration::from_millis(core.config.retention_pause_ms)).await;
    }
    if transactions > 0 {
        info!(transactions, "deleted what ended longer ago than retention_ms");
    }
}
