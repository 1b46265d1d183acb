//! The service through a real server and a generated client.

use std::{collections::BTreeMap, time::Duration};

use prost::Message;
use sqlx::Sqlite;
use tcc_participant::{
    Options, Store,
    conformance::{Effects, Fault, Fixture, Kept},
};
use tcc_proto::tcc::v1::{
    BatchOperation, BatchRequest, BatchResponse, BranchRowStatus, CancelRequest, ConfirmRequest, RefusalReason, TryRequest,
    ViolationKind, batch_operation::Operation as Sent, batch_result::Outcome, cancel_response, confirm_response,
    participant_client::ParticipantClient, try_response,
};
use tcc_service::Server;
use tcc_types::{BranchKey, Op, SettleAnswer, TryAnswer, TryCall};
use tcc_wire::{Answer, Operation};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, transport::Channel};

struct Served {
    f: Fixture<Sqlite>,
    client: ParticipantClient<Channel>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
    _folder: TempDir,
}

impl Served {
    async fn start() -> Self {
        let folder = TempDir::new().expect("a folder is made");
        let url = format!("sqlite://{}", folder.path().join("participant.db").display());
        let options = Options { tries_in_flight_max: 1, ..Options::default() };
        let f = Fixture::new(Store::open(&url, &options).await.expect("the database opens")).await;
        let server = Server::bind("127.0.0.1:0".parse().expect("it is an address")).await.expect("a port is free");
        let endpoint = format!("http://{}", server.local_addr());
        let server = server.add_service(f.engine.service());
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { server.serve(stop, Duration::from_secs(5)).await.expect("it serves") });
        let client = ParticipantClient::connect(endpoint).await.expect("it connects");
        Self { f, client, shutdown, tasks, _folder: folder }
    }

    async fn try_branch(&mut self, call: &TryCall) -> try_response::Outcome {
        let response = self.client.r#try(tcc_wire::try_to_proto(call)).await.expect("OK");
        response.into_inner().outcome.expect("an outcome")
    }

    async fn confirm(&mut self, call: &TryCall) -> confirm_response::Outcome {
        let request = ConfirmRequest { gid: call.key.gid.to_string(), branch_id: call.key.branch.to_string() };
        self.client.confirm(request).await.expect("OK").into_inner().outcome.expect("an outcome")
    }

    async fn cancel(&mut self, call: &TryCall) -> cancel_response::Outcome {
        let request = tcc_wire::cancel_to_proto(&Fixture::<Sqlite>::cancel_of(call));
        self.client.cancel(request).await.expect("OK").into_inner().outcome.expect("an outcome")
    }

    async fn batch(&mut self, operations: Vec<BatchOperation>) -> Result<Streaming<BatchResponse>, Status> {
        self.client.batch(BatchRequest { operations }).await.map(tonic::Response::into_inner)
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        drop(self.client);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("the server ends well");
        }
    }
}

#[tokio::test]
async fn a_branch_is_tried_and_confirmed_over_grpc() {
    let mut served = Served::start().await;
    let call = served.f.new_call();
    let first = served.try_branch(&call).await;
    let try_response::Outcome::Reserved(reserved) = &first else {
        panic!("not reserved, but {first:?}");
    };
    let output = reserved.output.clone().expect("an output");
    assert_eq!(output.type_url, "/tcc.conformance.v1.Kept");
    assert_eq!(Kept::decode(&output.value[..]).map(|kept| kept.pieces), Ok(Fixture::<Sqlite>::PIECES));
    assert_eq!(served.try_branch(&call).await, first, "a repeated Try is answered the same");
    assert!(matches!(served.confirm(&call).await, confirm_response::Outcome::Done(_)));
    let cancel_response::Outcome::Violation(violation) = served.cancel(&call).await else {
        panic!("a confirmed branch was cancelled");
    };
    assert_eq!((violation.kind(), violation.row_status()), (ViolationKind::OtherOutcome, BranchRowStatus::Confirmed));
    served.f.assert_branch(&call, Some(tcc_types::BranchRowStatus::Confirmed), Effects::SPENT).await;
    served.stop().await;
}

#[tokio::test]
async fn refusals_are_ok_responses() {
    let mut served = Served::start().await;
    let (refused, late, suspended) = (served.f.new_call(), served.f.new_late_call(), served.f.new_call());
    served.f.bench.inject(Op::Try, Fault::Refuse);
    assert!(matches!(served.cancel(&suspended).await, cancel_response::Outcome::Done(_)));
    for (call, reason, code) in [
        (refused, RefusalReason::Business, "INJECTED"),
        (late, RefusalReason::Late, "LATE"),
        (suspended, RefusalReason::Suspended, "SUSPENDED"),
    ] {
        let outcome = served.try_branch(&call).await;
        let try_response::Outcome::Refused(no) = &outcome else {
            panic!("not refused, but {outcome:?}");
        };
        assert_eq!((no.reason(), no.code.as_str()), (reason, code));
    }
    served.stop().await;
}

#[tokio::test]
async fn failures_are_unavailable_and_tell_nothing_of_the_inside() {
    let mut served = Served::start().await;
    let call = served.f.new_call();
    for fault in [Fault::Fail, Fault::Panic] {
        served.f.bench.inject(Op::Try, fault);
        let status = served.client.r#try(tcc_wire::try_to_proto(&call)).await.expect_err("unknown");
        assert_eq!(status.code(), Code::Unavailable);
        assert!(!status.message().contains("injected"), "{}", status.message());
    }
    served.f.assert_branch(&call, None, Effects::NONE).await;
    served.stop().await;
}

#[tokio::test]
async fn one_operation_too_many_is_resource_exhausted() {
    let mut served = Served::start().await;
    let (first, second) = (served.f.new_call(), served.f.new_call());
    served.f.bench.inject(Op::Try, Fault::Wait);
    let mut waiting = JoinSet::new();
    let mut client = served.client.clone();
    let request = tcc_wire::try_to_proto(&first);
    waiting.spawn(async move { client.r#try(request).await });
    served.f.bench.until_one_waits().await;
    let status = served.client.r#try(tcc_wire::try_to_proto(&second)).await.expect_err("too many");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("tries_in_flight_max (1)"), "{}", status.message());
    served.f.bench.open_gate();
    waiting.join_next().await.expect("there is one").expect("it ends").expect("it is answered");
    served.stop().await;
}

#[tokio::test]
async fn a_malformed_request_names_its_field_and_does_nothing() {
    let mut served = Served::start().await;
    let good = tcc_wire::try_to_proto(&served.f.new_call());
    let long_type = prost_types::Any { type_url: "t".repeat(513), value: Vec::new() };
    let bad = [
        ("gid", TryRequest { gid: good.gid.to_uppercase(), ..good.clone() }),
        ("branch_id", TryRequest { branch_id: "a b".to_owned(), ..good.clone() }),
        ("payload", TryRequest { payload: None, ..good.clone() }),
        ("payload.type_url", TryRequest { payload: Some(long_type), ..good.clone() }),
        ("not_after", TryRequest { not_after: None, ..good.clone() }),
        ("ask_after", TryRequest { ask_after: None, ..good.clone() }),
        ("coordinator", TryRequest { coordinator: String::new(), ..good.clone() }),
    ];
    for (field, request) in bad {
        let status = served.client.r#try(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
    let cancel = CancelRequest { gid: good.gid, branch_id: good.branch_id, not_after: None };
    let status = served.client.cancel(cancel).await.expect_err("not_after");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(served.f.bench.handled(), 0);
    assert_eq!(served.f.store().count_tried().await.expect("it counts"), 0);
    served.stop().await;
}

fn sent(operation: Operation) -> BatchOperation {
    tcc_wire::operation_to_proto(&operation, String::new())
}

/// Every result of a batch, which has one for each operation at most.
async fn results_of(mut batch: Streaming<BatchResponse>) -> BTreeMap<BranchKey, (Op, Result<Answer, String>)> {
    let mut results = BTreeMap::new();
    while let Some(response) = batch.message().await.expect("the batch ends well") {
        assert!(!response.results.is_empty());
        for result in response.results {
            let result = tcc_wire::result_from_proto(result).expect("it says whose it is");
            assert_eq!(results.insert(result.key, (result.op, result.outcome)), None, "a second result");
        }
    }
    results
}

#[tokio::test]
async fn a_batch_answers_each_operation_as_its_own_call_does() {
    let mut served = Served::start().await;
    let [to_try, to_confirm, to_cancel, empty, missing, malformed] = std::array::from_fn(|_| served.f.new_call());
    served.try_branch(&to_confirm).await;
    served.try_branch(&to_cancel).await;
    let timeless = CancelRequest { not_after: None, ..tcc_wire::cancel_to_proto(&Fixture::<Sqlite>::cancel_of(&malformed)) };
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let operations = vec![
        BatchOperation { operation: Some(Sent::CancelRequest(timeless)), traceparent: "not one".to_owned() },
        BatchOperation { operation: None, traceparent: String::new() },
        BatchOperation { traceparent, ..sent(Operation::Try(to_try.clone())) },
        sent(Operation::Confirm(Fixture::<Sqlite>::confirm_of(&to_confirm))),
        sent(Operation::Cancel(Fixture::<Sqlite>::cancel_of(&to_cancel))),
        sent(Operation::Cancel(Fixture::<Sqlite>::cancel_of(&empty))),
        sent(Operation::Confirm(Fixture::<Sqlite>::confirm_of(&missing))),
    ];
    let batch = served.batch(operations).await.expect("it is taken");
    let results = results_of(batch).await;
    assert_eq!(results.len(), 6, "{results:?}");
    let (_, Ok(Answer::Tried(TryAnswer::Reserved(Some(_))))) = &results[&to_try.key] else {
        panic!("not reserved, but {:?}", results[&to_try.key]);
    };
    for (call, op) in [(&to_confirm, Op::Confirm), (&to_cancel, Op::Cancel), (&empty, Op::Cancel)] {
        assert_eq!(results[&call.key], (op, Ok(Answer::Settled(SettleAnswer::Done))));
    }
    let (Op::Confirm, Ok(Answer::Settled(SettleAnswer::Violation(violation)))) = &results[&missing.key] else {
        panic!("no violation, but {:?}", results[&missing.key]);
    };
    assert_eq!(violation.kind, tcc_types::ViolationKind::NoReservation);
    let (Op::Cancel, Err(why)) = &results[&malformed.key] else {
        panic!("not unknown, but {:?}", results[&malformed.key]);
    };
    assert!(why.starts_with("not_after"), "{why}");
    use tcc_types::BranchRowStatus::{Cancelled, Confirmed, Tried};
    served.f.assert_branch(&to_try, Some(Tried), Effects::RESERVED).await;
    served.f.assert_branch(&to_confirm, Some(Confirmed), Effects::SPENT).await;
    served.f.assert_branch(&to_cancel, Some(Cancelled), Effects::RELEASED).await;
    served.f.assert_branch(&empty, Some(Cancelled), Effects::NONE).await;
    for nothing in [&missing, &malformed] {
        served.f.assert_branch(nothing, None, Effects::NONE).await;
    }
    served.stop().await;
}

#[tokio::test]
async fn results_of_a_batch_do_not_wait_for_each_other() {
    let mut served = Served::start().await;
    let (slow, bad) = (served.f.new_call(), served.f.new_call());
    served.f.bench.inject(Op::Try, Fault::Wait);
    let bad = TryRequest { payload: None, ..tcc_wire::try_to_proto(&bad) };
    let operations = vec![
        sent(Operation::Try(slow.clone())),
        BatchOperation { operation: Some(Sent::TryRequest(bad.clone())), traceparent: String::new() },
    ];
    let mut batch = served.batch(operations).await.expect("it is taken");
    let first = batch.message().await.expect("it goes on").expect("a response").results;
    assert_eq!((first.len(), &first[0].branch_id, &first[0].gid), (1, &bad.branch_id, &bad.gid));
    assert!(matches!(&first[0].outcome, Some(Outcome::Unknown(why)) if why.starts_with("payload")), "{first:?}");
    served.f.bench.until_one_waits().await;
    served.f.bench.open_gate();
    let results = results_of(batch).await;
    assert_eq!(results.into_keys().collect::<Vec<_>>(), [slow.key]);
    served.stop().await;
}

#[tokio::test]
async fn what_a_batch_has_begun_ends_though_its_caller_has_gone() {
    let mut served = Served::start().await;
    let call = served.f.new_call();
    served.f.bench.inject(Op::Try, Fault::Wait);
    let batch = served.batch(vec![sent(Operation::Try(call.clone()))]).await.expect("it is taken");
    served.f.bench.until_one_waits().await;
    drop(batch);
    // Its own connection closes in order behind the reset, so the server has seen that the caller is gone.
    served.client.confirm(ConfirmRequest::default()).await.expect_err("it is malformed");
    served.f.bench.open_gate();
    let ended = async {
        while served.f.store().count_tried().await.expect("it counts") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ends");
    served.f.assert_branch(&call, Some(tcc_types::BranchRowStatus::Tried), Effects::RESERVED).await;
    served.stop().await;
}

#[tokio::test]
async fn a_batch_that_breaks_its_rules_is_refused_as_a_whole() {
    let mut served = Served::start().await;
    let call = served.f.new_call();
    let (good, confirm) = (Operation::Try(call.clone()), Operation::Confirm(Fixture::<Sqlite>::confirm_of(&call)));
    let twice = vec![sent(good.clone()), sent(confirm)];
    let status = served.batch(twice).await.expect_err("one branch twice");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("operations[1]"), "{status:?}");

    let fresh = |_| sent(Operation::Try(served.f.new_call()));
    let too_many = (0..1_025).map(fresh).collect();
    let status = served.batch(too_many).await.expect_err("too many");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("at most 1024 (batch_operations_max)"), "{status:?}");

    let mut large = call.clone();
    large.payload.value = vec![0; tcc_wire::BATCH_BYTES_MAX].into();
    let status = served.batch(vec![sent(Operation::Try(large))]).await.expect_err("too long");
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(served.f.bench.handled(), 0);

    let batch = served.batch(vec![sent(good)]).await.expect("the rest is good");
    assert_eq!(results_of(batch).await.len(), 1);
    let empty = served.batch(Vec::new()).await.expect("nothing is wrong with nothing");
    assert_eq!(results_of(empty).await.len(), 0);
    served.stop().await;
}
