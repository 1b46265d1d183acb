//! Fields of requests: all that are wrong are gathered, so that one answer names them all.

use prost_types::Timestamp as ProtoTimestamp;
use tcc_log::NewBranch;
use tcc_proto::tcc::v1 as proto;
use tcc_types::{BranchId, Gid, IdempotencyKey, Invalid, OutcomeQuery, ParticipantName, Timestamp};
use tcc_wire::status;
use tonic::Status;

use super::DOMAIN;
use crate::{Registry, TryOrder, Wait, Warrant};

/// What is wrong with a request so far.
#[derive(Default)]
pub(super) struct Fields(Vec<Invalid>);

impl Fields {
    /// Keeps the value, or the problem.
    pub(super) fn take<T>(&mut self, parsed: Result<T, Invalid>) -> Option<T> {
        parsed.map_err(|bad| self.0.push(bad)).ok()
    }

    /// The same, for what may be left out.
    pub(super) fn take_optional<T>(&mut self, parsed: Option<Result<T, Invalid>>) -> Option<T> {
        parsed.and_then(|parsed| self.take(parsed))
    }

    /// INVALID_ARGUMENT with every problem.
    pub(super) fn status(self) -> Status {
        status::invalid(DOMAIN, &self.0)
    }

    /// Fails if anything was wrong.
    pub(super) fn check(self) -> Result<(), Status> {
        if self.0.is_empty() { Ok(()) } else { Err(self.status()) }
    }

    /// No more than so many, before any of them is looked at.
    pub(super) fn at_most(&mut self, field: &str, count: usize, limit_name: &str, limit: usize) -> Result<(), Status> {
        if count <= limit {
            return Ok(());
        }
        self.0.push(Invalid::new(field, format!("has {count} entries; {limit_name} is {limit}")));
        Err(std::mem::take(self).status())
    }

    pub(super) fn gid(&mut self, gid: &str) -> Option<Gid> {
        self.take(gid.parse())
    }

    pub(super) fn optional_gid(&mut self, gid: &str) -> Option<Gid> {
        self.take_optional((!gid.is_empty()).then(|| gid.parse()))
    }

    pub(super) fn optional_key(&mut self, key: String) -> Option<IdempotencyKey> {
        self.take_optional((!key.is_empty()).then(|| IdempotencyKey::new(key)))
    }

    pub(super) fn optional_time(&mut self, field: &str, at: Option<&ProtoTimestamp>) -> Option<Timestamp> {
        self.take_optional(at.map(|at| tcc_wire::timestamp_from_proto(field, Some(at))))
    }

    pub(super) fn branch_id(&mut self, id: String) -> Option<BranchId> {
        self.take(BranchId::new(id))
    }

    /// One branch under the field name that the caller knows it by.
    pub(super) fn branch(&mut self, field: &str, spec: Option<proto::BranchSpec>, registry: &Registry) -> Option<NewBranch> {
        let spec = self.take(spec.ok_or_else(|| Invalid::new(field, "is required")))?;
        let branch = self.take(BranchId::new(spec.branch_id).map_err(|bad| bad.within(field)));
        let participant = self.take(ParticipantName::new(spec.participant).map_err(|bad| bad.within(field)));
        let payload = self.take(tcc_wire::payload_from_proto("payload", spec.payload).map_err(|bad| bad.within(field)));
        if let Some(name) = participant.as_ref().filter(|name| registry.is_reserved(name)) {
            let problem = format!("{:?} is for the gateway's own transactions", name.as_str());
            self.0.push(Invalid::new("participant", problem).within(field));
        }
        Some(NewBranch { branch: branch?, participant: participant?, payload: payload? })
    }

    /// One of GetOutcome's queries, with every problem that it has.
    pub(super) fn query(&mut self, index: usize, query: proto::OutcomeQuery) -> Option<OutcomeQuery> {
        let field = format!("queries[{index}]");
        let parsed = tcc_wire::outcome_query_from_proto(query);
        parsed.map_err(|bad| self.0.extend(bad.into_iter().map(|bad| bad.within(&field)))).ok()
    }

    pub(super) fn try_order(&mut self, order: i32) -> Option<TryOrder> {
        match proto::TryOrder::try_from(order) {
            Ok(proto::TryOrder::Unspecified | proto::TryOrder::Parallel) => Some(TryOrder::Parallel),
            Ok(proto::TryOrder::Sequential) => Some(TryOrder::Sequential),
            Err(_) => self.take(Err(Invalid::new("try_order", format!("{order} is not a TryOrder")))),
        }
    }

    pub(super) fn wait(&mut self, wait: i32) -> Option<Wait> {
        match proto::Wait::try_from(wait) {
            Ok(proto::Wait::Unspecified | proto::Wait::Decision) => Some(Wait::Decision),
            Ok(proto::Wait::End) => Some(Wait::End),
            Err(_) => self.take(Err(Invalid::new("wait", format!("{wait} is not a Wait")))),
        }
    }

    pub(super) fn warrant(&mut self, warrant: Option<proto::Warrant>) -> Option<Warrant> {
        let warrant = self.take(warrant.ok_or_else(|| Invalid::new("warrant", "is required: say who asks, and why")))?;
        Some(Warrant { actor: warrant.actor, reason: warrant.reason })
    }
}
