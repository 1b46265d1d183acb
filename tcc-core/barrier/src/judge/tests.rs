//! Every row state × operation.

use bytes::Bytes;
use tcc_types::{BranchId, BranchKey, Gid, LogName, Payload, SystemEntropy};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn call() -> TryCall {
    TryCall {
        key: BranchKey { gid: Gid::mint(NOW, &SystemEntropy), branch: BranchId::new("b").unwrap() },
        payload: payload("type.googleapis.com/t.Want", b"three"),
        not_after: NOW,
        ask_after: NOW,
        coordinator: LogName::new("log").unwrap(),
    }
}

fn payload(type_url: &str, value: &'static [u8]) -> Payload {
    Payload { type_url: type_url.to_owned(), value: Bytes::from_static(value) }
}

fn output() -> Option<Payload> {
    Some(payload("type.googleapis.com/t.Got", b"seat 7"))
}

fn refusal() -> Refusal {
    Refusal::business("OUT_OF_STOCK", "two left")
}

fn tried(call: &TryCall) -> Row {
    Row::Tried { request: call.into(), output: output() }
}

fn refused(call: &TryCall) -> Row {
    Row::Refused { request: call.into(), refusal: refusal() }
}

fn confirmed(call: &TryCall) -> Row {
    Row::Confirmed { request: call.into(), output: output() }
}

fn cancelled(call: &TryCall) -> Row {
    Row::Cancelled { request: Some(call.into()) }
}

const EMPTY_ROLLBACK: Row = Row::Cancelled { request: None };

fn later() -> Timestamp {
    Timestamp::from_micros(NOW.as_micros() + 1)
}

fn other_outcome(row: &Row) -> SettleAnswer {
    SettleAnswer::Violation(Violation { kind: ViolationKind::OtherOutcome, row_status: Some(row.status()) })
}

#[test]
fn try_without_a_row_reserves_up_to_not_after() {
    assert_eq!(judge_try(&call(), None, NOW), TryVerdict::Reserve);
}

#[test]
fn try_without_a_row_is_late_after_not_after() {
    assert_eq!(judge_try(&call(), None, later()), TryVerdict::Answer(TryAnswer::Refused(Refusal::late())));
}

#[test]
fn try_with_a_row_is_never_late() {
    let call = call();
    for row in [tried(&call), confirmed(&call)] {
        assert_eq!(judge_try(&call, Some(&row), later()), TryVerdict::Answer(TryAnswer::Reserved(output())));
    }
}

#[test]
fn try_of_a_tried_row_is_yes_again_with_the_same_output() {
    let call = call();
    assert_eq!(judge_try(&call, Some(&tried(&call)), NOW), TryVerdict::Answer(TryAnswer::Reserved(output())));
}

#[test]
fn try_of_a_refused_row_is_refused_again_with_the_same_reason() {
    let call = call();
    assert_eq!(judge_try(&call, Some(&refused(&call)), NOW), TryVerdict::Answer(TryAnswer::Refused(refusal())));
}

#[test]
fn try_of_a_confirmed_row_is_yes_again() {
    let call = call();
    assert_eq!(judge_try(&call, Some(&confirmed(&call)), NOW), TryVerdict::Answer(TryAnswer::Reserved(output())));
}

#[test]
fn try_after_its_cancel_is_suspended_with_or_without_an_earlier_try() {
    let call = call();
    for row in [cancelled(&call), EMPTY_ROLLBACK] {
        let verdict = judge_try(&call, Some(&row), later());
        assert_eq!(verdict, TryVerdict::Answer(TryAnswer::Refused(Refusal::suspended())));
    }
}

#[test]
fn try_with_another_request_is_a_violation_in_every_state_that_knows_its_request() {
    let first = call();
    let other_bytes = TryCall { payload: payload("type.googleapis.com/t.Want", b"four"), ..first.clone() };
    let other_type = TryCall { payload: payload("type.googleapis.com/t.Wish", b"three"), ..first.clone() };
    let other_coordinator = TryCall { coordinator: LogName::new("another").unwrap(), ..first.clone() };
    for second in [other_bytes, other_type, other_coordinator] {
        for row in [tried(&first), refused(&first), confirmed(&first), cancelled(&first)] {
            let violation = Violation { kind: ViolationKind::DifferentPayload, row_status: Some(row.status()) };
            assert_eq!(judge_try(&second, Some(&row), NOW), TryVerdict::Answer(TryAnswer::Violation(violation)));
        }
    }
}

#[test]
fn try_with_other_deadlines_is_the_same_request() {
    let first = call();
    let second = TryCall { not_after: later(), ask_after: later(), ..first.clone() };
    assert_eq!(judge_try(&second, Some(&tried(&first)), NOW), TryVerdict::Answer(TryAnswer::Reserved(output())));
}

#[test]
fn confirm_without_a_row_is_a_violation() {
    let violation = Violation { kind: ViolationKind::NoReservation, row_status: None };
    assert_eq!(judge_confirm(None), ConfirmVerdict::Answer(SettleAnswer::Violation(violation)));
}

#[test]
fn confirm_of_a_tried_row_spends() {
    assert_eq!(judge_confirm(Some(&tried(&call()))), ConfirmVerdict::Spend);
}

#[test]
fn confirm_of_a_confirmed_row_is_done_again() {
    assert_eq!(judge_confirm(Some(&confirmed(&call()))), ConfirmVerdict::Answer(SettleAnswer::Done));
}

#[test]
fn confirm_of_a_refused_or_cancelled_row_is_a_violation() {
    let call = call();
    for row in [refused(&call), cancelled(&call), EMPTY_ROLLBACK] {
        assert_eq!(judge_confirm(Some(&row)), ConfirmVerdict::Answer(other_outcome(&row)));
    }
}

#[test]
fn cancel_without_a_row_is_recorded() {
    assert_eq!(judge_cancel(None), CancelVerdict::Record);
}

#[test]
fn cancel_of_a_tried_row_releases() {
    assert_eq!(judge_cancel(Some(&tried(&call()))), CancelVerdict::Release);
}

#[test]
fn cancel_of_a_refused_or_cancelled_row_is_done() {
    let call = call();
    for row in [refused(&call), cancelled(&call), EMPTY_ROLLBACK] {
        assert_eq!(judge_cancel(Some(&row)), CancelVerdict::Answer(SettleAnswer::Done));
    }
}

#[test]
fn cancel_of_a_confirmed_row_is_a_violation() {
    let row = confirmed(&call());
    assert_eq!(judge_cancel(Some(&row)), CancelVerdict::Answer(other_outcome(&row)));
}
