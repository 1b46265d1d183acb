//! What all databases say of one transaction, as values: what the comparison takes. No reading, no rules.

use tcc_machine::Settled;
use tcc_types::{BranchId, BranchRowStatus, Gid, LogName, ParticipantName, Timestamp, TxStatus};

/// One transaction as everybody has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Which.
    pub gid: Gid,
    /// What the log has of it; `None`: nothing.
    pub transaction: Option<Transaction>,
    /// What the participants have of it.
    pub rows: Vec<Row>,
}

/// A transaction as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Where it is.
    pub status: TxStatus,
    /// How many branches it says that it has.
    pub branch_count: i64,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// When it may be claimed.
    pub next_attempt_at: Timestamp,
    /// Its branches.
    pub branches: Vec<LogBranch>,
}

/// A branch as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBranch {
    /// Its id.
    pub branch: BranchId,
    /// Who is called for it.
    pub participant: ParticipantName,
    /// That it is settled, if the log knows.
    pub settled: Option<Settled>,
    /// Why it is stuck, in words, and since when.
    pub stuck: Option<(String, Timestamp)>,
}

/// A branch as its participant has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// In which database: its place in [`Terms::sides`](crate::Terms::sides).
    pub side: usize,
    /// Its id.
    pub branch: BranchId,
    /// Where it is.
    pub status: BranchRowStatus,
    /// Whose transaction it is; `None` after an empty rollback.
    pub coordinator: Option<LogName>,
    /// From when on it asks while it is tried.
    pub ask_after: Option<Timestamp>,
    /// When its status last changed, by its database's clock.
    pub changed_at: Timestamp,
    /// When its coordinator first said that it has forgotten the transaction.
    pub forgotten_at: Option<Timestamp>,
}
