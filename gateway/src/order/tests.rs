//! Every row status against every transaction status.

use tcc_coordinator::{BranchView, Vote};
use tcc_types::{
    BranchId, IdempotencyKey, Initiator, ParticipantName, Refusal, SystemEntropy, TxStatus, Violation, ViolationKind,
};

use super::*;
use crate::{Draft, Line};

const MINTED_AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const DECIDE_BY: Timestamp = Timestamp::from_millis(1_790_000_900_000);

fn placed(hold: bool) -> Placed {
    let line = |sku: &str| Line { sku: sku.to_owned(), quantity: 1 };
    Placed::new(Draft {
        order_key: "k-1".to_owned(),
        initiator: "shop".to_owned(),
        user_id: "ann".to_owned(),
        lines: vec![line("apple"), line("pineapple")],
        coupon_id: "c-1".to_owned(),
        hold,
    })
    .unwrap()
}

fn row(status: RowStatus, hold: bool, held: bool) -> OrderRow {
    OrderRow { id: Gid::mint(MINTED_AT, &SystemEntropy), placed: placed(hold), status, held }
}

fn transaction(status: TxStatus, held: bool, cause: Option<CancelCause>) -> TxView {
    TxView {
        gid: Gid::mint(MINTED_AT, &SystemEntropy),
        status,
        held,
        initiator: Initiator::new("shop").unwrap(),
        key: Some(IdempotencyKey::new("k-1").unwrap()),
        branches: vec![BranchView {
            branch: BranchId::new("order").unwrap(),
            participant: ParticipantName::new("order").unwrap(),
            vote: Vote::Unknown,
            progress: Default::default(),
        }],
        cause,
        try_until: DECIDE_BY,
        decide_by: DECIDE_BY,
        created_at: MINTED_AT,
        decided_at: None,
        finished_at: None,
    }
}

fn out_of_stock() -> CancelCause {
    CancelCause::Refused {
        branch: BranchId::new("stock").unwrap(),
        participant: ParticipantName::new("inventory").unwrap(),
        refusal: Refusal::business("OUT_OF_STOCK", "sku apple: fewer than 1 pieces are available"),
    }
}

#[test]
fn a_tried_row_shows_its_transactions_decision() {
    let expected = [
        (TxStatus::Trying, OrderStatus::Pending),
        (TxStatus::Confirming, OrderStatus::Confirmed),
        (TxStatus::Confirmed, OrderStatus::Confirmed),
        (TxStatus::Cancelling, OrderStatus::Cancelled),
        (TxStatus::Cancelled, OrderStatus::Cancelled),
    ];
    assert_eq!(expected.map(|(status, _)| status), TxStatus::ALL);
    for (status, seen) in expected {
        let view = transaction(status, false, None);
        assert_eq!(Order::of_row(row(RowStatus::Tried, false, false), Some(&view)).status, seen, "{status:?}");
        assert_eq!(Order::of_transaction(placed(false), &view).status, seen, "{status:?}");
    }
}

#[test]
fn a_settled_row_says_everything_itself() {
    for status in TxStatus::ALL {
        let view = transaction(status, false, None);
        for view in [None, Some(&view)] {
            let seen = |row_status| Order::of_row(row(row_status, false, false), view).status;
            assert_eq!(seen(RowStatus::Confirmed), OrderStatus::Confirmed);
            assert_eq!(seen(RowStatus::Cancelled), OrderStatus::Cancelled);
        }
    }
}

#[test]
fn a_hold_is_held_once_everything_was_seen_reserved() {
    let (here, elsewhere) = (transaction(TxStatus::Trying, true, None), transaction(TxStatus::Trying, false, None));
    let seen = |held, view| Order::of_row(row(RowStatus::Tried, true, held), view).status;
    assert_eq!(seen(false, Some(&elsewhere)), OrderStatus::Pending);
    assert_eq!(seen(false, Some(&here)), OrderStatus::Held);
    assert_eq!(seen(true, Some(&elsewhere)), OrderStatus::Held, "its driver has left memory");
    assert_eq!(seen(true, None), OrderStatus::Held);
    assert_eq!(seen(false, None), OrderStatus::Pending);
    let decided = transaction(TxStatus::Cancelling, false, Some(CancelCause::TimedOut));
    assert_eq!(seen(true, Some(&decided)), OrderStatus::Cancelled);
}

#[test]
fn pay_by_is_shown_while_a_hold_waits() {
    let waiting = transaction(TxStatus::Trying, true, None);
    assert_eq!(Order::of_transaction(placed(true), &waiting).pay_by, Some(DECIDE_BY));
    assert_eq!(Order::of_transaction(placed(false), &waiting).pay_by, None);
    let decided = transaction(TxStatus::Confirming, false, None);
    assert_eq!(Order::of_transaction(placed(true), &decided).pay_by, None);
}

#[test]
fn each_cause_comes_out_as_a_refusal() {
    let violated = CancelCause::Violated {
        branch: BranchId::new("coupon").unwrap(),
        participant: ParticipantName::new("coupon").unwrap(),
        violation: Violation { kind: ViolationKind::DifferentPayload, row_status: None },
    };
    let cases = [
        (out_of_stock(), "inventory", "OUT_OF_STOCK"),
        (violated, "coupon", "VIOLATION"),
        (CancelCause::TimedOut, "coordinator", "TIMED_OUT"),
        (CancelCause::Requested { by: Initiator::new("ann").unwrap() }, "coordinator", "CANCEL_REQUESTED"),
    ];
    for (cause, participant, code) in cases {
        let view = transaction(TxStatus::Cancelled, false, Some(cause));
        for order in [
            Order::of_transaction(placed(false), &view),
            Order::of_row(row(RowStatus::Tried, false, false), Some(&view)),
            Order::of_row(row(RowStatus::Cancelled, false, false), Some(&view)),
        ] {
            let refused = order.refused.unwrap();
            assert_eq!((refused.participant.as_str(), refused.code.as_str()), (participant, code));
            assert!(!refused.message.is_empty());
        }
    }
    assert_eq!(Order::of_row(row(RowStatus::Cancelled, false, false), None).refused, None, "forgotten");
}

#[test]
fn what_is_not_known_at_all_is_named() {
    let refused = |code: &str, message: &str| {
        let refusal = Refusal::business(code, message);
        let participant = ParticipantName::new("inventory").unwrap();
        let cause = CancelCause::Refused { branch: BranchId::new("stock").unwrap(), participant, refusal };
        Order::of_transaction(placed(false), &transaction(TxStatus::Cancelling, false, Some(cause))).unknown_resource()
    };
    assert_eq!(refused("UNKNOWN_SKU", "there is no sku pineapple"), Some(("sku", "pineapple".to_owned())));
    assert_eq!(refused("UNKNOWN_SKU", "there is no sku apple"), Some(("sku", "apple".to_owned())));
    assert_eq!(refused("UNKNOWN_SKU", "said in another way"), Some(("sku", "apple, pineapple".to_owned())));
    assert_eq!(refused("UNKNOWN_COUPON", "whatever"), Some(("coupon", "c-1".to_owned())));
    assert_eq!(refused("OUT_OF_STOCK", "there is no sku apple"), None);
    assert_eq!(Order::of_transaction(placed(false), &transaction(TxStatus::Confirmed, false, None)).unknown_resource(), None);
}

#[test]
fn stored_numbers_read_back() {
    for status in RowStatus::ALL {
        assert_eq!(RowStatus::from_code(status.code()), Some(status));
    }
    assert_eq!(RowStatus::from_code(2), None);
}
