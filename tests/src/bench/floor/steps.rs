//! The durable steps of one order, and what each writes: the same for all three databases, which differ in their statements.

use super::rows::{INITIATOR, Payload, REFUSAL, Rows};
use crate::harness::Owner;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Begin,
    BeginWithCoupon,
    TryOrder,
    TryStock,
    TryCoupon,
    Decide,
    EndOrder,
    ConfirmStock,
    EndCoupon,
    Finish,
}

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Int(i64),
}

/// One transaction.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) kind: Kind,
    /// In whose database.
    pub(crate) owner: Owner,
    pub(crate) values: Vec<Value<'a>>,
}

use Value::{Bytes, Int, Text};

impl Rows {
    pub(crate) fn begin(&self) -> Step<'_> {
        let mut values = vec![
            Bytes(&self.gid),
            Int(self.not_after),
            Int(self.now),
            Int(if self.coupon.is_some() { 3 } else { 2 }),
            Text(INITIATOR),
            Text(&self.key),
            Bytes(&self.fingerprint),
        ];
        let mut kind = Kind::Begin;
        for payload in [&self.order, &self.stock] {
            values.extend([Text(&payload.type_url), Bytes(&payload.bytes)]);
        }
        if let Some((_, payload)) = &self.coupon {
            kind = Kind::BeginWithCoupon;
            values.extend([Text(&payload.type_url), Bytes(&payload.bytes)]);
        }
        Step { kind, owner: Owner::Log, values }
    }

    /// The Try of each branch.
    pub(crate) fn tries(&self) -> impl Iterator<Item = Step<'_>> {
        let (coupon_id, coupon) = self.coupon.as_ref().map_or(("", None), |(id, payload)| (id.as_str(), Some(payload)));
        let order = [Text(&self.key), Text(INITIATOR), Text(&self.user), Text(&self.lines), Text(coupon_id)];
        let stock = [Int(self.quantity), Text(&self.sku), Text(REFUSAL)];
        let locked = [Text(coupon_id), Text(&self.user)];
        let steps = [
            Some(self.try_of(Kind::TryOrder, Owner::Orders, &self.order, &order)),
            Some(self.try_of(Kind::TryStock, Owner::Inventory, &self.stock, &stock)),
            coupon.map(|payload| self.try_of(Kind::TryCoupon, Owner::Coupon, payload, &locked)),
        ];
        steps.into_iter().flatten()
    }

    fn try_of<'a>(&'a self, kind: Kind, owner: Owner, payload: &'a Payload, more: &[Value<'a>]) -> Step<'a> {
        let mut values = vec![
            Text(&self.order_id),
            Text(&payload.type_url),
            Bytes(&self.fingerprint),
            Bytes(&payload.reserved),
            Int(self.not_after),
            Int(self.ask_after),
            Int(self.now),
        ];
        values.extend_from_slice(more);
        Step { kind, owner, values }
    }

    pub(crate) fn decide(&self) -> Step<'_> {
        let (decided, _) = self.decision();
        let values = vec![Bytes(&self.gid), Int(decided), Int(self.now), Text(self.cause())];
        Step { kind: Kind::Decide, owner: Owner::Log, values }
    }

    /// The Confirm or Cancel of each branch that has reserved.
    pub(crate) fn ends(&self) -> impl Iterator<Item = Step<'_>> {
        let id = Text(&self.order_id);
        let order = vec![id, Int(self.ended()), Int(self.now)];
        let stock = vec![id, Int(self.now), Int(self.quantity), Text(&self.sku)];
        let coupon = self.coupon.as_ref().map(|(coupon_id, _)| {
            let values = vec![id, Int(self.ended()), Int(self.now), Text(coupon_id)];
            Step { kind: Kind::EndCoupon, owner: Owner::Coupon, values }
        });
        let stock = self.is_confirmed().then_some(Step { kind: Kind::ConfirmStock, owner: Owner::Inventory, values: stock });
        [Some(Step { kind: Kind::EndOrder, owner: Owner::Orders, values: order }), stock, coupon].into_iter().flatten()
    }

    pub(crate) fn finish(&self) -> Step<'_> {
        let (_, finished) = self.decision();
        Step { kind: Kind::Finish, owner: Owner::Log, values: vec![Bytes(&self.gid), Int(finished), Int(self.now)] }
    }
}
