//! Many operations in one transaction, their business in one handler.

use std::pin::Pin;

use bytes::Bytes;
use prost::Message;
use sqlx::Connection;
use tcc_barrier::{Answer, BarrierStore, Call, Kept, Step};
use tcc_types::{BranchKey, Payload, Refusal, SettleAnswer, TryAnswer};

use super::{Error, decode, in_transaction, keepable, storable};
use crate::{Barrier, Batch, BatchParticipant, BranchContext, ConnectionOf, Database, Options, Participant, Result, Tried};

/// [`BatchParticipant::on_batch`] of some participant. A pointer, so that one that has no such handler needs no other type.
pub(crate) type OnBatch<P> =
    for<'a> fn(&'a P, &'a mut ConnectionOf<P>, Batch<P>) -> Pin<Box<dyn Future<Output = Result<Outcomes<P>>> + Send + 'a>>;

/// What became of each Try.
type Outcomes<P> = Vec<Tried<<P as Participant>::Reserved>>;

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
    run(participant, on_batch::<P>, conn, calls, options).await
}

/// The pointer to a participant's handler.
pub(crate) fn on_batch<'a, P: BatchParticipant>(
    participant: &'a P,
    conn: &'a mut ConnectionOf<P>,
    batch: Batch<P>,
) -> Pin<Box<dyn Future<Output = Result<Outcomes<P>>> + Send + 'a>> {
    Box::pin(participant.on_batch(conn, batch))
}

/// The handlers of a participant that has none for many: one after the other, each Try between savepoints.
pub(crate) fn one_by_one<'a, P: Participant>(
    participant: &'a P,
    conn: &'a mut ConnectionOf<P>,
    batch: Batch<P>,
) -> Pin<Box<dyn Future<Output = Result<Outcomes<P>>> + Send + 'a>> {
    Box::pin(async move {
        for (branch, reserved) in batch.confirms {
            participant.on_confirm(conn, &branch, reserved).await?;
        }
        for (branch, reserved) in batch.cancels {
            participant.on_cancel(conn, &branch, reserved).await?;
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
    })
}

/// As [`batch`].
pub(crate) async fn run<P: Participant>(
    participant: &P,
    on_batch: OnBatch<P>,
    conn: &mut ConnectionOf<P>,
    calls: &[Call<'_>],
    options: &Options,
) -> Result<Vec<Answer>, Error> {
    in_transaction::<P>(conn)?;
    let steps = tcc_barrier::steps(&mut Barrier::<P::Db>::new(conn), calls).await?;
    let mut sorted = Sorted::<P>::sort(calls, steps, options)?;
    let tries = std::mem::take(&mut sorted.tries);
    if !sorted.business.is_empty() {
        let business = std::mem::take(&mut sorted.business);
        let outcomes = on_batch(participant, conn, business).await.map_err(Error::Handler)?;
        if outcomes.len() != tries.len() {
            return Err(Error::Outcomes { answers: outcomes.len(), tries: tries.len() });
        }
        for (place, outcome) in tries.into_iter().zip(outcomes) {
            sorted.take(place, outcome, options)?;
        }
    }
    sorted.keep(conn, calls).await?;
    Ok(sorted.answers.into_iter().flatten().collect())
}

/// A batch's operations by what is left to do for them, each with its place.
struct Sorted<P: Participant> {
    business: Batch<P>,
    /// Of the business's tries.
    tries: Vec<usize>,
    /// Whose business is to spend or to release.
    settled: Vec<usize>,
    /// What their rows will keep.
    kept: Vec<(usize, Bytes, Option<Payload>)>,
    refused: Vec<(usize, Refusal)>,
    answers: Vec<Option<Answer>>,
}

impl<P: Participant> Sorted<P> {
    fn sort(calls: &[Call<'_>], steps: Vec<Step>, options: &Options) -> Result<Self, Error> {
        let mut sorted = Self {
            business: Batch::default(),
            tries: Vec::new(),
            settled: Vec::new(),
            kept: Vec::new(),
            refused: Vec::new(),
            answers: vec![None; calls.len()],
        };
        for (place, (call, step)) in calls.iter().zip(steps).enumerate() {
            let branch = || BranchContext::new(call.key().clone());
            match (step, *call) {
                (Step::Answer(answer), _) => sorted.answers[place] = Some(answer),
                (Step::Reserve, Call::Try(call)) => match decode::<P::Payload>(&call.payload, options.payload_bytes_max) {
                    Ok(payload) => {
                        sorted.tries.push(place);
                        sorted.business.tries.push((branch(), payload));
                    }
                    Err(refusal) => sorted.refuse(place, refusal),
                },
                (Step::Apply(reserved), Call::Confirm(_)) => {
                    sorted.business.confirms.push((branch(), P::Reserved::decode(reserved)?));
                    sorted.settle(place);
                }
                (Step::Apply(reserved), Call::Cancel(_)) => {
                    sorted.business.cancels.push((branch(), P::Reserved::decode(reserved)?));
                    sorted.settle(place);
                }
                (Step::Reserve, Call::Confirm(_) | Call::Cancel(_)) | (Step::Apply(_), Call::Try(_)) => {
                    return Err(Error::Raced);
                }
            }
        }
        Ok(sorted)
    }

    fn settle(&mut self, place: usize) {
        self.settled.push(place);
        self.answers[place] = Some(Answer::Settled(SettleAnswer::Done));
    }

    fn refuse(&mut self, place: usize, refusal: Refusal) {
        let refusal = storable(refusal);
        self.answers[place] = Some(Answer::Tried(TryAnswer::Refused(refusal.clone())));
        self.refused.push((place, refusal));
    }

    /// What became of a Try.
    fn take(&mut self, place: usize, outcome: Tried<P::Reserved>, options: &Options) -> Result<(), Error> {
        match outcome {
            Tried::Refused(refusal) => self.refuse(place, refusal),
            Tried::Reserved { reserved, output } => {
                let reserved = keepable(&reserved, output.as_ref(), options.payload_bytes_max)?;
                self.answers[place] = Some(Answer::Tried(TryAnswer::Reserved(output.clone())));
                self.kept.push((place, reserved, output));
            }
        }
        Ok(())
    }

    /// Writes what became of the tries to their rows.
    async fn keep(&mut self, conn: &mut ConnectionOf<P>, calls: &[Call<'_>]) -> Result<(), Error> {
        if !self.settled.is_empty() {
            let settled: Vec<&BranchKey> = self.settled.iter().map(|place| calls[*place].key()).collect();
            P::Db::check_settled(conn, &settled).await?;
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
