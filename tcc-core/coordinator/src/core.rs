//! What drivers, recovery and the handle share: the log, the settings, what is in memory, and how far a read may be trusted.

use std::{sync::Arc, time::Duration};

use tcc_log::{Choice, Decide, Decided, Decides, Owner, TxLog, TxRecord};
use tcc_types::Entropy;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{Config, Registry, admission::Admission, readiness::Readiness, table::Table};

/// How long a commit may be seen before it is durable. Far longer than any takes that is not lost.
const VISIBLE_BEFORE_DURABLE_MAX: Duration = Duration::from_secs(60);
/// What drivers, recovery and the handle share.
pub(crate) struct Core {
    pub(crate) log: Arc<dyn TxLog>,
    /// This run of this coordinator.
    pub(crate) owner: Owner,
    pub(crate) registry: Registry,
    pub(crate) config: Config,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) table: Arc<Table>,
    pub(crate) admission: Admission,
    pub(crate) readiness: Readiness,
    pub(crate) tasks: TaskTracker,
    /// What goes on until the last driver is gone.
    pub(crate) background: TaskTracker,
    /// Nothing is begun any more; what waits for a request leaves memory.
    pub(crate) draining: CancellationToken,
    /// Drivers hand over what they have and stop.
    pub(crate) aborting: CancellationToken,
}

impl Core {
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.config.lease_ms)
    }

    /// What stands, where it was only read: a decision may be seen a moment before it is on every disk that it has to be on, and a
    /// crash in that moment takes it back. Nobody acts on it, or is told of it, before a write that comes after it is durable. What
    /// has ended needs no such write: its decision was durable before anybody carried it out.
    ///
    /// # Errors
    /// The log does not answer.
    pub(crate) async fn settled(&self, record: TxRecord) -> Result<TxRecord, tcc_log::Error> {
        let fresh = record.decided_at.is_some_and(|at| at.plus(VISIBLE_BEFORE_DURABLE_MAX) > self.log.now());
        let carried_out = record.status.decision().is_some() && !record.status.has_ended();
        if !self.log.is_shared() || !fresh || !carried_out {
            return Ok(record);
        }
        // No transaction has as many branches: this decides nothing, and only tells.
        let choice = Choice::Confirm { votes: u32::MAX };
        let question = Decide { gid: record.gid, choice, owner: self.owner, next_attempt_at: record.next_attempt_at };
        match self.log.decide(question).await? {
            Decided::Stands { .. } => Ok(record),
            Decided::CountMoved { .. } | Decided::Missing => {
                warn!(gid = %record.gid, "a decision that was seen is gone: the log's database lost it");
                Err(tcc_log::Error::Unavailable("the transaction changed while it was read".to_owned()))
            }
        }
    }

    /// Whether its lease is another's and has not passed. A hint: whoever drives what another one drives only works in vain.
    pub(crate) fn is_driven_elsewhere(&self, record: &TxRecord) -> bool {
        let leased = record.decides == Decides::AtVotes || record.status.decision().is_some();
        leased && record.owner != self.owner && record.next_attempt_at > self.log.now()
    }
}
