//! What an initiator asks for, and how it goes onto the wire.

use prost::{Message, Name};
use prost_types::Any;
use tcc_proto::tcc::v1 as proto;
use tcc_types::{
    BranchId, Entropy, Gid, IdempotencyKey, Initiator, Invalid, ParticipantName, SystemEntropy, Timestamp, TxStatus,
};
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

/// What makes a repeated request the same, unless a gid does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The caller's own. It also joins requests that are built anew, after a restart for example.
    Own(IdempotencyKey),
    /// Random. Not sent with a request that has a gid: the gid alone is then its identity.
    Random(u128),
}

impl Key {
    fn random(entropy: &dyn Entropy) -> Self {
        Self::Random(u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64()))
    }

    /// A request with neither gid nor key could start a second transaction when it is repeated.
    fn sent(&self, gid: Option<Gid>) -> String {
        match (self, gid) {
            (Self::Own(key), _) => key.to_string(),
            (Self::Random(_), Some(_)) => String::new(),
            (Self::Random(random), None) => format!("random-{random:032x}"),
        }
    }
}

/// A random key, another one each time.
impl Default for Key {
    fn default() -> Self {
        Self::random(&SystemEntropy)
    }
}

impl From<IdempotencyKey> for Key {
    fn from(key: IdempotencyKey) -> Self {
        Self::Own(key)
    }
}

/// A whole transaction.
///
/// One value, with its clones, is one transaction however often it is sent. Two values built alike are two transactions and not
/// equal, unless both have the same [`Key::Own`] or gid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Submit {
    /// Minted by the caller; `None`: the coordinator mints it.
    pub gid: Option<Gid>,
    /// What makes a repeated request the same. By default a random key, drawn when this value is built.
    pub key: Key,
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

    pub(crate) fn to_proto(&self) -> proto::SubmitRequest {
        let try_order = match self.try_order {
            TryOrder::Parallel => proto::TryOrder::Parallel,
            TryOrder::Sequential => proto::TryOrder::Sequential,
        };
        proto::SubmitRequest {
            gid: text(self.gid.as_ref()),
            idempotency_key: self.key.sent(self.gid),
            branches: self.branches.iter().map(Branch::to_proto).collect(),
            try_order: try_order.into(),
            hold: self.hold,
            try_until: self.try_until.map(timestamp_to_proto),
            decide_by: self.decide_by.map(timestamp_to_proto),
            wait: self.wait.code(),
        }
    }
}

/// A transaction to which branches will be enlisted. As with [`Submit`], one value is one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// As in [`Submit`].
    pub gid: Option<Gid>,
    /// As in [`Submit`].
    pub key: Key,
    /// Until when it may stay undecided; `None`: the coordinator's default.
    pub decide_by: Option<Timestamp>,
}

impl Begin {
    pub(crate) fn to_proto(&self) -> proto::BeginRequest {
        proto::BeginRequest {
            gid: text(self.gid.as_ref()),
            idempotency_key: self.key.sent(self.gid),
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Ones;

    impl Entropy for Ones {
        fn next_u64(&self) -> u64 {
            1
        }
    }

    #[test]
    fn a_request_is_always_repeatable() {
        let gid = Some(Gid::mint(Timestamp::from_millis(1_790_000_000_000), &SystemEntropy));
        let (own, random) = (Key::from(IdempotencyKey::new("mine").unwrap()), Key::random(&Ones));
        let sent = |gid, key: &Key| Submit { gid, key: key.clone(), ..Submit::default() }.to_proto().idempotency_key;
        assert_eq!(sent(None, &random), "random-00000000000000010000000000000001");
        assert_eq!(sent(gid, &random), "");
        assert_eq!((sent(None, &own).as_str(), sent(gid, &own).as_str()), ("mine", "mine"));
        assert_eq!(Begin { key: own, ..Begin::default() }.to_proto().idempotency_key, "mine");
    }

    #[test]
    fn a_value_keeps_its_random_key_and_the_next_value_has_another() {
        let (one, other) = (Submit::default(), Submit::default());
        let key = one.to_proto().idempotency_key;
        assert!(IdempotencyKey::new(key.clone()).is_ok());
        assert_eq!(one.clone().to_proto().idempotency_key, key);
        assert_ne!(other.to_proto().idempotency_key, key);
        let begin = Begin::default();
        assert_eq!(begin.to_proto(), begin.clone().to_proto());
        assert_ne!(begin, Begin::default());
    }

    #[test]
    fn a_branch_carries_its_typed_payload() {
        let branch = Branch::new("s", "inventory", &proto::Done {}).unwrap();
        assert_eq!(branch.to_proto().payload.unwrap().type_url, "type.googleapis.com/tcc.v1.Done");
        assert_eq!(Branch::new("a b", "inventory", &proto::Done {}).map_err(|bad| bad.field), Err("branch_id".to_owned()));
        assert_eq!(Branch::new("s", "", &proto::Done {}).map_err(|bad| bad.field), Err("participant".to_owned()));
    }
}
