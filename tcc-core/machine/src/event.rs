//! What goes into the machine and what comes out of it.

use std::time::Duration;

use tcc_types::{BranchId, Initiator, Op, ParticipantName, Payload, SettleAnswer, Timestamp, TryAnswer, TxStatus};

use crate::{BranchProgress, CancelCause, Choice, Decides, StuckKind, TryOrder};

/// What a transaction was begun with; durable before a machine is made from it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How to try.
    pub try_order: TryOrder,
    /// How it is decided.
    pub decides: Decides,
    /// Until when an unknown Try is repeated.
    pub try_until: Timestamp,
    /// Until when it may stay undecided.
    pub decide_by: Timestamp,
    /// In the initiator's order.
    pub branches: Vec<PlannedBranch>,
}

/// One branch of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlannedBranch {
    /// Its id.
    pub id: BranchId,
    /// Who holds it.
    pub participant: ParticipantName,
}

/// What is known of a transaction that is taken up again from the log.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// Where it was; not ended.
    pub status: TxStatus,
    /// When it was decided, if it was.
    pub decided_at: Option<Timestamp>,
    /// Why it was cancelled, if it was.
    pub cause: Option<CancelCause>,
    /// Of each branch of the plan, in its order.
    pub progress: Vec<BranchProgress>,
}

/// A branch's vote as far as this machine knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Vote {
    /// None yet.
    Unknown,
    /// Reserved, with what Try returned.
    Yes(Option<Payload>),
    /// Refused or violated. `durable`: the participant has a row `refused`, so there is nothing to cancel.
    No {
        /// Whether its Cancel may be skipped.
        durable: bool,
    },
}

/// What happened. Answers carry the `serial` of the call that they answer; those of replaced calls are ignored.
#[derive(Clone, Debug)]
pub enum Event {
    /// The driver starts or takes up the transaction. `ask`: go for the votes that are missing.
    Started {
        /// False for a hold that nobody asked about.
        ask: bool,
    },
    /// The branch is durable.
    Enlisted(PlannedBranch),
    /// A Try was answered.
    TryAnswered {
        /// Index of the branch.
        branch: usize,
        /// Of the call.
        serial: u32,
        /// What it said.
        answer: TryAnswer,
    },
    /// A Confirm or a Cancel was answered.
    SettleAnswered {
        /// Index of the branch.
        branch: usize,
        /// Of the call.
        serial: u32,
        /// What it said.
        answer: SettleAnswer,
    },
    /// A call has no answer: the operation may or may not have run.
    Unanswered {
        /// Index of the branch.
        branch: usize,
        /// Of the call.
        serial: u32,
        /// Whether the participant is unreachable or not even configured.
        kind: StuckKind,
        /// For people.
        detail: String,
    },
    /// The initiator wants Confirm.
    ConfirmRequested,
    /// Somebody wants Cancel.
    CancelRequested {
        /// Who.
        by: Initiator,
    },
    /// Time passed; due at [`Machine::wake_at`](crate::Machine::wake_at).
    Woken,
    /// This decision is durable.
    Decided {
        /// Which.
        status: TxStatus,
        /// When.
        at: Timestamp,
        /// Why, if Cancel.
        cause: Option<CancelCause>,
    },
    /// The decision was not taken: the log has branches that this machine did not know. They came as `Enlisted` before
    /// this.
    CountMoved,
    /// The end is durable.
    Finished,
    /// An operator settled the branch outside, durably.
    SettledOutside {
        /// Index of the branch.
        branch: usize,
    },
    /// An operator wants the decided operation sent now.
    Probed {
        /// Index of the branch.
        branch: usize,
    },
    /// An operator wants a Try sent anew, then Confirm. Ignored unless the branch is stuck without a reservation.
    TryAnewOrdered {
        /// Index of the branch.
        branch: usize,
        /// What the participant is told; until then an unknown one is repeated.
        not_after: Timestamp,
    },
}

/// A call to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Index of the branch.
    pub branch: usize,
    /// Which operation.
    pub op: Op,
    /// To be repeated in the answer.
    pub serial: u32,
    /// Wait a random time between zero and this first.
    pub delay_max: Duration,
    /// A Try after the decision, ordered by an operator: with this `not_after`.
    pub anew: Option<Timestamp>,
}

/// Let go of the transaction until it is due again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parking {
    /// It is due after a random time between half of this and this.
    pub delay_max: Duration,
    /// Of each branch, in order.
    pub progress: Vec<BranchProgress>,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send it. What it rests on is durable.
    Call(Call),
    /// Compare and set in the log; report [`Event::Decided`] or [`Event::CountMoved`].
    Decide(Choice),
    /// Record the end, lazily; report [`Event::Finished`].
    Finish,
    /// Record the progress and stop driving; nothing is in flight.
    Park(Parking),
}

/// A branch as others may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchView {
    /// Its id.
    pub id: BranchId,
    /// Who holds it.
    pub participant: ParticipantName,
    /// What it voted.
    pub vote: Vote,
    /// How far its second phase is.
    pub progress: BranchProgress,
}
