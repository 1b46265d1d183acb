//! Takes up what nobody drives: after a crash, after a lease ended, or when a parked transaction is due again. It feeds the
//! same drivers as the normal path and decides nothing itself.

use std::{sync::Arc, time::Duration};

use tcc_log::{Decides, Due};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    core::Core,
    driver::{self, Origin},
};

/// Runs until the coordinator drains.
pub(crate) async fn run(core: Arc<Core>) {
    let interval = Duration::from_millis(core.config.recovery_interval_ms);
    loop {
        let mut more = false;
        for due in [Due::Fresh, Due::Stuck] {
            let claimed = claim(&core, due).await;
            // A full round may have left more behind: look again at once.
            more |= claimed > 0 && core.admission.recoverable(due) > 0;
        }
        let pause = if more { Duration::ZERO } else { interval };
        tokio::select! {
            () = core.draining.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Claims a batch, durably, and starts its drivers; how many were claimed.
async fn claim(core: &Arc<Core>, due: Due) -> usize {
    let room = core.admission.recoverable(due).min(core.config.recovery_batch_max as usize);
    let Ok(limit) = u32::try_from(room) else { return 0 };
    if limit == 0 {
        return 0;
    }
    let records = match core.log.claim(core.owner, due, limit, core.lease()).await {
        Ok(records) => records,
        Err(error) => {
            core.readiness.note(&error);
            warn!(%error, "nothing could be claimed for recovery");
            return 0;
        }
    };
    let claimed = records.len();
    let mut taken_up = 0;
    for record in records {
        if let Some(driver) = core.table.get(record.gid) {
            // It was in other hands in between.
            if driver.is_behind(&record) {
                driver.look();
            }
            continue;
        }
        // Room was counted above and only this loop takes it; if it is gone all the same, the claim's lease brings it back.
        let Some(place) = core.admission.recover(due) else { break };
        let ask = record.decides == Decides::AtVotes;
        driver::start(core, record, Origin::Loaded { ask }, place);
        taken_up += 1;
    }
    if taken_up > 0 {
        info!(taken_up, ?due, "recovering");
    }
    claimed
}
