//! Write first, look after: the order of statements that makes the table hold while operations of one branch race.
//!
//! The first statement is the write that the operation hopes for; only when it changes nothing does a second statement look,
//! and the table tells what to answer. Reading first and writing after would let two operations act on one reading, and locking
//! reads deadlock on databases with gap locks.

use bytes::Bytes;
use tcc_types::{CancelCall, ConfirmCall, SettleAnswer, TryAnswer, TryCall};

use crate::{BarrierStore, CancelVerdict, ConfirmVerdict, TryVerdict, judge_cancel, judge_confirm, judge_try};

/// How often one operation writes and looks before it gives up as unknown.
pub const ROUNDS_MAX: u32 = 4;

/// What a Try does next in its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryStep {
    /// The row is inserted as tried: reserve, then [`BarrierStore::keep_reserved`] or [`BarrierStore::keep_refusal`], then
    /// commit.
    Reserve,
    /// Nothing was written: answer this once the transaction has ended.
    Answer(TryAnswer),
}

/// What a Confirm or a Cancel does next in its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleStep {
    /// The row has changed: spend or release what was reserved, then commit.
    Apply(Bytes),
    /// There is no business to do; answer this after the commit (an empty rollback has written its row).
    Answer(SettleAnswer),
}

/// Why an operation's outcome is unknown. The caller rolls back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] E),
    /// The row changed under every round of writing and looking.
    #[error("the branch's row changed in each of {ROUNDS_MAX} rounds")]
    Raced,
}

/// A Try up to its business.
///
/// Not cancel-safe by itself: a caller that drops it rolls its transaction back.
///
/// # Errors
/// The store's, and [`Error::Raced`]; both can be retried in a new transaction.
pub async fn try_branch<S: BarrierStore>(store: &mut S, call: &TryCall) -> Result<TryStep, Error<S::Error>> {
    for _ in 0..ROUNDS_MAX {
        if store.insert_tried(call).await? {
            return Ok(TryStep::Reserve);
        }
        let look = store.look(&call.key).await?;
        match judge_try(call, look.row.as_ref(), look.now) {
            TryVerdict::Reserve => {} // the row that stood in the way is gone: write again
            TryVerdict::Answer(answer) => return Ok(TryStep::Answer(answer)),
        }
    }
    Err(Error::Raced)
}

/// A Confirm up to its business.
///
/// Not cancel-safe by itself: a caller that drops it rolls its transaction back.
///
/// # Errors
/// The store's, and [`Error::Raced`]; both can be retried in a new transaction.
pub async fn confirm<S: BarrierStore>(store: &mut S, call: &ConfirmCall) -> Result<SettleStep, Error<S::Error>> {
    for _ in 0..ROUNDS_MAX {
        if let Some(reserved) = store.confirm_tried(&call.key).await? {
            return Ok(SettleStep::Apply(reserved));
        }
        let look = store.look(&call.key).await?;
        match judge_confirm(look.row.as_ref()) {
            ConfirmVerdict::Spend => {} // its Try committed between the write and the look: write again
            ConfirmVerdict::Answer(answer) => return Ok(SettleStep::Answer(answer)),
        }
    }
    Err(Error::Raced)
}

/// A Cancel up to its business.
///
/// Not cancel-safe by itself: a caller that drops it rolls its transaction back.
///
/// # Errors
/// The store's, and [`Error::Raced`]; both can be retried in a new transaction.
pub async fn cancel<S: BarrierStore>(store: &mut S, call: &CancelCall) -> Result<SettleStep, Error<S::Error>> {
    for _ in 0..ROUNDS_MAX {
        if let Some(reserved) = store.cancel_tried(&call.key).await? {
            return Ok(SettleStep::Apply(reserved));
        }
        // The insert comes second: where a Try is under way it waits for that Try's commit and then changes nothing.
        if store.insert_cancelled(call).await? {
            return Ok(SettleStep::Answer(SettleAnswer::Done));
        }
        let look = store.look(&call.key).await?;
        match judge_cancel(look.row.as_ref()) {
            CancelVerdict::Release | CancelVerdict::Record => {} // a Try committed in between, or a row is gone: write again
            CancelVerdict::Answer(answer) => return Ok(SettleStep::Answer(answer)),
        }
    }
    Err(Error::Raced)
}

#[cfg(test)]
mod tests;
