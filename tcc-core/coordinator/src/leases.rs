//! Keeps what is driven here from being claimed elsewhere, and lets go of what was. Saves work; safety does not rest on it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tcc_log::RENEW_MAX;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{core::Core, table::Handle};

/// How often leases are prolonged within the time of one.
const ROUNDS_PER_LEASE: u32 = 3;

/// Runs until the last driver is gone: those that end while the coordinator drains keep their leases.
pub(crate) async fn run(core: Arc<Core>) {
    let round = core.lease() / ROUNDS_PER_LEASE;
    loop {
        tokio::select! {
            () = core.aborting.cancelled() => return,
            () = sleep(round) => {}
        }
        tokio::select! {
            () = core.aborting.cancelled() => return,
            () = prolong(&core, round) => {}
        }
    }
}

/// Most transactions end long before their lease does: only what is older than a round is prolonged.
async fn prolong(core: &Core, round: Duration) {
    for gids in core.table.leased_for(round).chunks(RENEW_MAX) {
        let kept: HashSet<_> = match core.log.renew(core.owner, gids, core.lease()).await {
            Ok(kept) => kept.into_iter().collect(),
            Err(error) => {
                warn!(%error, count = gids.len(), "leases are not prolonged: others may take these transactions up");
                continue;
            }
        };
        let lost: Vec<_> = gids.iter().filter(|gid| !kept.contains(gid)).filter_map(|gid| core.table.get(*gid)).collect();
        if !lost.is_empty() {
            info!(count = lost.len(), "transactions that have ended or that others took up");
        }
        lost.iter().for_each(Handle::look);
    }
}
