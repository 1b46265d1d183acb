//! The service through a real server and a generated client.

use std::time::Duration;

use prost::Message;
use sqlx::Sqlite;
use tcc_participant::{
    Options, Store,
    conformance::{Effects, Fault, Fixture, Kept},
};
use tcc_proto::tcc::v1::{
    BranchRowStatus, CancelRequest, ConfirmRequest, RefusalReason, TryRequest, ViolationKind, cancel_response,
    confirm_response, participant_client::ParticipantClient, try_response,
};
use tcc_service::Server;
use tcc_types::{Op, TryCall};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};

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
