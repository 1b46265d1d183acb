//! One call to one participant, from the wait before it to the event that it becomes.

use std::{pin::Pin, sync::Arc, time::Duration};

use tcc_log::TxRecord;
use tcc_machine::{Call, Event, StuckKind};
use tcc_types::{BranchKey, CancelCall, ConfirmCall, Op, ParticipantName, SettleAnswer, TryAnswer, TryCall};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, debug, debug_span};

use super::not_after;
use crate::{Unknown, core::Core, dispatch::Endpoint, failpoint};

/// A call under way. Dropping it is safe: the operation is then unknown.
pub(super) type PendingCall = Pin<Box<dyn Future<Output = Event> + Send>>;

/// What is sent, with everything that it needs.
enum Message {
    Try(TryCall),
    Confirm(ConfirmCall),
    Cancel(CancelCall),
}

enum Answer {
    Tried(TryAnswer),
    Settled(SettleAnswer),
}

/// Prepares a call; it runs when polled.
pub(super) fn send(core: &Arc<Core>, record: &TxRecord, call: Call) -> PendingCall {
    let core = Arc::clone(core);
    let branch = &record.branches[call.branch];
    let participant = branch.participant.clone();
    let key = BranchKey { gid: record.gid, branch: branch.branch.clone() };
    let span = debug_span!("branch", branch = %key.branch, %participant, op = ?call.op);
    let message = match call.op {
        Op::Try => Message::Try(TryCall {
            key,
            payload: branch.payload.clone(),
            not_after: call.anew.unwrap_or_else(|| not_after(record, &core)),
            ask_after: record.decide_by.plus(Duration::from_millis(core.config.ask_grace_ms)),
            coordinator: core.log.name().clone(),
        }),
        Op::Confirm => Message::Confirm(ConfirmCall { key }),
        Op::Cancel => Message::Cancel(CancelCall { key, not_after: not_after(record, &core) }),
    };
    Box::pin(run(core, participant, message, call).instrument(span))
}

async fn run(core: Arc<Core>, participant: ParticipantName, message: Message, call: Call) -> Event {
    let Call { branch, serial, .. } = call;
    if !call.delay_max.is_zero() {
        sleep(core.entropy.jitter(call.delay_max)).await;
    }
    let Some(endpoint) = core.registry.get(&participant) else {
        let detail = format!("participant {participant} is not in this coordinator's configuration");
        return Event::Unanswered { branch, serial, kind: StuckKind::UnknownParticipant, detail };
    };
    hit_before(call.op);
    let limit = Duration::from_millis(core.config.call_timeout_ms);
    let answered = timeout(limit, ask(endpoint.as_ref(), message)).await;
    let answered = answered.unwrap_or_else(|_| Err(Unknown(format!("no answer within {} ms", limit.as_millis()))));
    if answered.is_ok() {
        hit_after(call.op);
    }
    match answered {
        Ok(Answer::Tried(answer)) => Event::TryAnswered { branch, serial, answer },
        Ok(Answer::Settled(answer)) => Event::SettleAnswered { branch, serial, answer },
        Err(Unknown(detail)) => {
            debug!(detail, "no answer");
            Event::Unanswered { branch, serial, kind: StuckKind::Unreachable, detail }
        }
    }
}

async fn ask(endpoint: &dyn Endpoint, message: Message) -> Result<Answer, Unknown> {
    match message {
        Message::Try(call) => endpoint.try_branch(call).await.map(Answer::Tried),
        Message::Confirm(call) => endpoint.confirm(call).await.map(Answer::Settled),
        Message::Cancel(call) => endpoint.cancel(call).await.map(Answer::Settled),
    }
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
