//! What the coordinator answers, typed.

use prost::{Message, Name};
use tcc_proto::tcc::v1 as proto;
use tcc_types::{Decision, Gid, Refusal, TxStatus, Violation};
use tcc_wire::{refusal_from_proto, violation_from_proto};

use crate::Error;

/// A transaction at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// Its id.
    pub gid: Gid,
    /// Where it is.
    pub status: TxStatus,
    /// Every branch is reserved and it waits for Confirm or Cancel.
    pub held: bool,
    /// Everything else, as the coordinator said it.
    pub details: proto::Transaction,
}

impl Transaction {
    /// The decision that stands; `None` while there is none.
    #[must_use]
    pub const fn decision(&self) -> Option<Decision> {
        self.status.decision()
    }

    /// Who said no and why, if that is why it was cancelled.
    #[must_use]
    pub fn refusal(&self) -> Option<(&str, Refusal)> {
        match self.details.cancel_cause.as_ref()?.cause.as_ref()? {
            proto::cancel_cause::Cause::Refused(refused) => {
                let refusal = refusal_from_proto(refused.refusal.clone()?).ok()?;
                Some((&refused.participant, refusal))
            }
            proto::cancel_cause::Cause::Violated(_)
            | proto::cancel_cause::Cause::TimedOut(_)
            | proto::cancel_cause::Cause::Requested(_) => None,
        }
    }

    /// What a branch's Try returned, while the gateway that asked still knows it; `None` also if it is of another type.
    #[must_use]
    pub fn output<M: Message + Name + Default>(&self, branch_id: &str) -> Option<M> {
        let branch = self.details.branches.iter().find(|branch| branch.branch_id == branch_id)?;
        unpack(branch.output.as_ref()?)
    }

    pub(crate) fn from_proto(transaction: Option<proto::Transaction>) -> Result<Self, Error> {
        let details = transaction.ok_or_else(|| Error::Malformed("no transaction".to_owned()))?;
        let gid = details.gid.parse::<Gid>().map_err(|bad| Error::Malformed(bad.to_string()))?;
        let status = match details.status() {
            proto::TransactionStatus::Unspecified => return Err(Error::Malformed("a transaction without a status".to_owned())),
            proto::TransactionStatus::Trying => TxStatus::Trying,
            proto::TransactionStatus::Confirming => TxStatus::Confirming,
            proto::TransactionStatus::Confirmed => TxStatus::Confirmed,
            proto::TransactionStatus::Cancelling => TxStatus::Cancelling,
            proto::TransactionStatus::Cancelled => TxStatus::Cancelled,
        };
        Ok(Self { gid, status, held: details.held, details })
    }
}

/// What an enlisted branch's participant said.
#[derive(Clone, Debug, PartialEq)]
pub enum Enlisted {
    /// Reserved, with its output.
    Reserved(Option<prost_types::Any>),
    /// Refused; the transaction is being cancelled.
    Refused(Refusal),
    /// Contradicts what the participant has; the transaction is being cancelled.
    Violation(Violation),
    /// The transaction was decided before this branch answered.
    Overtaken,
}

impl Enlisted {
    /// The output of a reserved branch, if it has one of this type.
    #[must_use]
    pub fn output<M: Message + Name + Default>(&self) -> Option<M> {
        match self {
            Self::Reserved(output) => unpack(output.as_ref()?),
            Self::Refused(_) | Self::Violation(_) | Self::Overtaken => None,
        }
    }

    pub(crate) fn from_proto(outcome: Option<proto::enlist_response::Outcome>) -> Result<Self, Error> {
        use proto::enlist_response::Outcome;
        let malformed = |bad: tcc_wire::Malformed| Error::Malformed(bad.to_string());
        match outcome.ok_or_else(|| Error::Malformed("no outcome".to_owned()))? {
            Outcome::Reserved(reserved) => Ok(Self::Reserved(reserved.output)),
            Outcome::Refused(refused) => refusal_from_proto(refused).map(Self::Refused).map_err(malformed),
            Outcome::Violation(violation) => violation_from_proto(violation).map(Self::Violation).map_err(malformed),
            Outcome::Overtaken(proto::Overtaken {}) => Ok(Self::Overtaken),
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Newest first, without their branches.
    pub transactions: Vec<Transaction>,
    /// Asks for the next page; empty on the last one.
    pub next_page_token: String,
}

fn unpack<M: Message + Name + Default>(payload: &prost_types::Any) -> Option<M> {
    if payload.type_url == M::type_url() { M::decode(payload.value.as_slice()).ok() } else { None }
}
