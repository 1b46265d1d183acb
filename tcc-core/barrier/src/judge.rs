//! The contract's table as three functions: one for each operation, one arm for each row state. Nothing here writes or waits.

use tcc_types::{BranchRowStatus, Refusal, SettleAnswer, Timestamp, TryAnswer, TryCall, Violation, ViolationKind};

use crate::{Request, Row};

/// What a Try may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryVerdict {
    /// Insert the row as tried and reserve.
    Reserve,
    /// Change nothing; answer this.
    Answer(TryAnswer),
}

/// What a Confirm may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmVerdict {
    /// Make the row confirmed and spend the reservation.
    Spend,
    /// Change nothing; answer this.
    Answer(SettleAnswer),
}

/// What a Cancel may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelVerdict {
    /// Make the row cancelled and release the reservation.
    Release,
    /// Insert the row as cancelled, so that a Try that is still under way is refused (an empty rollback).
    Record,
    /// Change nothing; answer this.
    Answer(SettleAnswer),
}

/// Judges a Try. `now` is the database's clock at the moment the row was looked at.
///
/// The late check applies only where there is no row: what was reserved in time stays reserved.
#[must_use]
pub fn judge_try(call: &TryCall, row: Option<&Row>, now: Timestamp) -> TryVerdict {
    let Some(row) = row else {
        return if now > call.not_after {
            TryVerdict::Answer(TryAnswer::Refused(Refusal::late()))
        } else {
            TryVerdict::Reserve
        };
    };
    let contradicts = row.request().is_some_and(|request| *request != Request::from(call));
    if contradicts {
        return TryVerdict::Answer(TryAnswer::Violation(violation(ViolationKind::DifferentPayload, row.status())));
    }
    TryVerdict::Answer(match row {
        Row::Tried { output, .. } | Row::Confirmed { output, .. } => TryAnswer::Reserved(output.clone()),
        Row::Refused { refusal, .. } => TryAnswer::Refused(refusal.clone()),
        Row::Cancelled { .. } => TryAnswer::Refused(Refusal::suspended()),
    })
}

/// Judges a Confirm.
#[must_use]
pub fn judge_confirm(row: Option<&Row>) -> ConfirmVerdict {
    let Some(row) = row else {
        let violation = Violation { kind: ViolationKind::NoReservation, row_status: None };
        return ConfirmVerdict::Answer(SettleAnswer::Violation(violation));
    };
    match row {
        Row::Tried { .. } => ConfirmVerdict::Spend,
        Row::Confirmed { .. } => ConfirmVerdict::Answer(SettleAnswer::Done),
        Row::Refused { .. } | Row::Cancelled { .. } => {
            ConfirmVerdict::Answer(SettleAnswer::Violation(violation(ViolationKind::OtherOutcome, row.status())))
        }
    }
}

/// Judges a Cancel.
#[must_use]
pub fn judge_cancel(row: Option<&Row>) -> CancelVerdict {
    let Some(row) = row else {
        return CancelVerdict::Record;
    };
    match row {
        Row::Tried { .. } => CancelVerdict::Release,
        Row::Refused { .. } | Row::Cancelled { .. } => CancelVerdict::Answer(SettleAnswer::Done),
        Row::Confirmed { .. } => {
            CancelVerdict::Answer(SettleAnswer::Violation(violation(ViolationKind::OtherOutcome, row.status())))
        }
    }
}

const fn violation(kind: ViolationKind, row_status: BranchRowStatus) -> Violation {
    Violation { kind, row_status: Some(row_status) }
}

#[cfg(test)]
mod tests;
