//! `tcc.v1.Coordinator`.

use std::pin::Pin;

use tcc_log::ListFilter;
use tcc_proto::tcc::v1 as proto;
use tcc_types::{FingerprintBuilder, Gid, Initiator, Invalid, LogName, TxStatus};
use tcc_wire::{page, refusal_to_proto, violation_to_proto};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::{
    DOMAIN,
    fields::Fields,
    initiator_of, status_of,
    transaction::{status_from_proto, transaction_to_proto},
};
use crate::{Begin, Coordinator, EnlistAnswer, Error, Submit};

/// See the contract in `proto/tcc/v1/coordinator.proto`.
#[derive(Debug)]
pub struct CoordinatorService(Coordinator);

impl CoordinatorService {
    pub(super) fn new(coordinator: Coordinator) -> Self {
        Self(coordinator)
    }
}

fn refuse(error: Error) -> Status {
    status_of(&error, DOMAIN)
}

#[tonic::async_trait]
impl proto::coordinator_server::Coordinator for CoordinatorService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::WatchTransactionResponse, Status>> + Send>>;

    async fn submit(&self, request: Request<proto::SubmitRequest>) -> Result<Response<proto::SubmitResponse>, Status> {
        let initiator = initiator_of(request.metadata())?;
        let request = submit_from_proto(&self.0, initiator, request.into_inner())?;
        let view = self.0.submit(request).await.map_err(refuse)?;
        Ok(Response::new(proto::SubmitResponse { transaction: Some(transaction_to_proto(view)) }))
    }

    async fn begin(&self, request: Request<proto::BeginRequest>) -> Result<Response<proto::BeginResponse>, Status> {
        let initiator = initiator_of(request.metadata())?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let gid = fields.optional_gid(&request.gid);
        let key = fields.optional_key(request.idempotency_key);
        let decide_by = fields.optional_time("decide_by", request.decide_by.as_ref());
        fields.check()?;
        let view = self.0.begin(Begin { initiator, gid, key, decide_by }).await.map_err(refuse)?;
        Ok(Response::new(proto::BeginResponse { transaction: Some(transaction_to_proto(view)) }))
    }

    async fn enlist(&self, request: Request<proto::EnlistRequest>) -> Result<Response<proto::EnlistResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let gid = fields.gid(&request.gid);
        let branch = fields.branch("branch", request.branch, self.0.registry());
        let (Some(gid), Some(branch)) = (gid, branch) else { return Err(fields.status()) };
        let (answer, view) = self.0.enlist(gid, branch).await.map_err(refuse)?;
        let outcome = Some(enlist_answer_to_proto(answer));
        Ok(Response::new(proto::EnlistResponse { outcome, transaction: Some(transaction_to_proto(view)) }))
    }

    async fn confirm(
        &self,
        request: Request<proto::ConfirmTransactionRequest>,
    ) -> Result<Response<proto::ConfirmTransactionResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let (gid, wait) = (fields.gid(&request.gid), fields.wait(request.wait));
        let (Some(gid), Some(wait)) = (gid, wait) else { return Err(fields.status()) };
        let view = self.0.confirm(gid, wait).await.map_err(refuse)?;
        Ok(Response::new(proto::ConfirmTransactionResponse { transaction: Some(transaction_to_proto(view)) }))
    }

    async fn cancel(
        &self,
        request: Request<proto::CancelTransactionRequest>,
    ) -> Result<Response<proto::CancelTransactionResponse>, Status> {
        let initiator = initiator_of(request.metadata())?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let (gid, wait) = (fields.gid(&request.gid), fields.wait(request.wait));
        let (Some(gid), Some(wait)) = (gid, wait) else { return Err(fields.status()) };
        let view = self.0.cancel(gid, initiator, wait).await.map_err(refuse)?;
        Ok(Response::new(proto::CancelTransactionResponse { transaction: Some(transaction_to_proto(view)) }))
    }

    async fn get(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Result<Response<proto::GetTransactionResponse>, Status> {
        let mut fields = Fields::default();
        let Some(gid) = fields.gid(&request.into_inner().gid) else { return Err(fields.status()) };
        let view = self.0.get(gid).await.map_err(refuse)?;
        Ok(Response::new(proto::GetTransactionResponse { transaction: Some(transaction_to_proto(view)) }))
    }

    async fn list(
        &self,
        request: Request<proto::ListTransactionsRequest>,
    ) -> Result<Response<proto::ListTransactionsResponse>, Status> {
        let request = request.into_inner();
        let config = self.0.config();
        let mut fields = Fields::default();
        fields.at_most("statuses", request.statuses.len(), "the number of statuses", TxStatus::ALL.len())?;
        let mut filter = ListFilter::default();
        let mut print = FingerprintBuilder::new("transactions").text(&request.initiator);
        for (index, status) in request.statuses.iter().enumerate() {
            let bad = || Invalid::new(format!("statuses[{index}]"), format!("{status} is not a TransactionStatus"));
            filter.statuses.extend(fields.take(status_from_proto(*status).ok_or_else(bad)));
            print = print.bytes(&status.to_be_bytes());
        }
        filter.initiator =
            fields.take_optional((!request.initiator.is_empty()).then(|| Initiator::new(request.initiator.clone())));
        let print = print.finish();
        let size = fields.take(page::size(request.page_size, config.page_size, config.page_size_max));
        let token = fields.take(page::decode(&print, &request.page_token)).flatten();
        let foreign = |_| Invalid::new("page_token", "is not a next_page_token of this list");
        let before = fields.take_optional(token.map(|last| last.parse::<Gid>().map_err(foreign)));
        let Some(size) = size else { return Err(fields.status()) };
        fields.check()?;
        let page = self.0.list(filter, before, size).await.map_err(refuse)?;
        let last = page.items.last().filter(|_| page.more).map(|view| page::encode(&print, &view.gid.to_string()));
        Ok(Response::new(proto::ListTransactionsResponse {
            transactions: page.items.into_iter().map(transaction_to_proto).collect(),
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn watch(&self, request: Request<proto::WatchTransactionRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut fields = Fields::default();
        let Some(gid) = fields.gid(&request.into_inner().gid) else { return Err(fields.status()) };
        let views = self.0.watch(gid).await.map_err(refuse)?;
        let states = views.map(|view| {
            let transaction = Some(transaction_to_proto(view.map_err(refuse)?));
            Ok(proto::WatchTransactionResponse { transaction })
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn get_outcome(
        &self,
        request: Request<proto::GetOutcomeRequest>,
    ) -> Result<Response<proto::GetOutcomeResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        fields.at_most("queries", request.queries.len(), "outcome_queries_max", self.0.config().outcome_queries_max)?;
        let coordinator = fields.take(LogName::new(request.coordinator));
        let queries: Vec<_> =
            request.queries.into_iter().enumerate().filter_map(|(index, query)| fields.query(index, query)).collect();
        let Some(coordinator) = coordinator else { return Err(fields.status()) };
        fields.check()?;
        let outcomes = self.0.outcomes(&coordinator, &queries).await.map_err(refuse)?;
        let answers = queries.iter().zip(outcomes).map(|(query, outcome)| tcc_wire::outcome_answer(query, outcome)).collect();
        Ok(Response::new(proto::GetOutcomeResponse { answers }))
    }
}

fn submit_from_proto(coordinator: &Coordinator, initiator: Initiator, request: proto::SubmitRequest) -> Result<Submit, Status> {
    let mut fields = Fields::default();
    fields.at_most("branches", request.branches.len(), "branches_max", coordinator.config().branches_max as usize)?;
    let gid = fields.optional_gid(&request.gid);
    let key = fields.optional_key(request.idempotency_key);
    let specs = request.branches.into_iter().enumerate();
    let branch = |(index, spec)| fields.branch(&format!("branches[{index}]"), Some(spec), coordinator.registry());
    let branches = specs.filter_map(branch).collect();
    let try_order = fields.try_order(request.try_order);
    let try_until = fields.optional_time("try_until", request.try_until.as_ref());
    let decide_by = fields.optional_time("decide_by", request.decide_by.as_ref());
    let wait = fields.wait(request.wait);
    let (Some(try_order), Some(wait)) = (try_order, wait) else { return Err(fields.status()) };
    fields.check()?;
    Ok(Submit { initiator, gid, key, branches, try_order, hold: request.hold, try_until, decide_by, wait })
}

fn enlist_answer_to_proto(answer: EnlistAnswer) -> proto::enlist_response::Outcome {
    use proto::enlist_response::Outcome;
    match answer {
        EnlistAnswer::Reserved(output) => {
            Outcome::Reserved(proto::Reserved { output: output.as_ref().map(tcc_wire::payload_to_proto) })
        }
        EnlistAnswer::Refused(refusal) => Outcome::Refused(refusal_to_proto(&refusal)),
        EnlistAnswer::Violation(violation) => Outcome::Violation(violation_to_proto(violation)),
        EnlistAnswer::Overtaken => Outcome::Overtaken(proto::Overtaken {}),
    }
}
