//! The contract's table, cell by cell, and the rules beside it. Each case panics where the contract is broken.

use bytes::Bytes;
use prost::Message;
use tcc_types::{
    BranchId, BranchRowStatus, LogName, Op, Payload, Refusal, SettleAnswer, TryAnswer, TryCall, Violation, ViolationKind,
};

use super::{BenchDatabase, Effects, Fault, Fixture, State, Want};
use crate::within;

const TRIED: Option<BranchRowStatus> = Some(BranchRowStatus::Tried);
const REFUSED: Option<BranchRowStatus> = Some(BranchRowStatus::Refused);
const CONFIRMED: Option<BranchRowStatus> = Some(BranchRowStatus::Confirmed);
const CANCELLED: Option<BranchRowStatus> = Some(BranchRowStatus::Cancelled);

fn violation(kind: ViolationKind, row_status: Option<BranchRowStatus>) -> SettleAnswer {
    SettleAnswer::Violation(Violation { kind, row_status })
}

/// Try, no row: yes.
pub async fn try_without_a_row_reserves<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    f.assert_yes(f.try_branch(&call).await);
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;
    assert_eq!(f.books().await.frozen, Fixture::<D>::PIECES);
    assert_eq!(f.store().count_tried().await.expect("it counts"), 1);
}

/// Try, no row, and the business says no.
pub async fn try_without_a_row_that_the_business_refuses_reserves_nothing<D: BenchDatabase>(f: Fixture<D>) {
    let value = Bytes::from(Want { pieces: Fixture::<D>::INITIAL + 1 }.encode_to_vec());
    let call = f.new_call();
    let call = TryCall { payload: Payload { value, ..call.payload.clone() }, ..call };
    let refusal = Refusal::business("OUT_OF_STOCK", "not enough pieces");
    assert_eq!(f.try_branch(&call).await, TryAnswer::Refused(refusal));
    f.assert_branch(&call, REFUSED, Effects::NONE).await;
}

/// Try, tried.
pub async fn try_of_a_tried_row_says_the_same_yes_and_reserves_nothing_more<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    let first = f.try_branch(&call).await;
    assert_eq!(f.try_branch(&call).await, first);
    assert_eq!(f.bench.handled(), 1, "the handler ran again");
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;
}

/// Try, refused.
pub async fn try_of_a_refused_row_says_the_same_no<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Refused).await;
    let refusal = Refusal::business("INJECTED", "injected refusal");
    assert_eq!(f.try_branch(&call).await, TryAnswer::Refused(refusal));
    assert_eq!(f.bench.handled(), 1, "the handler ran again");
    f.assert_branch(&call, REFUSED, Effects::NONE).await;
}

/// Try, refused in words that not every database can store as they are: the first answer is what can be repeated.
pub async fn a_refusal_in_any_characters_is_repeated_as_it_was_given<D: BenchDatabase>(f: Fixture<D>) {
    for message in ["zero \0 character", "Über 💶 'quoted' \\ \"twice\" %_ ", "", "\u{10ffff}\n\r\t"] {
        let call = f.new_call();
        f.bench.inject(Op::Try, Fault::RefuseWith(message));
        let first = f.try_branch(&call).await;
        let TryAnswer::Refused(refusal) = &first else {
            panic!("not refused, but {first:?}");
        };
        assert_eq!(refusal.message, message.replace('\0', "\u{fffd}"));
        assert_eq!(f.try_branch(&call).await, first);
        f.assert_branch(&call, REFUSED, Effects::NONE).await;
    }
}

/// Try, confirmed.
pub async fn try_of_a_confirmed_row_says_the_same_yes_and_reserves_nothing_more<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Confirmed).await;
    f.assert_yes(f.try_branch(&call).await);
    f.assert_branch(&call, CONFIRMED, Effects::SPENT).await;
}

/// Try, cancelled.
pub async fn try_of_a_cancelled_row_is_suspended<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Cancelled).await;
    assert_eq!(f.try_branch(&call).await, TryAnswer::Refused(Refusal::suspended()));
    f.assert_branch(&call, CANCELLED, Effects::RELEASED).await;
}

/// Try, cancelled and empty: suspension.
pub async fn try_after_an_empty_rollback_is_suspended<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::EmptyRollback).await;
    assert_eq!(f.try_branch(&call).await, TryAnswer::Refused(Refusal::suspended()));
    assert_eq!(f.bench.handled(), 0, "the handler ran after its Cancel");
    f.assert_branch(&call, CANCELLED, Effects::NONE).await;
}

/// Confirm, no row.
pub async fn confirm_without_a_row_is_a_violation_and_leaves_none<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    assert_eq!(f.confirm(&call).await, violation(ViolationKind::NoReservation, None));
    f.assert_branch(&call, None, Effects::NONE).await;
}

/// Confirm, tried.
pub async fn confirm_of_a_tried_row_spends<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Tried).await;
    assert_eq!(f.confirm(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CONFIRMED, Effects::SPENT).await;
    assert_eq!(f.books().await.sold, Fixture::<D>::PIECES);
}

/// Confirm, refused.
pub async fn confirm_of_a_refused_row_is_a_violation<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Refused).await;
    assert_eq!(f.confirm(&call).await, violation(ViolationKind::OtherOutcome, REFUSED));
    f.assert_branch(&call, REFUSED, Effects::NONE).await;
}

/// Confirm, confirmed.
pub async fn confirm_of_a_confirmed_row_is_done_and_spends_nothing_more<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Confirmed).await;
    assert_eq!(f.confirm(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CONFIRMED, Effects::SPENT).await;
}

/// Confirm, cancelled.
pub async fn confirm_of_a_cancelled_row_is_a_violation<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Cancelled).await;
    assert_eq!(f.confirm(&call).await, violation(ViolationKind::OtherOutcome, CANCELLED));
    f.assert_branch(&call, CANCELLED, Effects::RELEASED).await;
}

/// Confirm, cancelled and empty.
pub async fn confirm_after_an_empty_rollback_is_a_violation<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::EmptyRollback).await;
    assert_eq!(f.confirm(&call).await, violation(ViolationKind::OtherOutcome, CANCELLED));
    f.assert_branch(&call, CANCELLED, Effects::NONE).await;
}

/// Cancel, no row.
pub async fn cancel_without_a_row_is_an_empty_rollback<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    assert_eq!(f.bench.handled(), 0, "a handler ran although nothing was reserved");
    f.assert_branch(&call, CANCELLED, Effects::NONE).await;
    let row = f.store().branch_row(&call.key).await.expect("the row is read").expect("there is a row");
    assert!(row.empty);
    assert_eq!(row.not_after, call.not_after, "its row must outlive every late Try");
}

/// Cancel, tried.
pub async fn cancel_of_a_tried_row_releases<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Tried).await;
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CANCELLED, Effects::RELEASED).await;
    assert_eq!(f.books().await.available, Fixture::<D>::INITIAL);
    assert_eq!(f.store().count_tried().await.expect("it counts"), 0);
}

/// Cancel, refused.
pub async fn cancel_of_a_refused_row_is_done_and_keeps_it_refused<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Refused).await;
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, REFUSED, Effects::NONE).await;
}

/// Cancel, confirmed.
pub async fn cancel_of_a_confirmed_row_is_a_violation<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Confirmed).await;
    assert_eq!(f.cancel(&call).await, violation(ViolationKind::OtherOutcome, CONFIRMED));
    f.assert_branch(&call, CONFIRMED, Effects::SPENT).await;
}

/// Cancel, cancelled.
pub async fn cancel_of_a_cancelled_row_is_done_and_releases_nothing_more<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Cancelled).await;
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CANCELLED, Effects::RELEASED).await;
}

/// Cancel, cancelled and empty.
pub async fn cancel_after_an_empty_rollback_is_done<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::EmptyRollback).await;
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CANCELLED, Effects::NONE).await;
}

/// Try after `not_after`, no row.
pub async fn late_try_is_refused_without_a_row_and_may_still_be_cancelled<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_late_call();
    assert_eq!(f.try_branch(&call).await, TryAnswer::Refused(Refusal::late()));
    assert_eq!(f.bench.handled(), 0, "the handler ran too late");
    f.assert_branch(&call, None, Effects::NONE).await;
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CANCELLED, Effects::NONE).await;
}

/// Try after `not_after`, tried.
pub async fn late_try_of_a_tried_row_is_yes_again<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Tried).await;
    let late = TryCall { not_after: f.new_late_call().not_after, ..call.clone() };
    f.assert_yes(f.try_branch(&late).await);
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;
}

/// Deliveries in the wrong order: suspension, and a Confirm that has nothing to spend.
pub async fn a_cancel_then_a_late_try_then_a_confirm_touch_no_others_reservation<D: BenchDatabase>(f: Fixture<D>) {
    let other = f.branch_in(State::Tried).await;
    let (call, handled) = (f.new_call(), f.bench.handled());
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    assert_eq!(f.try_branch(&call).await, TryAnswer::Refused(Refusal::suspended()));
    assert_eq!(f.confirm(&call).await, violation(ViolationKind::OtherOutcome, CANCELLED));
    assert_eq!(f.bench.handled(), handled, "a handler ran");
    f.assert_branch(&call, CANCELLED, Effects::NONE).await;
    f.assert_branch(&other, TRIED, Effects::RESERVED).await;
    assert_eq!(f.books().await.frozen, Fixture::<D>::PIECES);
    assert_eq!(f.confirm(&other).await, SettleAnswer::Done);
    f.assert_branch(&other, CONFIRMED, Effects::SPENT).await;
}

/// Try with other bytes, another type or another coordinator.
pub async fn another_request_under_a_known_branch_is_a_violation_in_every_state<D: BenchDatabase>(f: Fixture<D>) {
    for state in State::ALL {
        let call = f.branch_in(state).await;
        let row_status = f.store().branch_row(&call.key).await.expect("the row is read").map(|row| row.status);
        let bytes = Payload { value: Bytes::from(Want { pieces: 1 }.encode_to_vec()), ..call.payload.clone() };
        let typed = Payload { type_url: format!("{}2", call.payload.type_url), ..call.payload.clone() };
        let others = [
            TryCall { payload: bytes, ..call.clone() },
            TryCall { payload: typed, ..call.clone() },
            TryCall { coordinator: LogName::new("another").expect("it is well-formed"), ..call.clone() },
        ];
        for other in others {
            let wanted = match state {
                State::Tried | State::Refused | State::Confirmed | State::Cancelled => {
                    TryAnswer::Violation(Violation { kind: ViolationKind::DifferentPayload, row_status })
                }
                // No Try ever ran, so nothing is contradicted.
                State::EmptyRollback => TryAnswer::Refused(Refusal::suspended()),
            };
            assert_eq!(f.try_branch(&other).await, wanted, "{state:?}");
        }
        let row = f.store().branch_row(&call.key).await.expect("the row is read");
        assert_eq!(row.map(|row| row.status), row_status, "the violation changed the row");
    }
    f.books().await;
}

/// The key is both ids.
pub async fn branches_of_one_transaction_and_transactions_of_one_branch_id_are_apart<D: BenchDatabase>(f: Fixture<D>) {
    let first = f.branch_in(State::Tried).await;
    let mut sibling = first.clone();
    sibling.key.branch = BranchId::new("stock-2").expect("it is well-formed");
    f.assert_yes(f.try_branch(&sibling).await);
    let stranger = f.branch_in(State::Tried).await;
    assert_eq!(f.cancel(&sibling).await, SettleAnswer::Done);
    assert_eq!(f.confirm(&stranger).await, SettleAnswer::Done);
    f.assert_branch(&first, TRIED, Effects::RESERVED).await;
    f.assert_branch(&sibling, CANCELLED, Effects::RELEASED).await;
    f.assert_branch(&stranger, CONFIRMED, Effects::SPENT).await;
}

/// What sending again cannot help.
pub async fn wrong_type_undecodable_and_oversized_payloads_are_refused_for_good<D: BenchDatabase>(f: Fixture<D>) {
    let f = f.limited(|options| options.payload_bytes_max = 100);
    let good = f.new_call().payload;
    let bad = [
        Payload { type_url: "type.googleapis.com/another.v1.Type".to_owned(), ..good.clone() },
        Payload { value: Bytes::from_static(b"\xff\xff\xff"), ..good.clone() },
        Payload { value: Bytes::from(vec![0; 100]), ..good.clone() },
    ];
    for payload in bad {
        let call = TryCall { payload, ..f.new_call() };
        let first = f.try_branch(&call).await;
        let TryAnswer::Refused(refusal) = &first else {
            panic!("not refused, but {first:?}");
        };
        assert_eq!(refusal.code, within::BAD_REQUEST);
        assert_eq!(f.try_branch(&call).await, first);
        f.assert_branch(&call, REFUSED, Effects::NONE).await;
    }
    assert_eq!(f.bench.handled(), 0);
    // Only the name after the last slash counts.
    let elsewhere = Payload { type_url: good.type_url.replace("type.googleapis.com", "example.org/types"), ..good };
    f.assert_yes(f.try_branch(&TryCall { payload: elsewhere, ..f.new_call() }).await);
}

/// What is kept for operators, and when it changed.
pub async fn the_row_tells_operators_what_happened<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Tried).await;
    let read = async || f.store().branch_row(&call.key).await.expect("the row is read").expect("there is a row");
    let tried = read().await;
    assert_eq!(tried.type_url.as_deref(), Some(call.payload.type_url.as_str()));
    assert_eq!(tried.coordinator.as_ref(), Some(&call.coordinator));
    assert_eq!((tried.not_after, tried.ask_after), (call.not_after, Some(call.ask_after)));
    assert_eq!((tried.empty, &tried.refusal), (false, &None));
    assert!(tried.created_at <= tried.changed_at && tried.changed_at <= call.not_after, "{tried:?}");
    f.confirm(&call).await;
    let confirmed = read().await;
    assert_eq!((confirmed.status, confirmed.created_at), (BranchRowStatus::Confirmed, tried.created_at));
    assert!(confirmed.changed_at >= tried.changed_at);
    let refused = f.branch_in(State::Refused).await;
    let refused = f.store().branch_row(&refused.key).await.expect("the row is read").and_then(|row| row.refusal);
    assert_eq!(refused, Some(Refusal::business("INJECTED", "injected refusal")));
}

/// [`within`]: the caller's commit and the caller's rollback decide.
pub async fn an_operation_in_the_callers_transaction_commits_and_rolls_back_with_it<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    let (confirm, cancel) = (Fixture::<D>::confirm_of(&call), Fixture::<D>::cancel_of(&call));
    let options = f.store().options();

    let mut transaction = f.store().begin().await.expect("it begins");
    let answer = within::try_branch(&f.bench, &mut transaction, &call, options).await.expect("the Try is answered");
    f.assert_yes(answer);
    transaction.rollback().await.expect("it rolls back");
    f.assert_branch(&call, None, Effects::NONE).await;

    let mut transaction = f.store().begin().await.expect("it begins");
    let answer = within::try_branch(&f.bench, &mut transaction, &call, options).await.expect("the Try is answered");
    f.assert_yes(answer);
    transaction.commit().await.expect("it commits");
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;

    let mut transaction = f.store().begin().await.expect("it begins");
    assert!(matches!(within::confirm(&f.bench, &mut transaction, &confirm).await, Ok(SettleAnswer::Done)));
    transaction.rollback().await.expect("it rolls back");
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;

    let mut transaction = f.store().begin().await.expect("it begins");
    assert!(matches!(within::cancel(&f.bench, &mut transaction, &cancel).await, Ok(SettleAnswer::Done)));
    transaction.commit().await.expect("it commits");
    f.assert_branch(&call, CANCELLED, Effects::RELEASED).await;
}

/// Row and business would commit apart.
pub async fn an_operation_outside_of_a_transaction_is_an_error<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    let mut conn = f.store().write_pool().acquire().await.expect("a connection comes free");
    let answer = within::try_branch(&f.bench, &mut conn, &call, f.store().options()).await;
    assert!(matches!(answer, Err(within::Error::NoTransaction)), "{answer:?}");
    drop(conn);
    f.assert_branch(&call, None, Effects::NONE).await;
}
