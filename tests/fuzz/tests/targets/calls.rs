//! What a coordinator sends to participants, and what participants ask it: accepted exactly if every field is as the contract says, and
//! then sent on as the same message.

use prost::Message;
use prost_types::Timestamp as ProtoTimestamp;
use tcc_fuzz::{Shape, Target};
use tcc_proto::tcc::v1::{self as proto, batch_operation::Operation as Sent};
use tcc_types::{BranchRowStatus, OutcomeQuery, Timestamp};
use tcc_wire::{
    Operation, TYPE_URL_BYTES_MAX, operation_from_proto, operation_name, operation_to_proto, outcome_query_from_proto,
    outcome_query_to_proto,
};

use super::samples::{ACCEPTED, any, at, gid, is_gid, is_instant, is_name, is_typed, key, plain, refused};

/// Words of these messages.
const WORDS: [&str; 7] = [
    "019ca4c3-7400-7000-8000-000000000000",
    "019CA4C3-7400-7000-8000-000000000000",
    "stock",
    "main",
    "type.googleapis.com/inventory.v1.ReserveStock",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "a/b",
];

const FIELDS: [&str; 7] = ["gid", "branch_id", "payload", "payload.type_url", "not_after", "ask_after", "coordinator"];

fn seeds() -> Vec<Vec<u8>> {
    let (gid, branch_id) = (gid(1).to_string(), "stock".to_owned());
    let payload = any("type.googleapis.com/test", &proto::ConfirmRequest::default());
    let try_request = proto::TryRequest {
        gid: gid.clone(),
        branch_id: branch_id.clone(),
        payload,
        not_after: at(60),
        ask_after: at(90),
        coordinator: "main".to_owned(),
    };
    let confirm = proto::ConfirmRequest { gid: gid.clone(), branch_id: branch_id.clone() };
    let cancel = proto::CancelRequest { gid, branch_id, not_after: at(60) };
    let calls = [Sent::TryRequest(try_request), Sent::ConfirmRequest(confirm), Sent::CancelRequest(cancel)];
    calls.map(|call| proto::BatchOperation { operation: Some(call), traceparent: WORDS[5].to_owned() }.encode_to_vec()).to_vec()
}

fn is_set(instant: Option<&ProtoTimestamp>) -> bool {
    instant.is_some_and(is_instant)
}

fn is_right(sent: &Sent) -> bool {
    let (gid, branch_id, _) = operation_name(sent);
    let own = match sent {
        Sent::TryRequest(call) => {
            let instants = is_set(call.not_after.as_ref()) && is_set(call.ask_after.as_ref());
            call.payload.as_ref().is_some_and(is_typed) && instants && is_name(&call.coordinator)
        }
        Sent::ConfirmRequest(_) => true,
        Sent::CancelRequest(call) => is_set(call.not_after.as_ref()),
    };
    is_gid(gid) && is_name(branch_id) && own
}

#[test]
fn operations() {
    let meets: Vec<String> = FIELDS.iter().map(|field| format!("refused {field}")).collect();
    let mut meets: Vec<&str> = meets.iter().map(String::as_str).collect();
    meets.extend(["accepted Try", "accepted Confirm", "accepted Cancel", "no message", "no operation"]);
    let target =
        Target { name: "operations", shape: Shape::Message, words: &WORDS, seeds: seeds(), rounds: 60_000, meets: &meets };
    target.run(|input| {
        let Ok(message) = proto::BatchOperation::decode(input) else { return "no message".into() };
        let Some(sent) = message.operation.clone() else { return "no operation".into() };
        let right = is_right(&sent);
        match operation_from_proto(sent.clone()) {
            Ok(operation) => {
                assert!(right, "{sent:?}");
                let again = operation_to_proto(&operation, message.traceparent.clone());
                assert_eq!(operation_from_proto(again.operation.clone().unwrap()), Ok(operation.clone()));
                assert_eq!(operation_name(again.operation.as_ref().unwrap()), operation_name(&sent));
                assert_eq!(operation.op(), operation_name(&sent).2);
                if let Operation::Try(call) = &operation {
                    assert!(call.payload.type_url.len() <= TYPE_URL_BYTES_MAX);
                    assert_eq!(again.operation.as_ref().map(digest), Some(digest(&sent)));
                }
                if message.traceparent.len() <= 55 {
                    let batch = proto::BatchRequest { operations: vec![again] };
                    assert!(batch.encoded_len() <= operation.size_bytes_max(), "{} {operation:?}", batch.encoded_len());
                }
                format!("accepted {:?}", operation.op()).into()
            }
            Err(bad) => {
                assert!(!right, "{bad}: {sent:?}");
                refused(&bad, &FIELDS)
            }
        }
    });
}

/// The payload to the byte: it is the request's identity.
fn digest(sent: &Sent) -> Option<(String, Vec<u8>)> {
    let Sent::TryRequest(call) = sent else { return None };
    call.payload.clone().map(|payload| (payload.type_url, payload.value))
}

#[test]
fn outcome_queries() {
    let query = |row_status| OutcomeQuery {
        key: key(1, "stock"),
        row_status,
        not_after: Timestamp::from_micros(1_790_000_000_000_001),
    };
    let seeds = BranchRowStatus::ALL.map(|status| outcome_query_to_proto(&query(status)).encode_to_vec()).to_vec();
    let meets = ["accepted", "refused gid", "refused branch_id", "refused row_status", "refused not_after", "no message"];
    let target = Target { name: "outcome_queries", shape: Shape::Message, words: &WORDS, seeds, rounds: 60_000, meets: &meets };
    target.run(|input| {
        let Ok(sent) = proto::OutcomeQuery::decode(input) else { return "no message".into() };
        let wrong = [
            ("gid", !is_gid(&sent.gid)),
            ("branch_id", !is_name(&sent.branch_id)),
            ("not_after", !is_set(sent.not_after.as_ref())),
            ("row_status", !(1..=4).contains(&sent.row_status)),
        ];
        let wrong: Vec<_> = wrong.into_iter().filter(|(_, wrong)| *wrong).map(|(field, _)| field.to_owned()).collect();
        match outcome_query_from_proto(sent) {
            Ok(query) => {
                assert!(wrong.is_empty(), "{wrong:?}");
                assert_eq!(outcome_query_from_proto(outcome_query_to_proto(&query)), Ok(query));
                ACCEPTED
            }
            // All that is wrong, and nothing else.
            Err(bad) => {
                assert_eq!(bad.iter().map(|bad| plain(&bad.field)).collect::<Vec<_>>(), wrong);
                refused(&bad[0], &["gid", "branch_id", "row_status", "not_after"])
            }
        }
    });
}
