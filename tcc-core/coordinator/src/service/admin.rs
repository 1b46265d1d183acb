//! `tcc.v1.Admin`.

use tcc_log::StuckBranch;
use tcc_proto::tcc::v1 as proto;
use tcc_types::{BranchKey, FingerprintBuilder, Invalid, ParticipantName, Timestamp};
use tcc_wire::page;
use tonic::{Request, Response, Status};

use super::{
    DOMAIN,
    fields::Fields,
    status_of,
    transaction::{audit_to_proto, stuck_branch_to_proto, transaction_to_proto},
};
use crate::{Coordinator, Error, Warrant};

/// See the contract in `proto/tcc/v1/admin.proto`.
#[derive(Debug)]
pub struct AdminService(Coordinator);

impl AdminService {
    pub(super) fn new(coordinator: Coordinator) -> Self {
        Self(coordinator)
    }
}

fn refuse(error: Error) -> Status {
    status_of(&error, DOMAIN)
}

#[tonic::async_trait]
impl proto::admin_server::Admin for AdminService {
    async fn list_stuck(
        &self,
        request: Request<proto::ListStuckRequest>,
    ) -> Result<Response<proto::ListStuckResponse>, Status> {
        let request = request.into_inner();
        let config = self.0.config();
        let mut fields = Fields::default();
        let print = FingerprintBuilder::new("stuck").text(&request.participant).finish();
        let participant =
            fields.take_optional((!request.participant.is_empty()).then(|| ParticipantName::new(request.participant.clone())));
        let size = fields.take(page::size(request.page_size, config.page_size, config.page_size_max));
        let token = fields.take(page::decode(&print, &request.page_token)).flatten();
        let after = fields.take_optional(token.map(|last| place_of(&last)));
        let Some(size) = size else { return Err(fields.status()) };
        fields.check()?;
        let page = self.0.list_stuck(participant.as_ref(), after, size).await.map_err(refuse)?;
        let last = page.items.last().filter(|_| page.more).map(|stuck| page::encode(&print, &place_to_text(stuck)));
        Ok(Response::new(proto::ListStuckResponse {
            branches: page.items.into_iter().map(stuck_branch_to_proto).collect(),
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn probe(&self, request: Request<proto::ProbeRequest>) -> Result<Response<proto::ProbeResponse>, Status> {
        let request = request.into_inner();
        let (key, warrant) = target(&request.gid, request.branch_id, request.warrant)?;
        let view = self.0.probe(key, warrant).await.map_err(refuse)?;
        Ok(Response::new(proto::ProbeResponse { transaction: Some(transaction_to_proto(view)) }))
    }

    async fn try_anew(&self, request: Request<proto::TryAnewRequest>) -> Result<Response<proto::TryAnewResponse>, Status> {
        let request = request.into_inner();
        let (key, warrant) = target(&request.gid, request.branch_id, request.warrant)?;
        let view = self.0.try_anew(key, warrant).await.map_err(refuse)?;
        Ok(Response::new(proto::TryAnewResponse { transaction: Some(transaction_to_proto(view)) }))
    }

    async fn mark_settled(
        &self,
        request: Request<proto::MarkSettledRequest>,
    ) -> Result<Response<proto::MarkSettledResponse>, Status> {
        let request = request.into_inner();
        let (key, warrant) = target(&request.gid, request.branch_id, request.warrant)?;
        let view = self.0.mark_settled(key, warrant).await.map_err(refuse)?;
        Ok(Response::new(proto::MarkSettledResponse { transaction: Some(transaction_to_proto(view)) }))
    }

    async fn list_audit(
        &self,
        request: Request<proto::ListAuditRequest>,
    ) -> Result<Response<proto::ListAuditResponse>, Status> {
        let request = request.into_inner();
        let config = self.0.config();
        let mut fields = Fields::default();
        let print = FingerprintBuilder::new("audit").text(&request.gid).finish();
        let gid = fields.optional_gid(&request.gid);
        let size = fields.take(page::size(request.page_size, config.page_size, config.page_size_max));
        let token = fields.take(page::decode(&print, &request.page_token)).flatten();
        let before = fields.take_optional(token.map(|last| last.parse::<u64>().map_err(|_| foreign())));
        let Some(size) = size else { return Err(fields.status()) };
        fields.check()?;
        let page = self.0.list_audit(gid, before, size).await.map_err(refuse)?;
        let last = page.items.last().filter(|_| page.more).map(|record| page::encode(&print, &record.sequence.to_string()));
        Ok(Response::new(proto::ListAuditResponse {
            records: page.items.into_iter().map(audit_to_proto).collect(),
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn get_stats(&self, _: Request<proto::GetStatsRequest>) -> Result<Response<proto::GetStatsResponse>, Status> {
        let participants = self.0.registry().stats().into_iter();
        Ok(Response::new(proto::GetStatsResponse {
            transactions_in_memory: self.0.in_memory() as u64,
            participants: participants
                .map(|(participant, sent)| proto::ParticipantStats {
                    participant: participant.to_string(),
                    messages: sent.messages,
                    operations: sent.operations,
                })
                .collect(),
        }))
    }
}

fn target(gid: &str, branch_id: String, warrant: Option<proto::Warrant>) -> Result<(BranchKey, Warrant), Status> {
    let mut fields = Fields::default();
    let gid = fields.gid(gid);
    let branch = fields.branch_id(branch_id);
    let warrant = fields.warrant(warrant);
    let (Some(gid), Some(branch), Some(warrant)) = (gid, branch, warrant) else { return Err(fields.status()) };
    Ok((BranchKey { gid, branch }, warrant))
}

fn foreign() -> Invalid {
    Invalid::new("page_token", "is not a next_page_token of this list")
}

/// Where a page of stuck branches ended, as its token carries it.
fn place_to_text(stuck: &StuckBranch) -> String {
    format!("{}/{}/{}", stuck.stuck.since.as_micros(), stuck.key.gid, stuck.key.branch)
}

fn place_of(text: &str) -> Result<(Timestamp, BranchKey), Invalid> {
    let mut parts = text.splitn(3, '/');
    let mut part = || parts.next().ok_or_else(foreign);
    let since = part()?.parse::<i64>().map_err(|_| foreign())?;
    let gid = part()?.parse().map_err(|_: Invalid| foreign())?;
    let branch = part()?.parse().map_err(|_: Invalid| foreign())?;
    Ok((Timestamp::from_micros(since), BranchKey { gid, branch }))
}
