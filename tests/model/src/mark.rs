//! What a run of the checker must have seen happen: a feature that is configured and never occurs proves nothing.

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Mark {
    /// A transaction ended confirmed.
    Confirmed,
    /// A transaction ended cancelled.
    Cancelled,
    /// A compare-and-set found the other decision.
    LostDecision,
    /// A Confirm was not decided, since the log had more branches than there were votes.
    CountMoved,
    /// A driver learnt of a branch that another gateway enlisted.
    LearntBranch,
    /// A branch came too late for its transaction.
    EnlistClosed,
    /// A Try was refused since its Cancel came first.
    Suspended,
    /// A Try was refused since it was late.
    LateTry,
    /// A late Try was refused for whose branch there had been a row.
    LateTryAfterDeletion,
    /// A Cancel found no row.
    EmptyRollback,
    /// A Try met a row of another request.
    OtherRequest,
    /// A Confirm found no row.
    NoReservation,
    /// A participant was told to confirm by the coordinator that it asked.
    ToldConfirmed,
    /// The same, to cancel.
    ToldCancelled,
    /// It was told to ask again.
    ToldLater,
    /// The cancelled record of an unknown gid was written for one who asked.
    WroteCancelled,
    /// When it was to be written, there was a transaction.
    BegunMeanwhile,
    /// A Submit or Begin met a cancelled record.
    SubmitMetCancelled,
    /// A Submit was refused, since its gid was too old.
    GidTooOld,
    /// The log deleted a transaction.
    RecordDeleted,
    /// A row was deleted for its age.
    RowDeleted,
    /// A confirmed row was deleted since its transaction was over.
    ConfirmedRowDeleted,
    /// An old confirmed row was kept since its transaction was not over.
    ConfirmedRowKept,
    /// The log lost a transaction that was not decided.
    BeginLost,
    /// A participant lost a reservation.
    RowLost,
    /// A branch was tried anew, and reserved.
    TriedAnew,
    /// An operator marked a branch as settled.
    SettledOutside,
    /// A transaction was parked in the log.
    Parked,
    /// A statement waited for another's commit.
    Waited,
    /// A row changed between the write and the look, and was written again.
    WroteAgain,
    /// An operation gave up after so many rounds.
    GaveUp,
}
