//! One batch, from its message to the last of its results. Decides what its failure means for each operation; repeats nothing by
//! itself. Started by `merge`.

use std::{collections::btree_map::Entry, future::pending, mem, pin::pin, sync::Arc, time::Duration};

use tcc_proto::tcc::v1::{BatchRequest, BatchResponse};
use tcc_wire::BatchResult;
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tonic::{Code, Status};

use super::{
    Unknown,
    merge::{Batch, Queued},
    no_answer,
    peer::{Peer, unknown},
};

/// Sends a batch and hands its results to the callers. Ends when every caller has an answer or has gone, and leaves nobody waiting
/// for longer than its terms say.
pub(super) async fn exchange(peer: Arc<Peer>, batch: Batch, slot: OwnedSemaphorePermit) {
    // One timer for all of them: they leave together.
    let within = batch.values().map(|queued| queued.terms.answer_within).max().unwrap_or_default();
    let patient_until = Instant::now() + peer.patience;
    let mut exchange = Exchange { waiting: batch, slot: Some(slot), patient_until };
    match timeout(within, exchange.run(&peer)).await {
        Ok(Ok(())) => {}
        Ok(Err(status)) => exchange.fail(&peer, &status).await,
        Err(_) => exchange.leave_unknown(&no_answer(within)),
    }
}

struct Exchange {
    /// Those without a result.
    waiting: Batch,
    /// Until the first answer, or until patience ends.
    slot: Option<OwnedSemaphorePermit>,
    patient_until: Instant,
}

impl Exchange {
    /// # Errors
    /// It failed as a whole; those without a result still wait.
    async fn run(&mut self, peer: &Peer) -> Result<(), Status> {
        let request = self.request();
        let Some(answered) = self.unless_all_leave(peer.batch(request)).await else { return Ok(()) };
        let mut results = answered?;
        while let Some(message) = self.unless_all_leave(results.message()).await {
            let Some(response) = message? else {
                self.leave_unknown(&Unknown("the batch ended without its result".to_owned()));
                return Ok(());
            };
            self.hand_out(response);
            if self.waiting.is_empty() {
                // The participant is about to end it: hearing that is cheaper to both than a reset.
                let _ = timeout(peer.patience, results.message()).await;
            }
        }
        Ok(())
    }

    fn request(&mut self) -> BatchRequest {
        let operation =
            |queued: &mut Queued| tcc_wire::operation_to_proto(&queued.operation, mem::take(&mut queued.traceparent));
        BatchRequest { operations: self.waiting.values_mut().map(operation).collect() }
    }

    /// What `future` gives; `None` as soon as nobody waits for a result.
    async fn unless_all_leave<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        while let Some(mut first) = self.waiting.first_entry() {
            select! {
                biased;
                output = &mut future => return Some(output),
                () = until_given_back(self.slot.as_ref(), self.patient_until) => self.slot = None,
                // One stands for all: callers that came together leave together.
                () = first.get_mut().reply.closed() => self.waiting.retain(|_, queued| !queued.reply.is_closed()),
            }
        }
        None
    }

    /// The first result of an operation counts; what was not asked for is ignored.
    fn hand_out(&mut self, response: BatchResponse) {
        self.slot = None;
        for result in response.results {
            let BatchResult { key, op, outcome } = match tcc_wire::result_from_proto(result) {
                Ok(result) => result,
                Err(malformed) => {
                    tracing::debug!(%malformed, "a result is ignored");
                    continue;
                }
            };
            if let Entry::Occupied(entry) = self.waiting.entry(key)
                && entry.get().operation.op() == op
            {
                entry.remove().answer(outcome.map_err(Unknown));
            }
        }
    }

    async fn fail(mut self, peer: &Peer, status: &Status) {
        tracing::debug!(code = ?status.code(), message = status.message(), waiting = self.waiting.len(), "a batch failed");
        match Failure::of(status) {
            Failure::TakesNoBatches => {
                peer.note_plain();
                self.waiting.into_values().for_each(|queued| queued.send_alone(None));
            }
            // If it still has its slot, that is kept until the last of them has had its turn.
            Failure::OfThisMessage => send_one_by_one(self.waiting, peer.patience).await,
            Failure::OfTheParticipant => self.leave_unknown(&unknown(status)),
        }
    }

    fn leave_unknown(&mut self, unknown: &Unknown) {
        mem::take(&mut self.waiting).into_values().for_each(|queued| queued.answer(Err(unknown.clone())));
    }
}

/// One after the other, each once the one before it was answered, or kept it waiting for too long: a participant that fails for
/// being overloaded must not get as many messages as the batch had operations.
pub(super) async fn send_one_by_one(batch: Batch, patience: Duration) {
    let (tries, settles): (Vec<_>, Vec<_>) = batch.into_values().partition(Queued::is_try);
    for queued in settles.into_iter().chain(tries).filter(|queued| !queued.is_given_up()) {
        let (turn, ended) = oneshot::channel();
        queued.send_alone(Some(turn));
        let _ = timeout(patience, ended).await;
    }
}

async fn until_given_back(slot: Option<&OwnedSemaphorePermit>, patient_until: Instant) {
    match slot {
        Some(_) => sleep_until(patient_until).await,
        None => pending().await,
    }
}

/// What a batch that failed as a whole says of its operations, which are unknown in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// They have to go one by one, and so has whatever comes after them.
    TakesNoBatches,
    /// The message may be to blame, or one of its operations: one by one, each is answered for itself.
    OfThisMessage,
    /// One by one they would meet the same: they are left to the driver, which repeats them with its delays.
    OfTheParticipant,
}

impl Failure {
    fn of(status: &Status) -> Self {
        // With a source, it was made here: `Unknown` is then what tonic calls a connection that broke.
        let made_here = std::error::Error::source(status).is_some();
        match status.code() {
            Code::Unimplemented => Self::TakesNoBatches,
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => Self::OfTheParticipant,
            Code::Unknown if made_here => Self::OfTheParticipant,
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::OfThisMessage,
        }
    }
}
