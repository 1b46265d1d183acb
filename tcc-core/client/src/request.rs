//! What an initiator asks for, and how it goes onto the wire.

use prost::{Message, Name};
use prost_types::Any;
use tcc_proto::tcc::v1 as proto;
use tcc_types::{BranchId, Gid, IdempotencyKey, Initiator, Invalid, ParticipantName, Timestamp, TxStatus};
use tcc_wire::timestamp_to_proto;

/// A message with its type, as payloads are sent. No map fields inside: a request's identity covers its bytes.
#[must_use]
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// In which order branches are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TryOrder {
    /// All at once.
    #[default]
    Parallel,
    /// One after the other; the first refusal spares the rest.
    Sequential,
}

/// When to be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// When the decision is durable; a hold: when every branch is reserved.
    #[default]
    Decision,
    /// When every branch has carried the decision out.
    End,
}

impl Wait {
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Decision => proto::Wait::Decision.into(),
            Self::End => proto::Wait::End.into(),
        }
    }
}

/// One participant's part.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// Unique within the transaction.
    pub id: BranchId,
    /// The participant's name in the coordinator's configuration.
    pub participant: ParticipantName,
    /// The business request; see [`pack`].
    pub payload: Any,
}

impl Branch {
    /// Checks the names and packs the payload.
    ///
    /// # Errors
    /// A name is malformed. Not retryable.
    pub fn new<M: Message + Name>(id: &str, participant: &str, request: &M) -> Result<Self, Invalid> {
        Ok(Self { id: id.parse()?, participant: participant.parse()?, payload: pack(request) })
    }

    pub(crate) fn to_proto(&self) -> proto::BranchSpec {
        proto::BranchSpec {
            branch_id: self.id.to_string(),
            participant: self.participant.to_string(),
            payload: Some(self.payload.clone()),
        }
    }
}

/// A whole transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Submit {
    /// Minted by the caller; `None`: the coordinator mints it.
    pub gid: Option<Gid>,
    /// What makes a repeated request the same. With neither this nor a gid, the client takes a random key.
    pub key: Option<IdempotencyKey>,
    /// At least one.
    pub branches: Vec<Branch>,
    /// In which order to try.
    pub try_order: TryOrder,
    /// Reserve now, decide later.
    pub hold: bool,
    /// Until when an unanswered Try is repeated; `None`: the coordinator's default.
    pub try_until: Option<Timestamp>,
    /// Holds only: until when it waits; `None`: the coordinator's default.
    pub decide_by: Option<Timestamp>,
    /// When to be answered.
    pub wait: Wait,
}

impl Submit {
    /// These branches, and defaults for everything else.
    #[must_use]
    pub fn of(branches: impl IntoIterator<Item = Branch>) -> Self {
        Self { branches: branches.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn to_proto(&self, random_key: impl FnOnce() -> String) -> proto::SubmitRequest {
        let try_order = match self.try_order {
            TryOrder::Parallel => proto::TryOrder::Parallel,
            TryOrder::Sequential => proto::TryOrder::Sequential,
        };
        proto::SubmitRequest {
            gid: text(self.gid.as_ref()),
            idempotency_key: repeatable(self.gid, self.key.as_ref(), random_key),
            branches: self.branches.iter().map(Branch::to_proto).collect(),
            try_order: try_order.into(),
            hold: self.hold,
            try_until: self.try_until.map(timestamp_to_proto),
            decide_by: self.decide_by.map(timestamp_to_proto),
            wait: self.wait.code(),
        }
    }
}

/// A transaction to which branches will be enlisted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// As in [`Submit`].
    pub gid: Option<Gid>,
    /// As in [`Submit`].
    pub key: Option<IdempotencyKey>,
    /// Until when it may stay undecided; `None`: the coordinator's default.
    pub decide_by: Option<Timestamp>,
}

impl Begin {
    pub(crate) fn to_proto(&self, random_key: impl FnOnce() -> String) -> proto::BeginRequest {
        proto::BeginRequest {
            gid: text(self.gid.as_ref()),
            idempotency_key: repeatable(self.gid, self.key.as_ref(), random_key),
            decide_by: self.decide_by.map(timestamp_to_proto),
        }
    }
}

/// Which transactions to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Only these; empty: all.
    pub statuses: Vec<TxStatus>,
    /// Only this one's; `None`: everybody's.
    pub initiator: Option<Initiator>,
    /// How many at most; 0: the coordinator's default.
    pub page_size: u32,
    /// Of the page before; empty: the first page.
    pub page_token: String,
}

impl List {
    pub(crate) fn to_proto(&self) -> proto::ListTransactionsRequest {
        let code = |status: &TxStatus| {
            i32::from(match status {
                TxStatus::Trying => proto::TransactionStatus::Trying,
                TxStatus::Confirming => proto::TransactionStatus::Confirming,
                TxStatus::Confirmed => proto::TransactionStatus::Confirmed,
                TxStatus::Cancelling => proto::TransactionStatus::Cancelling,
                TxStatus::Cancelled => proto::TransactionStatus::Cancelled,
            })
        };
        proto::ListTransactionsRequest {
            statuses: self.statuses.iter().map(code).collect(),
            initiator: text(self.initiator.as_ref()),
            page_size: self.page_size,
            page_token: self.page_token.clone(),
        }
    }
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// A request with neither gid nor key could start a second transaction when it is repeated.
fn repeatable(gid: Option<Gid>, key: Option<&IdempotencyKey>, random_key: impl FnOnce() -> String) -> String {
    match (gid, key) {
        (_, Some(key)) => key.to_string(),
        (Some(_), None) => String::new(),
        (None, None) => random_key(),
    }
}

#[cfg(test)]
mod tests {
    use tcc_types::SystemEntropy;

    use super::*;

    #[test]
    fn a_request_is_always_repeatable() {
        let random = || "random".to_owned();
        let gid = Some(Gid::mint(Timestamp::from_millis(1_790_000_000_000), &SystemEntropy));
        let key = Some(IdempotencyKey::new("mine").unwrap());
        let sent = |gid, key| Submit { gid, key, ..Submit::default() }.to_proto(random).idempotency_key;
        assert_eq!(sent(None, None), "random");
        assert_eq!(sent(gid, None), "");
        assert_eq!((sent(None, key.clone()).as_str(), sent(gid, key).as_str()), ("mine", "mine"));
        assert_eq!(Begin::default().to_proto(random).idempotency_key, "random");
    }

    #[test]
    fn a_branch_carries_its_typed_payload() {
        let branch = Branch::new("s", "inventory", &proto::Done {}).unwrap();
        assert_eq!(branch.to_proto().payload.unwrap().type_url, "type.googleapis.com/tcc.v1.Done");
        assert_eq!(Branch::new("a b", "inventory", &proto::Done {}).map_err(|bad| bad.field), Err("branch_id".to_owned()));
        assert_eq!(Branch::new("s", "", &proto::Done {}).map_err(|bad| bad.field), Err("participant".to_owned()));
    }
}
