//! Many operations in one transaction, their business in one handler.

use std::pin::Pin;

use bytes::Bytes;
use prost::Message;
use sqlx::Connection;
use tcc_barrier::{Answer, BarrierStore, Call, Kept, Step};
use tcc_types::{Payload, Refusal, SettleAnswer, TryAnswer};

use super::{Error, decode, in_transaction, keepable, storable};
use crate::{Barrier, Batch, BatchParticipant, BranchContext, ConnectionOf, Database, Options, Participant, Result, Tried};

/// How some participant handles many operations. Pointers, so that one that has no such handlers needs no other type.
pub(crate) struct Handlers<P: Participant> {
    on_batch: OnBatch<P>,
    foresee: Foresee<P>,
}

impl<P: Participant> Clone for Handlers<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Participant> Copy for Handlers<P> {}

type Foresee<P> = fn(&P, &<P as Participant>::Payload) -> Option<Outcome<P>>;
type Outcome<P> = Tried<<P as Participant>::Reserved>;
type OnBatch<P> = for<'a> fn(&'a P, &'a mut ConnectionOf<P>, Batch<P>) -> Handled<'a, P>;
type Handled<'a, P> = Pin<Box<dyn Future<Output = Result<Vec<Outcome<P>>>> + Send + 'a>>;

impl<P: Participant> Handlers<P> {
    /// Of a participant that has none for many: its others, one after the other, each in a savepoint.
    pub(crate) fn one_by_one() -> Self {
        Self { on_batch: |participant, conn, batch| Box::pin(one_by_one(participant, conn, batch)), foresee: |_, _| None }
    }

    /// Its own.
    pub(crate) fn of_batches() -> Self
    where
        P: BatchParticipant,
    {
        Self { on_batch: |participant, conn, batch| Box::pin(participant.on_batch(conn, batch)), foresee: P::foresee }
    }
}

/// Each in a savepoint, which cannot be left where the transaction has ended: after a handler that ignored that, the next ones would work
/// outside of any.
pub(crate) async fn one_by_one<P: Participant>(
    participant: &P,
    conn: &mut ConnectionOf<P>,
    batch: Batch<P>,
) -> Result<Vec<Tried<P::Reserved>>> {
    for (branch, reserved) in batch.confirms {
        let mut savepoint = conn.begin().await?;
        participant.on_confirm(&mut savepoint, &branch, reserved).await?;
        savepoint.commit().await?;
    }
    for (branch, reserved) in batch.cancels {
        let mut savepoint = conn.begin().await?;
        participant.on_cancel(&mut savepoint, &branch, reserved).await?;
        savepoint.commit().await?;
    }
    let mut outcomes = Vec::with_capacity(batch.tries.len());
    for (branch, payload) in batch.tries {
        let mut savepoint = conn.begin().await?;
        let outcome = participant.on_try(&mut savepoint, &branch, payload).await?;
        match &outcome {
            Tried::Reserved { .. } => savepoint.commit().await?,
            Tried::Refused(_) => savepoint.rollback().await?,
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Operations in the caller's transaction, each on a branch of its own, in ascending order of the branches' keys. Returns their
/// answers in the same order. What holds of each is what [`try_branch`](super::try_branch) and its siblings say.
///
/// Not cancel-safe: a caller that drops it rolls its transaction back.
///
/// # Errors
/// See [`Error`]; the transaction must be rolled back. Which of the operations is to blame is not known: run them one by one.
pub async fn batch<P: BatchParticipant>(
    participant: &P,
    conn: &mut ConnectionOf<P>,
    calls: &[Call<'_>],
    options: &Options,
) -> Result<Vec<Answer>, Error> {
    run(participant, Handlers::of_batches(), conn, calls, options).await
}

/// As [`batch`].
pub(crate) async fn run<P: Participant>(
    participant: &P,
    handlers: Handlers<P>,
    conn: &mut ConnectionOf<P>,
    calls: &[Call<'_>],
    options: &Options,
) -> Result<Vec<Answer>, Error> {
    in_transaction::<P>(conn)?;
    P::Db::enter(conn).await?;
    let payloads: Vec<_> = calls.iter().map(|call| payload_of::<P>(*call, options)).collect();
    let foreseen = foresee(participant, handlers, &payloads, options);
    let kept: Vec<_> = foreseen.iter().map(|foreseen| foreseen.kept(calls)).collect();
    let steps = tcc_barrier::steps(&mut Barrier::<P::Db>::foreseeing(conn, &kept), calls).await?;
    let mut sorted = Sorted::<P>::sort(calls, steps, payloads)?;
    let tries = std::mem::take(&mut sorted.tries);
    if !sorted.business.is_empty() {
        let business = std::mem::take(&mut sorted.business);
        let outcomes = (handlers.on_batch)(participant, conn, business).await.map_err(Error::Handler)?;
        if outcomes.len() != tries.len() {
            return Err(Error::Outcomes { answers: outcomes.len(), tries: tries.len() });
        }
        for (place, outcome) in tries.into_iter().zip(outcomes) {
            sorted.take(place, outcome, &foreseen, options)?;
        }
    }
    sorted.keep(conn, calls).await?;
    Ok(sorted.answers.into_iter().flatten().collect())
}

/// What a Try asks for, or why it is refused for that alone; `None`: it is no Try.
type Asked<P> = Option<std::result::Result<<P as Participant>::Payload, Refusal>>;

fn payload_of<P: Participant>(call: Call<'_>, options: &Options) -> Asked<P> {
    match call {
        Call::Try(call) => Some(decode(&call.payload, options.payload_bytes_max)),
        Call::Confirm(_) | Call::Cancel(_) => None,
    }
}

/// What the Try at a place will reserve and answer, if it is not refused.
struct Foreseen {
    place: usize,
    reserved: Bytes,
    output: Option<Payload>,
}

impl Foreseen {
    fn kept<'a>(&'a self, calls: &[Call<'a>]) -> Kept<'a> {
        Kept { key: calls[self.place].key(), reserved: &self.reserved, output: self.output.as_ref() }
    }
}

/// In the order of places; nothing where the database keeps nothing of it.
fn foresee<P: Participant>(participant: &P, handlers: Handlers<P>, payloads: &[Asked<P>], options: &Options) -> Vec<Foreseen> {
    if !P::Db::FORESEES {
        return Vec::new();
    }
    let asked = payloads.iter().enumerate().filter_map(|(place, asked)| Some((place, asked.as_ref()?.as_ref().ok()?)));
    let foreseen = asked.filter_map(|(place, payload)| match (handlers.foresee)(participant, payload)? {
        Tried::Reserved { reserved, output } => {
            // What could not be stored is found out about when it is the outcome.
            let reserved = keepable(&reserved, output.as_ref(), options.payload_bytes_max).ok()?;
            Some(Foreseen { place, reserved, output })
        }
        Tried::Refused(_) => None,
    });
    foreseen.collect()
}

/// A batch's operations by what is left to do for them, each with its place.
struct Sorted<P: Participant> {
    business: Batch<P>,
    /// Of the business's tries.
    tries: Vec<usize>,
    /// Some row is written already, and must still be so when the business is done.
    has_written: bool,
    /// What their rows will keep.
    kept: Vec<(usize, Bytes, Option<Payload>)>,
    refused: Vec<(usize, Refusal)>,
    answers: Vec<Option<Answer>>,
}

impl<P: Participant> Sorted<P> {
    fn sort(calls: &[Call<'_>], steps: Vec<Step>, payloads: Vec<Asked<P>>) -> Result<Self, Error> {
        let mut sorted = Self {
            business: Batch::default(),
            tries: Vec::new(),
            has_written: false,
            kept: Vec::new(),
            refused: Vec::new(),
            answers: vec![None; calls.len()],
        };
        for (place, ((call, step), payload)) in calls.iter().zip(steps).zip(payloads).enumerate() {
            let branch = || BranchContext::new(call.key().clone());
            match (step, *call, payload) {
                (Step::Answer(answer), ..) => sorted.answers[place] = Some(answer),
                (Step::Reserve, Call::Try(_), Some(Ok(payload))) => {
                    sorted.tries.push(place);
                    sorted.business.tries.push((branch(), payload));
                }
                (Step::Reserve, Call::Try(_), Some(Err(refusal))) => sorted.refuse(place, refusal),
                (Step::Apply(reserved), Call::Confirm(_), _) => {
                    sorted.business.confirms.push((branch(), P::Reserved::decode(reserved)?));
                    sorted.settle(place);
                }
                (Step::Apply(reserved), Call::Cancel(_), _) => {
                    sorted.business.cancels.push((branch(), P::Reserved::decode(reserved)?));
                    sorted.settle(place);
                }
                (Step::Reserve, ..) | (Step::Apply(_), Call::Try(_), _) => return Err(Error::Raced),
            }
        }
        Ok(sorted)
    }

    fn settle(&mut self, place: usize) {
        self.has_written = true;
        self.answers[place] = Some(Answer::Settled(SettleAnswer::Done));
    }

    fn refuse(&mut self, place: usize, refusal: Refusal) {
        let refusal = storable(refusal);
        self.answers[place] = Some(Answer::Tried(TryAnswer::Refused(refusal.clone())));
        self.refused.push((place, refusal));
    }

    /// What became of a Try.
    fn take(
        &mut self,
        place: usize,
        outcome: Tried<P::Reserved>,
        foreseen: &[Foreseen],
        options: &Options,
    ) -> Result<(), Error> {
        let (reserved, output) = match outcome {
            Tried::Refused(refusal) => {
                self.refuse(place, refusal);
                return Ok(());
            }
            Tried::Reserved { reserved, output } => (reserved, output),
        };
        let reserved = keepable(&reserved, output.as_ref(), options.payload_bytes_max)?;
        self.answers[place] = Some(Answer::Tried(TryAnswer::Reserved(output.clone())));
        let there = foreseen.binary_search_by_key(&place, |foreseen| foreseen.place).ok();
        if there.is_some_and(|there| foreseen[there].reserved == reserved && foreseen[there].output == output) {
            self.has_written = true;
        } else {
            self.kept.push((place, reserved, output));
        }
        Ok(())
    }

    /// Writes what became of the tries to their rows.
    async fn keep(&mut self, conn: &mut ConnectionOf<P>, calls: &[Call<'_>]) -> Result<(), Error> {
        if self.has_written {
            P::Db::check_same(conn).await?;
        }
        let mut barrier = Barrier::<P::Db>::new(conn);
        if !self.kept.is_empty() {
            let kept = self.kept.iter().map(|(place, reserved, output)| Kept {
                key: calls[*place].key(),
                reserved,
                output: output.as_ref(),
            });
            barrier.keep_reserved(&kept.collect::<Vec<_>>()).await?;
        }
        if !self.refused.is_empty() {
            // Those whose payload was bad came before the others.
            self.refused.sort_by_key(|(place, _)| *place);
            let refused = self.refused.iter().map(|(place, refusal)| (calls[*place].key(), refusal));
            barrier.keep_refusals(&refused.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }
}
