//! Gathers the operations that wait for one participant into batches: whatever is queued when a message may leave goes into it,
//! phase two before phase one, and nothing waits for more. Sends batches only; an operation without company goes back to its caller,
//! who sends it alone.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use tcc_types::BranchKey;
use tcc_wire::{Answer, Operation};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{JoinSet, yield_now},
    time::timeout,
};

use super::{EndpointConfig, Terms, Unknown, batch, peer::Peer};

/// An operation that waits to be sent, or was sent and waits for its result.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) operation: Operation,
    pub(super) terms: Terms,
    /// Of its caller; empty if nothing is traced.
    pub(super) traceparent: String,
    /// Closed when the caller has gone.
    pub(super) reply: oneshot::Sender<Fate>,
}

/// What becomes of a queued operation.
#[derive(Debug)]
pub(super) enum Fate {
    /// It was in a batch.
    Answered(Result<Answer, Unknown>),
    /// Its caller has to send it by its own call. Callers hold places, so this is bounded as all calls are.
    Alone {
        operation: Operation,
        /// Where it is the message that others wait behind: to be dropped when it is answered.
        turn: Option<oneshot::Sender<()>>,
    },
}

impl Queued {
    /// Nobody waits for it, or wants it to leave.
    pub(super) fn is_given_up(&self) -> bool {
        self.reply.is_closed() || self.terms.is_withdrawn()
    }

    pub(super) const fn is_try(&self) -> bool {
        matches!(self.operation, Operation::Try(_))
    }

    // A caller that has gone misses nothing: to it, the operation is unknown.
    pub(super) fn answer(self, answer: Result<Answer, Unknown>) {
        let _ = self.reply.send(Fate::Answered(answer));
    }

    pub(super) fn send_alone(self, turn: Option<oneshot::Sender<()>>) {
        let _ = self.reply.send(Fate::Alone { operation: self.operation, turn });
    }
}

/// The operations of one message, one for each branch.
pub(super) type Batch = BTreeMap<BranchKey, Queued>;

/// The loop that makes batches.
pub(super) struct Merger {
    peer: Arc<Peer>,
    queue: mpsc::Receiver<Queued>,
    /// Taken from the queue but not sent, in order. Each has its caller's place, and those whose callers have gone leave with the next
    /// message, so that there are hardly more than those.
    settles: VecDeque<Queued>,
    tries: VecDeque<Queued>,
    /// Messages that may wait for their first answer.
    slots: Arc<Semaphore>,
    batch_max: usize,
    batch_bytes_max: usize,
}

impl Merger {
    pub(super) fn new(peer: Arc<Peer>, queue: mpsc::Receiver<Queued>, config: &EndpointConfig) -> Self {
        Self {
            peer,
            queue,
            settles: VecDeque::new(),
            tries: VecDeque::new(),
            slots: Arc::new(Semaphore::new(config.batches_in_flight_max)),
            batch_max: config.batch_max,
            batch_bytes_max: config.batch_bytes_max,
        }
    }

    /// Runs until the endpoint is dropped, which ends every batch under way too.
    pub(super) async fn run(mut self) {
        let mut under_way = JoinSet::new();
        while self.something_waits().await {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            // Whoever is about to call gets to the queue first. Where nobody is, this takes no time.
            yield_now().await;
            let batch = self.fill();
            self.send(batch, slot, &mut under_way);
            while let Some(ended) = under_way.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a batch panicked: the outcomes of its operations are unknown");
                }
            }
        }
    }

    async fn something_waits(&mut self) -> bool {
        if self.settles.is_empty() && self.tries.is_empty() {
            let Some(first) = self.queue.recv().await else { return false };
            self.line_up(first);
        }
        true
    }

    fn line_up(&mut self, queued: Queued) {
        let line = if queued.is_try() { &mut self.tries } else { &mut self.settles };
        line.push_back(queued);
    }

    /// Takes what waits, up to the limits: first what settles, for the reasons that `places` has. So a Cancel may overtake the
    /// Try that it makes up for, which is then refused: suspension.
    fn fill(&mut self) -> Batch {
        while let Ok(queued) = self.queue.try_recv() {
            self.line_up(queued);
        }
        let (mut batch, mut bytes) = (Batch::new(), 0);
        for line in [&mut self.settles, &mut self.tries] {
            // A second operation of one branch waits for the next message, as does everything behind one that does not fit.
            let mut later = Vec::new();
            while batch.len() < self.batch_max && later.len() < self.batch_max {
                let Some(queued) = line.pop_front() else { break };
                if queued.is_given_up() {
                    continue;
                }
                let own_bytes = queued.operation.size_bytes_max();
                if !batch.is_empty() && bytes + own_bytes > self.batch_bytes_max {
                    later.push(queued);
                    break;
                }
                match batch.entry(queued.operation.key().clone()) {
                    Entry::Vacant(vacant) => {
                        bytes += own_bytes;
                        vacant.insert(queued);
                    }
                    Entry::Occupied(_) => later.push(queued),
                }
            }
            later.into_iter().rev().for_each(|queued| line.push_front(queued));
        }
        batch
    }

    fn send(&self, mut batch: Batch, slot: OwnedSemaphorePermit, under_way: &mut JoinSet<()>) {
        if self.peer.is_plain() {
            batch.into_values().for_each(|queued| queued.send_alone(None));
        } else if batch.len() > 1 {
            under_way.spawn(batch::exchange(Arc::clone(&self.peer), batch, slot));
        } else if let Some((_, queued)) = batch.pop_first() {
            let (turn, ended) = oneshot::channel();
            // The slot stays here: a caller may be busy with something else than its answer for any time.
            under_way.spawn(until_the_turn_ends(slot, ended, self.peer.patience));
            queued.send_alone(Some(turn));
        }
    }
}

async fn until_the_turn_ends(slot: OwnedSemaphorePermit, ended: oneshot::Receiver<()>, patience: Duration) {
    let _ = timeout(patience, ended).await;
    drop(slot);
}
