use super::*;
use crate::harness::ledger::{CouponRow, StockRow};

const GID: &str = "order-1";

/// One confirmed order of two pieces with a coupon, and one that was cancelled.
fn balanced() -> Ledger {
    let lines: BTreeMap<String, i64> = [("apple".to_owned(), 2)].into();
    let stock = StockRow { sku: "apple".to_owned(), initial: 10, available: 8, frozen: 0, sold: 2 };
    let branch =
        |gid: &str, status| BranchRow { gid: gid.to_owned(), branch_id: "stock".to_owned(), status, reserved: lines.clone() };
    let locked = |gid: &str, status| BranchRow {
        gid: gid.to_owned(),
        branch_id: "coupon".to_owned(),
        status,
        reserved: "c-1".to_owned(),
    };
    let own = |gid: &str, status| BranchRow { gid: gid.to_owned(), branch_id: "order".to_owned(), status, reserved: () };
    let order =
        |gid: &str, status| OrderRow { order_id: gid.to_owned(), status, lines: lines.clone(), coupon_id: "c-1".to_owned() };
    Ledger {
        stock: vec![stock],
        stock_branches: vec![branch(GID, RowStatus::Confirmed), branch("order-2", RowStatus::Cancelled)],
        coupons: vec![CouponRow { coupon_id: "c-1".to_owned(), state: CouponState::Used, gid: GID.to_owned() }],
        coupon_branches: vec![locked(GID, RowStatus::Confirmed), locked("order-2", RowStatus::Refused)],
        order_branches: vec![own(GID, RowStatus::Confirmed), own("order-2", RowStatus::Cancelled)],
        orders: vec![order("order-2", OrderStatus::Cancelled), order(GID, OrderStatus::Confirmed)],
        transactions: [(GID.to_owned(), TransactionStatus::Confirmed), ("order-2".to_owned(), TransactionStatus::Cancelled)]
            .into(),
    }
}

#[test]
fn a_balanced_ledger_breaks_no_rule() {
    assert_eq!(broken_rules(&balanced(), Scope::AtRestOrdersOnly), Vec::<String>::new());
}

#[test]
fn every_kind_of_broken_ledger_is_found_out() {
    type Break = fn(&mut Ledger);
    let cases: [(&str, Break); 14] = [
        ("pieces are lost", |ledger| ledger.stock[0].available = 7),
        ("a column is negative", |ledger| (ledger.stock[0].available, ledger.stock[0].frozen) = (9, -1)),
        ("frozen without a branch", |ledger| (ledger.stock[0].available, ledger.stock[0].frozen) = (7, 1)),
        ("a branch without frozen", |ledger| ledger.stock_branches[1].status = RowStatus::Tried),
        ("sold without a branch", |ledger| (ledger.stock[0].available, ledger.stock[0].sold) = (7, 3)),
        ("a branch of no SKU", |ledger| ledger.stock_branches[0].reserved = [("pear".to_owned(), 2)].into()),
        ("a coupon still locked", |ledger| ledger.coupons[0].state = CouponState::Locked),
        ("a coupon used by nobody", |ledger| ledger.coupon_branches[0].status = RowStatus::Cancelled),
        ("a coupon used by another", |ledger| ledger.coupons[0].gid = "order-2".to_owned()),
        ("a transaction that has not ended", |ledger| {
            ledger.transactions.insert("order-3".to_owned(), TransactionStatus::Confirming);
        }),
        ("an order's row still tried", |ledger| ledger.order_branches[0].status = RowStatus::Tried),
        ("an order of another outcome", |ledger| ledger.orders[1].status = OrderStatus::Cancelled),
        ("an order that is still held", |ledger| ledger.orders[1].status = OrderStatus::Held),
        ("stock spent by no order", |ledger| {
            ledger.orders.pop();
        }),
    ];
    for (what, break_it) in cases {
        let mut ledger = balanced();
        break_it(&mut ledger);
        assert_ne!(broken_rules(&ledger, Scope::AtRestOrdersOnly), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn reservations_are_legal_while_work_goes_on() {
    let mut ledger = balanced();
    ledger.stock[0] = StockRow { sku: "apple".to_owned(), initial: 10, available: 6, frozen: 2, sold: 2 };
    ledger.stock_branches[1].status = RowStatus::Tried;
    assert_eq!(broken_rules(&ledger, Scope::Always), Vec::<String>::new());
    assert_ne!(broken_rules(&ledger, Scope::AtRest), Vec::<String>::new());
}
