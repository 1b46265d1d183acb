//! The rows of one order, as the system itself would write them.

use prost::{Message, Name};
use tcc_proto::{
    coupon::v1::{LockCoupon, LockedCoupon},
    inventory::v1::{ReserveStock, ReservedStock, StockLine},
    order::v1::{OrderLine, PlaceOrder},
};
use tcc_types::{Clock, Gid, SystemClock, SystemEntropy};

use super::super::orders::{Fate, Orders, coupon};

/// Sixty seconds until a Try is late, an hour until its row asks: any future will do.
const LATE_US: i64 = 60_000_000;
const ASK_US: i64 = 3_600_000_000;

/// A branch's request and what it reserves.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) type_url: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) reserved: Vec<u8>,
}

/// One order.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) fate: Fate,
    pub(crate) gid: [u8; 16],
    /// The same as text.
    pub(crate) order_id: String,
    pub(crate) key: String,
    pub(crate) user: String,
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    pub(crate) lines: String,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) now: i64,
    pub(crate) not_after: i64,
    pub(crate) ask_after: i64,
    pub(crate) order: Payload,
    pub(crate) stock: Payload,
    pub(crate) coupon: Option<(String, Payload)>,
}

/// Who places the orders.
pub(crate) const INITIATOR: &str = "orders";
/// What a refused branch says.
pub(crate) const REFUSAL: &str = "not enough pieces";
/// Why a transaction is cancelled.
pub(crate) const CAUSE: &str = r#"{"refused":{"branch":"stock","code":"OUT_OF_STOCK"}}"#;

impl Rows {
    pub(crate) fn new(orders: &Orders, number: u64, coupons: bool) -> Self {
        let gid = Gid::mint(SystemClock.now(), &SystemEntropy);
        let now = SystemClock.now().as_micros();
        let (sku, quantity) = orders.line(number);
        let (key, user) = (orders.key(number), orders.user(number).to_owned());
        let coupon = coupons.then(|| coupon(number).0);
        let place = PlaceOrder {
            order_key: key.clone(),
            initiator: INITIATOR.to_owned(),
            user_id: user.clone(),
            lines: vec![OrderLine { sku: sku.to_owned(), quantity }],
            coupon_id: coupon.clone().unwrap_or_default(),
            hold: false,
        };
        let line = StockLine { sku: sku.to_owned(), quantity };
        let reserved = ReservedStock { lines: vec![line.clone()], ..ReservedStock::default() };
        let mut fingerprint = [0x5A; 32];
        fingerprint[..16].copy_from_slice(gid.as_bytes());
        Self {
            fate: orders.fate(number),
            gid: *gid.as_bytes(),
            order_id: gid.to_string(),
            lines: format!("[[\"{sku}\",{quantity}]]"),
            sku: sku.to_owned(),
            quantity,
            fingerprint,
            now,
            not_after: now + LATE_US,
            ask_after: now + ASK_US,
            order: payload(&place, Vec::new()),
            stock: payload(&ReserveStock { lines: vec![line] }, reserved.encode_to_vec()),
            coupon: coupon.map(|coupon_id| {
                let lock = LockCoupon { coupon_id: coupon_id.clone(), user_id: user.clone() };
                let locked = LockedCoupon { coupon_id: coupon_id.clone(), ..LockedCoupon::default() };
                (coupon_id, payload(&lock, locked.encode_to_vec()))
            }),
            key,
            user,
        }
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.fate == Fate::Confirmed
    }

    /// How its transaction is decided: the status in the log, then the status once it is finished.
    pub(crate) fn decision(&self) -> (i64, i64) {
        if self.is_confirmed() { (2, 3) } else { (4, 5) }
    }

    /// Why it is cancelled; empty: it is not.
    pub(crate) fn cause(&self) -> &'static str {
        if self.is_confirmed() { "" } else { CAUSE }
    }

    /// As a branch row says it.
    pub(crate) fn ended(&self) -> i64 {
        if self.is_confirmed() { 3 } else { 4 }
    }
}

fn payload<M: Name>(message: &M, reserved: Vec<u8>) -> Payload {
    Payload { type_url: M::type_url(), bytes: message.encode_to_vec(), reserved }
}
