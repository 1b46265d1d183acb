//! Between `order.v1` and the gateway's own words. Nothing is decided here.

use prost::{Message, Name};
use tcc_coordinator::{TxView, Vote};
use tcc_proto::{coupon::v1::LockedCoupon, order::v1 as proto};
use tcc_types::{Invalid, Payload};
use tcc_wire::timestamp_to_proto;

use crate::{Draft, Line, Order, OrderStatus, Placed, plan::COUPON};

/// A caller's request, unchecked.
pub(crate) fn draft(request: proto::CreateOrderRequest, initiator: String) -> Draft {
    let proto::CreateOrderRequest { order_key, user_id, lines, coupon_id, hold, pay_by: _ } = request;
    Draft { order_key, initiator, user_id, lines: lines_from_proto(lines), coupon_id, hold }
}

/// The payload of an order's own branch.
pub(crate) fn place_order(placed: &Placed) -> proto::PlaceOrder {
    proto::PlaceOrder {
        order_key: placed.order_key().to_string(),
        initiator: placed.initiator().to_string(),
        user_id: placed.user_id().to_owned(),
        lines: lines_to_proto(placed.lines()),
        coupon_id: placed.coupon_id().unwrap_or_default().to_owned(),
        hold: placed.hold(),
    }
}

/// The payload of an order's own branch, as it arrives: anyone may have submitted it.
pub(crate) fn placed_from_proto(request: proto::PlaceOrder) -> Result<Placed, Vec<Invalid>> {
    let proto::PlaceOrder { order_key, initiator, user_id, lines, coupon_id, hold } = request;
    Placed::new(Draft { order_key, initiator, user_id, lines: lines_from_proto(lines), coupon_id, hold })
}

/// The same, from the transaction log; `None`: it is no order.
pub(crate) fn placed_from_payload(payload: Payload) -> Option<Placed> {
    if payload.type_url != proto::PlaceOrder::type_url() {
        return None;
    }
    placed_from_proto(proto::PlaceOrder::decode(payload.value).ok()?).ok()
}

/// What the coupon takes off, as far as its branch's answer is known here.
pub(crate) fn discount_minor(transaction: &TxView) -> i64 {
    let output = transaction.branches.iter().find(|view| view.branch.as_str() == COUPON).and_then(|view| match &view.vote {
        Vote::Yes(output) => output.as_ref(),
        Vote::Unknown | Vote::No { .. } => None,
    });
    let locked = output.filter(|output| output.type_url == LockedCoupon::type_url());
    locked.and_then(|output| LockedCoupon::decode(output.value.clone()).ok()).map_or(0, |locked| locked.discount_minor)
}

/// An order on the wire.
pub(crate) fn order_to_proto(order: Order) -> proto::Order {
    let status = match order.status {
        OrderStatus::Pending => proto::OrderStatus::Pending,
        OrderStatus::Held => proto::OrderStatus::Held,
        OrderStatus::Confirmed => proto::OrderStatus::Confirmed,
        OrderStatus::Cancelled => proto::OrderStatus::Cancelled,
    };
    let refusal = order.refused.map(|refused| proto::Refusal {
        participant: refused.participant,
        code: refused.code,
        message: refused.message,
    });
    proto::Order {
        order_id: order.id.to_string(),
        order_key: order.placed.order_key().to_string(),
        user_id: order.placed.user_id().to_owned(),
        lines: lines_to_proto(order.placed.lines()),
        coupon_id: order.placed.coupon_id().unwrap_or_default().to_owned(),
        status: status.into(),
        refusal,
        // The gateway mints an order's id when it is placed, so every answer tells the same instant.
        created_at: Some(timestamp_to_proto(order.id.minted_at())),
        pay_by: order.pay_by.map(timestamp_to_proto),
        discount_minor: order.discount_minor,
    }
}

fn lines_from_proto(lines: Vec<proto::OrderLine>) -> Vec<Line> {
    lines.into_iter().map(|line| Line { sku: line.sku, quantity: line.quantity }).collect()
}

fn lines_to_proto(lines: &[Line]) -> Vec<proto::OrderLine> {
    lines.iter().map(|line| proto::OrderLine { sku: line.sku.clone(), quantity: line.quantity }).collect()
}
