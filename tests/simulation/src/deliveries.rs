//! What the network does to the messages of a participant: they arrive again, much later too, or their answers are lost. In front of the
//! service that ships; whatever comes through is answered by that.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tcc_proto::tcc::v1::{
    BatchRequest, BatchResponse, CancelRequest, CancelResponse, ConfirmRequest, ConfirmResponse, TryRequest, TryResponse,
    batch_operation::Operation, batch_result::Outcome, participant_server::Participant,
};
use tcc_types::Op;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::{
    answers::{self, Rows},
    dice::Dice,
    place::Host,
    world::{Point, World},
};

/// A field that no message has, encoded: a payload with it says the same in other bytes.
pub(crate) const UNKNOWN_FIELD: [u8; 2] = [0x78, 0x01];

/// How often messages are repeated, lost with their answers, and sent again with another payload.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mischief {
    pub(crate) repeats_per_mille: u32,
    pub(crate) lost_per_mille: u32,
    pub(crate) forged_per_mille: u32,
}

/// A participant behind an unreliable network.
pub(crate) struct Deliveries<S> {
    inner: Arc<S>,
    line: Arc<Line>,
}

struct Line {
    world: Arc<World>,
    host: Host,
    rows: Rows,
    dice: Dice,
    mischief: Arc<Mutex<Mischief>>,
    /// Messages that will arrive once more.
    copies: TaskTracker,
}

/// What becomes of one message.
enum Fate {
    /// It arrives, and its answer does.
    Arrives,
    /// It never arrives.
    Lost,
    /// It arrives, and its answer does not.
    Unanswered,
}

impl<S> Deliveries<S> {
    pub(crate) fn new(inner: S, world: &Arc<World>, host: Host, rows: Rows, mischief: Arc<Mutex<Mischief>>) -> Self {
        let (world, dice) = (Arc::clone(world), world.dice(format_args!("messages to {host}")));
        Self { inner: Arc::new(inner), line: Arc::new(Line { world, host, rows, dice, mischief, copies: TaskTracker::new() }) }
    }
}

impl Line {
    async fn fate(&self) -> Fate {
        self.world.visit(self.host, Point::Arrival).await;
        let mischief = *self.mischief.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.dice.happens(mischief.lost_per_mille) {
            Fate::Arrives
        } else if self.dice.happens(500) {
            Fate::Lost
        } else {
            Fate::Unanswered
        }
    }

    /// When the same message arrives once more; `None`: it does not.
    fn repeated_after(&self) -> Option<Duration> {
        let mischief = *self.mischief.lock().unwrap_or_else(PoisonError::into_inner);
        // Most copies come soon; some when everything is long over.
        let latest_ms = if self.dice.happens(200) { 20_000 } else { 400 };
        self.dice.happens(mischief.repeats_per_mille).then(|| self.dice.millis(0..=latest_ms))
    }

    /// When a Try arrives once more with another payload; `None`: it does not.
    fn forged_after(&self) -> Option<Duration> {
        let mischief = *self.mischief.lock().unwrap_or_else(PoisonError::into_inner);
        self.dice.happens(mischief.forged_per_mille).then(|| self.dice.millis(0..=400))
    }

    fn seen(&self, op: Op, gid: &str, branch: &str, answer: &str) {
        let row = self.rows.row(gid, branch);
        self.world.tell(self.host, format_args!("{op:?} {gid} {branch}: {answer}, its row is now {row}"));
        let is_just_lost = || answers::key(gid, branch).is_some_and(|key| self.world.is_just_lost(&key));
        if !answers::fits(op, answer, &row) && !is_just_lost() {
            self.world.violation("S3", format_args!("{op:?} {gid} {branch} was answered {answer}, and its row is {row}"));
        }
        let faults = self.world.faults();
        self.world.coverage().answered(op, answer, &faults);
    }
}

fn lost() -> Status {
    Status::unavailable("the network lost it")
}

/// One call by itself: repeated, lost or answered.
macro_rules! deliver {
    ($self:ident, $request:ident, $method:ident, $op:expr, $told:path) => {{
        let message = $request.into_inner();
        let (gid, branch) = (message.gid.clone(), message.branch_id.clone());
        if let Some(after) = $self.line.repeated_after() {
            let (inner, line, message) = (Arc::clone(&$self.inner), Arc::clone(&$self.line), message.clone());
            let (gid, branch) = (gid.clone(), branch.clone());
            $self.line.copies.spawn(async move {
                tokio::time::sleep(after).await;
                line.world.coverage().repeats += 1;
                let answer = inner.$method(Request::new(message)).await;
                line.seen($op, &gid, &branch, &answer.map_or_else(|_| "unknown".to_owned(), |it| $told(it.get_ref())));
            });
        }
        let fate = $self.line.fate().await;
        if matches!(fate, Fate::Lost) {
            return Err(lost());
        }
        $self.line.rows.before(&$self.line.world, $op, &gid, &branch);
        let answer = $self.inner.$method(Request::new(message)).await;
        let told = answer.as_ref().map_or_else(|_| "unknown".to_owned(), |it| $told(it.get_ref()));
        $self.line.seen($op, &gid, &branch, &told);
        $self.line.world.visit($self.line.host, Point::Answer).await;
        match fate {
            Fate::Arrives => answer,
            Fate::Lost | Fate::Unanswered => Err(lost()),
        }
    }};
}

impl<S: Participant> Deliveries<S> {
    /// Sends a Try again with another payload under the same id: never may it be taken for the first.
    fn forge(&self, message: &TryRequest) {
        let (Some(after), Some(payload)) = (self.line.forged_after(), &message.payload) else { return };
        let (inner, line) = (Arc::clone(&self.inner), Arc::clone(&self.line));
        let mut forged = TryRequest { payload: Some(payload.clone()), ..message.clone() };
        forged.payload.iter_mut().for_each(|payload| payload.value.extend(UNKNOWN_FIELD));
        self.line.copies.spawn(async move {
            tokio::time::sleep(after).await;
            let (gid, branch) = (forged.gid.clone(), forged.branch_id.clone());
            if !line.rows.is_durable(&gid, &branch) {
                // It would be the first, or could become it.
                return;
            }
            let answer = inner.r#try(Request::new(forged)).await;
            let told = answer.map_or_else(|_| "unknown".to_owned(), |it| answers::tried(it.get_ref()));
            line.seen(Op::Try, &gid, &branch, &told);
            let fits = matches!(&*told, "violation: another payload" | "suspended" | "unknown");
            let is_lost = answers::key(&gid, &branch).is_some_and(|key| line.world.is_lost(&key));
            if !fits && !is_lost {
                line.world.violation("S3", format_args!("a Try of {gid} {branch} with another payload was answered: {told}"));
            }
        });
    }
}

#[tonic::async_trait]
impl<S: Participant> Participant for Deliveries<S> {
    async fn r#try(&self, request: Request<TryRequest>) -> Result<Response<TryResponse>, Status> {
        self.forge(request.get_ref());
        deliver!(self, request, r#try, Op::Try, answers::tried)
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        deliver!(self, request, confirm, Op::Confirm, answers::confirmed)
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        deliver!(self, request, cancel, Op::Cancel, answers::cancelled)
    }

    type BatchStream = Pin<Box<dyn Stream<Item = Result<BatchResponse, Status>> + Send>>;

    async fn batch(&self, request: Request<BatchRequest>) -> Result<Response<Self::BatchStream>, Status> {
        let message = request.into_inner();
        if let Some(after) = self.line.repeated_after() {
            let (inner, line, message) = (Arc::clone(&self.inner), Arc::clone(&self.line), message.clone());
            self.line.copies.spawn(async move {
                tokio::time::sleep(after).await;
                line.world.coverage().repeats += 1;
                if let Ok(answer) = inner.batch(Request::new(message)).await {
                    told(&line, answer.into_inner()).collect::<Vec<_>>().await;
                }
            });
        }
        let fate = self.line.fate().await;
        if matches!(fate, Fate::Lost) {
            return Err(lost());
        }
        for one in &message.operations {
            if let Some(operation) = &one.operation {
                if let Operation::TryRequest(message) = operation {
                    self.forge(message);
                }
                let (op, gid, branch) = answers::named(operation);
                self.line.rows.before(&self.line.world, op, gid, branch);
            }
        }
        let answers = told(&self.line, self.inner.batch(Request::new(message)).await?.into_inner());
        match fate {
            Fate::Arrives => Ok(Response::new(Box::pin(answers))),
            Fate::Lost | Fate::Unanswered => {
                answers.collect::<Vec<_>>().await;
                Err(lost())
            }
        }
    }
}

/// A batch's answers, written down as they leave.
fn told<A>(line: &Arc<Line>, answers: A) -> impl Stream<Item = Result<BatchResponse, Status>> + Send + use<A>
where
    A: Stream<Item = Result<BatchResponse, Status>> + Send,
{
    let line = Arc::clone(line);
    answers.then(move |answer| {
        let line = Arc::clone(&line);
        async move {
            for result in answer.iter().flat_map(|answer| &answer.results) {
                let (op, told) = match &result.outcome {
                    Some(Outcome::Tried(it)) => (Op::Try, answers::tried(it)),
                    Some(Outcome::Confirmed(it)) => (Op::Confirm, answers::confirmed(it)),
                    Some(Outcome::Cancelled(it)) => (Op::Cancel, answers::cancelled(it)),
                    Some(Outcome::Unknown(_)) | None => continue,
                };
                line.seen(op, &result.gid, &result.branch_id, &told);
            }
            line.world.visit(line.host, Point::Answer).await;
            answer
        }
    })
}
