//! What callers ask for, in the framework's own words.

use std::time::Duration;

use tcc_log::{NewBranch, TryOrder};
use tcc_types::{Gid, IdempotencyKey, Initiator, Timestamp};

/// When to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// When the decision is durable; a hold: when every branch is reserved.
    Decision,
    /// When every branch has carried the decision out.
    End,
}

/// A whole transaction.
#[derive(Clone, Debug)]
pub struct Submit {
    /// Who asks.
    pub initiator: Initiator,
    /// Minted by the initiator, or by the coordinator if `None`.
    pub gid: Option<Gid>,
    /// What makes a repeated request the same.
    pub key: Option<IdempotencyKey>,
    /// At least one.
    pub branches: Vec<NewBranch>,
    /// How to try.
    pub try_order: TryOrder,
    /// Reserve now, decide later.
    pub hold: bool,
    /// Until when an unanswered Try is repeated.
    pub try_until: Option<Timestamp>,
    /// Holds only: until when it waits.
    pub decide_by: Option<Timestamp>,
    /// When to answer.
    pub wait: Wait,
}

/// A transaction to which branches will be enlisted.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Who asks.
    pub initiator: Initiator,
    /// Minted by the initiator, or by the coordinator if `None`.
    pub gid: Option<Gid>,
    /// What makes a repeated request the same.
    pub key: Option<IdempotencyKey>,
    /// Until when it may stay undecided.
    pub decide_by: Option<Timestamp>,
}

/// Who asks for an operator's change, and why.
#[derive(Clone, Debug)]
pub struct Warrant {
    /// A person or a tool.
    pub actor: String,
    /// In words.
    pub reason: String,
}

/// One page of a listing.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// There may be more after the last item.
    pub more: bool,
}

/// How long callers should wait before they repeat what was refused for now.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(250);
