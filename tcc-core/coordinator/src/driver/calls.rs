//! The calls of one driver, each from the wait before it to the event that it becomes. Decides nothing; used by the driver.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tcc_log::TxRecord;
use tcc_machine::{Call, Event, StuckKind};
use tcc_types::{BranchKey, CancelCall, ConfirmCall, Op, ParticipantName, TryCall};
use tcc_wire::{Answer, Operation};
use tokio::{select, time::sleep};
use tracing::{Instrument, debug, debug_span};

use super::not_after;
use crate::{Unknown, core::Core, dispatch::Terms, failpoint};

/// A call under way. Dropping it is safe: the operation is then unknown.
type PendingCall = Pin<Box<dyn Future<Output = Event> + Send>>;

/// All calls of one driver that are under way.
#[derive(Default)]
pub(super) struct Calls {
    under_way: FuturesUnordered<PendingCall>,
    /// Of calls that ended while the driver waited for something else; one for each.
    ended: VecDeque<Event>,
    /// Set at the decision.
    tries_withdrawn: Arc<AtomicBool>,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.ended.is_empty()
    }

    /// What the next call to end has become; `None`: there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Event> {
        match self.ended.pop_front() {
            Some(event) => Some(event),
            None => self.under_way.next().await,
        }
    }

    /// Goes on with the calls while the driver waits for something else: they hold places at participants, which a call that
    /// was answered, or was given its place, would keep from others for as long as the log does not answer.
    pub(super) async fn meanwhile<T>(&mut self, awaited: impl Future<Output = T>) -> T {
        let mut awaited = pin!(awaited);
        loop {
            select! {
                biased;
                output = &mut awaited => return output,
                Some(event) = self.under_way.next() => self.ended.push_back(event),
            }
        }
    }

    /// No Try leaves any more, but for those that an operator orders anew. The answers of those that have left no longer matter,
    /// but they are waited for: the Cancel makes up for them, and many a participant takes many resets for an attack.
    pub(super) fn withdraw_tries(&self) {
        self.tries_withdrawn.store(true, Ordering::Relaxed);
    }

    /// Begins a call.
    pub(super) fn send(&mut self, core: &Arc<Core>, record: &TxRecord, call: Call) {
        let core = Arc::clone(core);
        let branch = &record.branches[call.branch];
        let participant = branch.participant.clone();
        let key = BranchKey { gid: record.gid, branch: branch.branch.clone() };
        let span = debug_span!("branch", branch = %key.branch, %participant, op = ?call.op);
        let operation = match call.op {
            Op::Try => Operation::Try(TryCall {
                key,
                payload: branch.payload.clone(),
                not_after: call.anew.unwrap_or_else(|| not_after(record, &core)),
                ask_after: record.decide_by.plus(Duration::from_millis(core.config.ask_grace_ms)),
                coordinator: core.log.name().clone(),
            }),
            Op::Confirm => Operation::Confirm(ConfirmCall { key }),
            Op::Cancel => Operation::Cancel(CancelCall { key, not_after: not_after(record, &core) }),
        };
        let ends_with_the_vote = call.op == Op::Try && call.anew.is_none();
        let answer_within = Duration::from_millis(core.config.call_timeout_ms);
        let terms = Terms {
            answer_within,
            // A Try waits until the machine decides without it. A Confirm or Cancel, which only others of its kind can keep waiting,
            // waits no longer than for an answer: at a participant that answers so few, it is to wait in the log.
            turn_within: if call.op == Op::Try { Duration::MAX } else { answer_within },
            withdrawn: ends_with_the_vote.then(|| Arc::clone(&self.tries_withdrawn)),
        };
        self.under_way.push(Box::pin(run(core, participant, operation, terms, call).instrument(span)));
    }
}

async fn run(core: Arc<Core>, participant: ParticipantName, operation: Operation, terms: Terms, call: Call) -> Event {
    let Call { branch, serial, op, .. } = call;
    let unanswered = |kind, detail| Event::Unanswered { branch, serial, kind, detail };
    if !call.delay_max.is_zero() {
        sleep(core.entropy.jitter(call.delay_max)).await;
        if terms.is_withdrawn() {
            return unanswered(StuckKind::Unreachable, "it was withdrawn before it left".to_owned());
        }
    }
    let Some(endpoint) = core.registry.get(&participant) else {
        let detail = format!("participant {participant} is not in this coordinator's configuration");
        return unanswered(StuckKind::UnknownParticipant, detail);
    };
    hit_before(op);
    let answered = endpoint.call(operation, terms).await;
    if answered.is_ok() {
        hit_after(op);
    }
    let detail = match (op, answered) {
        (Op::Try, Ok(Answer::Tried(answer))) => return Event::TryAnswered { branch, serial, answer },
        (Op::Confirm | Op::Cancel, Ok(Answer::Settled(answer))) => return Event::SettleAnswered { branch, serial, answer },
        (Op::Try, Ok(Answer::Settled(_))) | (Op::Confirm | Op::Cancel, Ok(Answer::Tried(_))) => {
            "the answer is another operation's".to_owned()
        }
        (Op::Try | Op::Confirm | Op::Cancel, Err(Unknown(detail))) => detail,
    };
    debug!(detail, "no answer");
    unanswered(StuckKind::Unreachable, detail)
}

fn hit_before(op: Op) {
    failpoint::hit(match op {
        Op::Try => failpoint::TRY_BEFORE,
        Op::Confirm => failpoint::CONFIRM_BEFORE,
        Op::Cancel => failpoint::CANCEL_BEFORE,
    });
}

fn hit_after(op: Op) {
    failpoint::hit(match op {
        Op::Try => failpoint::TRY_AFTER,
        Op::Confirm => failpoint::CONFIRM_AFTER,
        Op::Cancel => failpoint::CANCEL_AFTER,
    });
}
