//! Batches of the three calls and their results, both ways. Each operation is converted on its own, so that a malformed one
//! harms no other. Whether a result was asked for is its reader's to judge.

use tcc_proto::tcc::v1::{self as proto, batch_operation::Operation as Sent, batch_result::Outcome};
use tcc_types::{BranchKey, CancelCall, ConfirmCall, Invalid, Op, SettleAnswer, TryAnswer, TryCall};

use crate::calls::{
    Malformed, cancel_from_proto, cancel_response, cancel_to_proto, cancelled_from_proto, confirm_from_proto, confirm_response,
    confirm_to_proto, confirmed_from_proto, key_from_proto, tried_from_proto, try_from_proto, try_response, try_to_proto,
};

/// `batch_operations_max`: most operations in one batch.
pub const BATCH_OPERATIONS_MAX: usize = 1_024;
/// `batch_bytes_max`: most bytes of one encoded message, there and back.
pub const BATCH_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Most bytes of the text that says why an outcome is unknown; a longer one is cut.
const UNKNOWN_BYTES_MAX: usize = 512;

/// Whatever may be asked of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reserve.
    Try(TryCall),
    /// Spend.
    Confirm(ConfirmCall),
    /// Release.
    Cancel(CancelCall),
}

impl Operation {
    /// Which branch.
    #[must_use]
    pub const fn key(&self) -> &BranchKey {
        match self {
            Self::Try(call) => &call.key,
            Self::Confirm(call) => &call.key,
            Self::Cancel(call) => &call.key,
        }
    }

    /// Which of the three.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self {
            Self::Try(_) => Op::Try,
            Self::Confirm(_) => Op::Confirm,
            Self::Cancel(_) => Op::Cancel,
        }
    }

    /// No less than its bytes in a batch; the trace is counted as if there were one.
    #[must_use]
    pub fn size_bytes_max(&self) -> usize {
        /// Gid, instants, trace, and the tags and lengths of everything.
        const ENVELOPE_BYTES_MAX: usize = 256;
        let own = match self {
            Self::Try(call) => call.payload.size_bytes() + call.coordinator.as_str().len(),
            Self::Confirm(_) | Self::Cancel(_) => 0,
        };
        ENVELOPE_BYTES_MAX + self.key().branch.as_str().len() + own
    }
}

/// Whatever a branch may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a Try.
    Tried(TryAnswer),
    /// To a Confirm or a Cancel.
    Settled(SettleAnswer),
}

/// What became of one operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchResult {
    /// Which branch.
    pub key: BranchKey,
    /// Which operation.
    pub op: Op,
    /// Its answer; or why nobody knows it, for people.
    pub outcome: Result<Answer, String>,
}

/// An operation as it is sent. `traceparent` is the W3C trace context of whoever asks, or empty.
#[must_use]
pub fn operation_to_proto(operation: &Operation, traceparent: String) -> proto::BatchOperation {
    let sent = match operation {
        Operation::Try(call) => Sent::TryRequest(try_to_proto(call)),
        Operation::Confirm(call) => Sent::ConfirmRequest(confirm_to_proto(call)),
        Operation::Cancel(call) => Sent::CancelRequest(cancel_to_proto(call)),
    };
    proto::BatchOperation { operation: Some(sent), traceparent }
}

/// An operation as it arrives.
///
/// # Errors
/// The first field that is not as the contract says.
pub fn operation_from_proto(sent: Sent) -> Result<Operation, Invalid> {
    match sent {
        Sent::TryRequest(request) => try_from_proto(request).map(Operation::Try),
        Sent::ConfirmRequest(request) => confirm_from_proto(&request).map(Operation::Confirm),
        Sent::CancelRequest(request) => cancel_from_proto(&request).map(Operation::Cancel),
    }
}

/// How an operation that has arrived names itself, well-formed or not: `gid`, `branch_id`, and which of the three.
#[must_use]
pub fn operation_name(sent: &Sent) -> (&str, &str, Op) {
    match sent {
        Sent::TryRequest(request) => (&request.gid, &request.branch_id, Op::Try),
        Sent::ConfirmRequest(request) => (&request.gid, &request.branch_id, Op::Confirm),
        Sent::CancelRequest(request) => (&request.gid, &request.branch_id, Op::Cancel),
    }
}

/// A result as it is sent. `gid` and `branch_id` are repeated as they came, so that a malformed operation has one too.
/// What an operation cannot answer is sent as unknown.
#[must_use]
pub fn result_to_proto(gid: String, branch_id: String, op: Op, outcome: Result<Answer, String>) -> proto::BatchResult {
    let outcome = match (op, outcome) {
        (Op::Try, Ok(Answer::Tried(answer))) => Outcome::Tried(try_response(&answer)),
        (Op::Confirm, Ok(Answer::Settled(answer))) => Outcome::Confirmed(confirm_response(answer)),
        (Op::Cancel, Ok(Answer::Settled(answer))) => Outcome::Cancelled(cancel_response(answer)),
        (Op::Try, Ok(Answer::Settled(_))) | (Op::Confirm | Op::Cancel, Ok(Answer::Tried(_))) => {
            Outcome::Unknown("the answer is another operation's".to_owned())
        }
        (Op::Try | Op::Confirm | Op::Cancel, Err(text)) => Outcome::Unknown(cut(text)),
    };
    proto::BatchResult { gid, branch_id, operation: kind_of(op).into(), outcome: Some(outcome) }
}

/// A result as it arrives. One whose outcome is malformed is there, and unknown.
///
/// # Errors
/// It does not say whose it is.
pub fn result_from_proto(result: proto::BatchResult) -> Result<BatchResult, Malformed> {
    let op = match result.operation() {
        proto::OperationKind::Unspecified => return Err(Malformed("a result without an operation")),
        proto::OperationKind::Try => Op::Try,
        proto::OperationKind::Confirm => Op::Confirm,
        proto::OperationKind::Cancel => Op::Cancel,
    };
    let key = key_from_proto(&result.gid, &result.branch_id).map_err(|_| Malformed("a result without a branch"))?;
    Ok(BatchResult { key, op, outcome: outcome_from_proto(op, result.outcome) })
}

fn outcome_from_proto(op: Op, outcome: Option<Outcome>) -> Result<Answer, String> {
    let answer = match (op, outcome) {
        (Op::Try, Some(Outcome::Tried(response))) => tried_from_proto(response).map(Answer::Tried),
        (Op::Confirm, Some(Outcome::Confirmed(response))) => confirmed_from_proto(response).map(Answer::Settled),
        (Op::Cancel, Some(Outcome::Cancelled(response))) => cancelled_from_proto(response).map(Answer::Settled),
        (_, Some(Outcome::Unknown(text))) => return Err(cut(text)),
        (_, Some(Outcome::Tried(_) | Outcome::Confirmed(_) | Outcome::Cancelled(_))) => {
            Err(Malformed("the outcome of another operation"))
        }
        (_, None) => Err(Malformed("no outcome")),
    };
    answer.map_err(|malformed| malformed.to_string())
}

const fn kind_of(op: Op) -> proto::OperationKind {
    match op {
        Op::Try => proto::OperationKind::Try,
        Op::Confirm => proto::OperationKind::Confirm,
        Op::Cancel => proto::OperationKind::Cancel,
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(UNKNOWN_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tcc_types::{
        BranchId, BranchRowStatus, Entropy, Gid, LogName, Payload, Refusal, SystemEntropy, Timestamp, Violation, ViolationKind,
    };

    use super::*;

    fn key() -> BranchKey {
        let entropy: &dyn Entropy = &SystemEntropy;
        let gid = Gid::mint(Timestamp::from_millis(1_790_000_000_000), entropy);
        BranchKey { gid, branch: BranchId::new("stock").unwrap() }
    }

    fn operations() -> [Operation; 3] {
        let call = TryCall {
            key: key(),
            payload: Payload { type_url: "t/x.Y".to_owned(), value: Bytes::from_static(b"\x08\x01") },
            not_after: Timestamp::MAX,
            ask_after: Timestamp::MAX,
            coordinator: LogName::new("main").unwrap(),
        };
        let cancel = CancelCall { key: key(), not_after: Timestamp::MAX };
        [Operation::Try(call), Operation::Confirm(ConfirmCall { key: key() }), Operation::Cancel(cancel)]
    }

    fn there_and_back(key: &BranchKey, op: Op, outcome: Result<Answer, String>) -> BatchResult {
        result_from_proto(result_to_proto(key.gid.to_string(), key.branch.to_string(), op, outcome)).unwrap()
    }

    #[test]
    fn operations_arrive_as_they_were_sent() {
        for operation in operations() {
            let proto = operation_to_proto(&operation, "00-trace".to_owned());
            assert_eq!(proto.traceparent, "00-trace");
            let sent = proto.operation.unwrap();
            let (gid, branch_id, op) = operation_name(&sent);
            let named = (operation.key().gid.to_string(), operation.key().branch.as_str(), operation.op());
            assert_eq!((gid.to_owned(), branch_id, op), named);
            assert_eq!(operation_from_proto(sent), Ok(operation));
        }
    }

    #[test]
    fn an_operation_in_a_batch_is_no_larger_than_it_says() {
        use prost::Message;
        let traceparent = format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16));
        for mut operation in operations() {
            if let Operation::Try(call) = &mut operation {
                call.payload.type_url = "t".repeat(512);
                call.payload.value = Bytes::from(vec![0; 1_000_000]);
                call.coordinator = LogName::new("m".repeat(64)).unwrap();
            }
            let request = proto::BatchRequest { operations: vec![operation_to_proto(&operation, traceparent.clone())] };
            assert!(request.encoded_len() <= operation.size_bytes_max(), "{operation:?}: {}", request.encoded_len());
        }
    }

    #[test]
    fn a_malformed_operation_names_its_field_and_still_itself() {
        let sent =
            Sent::CancelRequest(proto::CancelRequest { gid: "x".to_owned(), branch_id: "b".to_owned(), not_after: None });
        assert_eq!(operation_name(&sent), ("x", "b", Op::Cancel));
        assert_eq!(operation_from_proto(sent).unwrap_err().field, "gid");
    }

    #[test]
    fn results_arrive_as_they_were_given() {
        let key = key();
        let violation = Violation { kind: ViolationKind::OtherOutcome, row_status: Some(BranchRowStatus::Refused) };
        let outcomes = [
            (Op::Try, Ok(Answer::Tried(TryAnswer::Reserved(None)))),
            (Op::Try, Ok(Answer::Tried(TryAnswer::Refused(Refusal::business("OUT_OF_STOCK", "none left"))))),
            (Op::Try, Ok(Answer::Tried(TryAnswer::Violation(violation)))),
            (Op::Confirm, Ok(Answer::Settled(SettleAnswer::Done))),
            (Op::Confirm, Ok(Answer::Settled(SettleAnswer::Violation(violation)))),
            (Op::Cancel, Ok(Answer::Settled(SettleAnswer::Done))),
            (Op::Cancel, Ok(Answer::Settled(SettleAnswer::Violation(violation)))),
            (Op::Try, Err("too slow".to_owned())),
            (Op::Confirm, Err("too slow".to_owned())),
            (Op::Cancel, Err("too slow".to_owned())),
        ];
        for (op, outcome) in outcomes {
            let result = BatchResult { key: key.clone(), op, outcome: outcome.clone() };
            assert_eq!(there_and_back(&key, op, outcome), result);
        }
    }

    #[test]
    fn an_outcome_that_is_not_the_operations_is_unknown() {
        let (key, done) = (key(), Answer::Settled(SettleAnswer::Done));
        assert!(there_and_back(&key, Op::Try, Ok(done.clone())).outcome.is_err());
        let yes = Answer::Tried(TryAnswer::Reserved(None));
        assert!(there_and_back(&key, Op::Confirm, Ok(yes.clone())).outcome.is_err());
        let good = result_to_proto(key.gid.to_string(), "stock".to_owned(), Op::Cancel, Ok(done));
        let tried = Some(Outcome::Tried(try_response(&TryAnswer::Reserved(None))));
        let confirmed = Some(Outcome::Confirmed(confirm_response(SettleAnswer::Done)));
        let empty = Some(Outcome::Cancelled(proto::CancelResponse::default()));
        for outcome in [None, tried, confirmed, empty] {
            let bad = result_from_proto(proto::BatchResult { outcome, ..good.clone() }).unwrap();
            assert_eq!((bad.key, bad.op), (key.clone(), Op::Cancel));
            assert!(bad.outcome.is_err(), "{:?}", bad.outcome);
        }
    }

    #[test]
    fn a_result_that_does_not_say_whose_it_is_is_malformed() {
        let good = result_to_proto(key().gid.to_string(), "stock".to_owned(), Op::Confirm, Err(String::new()));
        assert!(result_from_proto(good.clone()).is_ok());
        assert!(result_from_proto(proto::BatchResult { gid: "x".to_owned(), ..good.clone() }).is_err());
        assert!(result_from_proto(proto::BatchResult { branch_id: String::new(), ..good.clone() }).is_err());
        assert!(result_from_proto(proto::BatchResult { operation: 0, ..good.clone() }).is_err());
        assert!(result_from_proto(proto::BatchResult { operation: 77, ..good }).is_err());
    }

    #[test]
    fn long_texts_are_cut() {
        let text = there_and_back(&key(), Op::Try, Err("ü".repeat(1_000))).outcome.unwrap_err();
        assert_eq!(text.len(), UNKNOWN_BYTES_MAX);
    }
}
