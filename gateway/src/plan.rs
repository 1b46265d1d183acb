//! An order as the branches of its transaction. Pure.

use prost::{Message, Name};
use tcc_coordinator::NewBranch;
use tcc_proto::{
    coupon::v1::LockCoupon,
    inventory::v1::{ReserveStock, StockLine},
};
use tcc_types::{BranchId, Invalid, ParticipantName, Payload};

use crate::{Placed, wire::place_order};

/// The order's own branch, and the participant that keeps it: the gateway itself.
pub const ORDER: &str = "order";
/// The branch that reserves stock.
pub const STOCK_BRANCH: &str = "stock";
/// Who has stock.
pub const INVENTORY: &str = "inventory";
/// The branch that locks the coupon, and the participant that has coupons.
pub const COUPON: &str = "coupon";

/// The branches of an order: its own row, its stock, and its coupon if it has one. The same order always gives the same bytes:
/// they are the request's identity.
///
/// # Errors
/// Never, as long as the names above are well-formed.
pub fn plan(placed: &Placed) -> Result<Vec<NewBranch>, Invalid> {
    let stock_line = |line: &crate::Line| StockLine { sku: line.sku.clone(), quantity: line.quantity };
    let stock = ReserveStock { lines: placed.lines().iter().map(stock_line).collect() };
    let mut branches = vec![branch(ORDER, ORDER, &place_order(placed))?, branch(STOCK_BRANCH, INVENTORY, &stock)?];
    if let Some(coupon_id) = placed.coupon_id() {
        let lock = LockCoupon { coupon_id: coupon_id.to_owned(), user_id: placed.user_id().to_owned() };
        branches.push(branch(COUPON, COUPON, &lock)?);
    }
    Ok(branches)
}

fn branch<M: Message + Name>(id: &str, participant: &str, request: &M) -> Result<NewBranch, Invalid> {
    Ok(NewBranch {
        branch: BranchId::new(id)?,
        participant: ParticipantName::new(participant)?,
        payload: Payload { type_url: M::type_url(), value: request.encode_to_vec().into() },
    })
}

#[cfg(test)]
mod tests {
    use tcc_proto::order::v1::PlaceOrder;

    use super::*;
    use crate::{Draft, Line};

    fn placed(coupon_id: &str) -> Placed {
        let line = |sku: &str, quantity| Line { sku: sku.to_owned(), quantity };
        Placed::new(Draft {
            order_key: "k-1".to_owned(),
            initiator: "shop".to_owned(),
            user_id: "ann".to_owned(),
            lines: vec![line("pear", 2), line("apple", 1)],
            coupon_id: coupon_id.to_owned(),
            hold: true,
        })
        .unwrap()
    }

    fn who(branches: &[NewBranch]) -> Vec<(&str, &str, &str)> {
        branches.iter().map(|one| (one.branch.as_str(), one.participant.as_str(), one.payload.type_url.as_str())).collect()
    }

    #[test]
    fn an_order_is_its_own_row_its_stock_and_its_coupon() {
        let branches = plan(&placed("c-1")).unwrap();
        let expected = [
            ("order", "order", "type.googleapis.com/order.v1.PlaceOrder"),
            ("stock", "inventory", "type.googleapis.com/inventory.v1.ReserveStock"),
            ("coupon", "coupon", "type.googleapis.com/coupon.v1.LockCoupon"),
        ];
        assert_eq!(who(&branches), expected);
        let order = PlaceOrder::decode(branches[0].payload.value.clone()).unwrap();
        assert_eq!((order.order_key.as_str(), order.initiator.as_str(), order.user_id.as_str()), ("k-1", "shop", "ann"));
        assert_eq!((order.coupon_id.as_str(), order.hold), ("c-1", true));
        let stock = ReserveStock::decode(branches[1].payload.value.clone()).unwrap();
        let lines: Vec<_> = stock.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
        assert_eq!(lines, [("apple", 1), ("pear", 2)], "in sku order");
        let coupon = LockCoupon::decode(branches[2].payload.value.clone()).unwrap();
        assert_eq!((coupon.coupon_id.as_str(), coupon.user_id.as_str()), ("c-1", "ann"));
    }

    #[test]
    fn an_order_without_a_coupon_asks_nobody_for_one() {
        let branches = plan(&placed("")).unwrap();
        assert_eq!(branches.iter().map(|one| one.branch.as_str()).collect::<Vec<_>>(), ["order", "stock"]);
    }

    #[test]
    fn the_same_order_gives_the_same_bytes() {
        assert_eq!(plan(&placed("c-1")), plan(&placed("c-1")));
        assert_ne!(plan(&placed("c-1")), plan(&placed("c-2")));
    }
}
