//! The rules that a ledger must keep. Pure, so that it can be tested that a broken ledger is found out.

use std::collections::{BTreeMap, BTreeSet};

use tcc_proto::{coupon::v1::CouponState, order::v1::OrderStatus, tcc::v1::TransactionStatus};

use super::ledger::{BranchRow, Ledger, LogBranch, OrderRow, RowStatus};

/// The participants whose rows a ledger has, as the log names them; of others it says nothing.
const INVENTORY: &str = "inventory";
const COUPON: &str = "coupon";
const ORDER: &str = "order";

/// What can be asked of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// While work is going on: only what holds at every moment.
    Always,
    /// After everything has ended: nothing is reserved, and everybody tells the same outcome.
    AtRest,
    /// At rest, and stock and coupons were spent by orders only.
    AtRestOrdersOnly,
    /// At rest, and participants were called by hand: they may have branches of transactions that the log does not have.
    AtRestCalledByHand,
}

/// Whether branches may be there that no coordinator knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByHand {
    Yes,
    No,
}

/// The rules that do not hold, each as a sentence.
#[must_use]
pub fn broken_rules(ledger: &Ledger, scope: Scope) -> Vec<String> {
    let mut broken = Vec::new();
    stock_balances(ledger, &mut broken);
    coupons_follow_their_branches(ledger, &mut broken);
    match scope {
        Scope::Always => {}
        Scope::AtRest => at_rest(ledger, ByHand::No, &mut broken),
        Scope::AtRestCalledByHand => at_rest(ledger, ByHand::Yes, &mut broken),
        Scope::AtRestOrdersOnly => {
            at_rest(ledger, ByHand::No, &mut broken);
            spent_by_orders(ledger, &mut broken);
        }
    }
    broken
}

/// S4: per SKU the pieces add up, none is negative, and what is frozen or sold is what the branch rows say.
fn stock_balances(ledger: &Ledger, broken: &mut Vec<String>) {
    let tried = pieces(&ledger.stock_branches, RowStatus::Tried);
    let confirmed = pieces(&ledger.stock_branches, RowStatus::Confirmed);
    for row in &ledger.stock {
        let sku = &row.sku;
        let sum = row.available + row.frozen + row.sold;
        if sum != row.initial {
            broken.push(format!("{sku}: available + frozen + sold is {sum}, initial is {}", row.initial));
        }
        if row.available < 0 || row.frozen < 0 || row.sold < 0 {
            broken.push(format!("{sku}: a column is negative: {row:?}"));
        }
        let reserved = tried.get(sku.as_str()).copied().unwrap_or(0);
        if row.frozen != reserved {
            broken.push(format!("{sku}: {} are frozen, but tried branches reserve {reserved}", row.frozen));
        }
        let spent = confirmed.get(sku.as_str()).copied().unwrap_or(0);
        if row.sold != spent {
            broken.push(format!("{sku}: {} are sold, but confirmed branches spent {spent}", row.sold));
        }
    }
    let known: BTreeSet<_> = ledger.stock.iter().map(|row| row.sku.as_str()).collect();
    for sku in tried.keys().chain(confirmed.keys()).filter(|sku| !known.contains(*sku)) {
        broken.push(format!("a branch reserved {sku}, which is no SKU"));
    }
}

fn pieces(branches: &[BranchRow<BTreeMap<String, i64>>], status: RowStatus) -> BTreeMap<&str, i64> {
    let mut sums = BTreeMap::new();
    for (sku, quantity) in branches.iter().filter(|branch| branch.status == status).flat_map(|branch| &branch.reserved) {
        *sums.entry(sku.as_str()).or_insert(0) += quantity;
    }
    sums
}

/// A coupon is locked or used exactly while one branch says so, of the transaction that it names.
fn coupons_follow_their_branches(ledger: &Ledger, broken: &mut Vec<String>) {
    let mut holders: BTreeMap<&str, Vec<(&str, RowStatus)>> = BTreeMap::new();
    for branch in &ledger.coupon_branches {
        match branch.status {
            RowStatus::Tried | RowStatus::Confirmed => {
                holders.entry(&branch.reserved).or_default().push((&branch.gid, branch.status));
            }
            RowStatus::Refused | RowStatus::Cancelled => {}
        }
    }
    for coupon in &ledger.coupons {
        let held = holders.remove(coupon.coupon_id.as_str()).unwrap_or_default();
        let expected = match coupon.state {
            CouponState::Unspecified | CouponState::Issued => Vec::new(),
            CouponState::Locked => vec![(coupon.gid.as_str(), RowStatus::Tried)],
            CouponState::Used => vec![(coupon.gid.as_str(), RowStatus::Confirmed)],
        };
        if held != expected {
            broken.push(format!(
                "coupon {} is {:?} by {:?}, but its branches are {held:?}",
                coupon.coupon_id, coupon.state, coupon.gid
            ));
        }
    }
    for coupon in holders.keys() {
        broken.push(format!("a branch locked {coupon:?}, which is no coupon"));
    }
}

/// L1 and the all-or-nothing promise, once everything has ended.
fn at_rest(ledger: &Ledger, by_hand: ByHand, broken: &mut Vec<String>) {
    for row in ledger.stock.iter().filter(|row| row.frozen != 0) {
        broken.push(format!("{}: {} are still frozen", row.sku, row.frozen));
    }
    for coupon in ledger.coupons.iter().filter(|coupon| coupon.state == CouponState::Locked) {
        broken.push(format!("coupon {} is still locked", coupon.coupon_id));
    }
    for (gid, status) in &ledger.transactions {
        match status {
            TransactionStatus::Confirmed | TransactionStatus::Cancelled => {}
            TransactionStatus::Unspecified
            | TransactionStatus::Trying
            | TransactionStatus::Confirming
            | TransactionStatus::Cancelling => broken.push(format!("transaction {gid} has not ended: {status:?}")),
        }
    }
    branches_obey(ledger, INVENTORY, &ledger.stock_branches, by_hand, broken);
    branches_obey(ledger, COUPON, &ledger.coupon_branches, by_hand, broken);
    branches_obey(ledger, ORDER, &ledger.order_branches, by_hand, broken);
    orders_are_whole(ledger, broken);
}

/// Every branch that a participant has ended like its transaction, and every branch of a confirmed transaction is there.
fn branches_obey<T>(ledger: &Ledger, participant: &str, branches: &[BranchRow<T>], by_hand: ByHand, broken: &mut Vec<String>) {
    let logged: BTreeMap<(&str, &str), &LogBranch> = ledger
        .log_branches
        .iter()
        .filter(|branch| branch.participant == participant)
        .map(|branch| ((branch.gid.as_str(), branch.branch_id.as_str()), branch))
        .collect();
    let mut missing = logged.clone();
    for branch in branches {
        let BranchRow { gid, branch_id, status, .. } = branch;
        let key = (gid.as_str(), branch_id.as_str());
        missing.remove(&key);
        let transaction = ledger.transactions.get(gid);
        let obeys = match (status, transaction) {
            (RowStatus::Tried, _) => false,
            (RowStatus::Confirmed, Some(decided)) => *decided == TransactionStatus::Confirmed && logged.contains_key(&key),
            // Also a branch that the log has never heard of: whoever asks for the outcome of an unknown one is told to cancel.
            (RowStatus::Refused | RowStatus::Cancelled, Some(decided)) => *decided == TransactionStatus::Cancelled,
            (RowStatus::Confirmed | RowStatus::Refused | RowStatus::Cancelled, None) => by_hand == ByHand::Yes,
        };
        if !obeys {
            let unlogged = if logged.contains_key(&key) { "" } else { ", and the log has no such branch" };
            broken.push(format!(
                "{participant}: branch {gid}/{branch_id} is {status:?}, its transaction {transaction:?}{unlogged}"
            ));
        }
    }
    for ((gid, branch_id), branch) in missing {
        let transaction = ledger.transactions.get(gid);
        // A cancelled transaction may have ended before a Try had left.
        if transaction != Some(&TransactionStatus::Cancelled) && !branch.settled_outside {
            broken.push(format!("{participant}: branch {gid}/{branch_id} has no row, its transaction {transaction:?}"));
        }
    }
}

/// Every order's status, its transaction, its stock and its coupon tell one outcome.
fn orders_are_whole(ledger: &Ledger, broken: &mut Vec<String>) {
    let mut spent: BTreeMap<&str, BTreeMap<&str, i64>> = BTreeMap::new();
    for branch in ledger.stock_branches.iter().filter(|branch| branch.status == RowStatus::Confirmed) {
        let lines = spent.entry(&branch.gid).or_default();
        for (sku, quantity) in &branch.reserved {
            *lines.entry(sku).or_insert(0) += quantity;
        }
    }
    let mut used: BTreeMap<&str, &str> = BTreeMap::new();
    for branch in ledger.coupon_branches.iter().filter(|branch| branch.status == RowStatus::Confirmed) {
        used.insert(&branch.gid, &branch.reserved);
    }
    for order in &ledger.orders {
        let OrderRow { order_id, status, lines, coupon_id } = order;
        let transaction = ledger.transactions.get(order_id);
        let stock = spent.remove(order_id.as_str()).unwrap_or_default();
        let coupon = used.remove(order_id.as_str()).unwrap_or_default();
        let ordered: BTreeMap<&str, i64> = lines.iter().map(|(sku, quantity)| (sku.as_str(), *quantity)).collect();
        let whole = match status {
            OrderStatus::Confirmed => {
                transaction == Some(&TransactionStatus::Confirmed) && stock == ordered && coupon == coupon_id
            }
            OrderStatus::Cancelled => {
                transaction == Some(&TransactionStatus::Cancelled) && stock.is_empty() && coupon.is_empty()
            }
            OrderStatus::Unspecified | OrderStatus::Pending | OrderStatus::Held => false,
        };
        if !whole {
            broken.push(format!(
                "order {order_id} is {status:?}, its transaction {transaction:?}; ordered {ordered:?} with coupon {coupon_id:?}, \
                 spent {stock:?} with coupon {coupon:?}"
            ));
        }
    }
    let of_orders: BTreeSet<&str> =
        ledger.log_branches.iter().filter(|branch| branch.participant == ORDER).map(|branch| branch.gid.as_str()).collect();
    let left: BTreeSet<&str> = spent.keys().chain(used.keys()).copied().collect();
    for gid in left.intersection(&of_orders) {
        broken.push(format!("transaction {gid} spent stock or a coupon for an order that is not there"));
    }
}

/// What is sold is what confirmed orders ordered, and what is used is what they used: nothing else spent any.
fn spent_by_orders(ledger: &Ledger, broken: &mut Vec<String>) {
    let confirmed: Vec<&OrderRow> = ledger.orders.iter().filter(|order| order.status == OrderStatus::Confirmed).collect();
    for row in &ledger.stock {
        let ordered: i64 = confirmed.iter().filter_map(|order| order.lines.get(&row.sku)).sum();
        if row.sold != ordered {
            broken.push(format!("{}: {} are sold, but confirmed orders have {ordered}", row.sku, row.sold));
        }
    }
    let with_coupon: BTreeSet<&str> =
        confirmed.iter().filter(|order| !order.coupon_id.is_empty()).map(|order| order.coupon_id.as_str()).collect();
    let used: BTreeSet<&str> = ledger
        .coupons
        .iter()
        .filter(|coupon| coupon.state == CouponState::Used)
        .map(|coupon| coupon.coupon_id.as_str())
        .collect();
    for coupon in used.symmetric_difference(&with_coupon) {
        broken.push(format!("coupon {coupon} is used without a confirmed order, or the other way round"));
    }
}

#[cfg(test)]
mod tests;
