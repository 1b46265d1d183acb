//! The three calls and their answers, both ways.

use tcc_proto::tcc::v1 as proto;
use tcc_types::{
    BranchId, BranchKey, CancelCall, ConfirmCall, Gid, Invalid, LogName, Refusal, RefusalReason, SettleAnswer, TryAnswer,
    TryCall, Violation, ViolationKind,
};

use crate::fields::{
    payload_from_proto, payload_to_proto, row_status_from_proto, row_status_to_proto, timestamp_from_proto, timestamp_to_proto,
};

/// An answer that does not follow the contract; to be treated as unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the answer does not follow the contract: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

pub(crate) fn key_from_proto(gid: &str, branch_id: &str) -> Result<BranchKey, Invalid> {
    Ok(BranchKey { gid: gid.parse::<Gid>()?, branch: branch_id.parse::<BranchId>()? })
}

/// A Try as it is sent.
#[must_use]
pub fn try_to_proto(call: &TryCall) -> proto::TryRequest {
    proto::TryRequest {
        gid: call.key.gid.to_string(),
        branch_id: call.key.branch.to_string(),
        payload: Some(payload_to_proto(&call.payload)),
        not_after: Some(timestamp_to_proto(call.not_after)),
        ask_after: Some(timestamp_to_proto(call.ask_after)),
        coordinator: call.coordinator.to_string(),
    }
}

/// A Try as it arrives.
///
/// # Errors
/// The first field that is not as the contract says.
pub fn try_from_proto(request: proto::TryRequest) -> Result<TryCall, Invalid> {
    Ok(TryCall {
        key: key_from_proto(&request.gid, &request.branch_id)?,
        payload: payload_from_proto("payload", request.payload)?,
        not_after: timestamp_from_proto("not_after", request.not_after.as_ref())?,
        ask_after: timestamp_from_proto("ask_after", request.ask_after.as_ref())?,
        coordinator: LogName::new(request.coordinator)?,
    })
}

/// A Confirm as it is sent.
#[must_use]
pub fn confirm_to_proto(call: &ConfirmCall) -> proto::ConfirmRequest {
    proto::ConfirmRequest { gid: call.key.gid.to_string(), branch_id: call.key.branch.to_string() }
}

/// A Confirm as it arrives.
///
/// # Errors
/// The first field that is not as the contract says.
pub fn confirm_from_proto(request: &proto::ConfirmRequest) -> Result<ConfirmCall, Invalid> {
    Ok(ConfirmCall { key: key_from_proto(&request.gid, &request.branch_id)? })
}

/// A Cancel as it is sent.
#[must_use]
pub fn cancel_to_proto(call: &CancelCall) -> proto::CancelRequest {
    proto::CancelRequest {
        gid: call.key.gid.to_string(),
        branch_id: call.key.branch.to_string(),
        not_after: Some(timestamp_to_proto(call.not_after)),
    }
}

/// A Cancel as it arrives.
///
/// # Errors
/// The first field that is not as the contract says.
pub fn cancel_from_proto(request: &proto::CancelRequest) -> Result<CancelCall, Invalid> {
    Ok(CancelCall {
        key: key_from_proto(&request.gid, &request.branch_id)?,
        not_after: timestamp_from_proto("not_after", request.not_after.as_ref())?,
    })
}

/// What a Try answers on the wire.
#[must_use]
pub fn try_response(answer: &TryAnswer) -> proto::TryResponse {
    use proto::try_response::Outcome;
    let outcome = match answer {
        TryAnswer::Reserved(output) => Outcome::Reserved(proto::Reserved { output: output.as_ref().map(payload_to_proto) }),
        TryAnswer::Refused(refusal) => Outcome::Refused(refusal_to_proto(refusal)),
        TryAnswer::Violation(violation) => Outcome::Violation(violation_to_proto(*violation)),
    };
    proto::TryResponse { outcome: Some(outcome) }
}

/// What a Try was answered.
///
/// # Errors
/// The answer has no outcome, or one with unspecified fields.
pub fn tried_from_proto(response: proto::TryResponse) -> Result<TryAnswer, Malformed> {
    use proto::try_response::Outcome;
    match response.outcome.ok_or(Malformed("no outcome"))? {
        Outcome::Reserved(reserved) => {
            let output = reserved.output.map(|output| payload_from_proto("output", Some(output))).transpose();
            Ok(TryAnswer::Reserved(output.map_err(|_| Malformed("an output without a type, or with one that is too long"))?))
        }
        Outcome::Refused(refused) => Ok(TryAnswer::Refused(refusal_from_proto(refused)?)),
        Outcome::Violation(violation) => Ok(TryAnswer::Violation(violation_from_proto(violation)?)),
    }
}

/// What a Confirm answers on the wire.
#[must_use]
pub fn confirm_response(answer: SettleAnswer) -> proto::ConfirmResponse {
    use proto::confirm_response::Outcome;
    let outcome = match answer {
        SettleAnswer::Done => Outcome::Done(proto::Done {}),
        SettleAnswer::Violation(violation) => Outcome::Violation(violation_to_proto(violation)),
    };
    proto::ConfirmResponse { outcome: Some(outcome) }
}

/// What a Confirm was answered.
///
/// # Errors
/// The answer has no outcome, or one with unspecified fields.
pub fn confirmed_from_proto(response: proto::ConfirmResponse) -> Result<SettleAnswer, Malformed> {
    use proto::confirm_response::Outcome;
    match response.outcome.ok_or(Malformed("no outcome"))? {
        Outcome::Done(proto::Done {}) => Ok(SettleAnswer::Done),
        Outcome::Violation(violation) => Ok(SettleAnswer::Violation(violation_from_proto(violation)?)),
    }
}

/// What a Cancel answers on the wire.
#[must_use]
pub fn cancel_response(answer: SettleAnswer) -> proto::CancelResponse {
    use proto::cancel_response::Outcome;
    let outcome = match answer {
        SettleAnswer::Done => Outcome::Done(proto::Done {}),
        SettleAnswer::Violation(violation) => Outcome::Violation(violation_to_proto(violation)),
    };
    proto::CancelResponse { outcome: Some(outcome) }
}

/// What a Cancel was answered.
///
/// # Errors
/// The answer has no outcome, or one with unspecified fields.
pub fn cancelled_from_proto(response: proto::CancelResponse) -> Result<SettleAnswer, Malformed> {
    use proto::cancel_response::Outcome;
    match response.outcome.ok_or(Malformed("no outcome"))? {
        Outcome::Done(proto::Done {}) => Ok(SettleAnswer::Done),
        Outcome::Violation(violation) => Ok(SettleAnswer::Violation(violation_from_proto(violation)?)),
    }
}

/// A refusal as it is sent.
#[must_use]
pub fn refusal_to_proto(refusal: &Refusal) -> proto::Refused {
    let reason = match refusal.reason {
        RefusalReason::Business => proto::RefusalReason::Business,
        RefusalReason::Late => proto::RefusalReason::Late,
        RefusalReason::Suspended => proto::RefusalReason::Suspended,
    };
    proto::Refused { reason: reason.into(), code: refusal.code.clone(), message: refusal.message.clone() }
}

/// A refusal as it arrives; code and message are cut to their limits.
///
/// # Errors
/// Its reason is unspecified: nobody could tell whether a Cancel is needed.
pub fn refusal_from_proto(refused: proto::Refused) -> Result<Refusal, Malformed> {
    let reason = match refused.reason() {
        proto::RefusalReason::Unspecified => return Err(Malformed("a refusal without a reason")),
        proto::RefusalReason::Business => RefusalReason::Business,
        proto::RefusalReason::Late => RefusalReason::Late,
        proto::RefusalReason::Suspended => RefusalReason::Suspended,
    };
    Ok(Refusal { reason, ..Refusal::business(refused.code, refused.message) })
}

/// A violation as it is sent.
#[must_use]
pub fn violation_to_proto(violation: Violation) -> proto::Violation {
    let kind = match violation.kind {
        ViolationKind::DifferentPayload => proto::ViolationKind::DifferentPayload,
        ViolationKind::NoReservation => proto::ViolationKind::NoReservation,
        ViolationKind::OtherOutcome => proto::ViolationKind::OtherOutcome,
    };
    proto::Violation { kind: kind.into(), row_status: row_status_to_proto(violation.row_status).into() }
}

/// A violation as it arrives.
///
/// # Errors
/// Its kind is unspecified.
pub fn violation_from_proto(violation: proto::Violation) -> Result<Violation, Malformed> {
    let kind = match violation.kind() {
        proto::ViolationKind::Unspecified => return Err(Malformed("a violation without a kind")),
        proto::ViolationKind::DifferentPayload => ViolationKind::DifferentPayload,
        proto::ViolationKind::NoReservation => ViolationKind::NoReservation,
        proto::ViolationKind::OtherOutcome => ViolationKind::OtherOutcome,
    };
    Ok(Violation { kind, row_status: row_status_from_proto(violation.row_status()) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tcc_types::{BranchRowStatus, Payload, SystemEntropy, Timestamp};

    use super::*;

    fn key() -> BranchKey {
        let now = Timestamp::from_millis(1_790_000_000_000);
        BranchKey { gid: Gid::mint(now, &SystemEntropy), branch: BranchId::new("stock").unwrap() }
    }

    #[test]
    fn calls_arrive_as_they_were_sent() {
        let call = TryCall {
            key: key(),
            payload: Payload { type_url: "t/x.Y".to_owned(), value: Bytes::from_static(b"\x08\x01") },
            not_after: Timestamp::from_micros(5),
            ask_after: Timestamp::from_micros(6),
            coordinator: LogName::new("main").unwrap(),
        };
        assert_eq!(try_from_proto(try_to_proto(&call)), Ok(call));
        let confirm = ConfirmCall { key: key() };
        assert_eq!(confirm_from_proto(&confirm_to_proto(&confirm)), Ok(confirm));
        let cancel = CancelCall { key: key(), not_after: Timestamp::from_micros(7) };
        assert_eq!(cancel_from_proto(&cancel_to_proto(&cancel)), Ok(cancel));
    }

    #[test]
    fn answers_arrive_as_they_were_given() {
        let violation = Violation { kind: ViolationKind::OtherOutcome, row_status: Some(BranchRowStatus::Refused) };
        let answers = [
            TryAnswer::Reserved(None),
            TryAnswer::Reserved(Some(Payload { type_url: "t".to_owned(), value: Bytes::new() })),
            TryAnswer::Refused(Refusal::business("OUT_OF_STOCK", "none left")),
            TryAnswer::Refused(Refusal::late()),
            TryAnswer::Refused(Refusal::suspended()),
            TryAnswer::Violation(violation),
        ];
        for answer in answers {
            assert_eq!(tried_from_proto(try_response(&answer)), Ok(answer));
        }
        for answer in [SettleAnswer::Done, SettleAnswer::Violation(violation)] {
            assert_eq!(confirmed_from_proto(confirm_response(answer)), Ok(answer));
            assert_eq!(cancelled_from_proto(cancel_response(answer)), Ok(answer));
        }
    }

    #[test]
    fn an_answer_that_says_nothing_is_malformed() {
        assert!(tried_from_proto(proto::TryResponse { outcome: None }).is_err());
        assert!(confirmed_from_proto(proto::ConfirmResponse { outcome: None }).is_err());
        assert!(refusal_from_proto(proto::Refused::default()).is_err());
        assert!(violation_from_proto(proto::Violation::default()).is_err());
    }
}
