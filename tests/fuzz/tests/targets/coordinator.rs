//! `tcc.v1.Coordinator` and `tcc.v1.Admin` as callers meet them: a transaction is taken exactly if it is within every limit, and what is
//! refused names its fields.

use std::{collections::HashSet, sync::Arc};

use prost::Message;
use tcc_coordinator::{
    Config, Coordinator,
    service::{admin_server, coordinator_server},
};
use tcc_fuzz::{Outcome, Shape, Target};
use tcc_proto::tcc::v1::{self as proto, admin_client::AdminClient, coordinator_client::CoordinatorClient};
use tcc_types::{Fingerprint, FingerprintBuilder, SystemEntropy, Timestamp};
use tcc_wire::page;
use tokio::runtime::Runtime;
use tonic::Code;

use super::{
    samples::{NOW, SECRET, any, at, gid, is_gid, is_instant, is_key, is_name, is_typed, micros, tagged},
    services::{PARTICIPANTS, ask, log, refusal, registry, runtime},
};

const WORDS: [&str; 10] = [
    "019ca4c3-7400-7000-8000-000000000000",
    "stock",
    "inventory",
    "coupon",
    "order",
    "main",
    "type.googleapis.com/test.Refuse",
    "type.googleapis.com/test",
    "anonymous",
    "AQ",
];

const FIELDS: [&str; 16] = [
    "gid",
    "idempotency_key",
    "branches",
    "branch",
    "branch_id",
    "try_order",
    "try_until",
    "decide_by",
    "wait",
    "statuses",
    "initiator",
    "participant",
    "page_size",
    "page_token",
    "queries",
    "warrant",
];

fn spec(branch_id: &str, participant: &str, type_url: &str) -> proto::BranchSpec {
    let payload = any(type_url, &proto::ConfirmRequest { gid: SECRET.to_owned(), ..Default::default() });
    proto::BranchSpec { branch_id: branch_id.to_owned(), participant: participant.to_owned(), payload }
}

fn submits() -> Vec<proto::SubmitRequest> {
    let branches = vec![spec("stock", "inventory", WORDS[7]), spec("coupon", "coupon", WORDS[7])];
    let plain = proto::SubmitRequest { branches, idempotency_key: "k-1".to_owned(), ..Default::default() };
    let refused = vec![spec("stock", "inventory", WORDS[6])];
    vec![
        proto::SubmitRequest { idempotency_key: String::new(), try_until: at(10), try_order: 2, wait: 2, ..plain.clone() },
        proto::SubmitRequest { gid: gid(7).to_string(), hold: true, try_until: at(10), decide_by: at(600), ..plain.clone() },
        proto::SubmitRequest { idempotency_key: String::new(), branches: refused, ..plain.clone() },
        plain,
    ]
}

/// Whether the fields that make it the same request are within the limits of the configuration, as the contract puts them.
fn is_request(request: &proto::SubmitRequest) -> bool {
    let named: HashSet<_> = request.branches.iter().map(|branch| &branch.branch_id).collect();
    let branches_fit = (1..=64).contains(&request.branches.len()) && named.len() == request.branches.len();
    let each_fits = request.branches.iter().all(|branch| {
        let typed = branch.payload.as_ref().filter(|payload| is_typed(payload));
        let small = typed.is_some_and(|payload| payload.type_url.len() + payload.value.len() <= 65_536);
        is_name(&branch.branch_id) && PARTICIPANTS.contains(&branch.participant.as_str()) && small
    });
    let instants = [&request.try_until, &request.decide_by].into_iter().flatten().all(is_instant);
    (request.gid.is_empty() || is_gid(&request.gid))
        && (request.idempotency_key.is_empty() || is_key(&request.idempotency_key))
        && branches_fit
        && each_fits
        && instants
        && (0..=2).contains(&request.try_order)
        && (0..=2).contains(&request.wait)
}

/// Whether its gid and its deadlines are within reach. Those of a request that is repeated need not be.
fn is_timely(request: &proto::SubmitRequest, config: &Config) -> bool {
    let is_young = |text: &str| {
        let age_ms = text.parse::<tcc_types::Gid>().map(|gid| NOW.as_millis() - gid.minted_at().as_millis());
        age_ms.is_ok_and(|age| (-5_000..=i64::try_from(config.retention_ms / 2).unwrap()).contains(&age))
    };
    let ahead = |at: &prost_types::Timestamp, most: i64| {
        is_instant(at) && (1..=most).contains(&(micros(at).saturating_sub(NOW.as_micros())))
    };
    let tries_fit = request.try_until.as_ref().is_none_or(|at| ahead(at, 60_000_000));
    let decides_fit = request.decide_by.as_ref().is_none_or(|at| {
        let not_before = request.try_until.as_ref().is_none_or(|tries| micros(tries) <= micros(at));
        request.hold && ahead(at, 24 * 3_600_000_000) && not_before
    });
    (request.gid.is_empty() || is_young(&request.gid)) && tries_fit && decides_fit
}

fn start(runtime: &Runtime) -> Coordinator {
    let started = async { Coordinator::start(log(), registry(), Config::default(), Arc::new(SystemEntropy)).await };
    runtime.block_on(started).unwrap()
}

#[test]
fn submit() {
    let runtime = runtime();
    let config = Config::default();
    let coordinator = start(&runtime);
    let mut client = CoordinatorClient::new(coordinator_server(coordinator));
    let meets = [
        "submit: accepted",
        "submit: accepted, refused by a branch",
        "submit: refused as AlreadyExists",
        "submit: refused gid",
        "submit: refused idempotency_key",
        "submit: refused branches",
        "submit: refused branches[].branch_id",
        "submit: refused branches[].participant",
        "submit: refused branches[].payload",
        "submit: refused branches[].payload.type_url",
        "submit: refused try_until",
        "submit: refused decide_by",
        "submit: refused try_order",
        "submit: refused wait",
        "no message",
    ];
    let mut known = HashSet::new();
    let seeds = submits().iter().map(Message::encode_to_vec).collect();
    Target { name: "submit", shape: Shape::Message, words: &WORDS, seeds, rounds: 8_000, meets: &meets }.run(|input| {
        let Ok(request) = proto::SubmitRequest::decode(input) else { return "no message".into() };
        let (is_request, is_timely) = (is_request(&request), is_timely(&request, &config));
        let answer = runtime.block_on(client.submit(request.clone()));
        match answer {
            Ok(answer) => {
                assert!(is_request, "{request:?}");
                let transaction = answer.into_inner().transaction.unwrap();
                assert!(is_timely || known.contains(&transaction.gid), "{request:?}");
                known.insert(transaction.gid.clone());
                same_as_asked(&request, &transaction)
            }
            Err(status) => {
                assert_eq!(status.code() == Code::InvalidArgument, !is_request || !is_timely, "{status:?}: {request:?}");
                refusal("submit", &status, "tcc.v1", &FIELDS)
            }
        }
    });
}

fn same_as_asked(request: &proto::SubmitRequest, transaction: &proto::Transaction) -> Outcome {
    // A repeated request may say another gid than the one it had.
    let own = [&*transaction.gid, ""].contains(&&*request.gid) || !request.idempotency_key.is_empty();
    assert!(is_gid(&transaction.gid) && own, "{transaction:?}");
    assert_eq!(transaction.initiator, "anonymous");
    assert!(request.idempotency_key.is_empty() || request.idempotency_key == transaction.idempotency_key, "{transaction:?}");
    let asked: Vec<_> = request.branches.iter().map(|branch| (&branch.branch_id, &branch.participant)).collect();
    let begun: Vec<_> = transaction.branches.iter().map(|branch| (&branch.branch_id, &branch.participant)).collect();
    assert_eq!(begun, asked);
    assert!(transaction.try_until.is_some_and(|at| is_instant(&at)) && transaction.decide_by.is_some_and(|at| is_instant(&at)));
    if transaction.cancel_cause.is_some() { "submit: accepted, refused by a branch".into() } else { "submit: accepted".into() }
}

/// The other calls: which one, by the input's first byte.
fn calls() -> Vec<Vec<u8>> {
    let (gid, branch_id) = (gid(9).to_string(), "stock".to_owned());
    let filter = |name: &str| FingerprintBuilder::new(name).text("").finish();
    let token = |filter: &Fingerprint, last: &str| page::encode(filter, last);
    let warrant = Some(proto::Warrant { actor: "ann".to_owned(), reason: "a ticket".to_owned() });
    let query = proto::OutcomeQuery { gid: gid.clone(), branch_id: branch_id.clone(), row_status: 1, not_after: at(60) };
    let unknown = proto::OutcomeQuery { gid: super::samples::gid(77).to_string(), ..query.clone() };
    let place = format!("{}/{gid}/{branch_id}", NOW.as_micros());
    let (stuck, audit) = (token(&filter("stuck"), &place), token(&filter("audit"), "17"));
    let listed = token(&filter("transactions"), &gid);
    let key = String::new();
    vec![
        tagged(0, &proto::BeginRequest { gid: String::new(), idempotency_key: "b-1".to_owned(), decide_by: at(60) }),
        tagged(0, &proto::BeginRequest { gid: super::samples::gid(21).to_string(), ..Default::default() }),
        tagged(1, &proto::EnlistRequest { gid: gid.clone(), branch: Some(spec("stock", "inventory", WORDS[7])) }),
        tagged(2, &proto::ConfirmTransactionRequest { gid: gid.clone(), wait: 1 }),
        tagged(3, &proto::CancelTransactionRequest { gid: super::samples::gid(78).to_string(), wait: 2 }),
        tagged(4, &proto::GetTransactionRequest { gid: gid.clone() }),
        tagged(
            5,
            &proto::ListTransactionsRequest {
                statuses: vec![1, 3],
                initiator: "anonymous".to_owned(),
                page_size: 2,
                page_token: key.clone(),
            },
        ),
        tagged(5, &proto::ListTransactionsRequest { page_token: listed, ..Default::default() }),
        tagged(6, &proto::GetOutcomeRequest { coordinator: "main".to_owned(), queries: vec![query.clone(), unknown] }),
        tagged(6, &proto::GetOutcomeRequest { coordinator: "other".to_owned(), queries: vec![query] }),
        tagged(7, &proto::ListStuckRequest { participant: "inventory".to_owned(), page_size: 500, page_token: key.clone() }),
        tagged(7, &proto::ListStuckRequest { page_token: stuck, ..Default::default() }),
        tagged(8, &proto::ListAuditRequest { gid: gid.clone(), page_size: 1, page_token: key }),
        tagged(8, &proto::ListAuditRequest { page_token: audit, ..Default::default() }),
        tagged(9, &proto::ProbeRequest { gid: gid.clone(), branch_id: branch_id.clone(), warrant: warrant.clone() }),
        tagged(10, &proto::TryAnewRequest { gid: gid.clone(), branch_id: branch_id.clone(), warrant: warrant.clone() }),
        tagged(11, &proto::MarkSettledRequest { gid, branch_id, warrant }),
    ]
}

macro_rules! call {
    ($runtime:ident, $input:ident, $client:ident.$method:ident($request:ty)) => {
        ask!($runtime, $input, $client.$method($request), "tcc.v1", &FIELDS, |_, answer| consistent(&format!("{answer:?}")))
    };
}

/// What is answered never shows a payload.
fn consistent(answer: &str) {
    assert!(!answer.contains(SECRET), "{answer}");
}

#[test]
fn coordinator() {
    let runtime = runtime();
    let coordinator = start(&runtime);
    let mut client = CoordinatorClient::new(coordinator_server(coordinator.clone()));
    let mut admin = AdminClient::new(admin_server(coordinator));
    let open = proto::BeginRequest { gid: gid(9).to_string(), ..Default::default() };
    runtime.block_on(client.begin(open)).unwrap();
    let meets = [
        "begin: accepted",
        "begin: refused gid",
        "begin: refused decide_by",
        "enlist: accepted",
        "enlist: refused branch",
        "confirm: accepted",
        "confirm: refused wait",
        "cancel: accepted",
        "cancel: refused gid",
        "get: accepted",
        "get: refused as NotFound",
        "list: accepted",
        "list: refused statuses",
        "list: refused page_token",
        "list: refused page_size",
        "get_outcome: accepted",
        "get_outcome: refused queries[].gid",
        "get_outcome: refused coordinator",
        "list_stuck: accepted",
        "list_stuck: refused page_token",
        "list_audit: accepted",
        "list_audit: refused page_token",
        "probe: refused warrant",
        "try_anew: refused",
        "mark_settled: refused",
    ];
    let fields: Vec<&str> = FIELDS.into_iter().chain(["coordinator"]).collect();
    let target =
        Target { name: "coordinator", shape: Shape::Tagged, words: &WORDS, seeds: calls(), rounds: 20_000, meets: &meets };
    target.run(|input| {
        let (tag, input) = input.split_first().map_or((0, input), |(tag, rest)| (*tag, rest));
        match tag {
            0 => call!(runtime, input, client.begin(proto::BeginRequest)),
            1 => call!(runtime, input, client.enlist(proto::EnlistRequest)),
            2 => call!(runtime, input, client.confirm(proto::ConfirmTransactionRequest)),
            3 => call!(runtime, input, client.cancel(proto::CancelTransactionRequest)),
            4 => call!(runtime, input, client.get(proto::GetTransactionRequest)),
            5 => call!(runtime, input, client.list(proto::ListTransactionsRequest)),
            6 => match proto::GetOutcomeRequest::decode(input) {
                Err(_) => "no message".into(),
                Ok(request) => match runtime.block_on(client.get_outcome(request.clone())) {
                    Ok(answer) => outcomes_match(&request, &answer.into_inner()),
                    Err(status) => refusal("get_outcome", &status, "tcc.v1", &fields),
                },
            },
            7 => call!(runtime, input, admin.list_stuck(proto::ListStuckRequest)),
            8 => call!(runtime, input, admin.list_audit(proto::ListAuditRequest)),
            9 => call!(runtime, input, admin.probe(proto::ProbeRequest)),
            10 => call!(runtime, input, admin.try_anew(proto::TryAnewRequest)),
            11 => call!(runtime, input, admin.mark_settled(proto::MarkSettledRequest)),
            _ => "no call".into(),
        }
    });
}

/// One answer to each question, in its place.
fn outcomes_match(request: &proto::GetOutcomeRequest, answer: &proto::GetOutcomeResponse) -> Outcome {
    let queries =
        request.queries.iter().cloned().map(tcc_wire::outcome_query_from_proto).collect::<Result<Vec<_>, _>>().unwrap();
    let outcomes = tcc_wire::outcomes_from_proto(&queries, answer.clone()).unwrap();
    let mine = request.coordinator == "main";
    assert!(outcomes.iter().all(|outcome| (*outcome == tcc_types::Outcome::NotMine) != mine), "{outcomes:?}");
    assert!(queries.iter().all(|query| query.not_after >= Timestamp::EPOCH));
    "get_outcome: accepted".into()
}
