//! The driver's writes that must end: repeated until the log says what stands, or the driver stops and leaves the rest to recovery.

use futures::future::BoxFuture;
use tcc_log::{BranchRecord, Enlisted, NewBranch, TxLog};
use tcc_types::{Gid, TxStatus};
use tokio::time::sleep;
use tracing::{error, warn};

use super::{Stopped, closed};
use crate::{Error, begun::branch_of, core::Core, failpoint};

/// The branch as it is durable now, or why it is not.
pub(super) async fn enlist_durably(core: &Core, gid: Gid, branch: NewBranch) -> Result<Result<BranchRecord, Error>, Stopped> {
    let branches_max = core.config.branches_max;
    failpoint::hit(failpoint::ENLIST_BEFORE);
    let enlisted = match core.log.enlist(gid, branch.clone(), branches_max).await {
        Ok(enlisted) => enlisted,
        Err(tcc_log::Error::Unknown(_)) => {
            durable(core, gid, "enlist", |log| log.enlist(gid, branch.clone(), branches_max)).await?
        }
        // Nothing was written, and whoever asked may ask again.
        Err(error) => {
            core.readiness.note(&error);
            return Ok(Err(error.into()));
        }
    };
    failpoint::hit(failpoint::ENLIST_AFTER);
    Ok(match enlisted {
        Enlisted::Inserted { .. } => Ok(branch_of(branch)),
        // Only another gateway, or this call's own repetition, can have put it there.
        Enlisted::Exists(there) if there.participant == branch.participant && there.payload == branch.payload => Ok(*there),
        Enlisted::Exists(_) => Err(Error::BranchReused { gid, branch: branch.branch }),
        Enlisted::Closed(status) => Err(closed(gid, status)),
        Enlisted::Full => {
            let message = format!("transaction {gid} has branches_max ({branches_max}) branches already");
            Err(Error::Precondition { reason: "BRANCHES_MAX", gid, status: TxStatus::Trying, message })
        }
        Enlisted::Missing => return Err(Stopped),
    })
}

/// Repeats a write until it says what stands. Not a method: the driver's calls go on meanwhile.
pub(super) async fn durable<'a, T>(
    core: &'a Core,
    gid: Gid,
    what: &'static str,
    write: impl Fn(&'a dyn TxLog) -> BoxFuture<'a, Result<T, tcc_log::Error>>,
) -> Result<T, Stopped> {
    let policy = core.config.policy();
    let mut failed = 0;
    loop {
        let error = match write(core.log.as_ref()).await {
            Ok(stands) => return Ok(stands),
            Err(error) => error,
        };
        if !error.is_retryable() {
            error!(%gid, %error, what, "the transaction log failed: the transaction waits for recovery");
            return Err(Stopped);
        }
        failed += 1;
        warn!(%gid, %error, what, failed, "the transaction log did not answer");
        let delay = core.entropy.jitter(policy.delay_max(failed));
        tokio::select! {
            () = core.aborting.cancelled() => return Err(Stopped),
            () = sleep(delay) => {}
        }
    }
}
