//! What comes back: results of batches, outcomes, and errors with their details. A malformed answer is unknown, and never another
//! branch's.

use prost::Message;
use tcc_client::Error;
use tcc_fuzz::{Shape, Target};
use tcc_proto::tcc::v1::{self as proto, OperationKind};
use tcc_types::{
    BranchRowStatus, Invalid, Op, Outcome as Told, OutcomeQuery, Refusal, SettleAnswer, TryAnswer, Violation, ViolationKind,
};
use tcc_wire::{Answer, outcome_answer, outcomes_from_proto, result_from_proto, result_to_proto, status};
use tonic::{Code, Status};

use super::samples::{ACCEPTED, NOW, gid, is_gid, is_name, key};

const WORDS: [&str; 4] =
    ["019ca4c3-7400-7000-8000-000000000000", "stock", "SOLD_OUT", "type.googleapis.com/coupon.v1.LockedCoupon"];

fn results() -> Vec<Vec<u8>> {
    let violation = Violation { kind: ViolationKind::OtherOutcome, row_status: Some(BranchRowStatus::Cancelled) };
    let payload = tcc_types::Payload { type_url: WORDS[3].to_owned(), value: vec![8, 5].into() };
    let answers = [
        (Op::Try, Ok(Answer::Tried(TryAnswer::Reserved(Some(payload))))),
        (Op::Try, Ok(Answer::Tried(TryAnswer::Refused(Refusal::business("SOLD_OUT", "none left"))))),
        (Op::Try, Ok(Answer::Tried(TryAnswer::Violation(violation)))),
        (Op::Confirm, Ok(Answer::Settled(SettleAnswer::Done))),
        (Op::Cancel, Ok(Answer::Settled(SettleAnswer::Violation(violation)))),
        (Op::Cancel, Err("the database is full".to_owned())),
    ];
    let result = |(op, answer)| result_to_proto(gid(1).to_string(), "stock".to_owned(), op, answer).encode_to_vec();
    answers.map(result).to_vec()
}

#[test]
fn batch_results() {
    let meets = [
        "accepted Try reserved",
        "accepted Try refused",
        "accepted Try violation",
        "accepted Confirm done",
        "accepted Cancel violation",
        "accepted unknown",
        "refused",
        "no message",
    ];
    let target =
        Target { name: "batch_results", shape: Shape::Message, words: &WORDS, seeds: results(), rounds: 60_000, meets: &meets };
    target.run(|input| {
        let Ok(sent) = proto::BatchResult::decode(input) else { return "no message".into() };
        let named = is_gid(&sent.gid) && is_name(&sent.branch_id) && sent.operation() != OperationKind::Unspecified;
        let Ok(result) = result_from_proto(sent.clone()) else {
            assert!(!named, "{sent:?}");
            return "refused".into();
        };
        assert!(named && result.key.gid.to_string() == sent.gid && result.key.branch.as_str() == sent.branch_id, "{sent:?}");
        let again = result_to_proto(sent.gid, sent.branch_id, result.op, result.outcome.clone());
        assert_eq!(result_from_proto(again), Ok(result.clone()));
        let what = match &result.outcome {
            Err(text) => {
                assert!(text.len() <= 512, "{text}");
                return "accepted unknown".into();
            }
            Ok(Answer::Tried(TryAnswer::Reserved(output))) => {
                assert!(output.as_ref().is_none_or(|output| !output.type_url.is_empty() && output.type_url.len() <= 512));
                "reserved"
            }
            Ok(Answer::Tried(TryAnswer::Refused(refusal))) => {
                let fits =
                    refusal.code.len() <= Refusal::CODE_LENGTH_MAX && refusal.message.len() <= Refusal::MESSAGE_LENGTH_MAX;
                assert!(fits, "{refusal:?}");
                "refused"
            }
            Ok(Answer::Settled(SettleAnswer::Done)) => "done",
            Ok(Answer::Tried(TryAnswer::Violation(_)) | Answer::Settled(SettleAnswer::Violation(_))) => "violation",
        };
        // A Try's answer is never taken for a Confirm's, nor the other way round.
        assert_eq!(matches!(result.outcome, Ok(Answer::Tried(_))), result.op == Op::Try);
        format!("accepted {:?} {what}", result.op).into()
    });
}

#[test]
fn outcomes() {
    let query = |number, row_status| OutcomeQuery { key: key(number, "stock"), row_status, not_after: NOW };
    let queries = [query(1, BranchRowStatus::Tried), query(2, BranchRowStatus::Confirmed)];
    let told = [Told::Confirmed, Told::Cancelled, Told::AskAgain { at: NOW }, Told::Finished, Told::Forgotten, Told::NotMine];
    let response = |outcome| {
        let answers = queries.iter().map(|query| outcome_answer(query, outcome)).collect();
        proto::GetOutcomeResponse { answers }.encode_to_vec()
    };
    let (shape, meets) = (Shape::Message, ["accepted", "refused", "no message"]);
    let seeds = told.map(response).to_vec();
    Target { name: "outcomes", shape, words: &WORDS, seeds, rounds: 60_000, meets: &meets }.run(|input| {
        let Ok(sent) = proto::GetOutcomeResponse::decode(input) else { return "no message".into() };
        let Ok(outcomes) = outcomes_from_proto(&queries, sent.clone()) else { return "refused".into() };
        // One to one, and in order: no answer is taken for another row's.
        let own = sent.answers.iter().zip(&queries).all(|(answer, query)| {
            answer.gid == query.key.gid.to_string() && answer.branch_id == "stock" && answer.outcome.is_some()
        });
        assert!(own && sent.answers.len() == queries.len() && outcomes.len() == queries.len(), "{sent:?}");
        let answers = queries.iter().zip(&outcomes).map(|(query, outcome)| outcome_answer(query, *outcome)).collect();
        assert_eq!(outcomes_from_proto(&queries, proto::GetOutcomeResponse { answers }), Ok(outcomes));
        ACCEPTED
    });
}

/// A client reads whatever a server, or a proxy, puts into an error's details.
#[test]
fn error_details() {
    let bad = [Invalid::new("lines[0].sku", "must not be empty"), Invalid::new("user_id", "is required")];
    let seeds = [
        status::invalid("order.v1", &bad),
        status::exhausted("tcc.v1", "transactions_in_flight_max", 7, std::time::Duration::from_millis(250)),
        status::failed_precondition("tcc.v1", "ALREADY_DECIDED", "gid", "it is decided"),
    ];
    let seeds = seeds.map(|status| status.details().to_vec()).to_vec();
    let words = ["type.googleapis.com/google.rpc.ErrorInfo", "type.googleapis.com/google.rpc.RetryInfo", "INVALID_FIELDS"];
    let meets = ["accepted with a reason and fields", "accepted with a reason", "refused"];
    let target = Target { name: "error_details", shape: Shape::Message, words: &words, seeds, rounds: 10_000, meets: &meets };
    target.run(|input| {
        let status = Status::with_details(Code::InvalidArgument, "no", input.to_vec().into());
        // Not by tonic-types as a whole: prost-types overflows at a delay of `i64::MIN` seconds, and no code of ours asks for it.
        let read = tonic_types::Status::decode(input);
        let error = Error::from(status);
        let (reason, fields) = (error.reason(), error.bad_fields());
        // What it means does not hang on what cannot be read.
        assert!(error.nothing_started() && !error.is_retryable());
        match read {
            Ok(_) if reason.is_some() && !fields.is_empty() => "accepted with a reason and fields".into(),
            Ok(_) if reason.is_some() => "accepted with a reason".into(),
            Ok(_) => "accepted without a reason".into(),
            Err(_) => "refused".into(),
        }
    });
}
