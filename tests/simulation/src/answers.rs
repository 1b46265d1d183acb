//! Operations and their answers as short words, for the trace and for what is counted; and the rows that they are about.

use std::sync::Arc;

use tcc_database::memory::{Memory, Tables};
use tcc_participant::memory::{HasBranches, StoredBranch};
use tcc_proto::tcc::v1::{
    CancelResponse, ConfirmResponse, RefusalReason, TryResponse, Violation, ViolationKind, batch_operation::Operation,
    cancel_response, confirm_response, try_response,
};
use tcc_types::{BranchId, BranchKey, Op};

use crate::world::World;

/// Looks rows up in a participant's database.
#[derive(Clone)]
pub(crate) struct Rows {
    visible: Lookup,
    durable: Lookup,
}

type Lookup = Arc<dyn Fn(&BranchKey) -> Option<StoredBranch> + Send + Sync>;

impl Rows {
    pub(crate) fn of<T: Tables + HasBranches>(database: Memory<T>) -> Self {
        let other = database.clone();
        Self {
            visible: Arc::new(move |key| database.visible().branches().get(key).cloned()),
            durable: Arc::new(move |key| other.durable().branches().get(key).cloned()),
        }
    }

    /// Whether a branch has a row that a crash would leave.
    pub(crate) fn is_durable(&self, gid: &str, branch: &str) -> bool {
        key(gid, branch).is_some_and(|key| (self.durable)(&key).is_some())
    }

    /// A branch's row, in a word.
    pub(crate) fn row(&self, gid: &str, branch: &str) -> String {
        let Some(key) = key(gid, branch) else { return "unreadable".to_owned() };
        match (self.visible)(&key) {
            Some(stored) if stored.row.empty => "cancelled (empty)".to_owned(),
            Some(stored) => format!("{:?}", stored.row.status).to_lowercase(),
            None => "absent".to_owned(),
        }
    }

    /// Counts an operation with the row that it finds.
    pub(crate) fn before(&self, world: &World, op: Op, gid: &str, branch: &str) {
        let row = self.row(gid, branch);
        let faults = world.faults();
        world.coverage().arrived(op, &row, &faults);
    }
}

/// The branch of these ids; `None`: they cannot be read.
pub(crate) fn key(gid: &str, branch: &str) -> Option<BranchKey> {
    Some(BranchKey { gid: gid.parse().ok()?, branch: BranchId::new(branch).ok()? })
}

/// Whether a row can be what an operation was just answered.
pub(crate) fn fits(op: Op, answer: &str, row: &str) -> bool {
    match (op, answer) {
        // A vote may be overtaken by the decision.
        (Op::Try, "reserved") => matches!(row, "tried" | "confirmed" | "cancelled"),
        (Op::Try, "refused") => row == "refused",
        (Op::Try, "suspended") => matches!(row, "cancelled" | "cancelled (empty)"),
        (Op::Confirm, "done") => row == "confirmed",
        (Op::Cancel, "done") => matches!(row, "cancelled" | "cancelled (empty)" | "refused"),
        _ => true,
    }
}

/// What an operation of a batch is about.
pub(crate) fn named(operation: &Operation) -> (Op, &str, &str) {
    match operation {
        Operation::TryRequest(it) => (Op::Try, &it.gid, &it.branch_id),
        Operation::ConfirmRequest(it) => (Op::Confirm, &it.gid, &it.branch_id),
        Operation::CancelRequest(it) => (Op::Cancel, &it.gid, &it.branch_id),
    }
}

pub(crate) fn tried(response: &TryResponse) -> String {
    match &response.outcome {
        Some(try_response::Outcome::Reserved(_)) => "reserved".to_owned(),
        Some(try_response::Outcome::Refused(refused)) => match refused.reason() {
            RefusalReason::Business => "refused".to_owned(),
            RefusalReason::Late => "late".to_owned(),
            RefusalReason::Suspended => "suspended".to_owned(),
            RefusalReason::Unspecified => "refused for no reason".to_owned(),
        },
        Some(try_response::Outcome::Violation(violation)) => violated(*violation),
        None => "nothing".to_owned(),
    }
}

pub(crate) fn confirmed(response: &ConfirmResponse) -> String {
    match response.outcome {
        Some(confirm_response::Outcome::Done(_)) => "done".to_owned(),
        Some(confirm_response::Outcome::Violation(violation)) => violated(violation),
        None => "nothing".to_owned(),
    }
}

pub(crate) fn cancelled(response: &CancelResponse) -> String {
    match response.outcome {
        Some(cancel_response::Outcome::Done(_)) => "done".to_owned(),
        Some(cancel_response::Outcome::Violation(violation)) => violated(violation),
        None => "nothing".to_owned(),
    }
}

fn violated(violation: Violation) -> String {
    let kind = match violation.kind() {
        ViolationKind::DifferentPayload => "another payload",
        ViolationKind::NoReservation => "no reservation",
        ViolationKind::OtherOutcome => "another outcome",
        ViolationKind::Unspecified => "no kind",
    };
    format!("violation: {kind}")
}
