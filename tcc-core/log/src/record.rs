//! What the transaction log holds and is asked, in the framework's own words. No SQL here.

use tcc_machine::CancelCause;
pub use tcc_machine::{BranchProgress, Choice, Decides, Settled, Stuck, StuckKind, TryOrder};
use tcc_types::{
    BranchId, BranchKey, Fingerprint, Gid, IdempotencyKey, Initiator, ParticipantName, Payload, Timestamp, TxStatus,
};

/// Most transactions whose leases are prolonged at once, and most that are looked at in one deletion.
pub const RENEW_MAX: usize = 512;

/// Who drives a transaction: one run of one coordinator. Later runs have greater numbers.
#[doc(alias = "epoch")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u64);

impl Owner {
    /// Of what nobody drives: cancelled records.
    pub const NOBODY: Self = Self(0);
}

/// Which of the transactions that are due a claim is for. Each kind is claimed for itself, so that neither waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Due {
    /// None of its branches was ever stuck.
    Fresh,
    /// Some branch of it was parked as stuck. It stays of this kind to its end.
    Stuck,
}

impl Due {
    /// As the column `has_stuck` has it.
    pub(crate) const fn has_stuck(self) -> i64 {
        match self {
            Self::Fresh => 0,
            Self::Stuck => 1,
        }
    }
}

/// What became of [`TxLog::delete_ended`](crate::TxLog::delete_ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// How many transactions.
    pub transactions: u64,
    /// After which to go on; `None`: there is nothing older than asked for that was not looked at.
    pub next: Option<Gid>,
}

/// A transaction as it is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTransaction {
    /// Its id.
    pub gid: Gid,
    /// Who asks for it.
    pub initiator: Initiator,
    /// What makes a repeated request the same; unique with `initiator`.
    pub key: Option<IdempotencyKey>,
    /// Of the request.
    pub fingerprint: Fingerprint,
    /// How to try.
    pub try_order: TryOrder,
    /// How it is decided.
    pub decides: Decides,
    /// Until when Try may be repeated.
    pub try_until: Timestamp,
    /// Until when it may stay undecided; not before `try_until`.
    pub decide_by: Timestamp,
    /// Who drives it.
    pub owner: Owner,
    /// When recovery may claim it, unless its owner prolongs this.
    pub next_attempt_at: Timestamp,
    /// In the initiator's order; ids are unique.
    pub branches: Vec<NewBranch>,
}

/// A branch as it is begun or enlisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBranch {
    /// Its id.
    pub branch: BranchId,
    /// Who holds it.
    pub participant: ParticipantName,
    /// What to try.
    pub payload: Payload,
}

/// A stored transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxRecord {
    /// Its id.
    pub gid: Gid,
    /// Where it is.
    pub status: TxStatus,
    /// Who asked for it.
    pub initiator: Initiator,
    /// Under which key.
    pub key: Option<IdempotencyKey>,
    /// Of the request; `None`: it is a cancelled record, written for a gid that was never begun.
    pub fingerprint: Option<Fingerprint>,
    /// How to try.
    pub try_order: TryOrder,
    /// How it is decided.
    pub decides: Decides,
    /// How many branches it has.
    pub branch_count: u32,
    /// Until when Try may be repeated.
    pub try_until: Timestamp,
    /// Until when it may stay undecided.
    pub decide_by: Timestamp,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// When its end was recorded.
    pub finished_at: Option<Timestamp>,
    /// Who drove it last.
    pub owner: Owner,
    /// When recovery may claim it.
    pub next_attempt_at: Timestamp,
    /// Why it was cancelled.
    pub cause: Option<CancelCause>,
    /// In the initiator's order; empty where a listing leaves them out.
    pub branches: Vec<BranchRecord>,
}

/// A stored branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchRecord {
    /// Its id.
    pub branch: BranchId,
    /// Who holds it.
    pub participant: ParticipantName,
    /// What its Try asks for.
    pub payload: Payload,
    /// How far its second phase is known to be.
    pub progress: BranchProgress,
}

/// What became of [`TxLog::begin`](crate::TxLog::begin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is durable now, by this call.
    Inserted {
        /// By the log's clock.
        created_at: Timestamp,
    },
    /// A transaction with this gid, or with this initiator and key, is there already. Nothing was written.
    Exists(Box<TxRecord>),
}

/// What became of [`TxLog::enlist`](crate::TxLog::enlist).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enlisted {
    /// The branch is durable now, by this call; the transaction has that many branches.
    Inserted {
        /// With this one.
        branch_count: u32,
    },
    /// A branch with this id is there already.
    Exists(Box<BranchRecord>),
    /// The transaction is not open to branches: decided, or not begun as open.
    Closed(TxStatus),
    /// It has `branches_max` branches.
    Full,
    /// There is no such transaction.
    Missing,
}

/// A decision to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decide {
    /// Of which transaction.
    pub gid: Gid,
    /// What to decide.
    pub choice: Choice,
    /// Who drives it from then on.
    pub owner: Owner,
    /// When recovery may claim it, unless its owner prolongs this.
    pub next_attempt_at: Timestamp,
}

/// What stands after [`TxLog::decide`](crate::TxLog::decide).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// This decision is durable; not necessarily the wanted one.
    Stands {
        /// Where the transaction is now; never `Trying`.
        status: TxStatus,
        /// When it was decided.
        decided_at: Timestamp,
        /// Why, if it is Cancel.
        cause: Option<CancelCause>,
        /// How many branches it has, now for good: all of them have to carry the decision out.
        branch_count: u32,
    },
    /// Nothing was decided: the transaction has another number of branches than there were votes.
    CountMoved {
        /// How many it has.
        branch_count: u32,
    },
    /// There is no such transaction.
    Missing,
}

/// A driver lets go of a transaction that cannot go on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Park {
    /// Which.
    pub gid: Gid,
    /// Whose it must still be.
    pub owner: Owner,
    /// When it is to be claimed again.
    pub next_attempt_at: Timestamp,
    /// What to remember of branches. Never takes back a `settled`.
    pub branches: Vec<(BranchId, BranchProgress)>,
}

/// Which transactions to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only these; empty: all.
    pub statuses: Vec<TxStatus>,
    /// Only this one's.
    pub initiator: Option<Initiator>,
}

/// A branch that is stuck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckBranch {
    /// Which.
    pub key: BranchKey,
    /// Whose.
    pub participant: ParticipantName,
    /// Where its transaction is.
    pub status: TxStatus,
    /// Why.
    pub stuck: Stuck,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next.
    pub next_attempt_at: Timestamp,
}

/// What an operator did. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AuditAction {
    /// Sent the decided operation at once.
    Probe = 1,
    /// Sent a Try anew, then Confirm.
    TryAnew = 2,
    /// Marked the branch as settled outside.
    MarkSettled = 3,
}

/// What an operator is about to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAudit {
    /// To which branch.
    pub key: BranchKey,
    /// What.
    pub action: AuditAction,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// One line of the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Increases with every record.
    pub sequence: u64,
    /// By the log's clock.
    pub at: Timestamp,
    /// What was recorded.
    pub entry: NewAudit,
}

/// What became of [`TxLog::mark_settled`](crate::TxLog::mark_settled).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkedSettled {
    /// Recorded, with its audit line.
    Marked,
    /// The branch is not stuck (any more); nothing was written.
    NotStuck,
    /// There is no such branch.
    Missing,
}
