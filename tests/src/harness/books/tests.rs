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
        log_branches: [GID, "order-2"]
            .into_iter()
            .flat_map(|gid| [("stock", INVENTORY), ("coupon", COUPON), ("order", ORDER)].map(|(id, at)| logged(gid, id, at)))
            .collect(),
    }
}

fn logged(gid: &str, branch_id: &str, participant: &str) -> LogBranch {
    LogBranch {
        gid: gid.to_owned(),
        branch_id: branch_id.to_owned(),
        participant: participant.to_owned(),
        settled_outside: false,
    }
}

#[test]
fn a_balanced_ledger_breaks_no_rule() {
    assert_eq!(broken_rules(&balanced(), Scope::AtRestOrdersOnly), Vec::<String>::new());
}

#[test]
fn every_kind_of_broken_ledger_is_found_out() {
    type Break = fn(&mut Ledger);
    let cases: [(&str, Break); 21] = [
        ("apple: available + frozen + sold is 9, initial is 10", |ledger| ledger.stock[0].available = 7),
        ("apple: a column is negative", |ledger| (ledger.stock[0].available, ledger.stock[0].frozen) = (9, -1)),
        ("apple: 1 are frozen, but tried branches reserve 0", |ledger| {
            (ledger.stock[0].available, ledger.stock[0].frozen) = (7, 1);
        }),
        ("apple: 1 are still frozen", |ledger| (ledger.stock[0].available, ledger.stock[0].frozen) = (7, 1)),
        ("apple: 0 are frozen, but tried branches reserve 2", |ledger| ledger.stock_branches[1].status = RowStatus::Tried),
        ("apple: 3 are sold, but confirmed branches spent 2", |ledger| {
            (ledger.stock[0].available, ledger.stock[0].sold) = (7, 3);
        }),
        ("a branch reserved pear, which is no SKU", |ledger| {
            ledger.stock_branches[0].reserved = [("pear".to_owned(), 2)].into();
        }),
        ("coupon c-1 is still locked", |ledger| ledger.coupons[0].state = CouponState::Locked),
        (r#"coupon c-1 is Used by "order-1", but its branches are []"#, |ledger| {
            ledger.coupon_branches[0].status = RowStatus::Cancelled;
        }),
        (r#"coupon c-1 is Used by "order-2", but"#, |ledger| ledger.coupons[0].gid = "order-2".to_owned()),
        ("transaction order-3 has not ended: Confirming", |ledger| {
            ledger.transactions.insert("order-3".to_owned(), TransactionStatus::Confirming);
        }),
        ("order: branch order-1/order is Tried", |ledger| ledger.order_branches[0].status = RowStatus::Tried),
        ("order: branch order-1/order is Cancelled, its transaction Some(Confirmed)", |ledger| {
            ledger.order_branches[0].status = RowStatus::Cancelled;
        }),
        ("order: branch order-2/order is Confirmed, its transaction Some(Cancelled)", |ledger| {
            ledger.order_branches[1].status = RowStatus::Confirmed;
        }),
        ("order: branch order-1/order has no row, its transaction Some(Confirmed)", |ledger| {
            ledger.order_branches.remove(0);
        }),
        ("order: branch order-1/order is Confirmed, its transaction Some(Confirmed), and the log has no such", |ledger| {
            ledger.log_branches.retain(|branch| (branch.gid.as_str(), branch.participant.as_str()) != (GID, ORDER));
        }),
        ("inventory: branch order-2/stock is Cancelled, its transaction None", |ledger| {
            ledger.transactions.remove("order-2");
        }),
        ("order order-1 is Cancelled, its transaction Some(Confirmed)", |ledger| {
            ledger.orders[1].status = OrderStatus::Cancelled;
        }),
        ("order order-1 is Held", |ledger| ledger.orders[1].status = OrderStatus::Held),
        ("apple: 2 are sold, but confirmed orders have 0", |ledger| {
            ledger.orders.pop();
        }),
        ("transaction order-1 spent stock or a coupon for an order that is not there", |ledger| {
            ledger.orders.pop();
        }),
    ];
    for (rule, break_it) in cases {
        let mut ledger = balanced();
        break_it(&mut ledger);
        let broken = broken_rules(&ledger, Scope::AtRestOrdersOnly);
        assert!(broken.iter().any(|one| one.contains(rule)), "{rule:?} is not in {broken:#?}");
    }
}

/// A confirmed transaction of stock alone, whose participant has forgotten its branch.
fn forgotten() -> Ledger {
    Ledger {
        transactions: [(GID.to_owned(), TransactionStatus::Confirmed)].into(),
        log_branches: vec![logged(GID, "stock", INVENTORY)],
        ..Ledger::default()
    }
}

#[test]
fn a_missing_row_is_told_once_unless_its_branch_was_settled_outside_or_cancelled() {
    let mut ledger = forgotten();
    let told = ["inventory: branch order-1/stock has no row, its transaction Some(Confirmed)"];
    assert_eq!(broken_rules(&ledger, Scope::AtRest), told);
    ledger.log_branches[0].settled_outside = true;
    assert_eq!(broken_rules(&ledger, Scope::AtRest), Vec::<String>::new());
    let mut ledger = forgotten();
    ledger.transactions.insert(GID.to_owned(), TransactionStatus::Cancelled);
    assert_eq!(broken_rules(&ledger, Scope::AtRest), Vec::<String>::new());
}

#[test]
fn a_row_at_another_participant_is_not_the_branch_of_the_log() {
    let mut ledger = forgotten();
    let row = BranchRow { gid: GID.to_owned(), branch_id: "stock".to_owned(), status: RowStatus::Confirmed, reserved: () };
    ledger.order_branches.push(row);
    assert_eq!(broken_rules(&ledger, Scope::AtRest).len(), 2);
}

#[test]
fn rows_of_no_transaction_are_legal_only_when_participants_were_called_by_hand() {
    let mut ledger = balanced();
    ledger.transactions.remove("order-2");
    ledger.orders.remove(0);
    ledger.log_branches.retain(|branch| branch.gid == GID);
    assert_eq!(broken_rules(&ledger, Scope::AtRestCalledByHand), Vec::<String>::new());
    assert_eq!(broken_rules(&ledger, Scope::AtRest).len(), 3);
}

#[test]
fn reservations_are_legal_while_work_goes_on() {
    let mut ledger = balanced();
    ledger.stock[0] = StockRow { sku: "apple".to_owned(), initial: 10, available: 6, frozen: 2, sold: 2 };
    ledger.stock_branches[1].status = RowStatus::Tried;
    assert_eq!(broken_rules(&ledger, Scope::Always), Vec::<String>::new());
    let broken = broken_rules(&ledger, Scope::AtRest);
    assert!(broken.contains(&"apple: 2 are still frozen".to_owned()), "{broken:#?}");
}
