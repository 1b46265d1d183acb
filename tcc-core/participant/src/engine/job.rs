//! One operation on its way through the engine, with the way back to whoever waits for it.

use tcc_barrier::{Answer, Call};
use tcc_types::{BranchKey, CancelCall, ConfirmCall, TryCall};
use tokio::sync::oneshot;

use super::{Unknown, queue::Waiting, slots::Slot};

/// Roughly what an operation takes beside its payload.
const ENVELOPE_BYTES: usize = 256;

/// What is to be done, owned.
#[derive(Debug)]
pub(super) enum Operation {
    Try(TryCall),
    Confirm(ConfirmCall),
    Cancel(CancelCall),
}

impl Operation {
    pub(super) fn call(&self) -> Call<'_> {
        match self {
            Self::Try(call) => Call::Try(call),
            Self::Confirm(call) => Call::Confirm(call),
            Self::Cancel(call) => Call::Cancel(call),
        }
    }
}

/// An operation that was let in.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) operation: Operation,
    reply: oneshot::Sender<Result<Answer, Unknown>>,
    slot: Slot,
}

impl Job {
    /// A job, and where its answer will arrive.
    pub(super) fn new(operation: Operation, slot: Slot) -> (Self, oneshot::Receiver<Result<Answer, Unknown>>) {
        let (reply, answer) = oneshot::channel();
        (Self { operation, reply, slot }, answer)
    }

    /// Tells its outcome. A caller that is gone does not need it.
    pub(super) fn answer(self, outcome: Result<Answer, Unknown>) {
        // First the room: whoever is answered may have its next operation ready.
        drop(self.slot);
        let _ = self.reply.send(outcome);
    }
}

impl Waiting for Job {
    fn key(&self) -> &BranchKey {
        self.operation.call().key()
    }

    fn size_bytes(&self) -> usize {
        let payload_bytes = match &self.operation {
            Operation::Try(call) => call.payload.size_bytes(),
            Operation::Confirm(_) | Operation::Cancel(_) => 0,
        };
        ENVELOPE_BYTES + payload_bytes
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}
