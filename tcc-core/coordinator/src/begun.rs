//! From a request to a durable transaction with a driver, or to the one that is there already.

use std::sync::Arc;

use tcc_log::{Begun, BranchProgress, BranchRecord, NewBranch, NewTransaction, TxRecord};
use tcc_types::{Fingerprint, Gid, IdempotencyKey, Initiator, Timestamp, TxStatus};
use tokio::{sync::oneshot, time::sleep};
use tracing::warn;

use crate::{
    Error, TxView,
    admission::Place,
    core::Core,
    driver::{self, Origin},
    failpoint,
    table::Handle,
};

/// How often a Begun whose outcome is unknown is repeated before its caller is told to.
const BEGIN_ATTEMPTS_MAX: u32 = 5;

/// A transaction that is durable, and its driver if it has one here.
pub(crate) enum Joined {
    Driven(Gid, Handle),
    There(Box<TxView>),
}

impl Joined {
    pub(crate) fn gid(&self) -> Gid {
        match self {
            Self::Driven(gid, _) => *gid,
            Self::There(view) => view.gid,
        }
    }

    pub(crate) fn view(&self) -> TxView {
        match self {
            Self::Driven(_, handle) => handle.view.borrow().clone(),
            Self::There(view) => (**view).clone(),
        }
    }

    pub(crate) fn driven(self) -> Option<Handle> {
        match self {
            Self::Driven(_, handle) => Some(handle),
            Self::There(_) => None,
        }
    }
}

/// Makes it durable, tells so, and drives it to its end; or finds the one that is there.
pub(crate) async fn begin(
    core: Arc<Core>,
    transaction: NewTransaction,
    place: Place,
    told: oneshot::Sender<Result<Joined, Error>>,
) {
    let gid = transaction.gid;
    failpoint::hit(failpoint::BEGIN_BEFORE);
    let begun = begin_settled(&core, &transaction).await;
    if begun.is_ok() {
        failpoint::hit(failpoint::BEGIN_AFTER);
    }
    // Whoever asked may have gone: it is begun all the same.
    match begun {
        Ok(Begun::Inserted { created_at }) => {
            match driver::enter(&core, record_of(transaction, created_at), Origin::Begun, place) {
                Ok((handle, driving)) => {
                    let _ = told.send(Ok(Joined::Driven(gid, handle)));
                    driving.await;
                }
                Err(there) => {
                    let _ = told.send(Ok(Joined::Driven(gid, there)));
                }
            }
        }
        Ok(Begun::Exists(there)) => {
            let _ = told.send(joined(&transaction, *there));
        }
        Err(error) => {
            let _ = told.send(Err(error));
        }
    }
}

/// The transaction that is there already, if it is the same request.
fn joined(transaction: &NewTransaction, there: TxRecord) -> Result<Joined, Error> {
    let tombstone = there.fingerprint.is_none() && there.gid == transaction.gid;
    if !tombstone && !same_request(&there, &transaction.initiator, transaction.key.as_ref(), transaction.fingerprint) {
        let by_key = there.initiator == transaction.initiator && there.key.is_some() && there.key == transaction.key;
        return Err(if by_key { Error::KeyReused { gid: there.gid } } else { Error::GidReused { gid: there.gid } });
    }
    Ok(Joined::There(Box::new(TxView::of_record(&there))))
}

/// Begun, or what is there. An unknown commit is settled by repeating the insert; until then nobody may say that nothing was
/// started.
async fn begin_settled(core: &Core, transaction: &NewTransaction) -> Result<Begun, Error> {
    let policy = core.config.policy();
    let mut unknown = false;
    for failed in 1..=BEGIN_ATTEMPTS_MAX {
        match core.log.begin(transaction.clone()).await {
            Err(error) if error.is_retryable() && (unknown || matches!(error, tcc_log::Error::Unknown(_))) => {
                unknown = true;
                core.readiness.note(&error);
                warn!(%error, gid = %transaction.gid, "begun or not: repeating the insert");
                let delay = core.entropy.jitter(policy.delay_max(failed));
                tokio::select! {
                    () = core.aborting.cancelled() => break,
                    () = sleep(delay) => {}
                }
            }
            Err(error) => {
                core.readiness.note(&error);
                return Err(error.into());
            }
            Ok(begun) => return Ok(begun),
        }
    }
    Err(Error::Unavailable("the request may or may not have started".to_owned()))
}

/// Found by gid or by key. A key that is not the one it was begun with would be lost if it were taken for the same: whoever repeats the
/// request with that key alone would start another transaction.
pub(crate) fn same_request(
    there: &TxRecord,
    initiator: &Initiator,
    key: Option<&IdempotencyKey>,
    fingerprint: Fingerprint,
) -> bool {
    let same_key = key.is_none_or(|key| there.key.as_ref() == Some(key));
    same_key && there.initiator == *initiator && there.fingerprint == Some(fingerprint)
}

/// What the log has after Begun.
fn record_of(new: NewTransaction, created_at: Timestamp) -> TxRecord {
    TxRecord {
        gid: new.gid,
        status: TxStatus::Trying,
        initiator: new.initiator,
        key: new.key,
        fingerprint: Some(new.fingerprint),
        try_order: new.try_order,
        decides: new.decides,
        // The bound on branches per transaction is far below u32.
        branch_count: u32::try_from(new.branches.len()).unwrap_or(u32::MAX),
        try_until: new.try_until,
        decide_by: new.decide_by,
        created_at,
        decided_at: None,
        finished_at: None,
        owner: new.owner,
        next_attempt_at: new.next_attempt_at,
        cause: None,
        branches: new.branches.into_iter().map(branch_of).collect(),
    }
}

pub(crate) fn branch_of(new: NewBranch) -> BranchRecord {
    let NewBranch { branch, participant, payload } = new;
    BranchRecord { branch, participant, payload, progress: BranchProgress::default() }
}
