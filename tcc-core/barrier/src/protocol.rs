//! Write first, look after: the order of statements that makes the table hold while operations of one branch race.
//!
//! The first statement is the write that the operation hopes for; only what it did not change is looked at in a second statement,
//! and the table tells what to answer. Reading first and writing after would let two operations act on one reading, and locking
//! reads deadlock on databases with gap locks.
//!
//! It works on batches, of which a single operation is the smallest: all of them go through the same statements.

use bytes::Bytes;
use tcc_types::{BranchKey, CancelCall, ConfirmCall, Decision, Op, SettleAnswer, Timestamp, TryAnswer, TryCall};

use crate::{BarrierStore, CancelVerdict, ConfirmVerdict, Row, TryVerdict, judge_cancel, judge_confirm, judge_try};

/// How often operations write and look before they give up as unknown.
pub const ROUNDS_MAX: u32 = 4;

/// One operation of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// Reserve.
    Try(&'a TryCall),
    /// Spend.
    Confirm(&'a ConfirmCall),
    /// Release.
    Cancel(&'a CancelCall),
}

impl<'a> Call<'a> {
    /// Which branch.
    #[must_use]
    pub const fn key(self) -> &'a BranchKey {
        match self {
            Self::Try(call) => &call.key,
            Self::Confirm(call) => &call.key,
            Self::Cancel(call) => &call.key,
        }
    }

    /// Which operation.
    #[must_use]
    pub const fn op(self) -> Op {
        match self {
            Self::Try(_) => Op::Try,
            Self::Confirm(_) => Op::Confirm,
            Self::Cancel(_) => Op::Cancel,
        }
    }
}

/// What an operation is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A Try.
    Tried(TryAnswer),
    /// A Confirm or a Cancel.
    Settled(SettleAnswer),
}

/// What an operation does next in its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A Try whose row is inserted as tried: reserve, then [`BarrierStore::keep_reserved`] or
    /// [`BarrierStore::keep_refusals`], then commit.
    Reserve,
    /// A Confirm or a Cancel whose row has changed: spend or release what was reserved, then commit.
    Apply(Bytes),
    /// There is no business to do; answer this after the commit (an empty rollback has written its row, and a repeated yes may be
    /// told only once the first one is certainly durable).
    Answer(Answer),
}

/// Why the operations' outcome is unknown. The caller rolls back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] E),
    /// A row changed under every round of writing and looking.
    #[error("a branch's row changed in each of {ROUNDS_MAX} rounds")]
    Raced,
    /// The caller's mistake; nothing was written.
    #[error("the operations of a batch must be of different branches, in the order of their keys")]
    Unordered,
}

/// Operations up to their business: all in one transaction, each on a branch of its own, in ascending order of the branches'
/// keys. Returns what each does next, in the same order.
///
/// Not cancel-safe by itself: a caller that drops it rolls its transaction back.
///
/// # Errors
/// The store's, and [`Error::Raced`]; both can be retried in a new transaction.
pub async fn steps<S: BarrierStore>(store: &mut S, calls: &[Call<'_>]) -> Result<Vec<Step>, Error<S::Error>> {
    if !calls.is_sorted_by(|one, next| one.key() < next.key()) {
        return Err(Error::Unordered);
    }
    let mut steps = vec![None; calls.len()];
    for _ in 0..ROUNDS_MAX {
        write(store, calls, &mut steps).await?;
        look(store, calls, &mut steps).await?;
        if steps.iter().all(Option::is_some) {
            return Ok(steps.into_iter().flatten().collect());
        }
    }
    Err(Error::Raced)
}

/// The places of those that have no step yet.
fn open(steps: &[Option<Step>]) -> impl Iterator<Item = usize> {
    steps.iter().enumerate().filter(|(_, step)| step.is_none()).map(|(place, _)| place)
}

/// The writes that the operations hope for.
async fn write<S: BarrierStore>(store: &mut S, calls: &[Call<'_>], steps: &mut [Option<Step>]) -> Result<(), S::Error> {
    let (mut tries, mut settles, mut cancels) = (Places::default(), Places::default(), Places::default());
    for place in open(steps) {
        match calls[place] {
            Call::Try(call) => tries.push(place, call),
            Call::Confirm(call) => settles.push(place, (&call.key, Decision::Confirm)),
            Call::Cancel(call) => {
                settles.push(place, (&call.key, Decision::Cancel));
                cancels.push(place, call);
            }
        }
    }
    if !tries.is_empty() {
        let inserted = store.insert_tried(&tries.questions).await?;
        tries.answer(inserted, |place, inserted| steps[place] = inserted.then_some(Step::Reserve));
    }
    if !settles.is_empty() {
        let changed = store.settle_tried(&settles.questions).await?;
        settles.answer(changed, |place, reserved| steps[place] = reserved.map(Step::Apply));
    }
    // The insert comes second: where a Try is under way it waits for that Try's commit and then changes nothing.
    cancels.retain(|place| steps[place].is_none());
    if !cancels.is_empty() {
        let inserted = store.insert_cancelled(&cancels.questions).await?;
        let recorded = Step::Answer(Answer::Settled(SettleAnswer::Done));
        cancels.answer(inserted, |place, inserted| steps[place] = inserted.then(|| recorded.clone()));
    }
    Ok(())
}

/// Looks at what the writes did not change; what has no step after that, writes again.
async fn look<S: BarrierStore>(store: &mut S, calls: &[Call<'_>], steps: &mut [Option<Step>]) -> Result<(), S::Error> {
    let mut unchanged = Places::default();
    open(steps).for_each(|place| unchanged.push(place, calls[place].key()));
    if unchanged.is_empty() {
        return Ok(());
    }
    let look = store.look(&unchanged.questions).await?;
    unchanged.answer(look.rows, |place, row| steps[place] = judge(calls[place], row.as_ref(), look.now));
    Ok(())
}

/// What the table says; `None`: the row changed between the write and the look, and the write may succeed now.
fn judge(call: Call<'_>, row: Option<&Row>, now: Timestamp) -> Option<Step> {
    let answer = match call {
        Call::Try(call) => match judge_try(call, row, now) {
            TryVerdict::Reserve => None, // the row that stood in the way is gone
            TryVerdict::Answer(answer) => Some(Answer::Tried(answer)),
        },
        Call::Confirm(_) => match judge_confirm(row) {
            ConfirmVerdict::Spend => None, // its Try committed in between
            ConfirmVerdict::Answer(answer) => Some(Answer::Settled(answer)),
        },
        Call::Cancel(_) => match judge_cancel(row) {
            CancelVerdict::Release | CancelVerdict::Record => None, // a Try committed in between, or a row is gone
            CancelVerdict::Answer(answer) => Some(Answer::Settled(answer)),
        },
    };
    answer.map(Step::Answer)
}

/// A statement's questions, each with the place in the batch of the operation that it is for.
struct Places<Q> {
    places: Vec<usize>,
    questions: Vec<Q>,
}

impl<Q> Default for Places<Q> {
    fn default() -> Self {
        Self { places: Vec::new(), questions: Vec::new() }
    }
}

impl<Q: Copy> Places<Q> {
    fn push(&mut self, place: usize, question: Q) {
        self.places.push(place);
        self.questions.push(question);
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let kept: Vec<_> =
            self.places.iter().copied().zip(self.questions.iter().copied()).filter(|(place, _)| keep(*place)).collect();
        (self.places, self.questions) = kept.into_iter().unzip();
    }

    fn answer<A>(&self, answers: Vec<A>, mut take: impl FnMut(usize, A)) {
        self.places.iter().copied().zip(answers).for_each(|(place, answer)| take(place, answer));
    }
}

#[cfg(test)]
mod tests;
