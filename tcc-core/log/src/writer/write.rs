//! A write on its way from its caller to the writer and, with its answer, back. No SQL here.

use std::time::Duration;

use tcc_machine::BranchProgress;
use tcc_types::{BranchId, Gid, IdempotencyKey, Initiator, Timestamp};
use tokio::sync::oneshot;

use crate::{
    AuditRecord, Begun, Choice, Decide, Decided, Deleted, Due, Enlisted, Error, MarkedSettled, NewAudit, NewBranch,
    NewTransaction, Owner, Park, TxRecord,
};

/// A write with the way back to its caller, who may be gone.
#[derive(Debug)]
pub(crate) struct Ask<Q, A> {
    /// What is to be written.
    pub(crate) question: Q,
    /// Known once the statements ran; told only once it is durable.
    answer: Option<A>,
    reply: oneshot::Sender<Result<A, Error>>,
}

/// Where an answer will arrive.
pub(crate) type Reply<A> = oneshot::Receiver<Result<A, Error>>;

impl<Q, A> Ask<Q, A> {
    /// A write, and where its answer will arrive.
    pub(crate) fn new(question: Q) -> (Self, Reply<A>) {
        let (reply, receiver) = oneshot::channel();
        (Self { question, answer: None, reply }, receiver)
    }

    /// Sets the answer that is told if the commit succeeds.
    pub(crate) fn answer(&mut self, answer: A) {
        self.answer = Some(answer);
    }

    /// Tells the answer.
    pub(crate) fn deliver(self) {
        let answer = self.answer.ok_or_else(|| Error::Unusable("the log's writer left a write without an answer".to_owned()));
        // A caller that is gone does not need it.
        let _ = self.reply.send(answer);
    }

    /// Tells an error.
    pub(crate) fn fail(self, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

/// The question of [`TxLog::begin_cancelled`](crate::TxLog::begin_cancelled).
#[derive(Clone, Debug)]
pub(crate) struct BeginCancelled {
    pub(crate) gid: Gid,
    pub(crate) by: Initiator,
}

/// The question of [`TxLog::enlist`](crate::TxLog::enlist).
#[derive(Clone, Debug)]
pub(crate) struct Enlist {
    pub(crate) gid: Gid,
    pub(crate) branch: NewBranch,
    pub(crate) branches_max: u32,
}

/// The question of [`TxLog::claim`](crate::TxLog::claim).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) owner: Owner,
    pub(crate) due: Due,
    pub(crate) limit: u32,
    pub(crate) lease: Duration,
}

/// The question of [`TxLog::renew`](crate::TxLog::renew).
#[derive(Clone, Debug)]
pub(crate) struct Renew {
    pub(crate) owner: Owner,
    pub(crate) gids: Vec<Gid>,
    pub(crate) lease: Duration,
}

/// The question of [`TxLog::delete_ended`](crate::TxLog::delete_ended).
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeleteEnded {
    pub(crate) after: Option<Gid>,
    pub(crate) ended_before: Timestamp,
    pub(crate) limit: u32,
}

/// What inserts under a gid. Both kinds go through one statement, so that whichever comes first wins.
#[derive(Debug)]
pub(crate) enum Beginning {
    New(Ask<NewTransaction, Begun>),
    Cancelled(Ask<BeginCancelled, TxRecord>),
}

impl Beginning {
    pub(crate) fn gid(&self) -> Gid {
        match self {
            Self::New(ask) => ask.question.gid,
            Self::Cancelled(ask) => ask.question.gid,
        }
    }

    /// The key that is unique beside the gid.
    pub(crate) fn key(&self) -> Option<(&Initiator, &IdempotencyKey)> {
        match self {
            Self::New(ask) => ask.question.key.as_ref().map(|key| (&ask.question.initiator, key)),
            Self::Cancelled(_) => None,
        }
    }
}

/// A write that touches rows which its question does not name, or is too rare to be worth grouping: it runs alone, in order.
#[derive(Debug)]
pub(crate) enum Alone {
    TakeOwner(Ask<(), Owner>),
    /// By whom, if a number was taken.
    Probe(Ask<Owner, ()>),
    Claim(Ask<Claim, Vec<TxRecord>>),
    Renew(Ask<Renew, Vec<Gid>>),
    DeleteEnded(Ask<DeleteEnded, Deleted>),
    ReleaseLeases(Ask<(), u64>),
    Audit(Ask<NewAudit, AuditRecord>),
    MarkSettled(Ask<NewAudit, MarkedSettled>),
}

/// Any write.
#[derive(Debug)]
pub(crate) enum Write {
    Begin(Beginning),
    Enlist(Ask<Enlist, Enlisted>),
    Decide(Ask<Decide, Decided>),
    Park(Ask<Park, ()>),
    Finish(Ask<Gid, ()>),
    Alone(Alone),
}

impl Write {
    /// Whether nobody waits for it: it may wait for others.
    pub(crate) fn is_lazy(&self) -> bool {
        match self {
            Self::Finish(_) => true,
            Self::Begin(_) | Self::Enlist(_) | Self::Decide(_) | Self::Park(_) | Self::Alone(_) => false,
        }
    }

    /// Roughly how much it brings to the commit: its payloads and texts, and something for each row.
    pub(crate) fn size_bytes(&self) -> usize {
        const ROW: usize = 128;
        let branch = |branch: &NewBranch| ROW + branch.payload.size_bytes();
        let detail =
            |(_, progress): &(BranchId, BranchProgress)| ROW + progress.stuck.as_ref().map_or(0, |stuck| stuck.detail.len());
        match self {
            Self::Begin(Beginning::New(ask)) => ROW + ask.question.branches.iter().map(branch).sum::<usize>(),
            Self::Enlist(ask) => branch(&ask.question.branch),
            Self::Park(ask) => ROW + ask.question.branches.iter().map(detail).sum::<usize>(),
            Self::Decide(ask) => match &ask.question.choice {
                Choice::Confirm { .. } => ROW,
                // A cause can carry a refusal's message.
                Choice::Cancel { .. } => 2 * ROW,
            },
            Self::Begin(Beginning::Cancelled(_)) | Self::Finish(_) | Self::Alone(_) => ROW,
        }
    }
}
