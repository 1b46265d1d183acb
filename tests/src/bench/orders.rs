//! The orders of a run. They are made with a few small copies each, since whoever makes them has the same cores as those who are
//! measured.

use std::sync::atomic::{AtomicU64, Ordering};

use tcc_proto::order::v1::{CreateOrderRequest, Order, OrderLine, OrderStatus};

use super::cell::Shape;

/// What an order of a SKU that is sold out is refused with.
pub(crate) const SOLD_OUT_CODE: &str = "OUT_OF_STOCK";
/// One piece of it is left, and orders that are to be refused want two: sold out for them, however many come.
pub(crate) const SOLD_OUT_SKU: &str = "bench-sold-out";
const SOLD_OUT_QUANTITY: i64 = 2;
/// Multiplies a number such that neighbours fall far apart: the order of SKUs looks random and is the same in every run.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// An endless row of orders.
#[derive(Debug)]
pub(crate) struct Orders {
    shape: Shape,
    skus: Vec<String>,
    users: Vec<String>,
    next: AtomicU64,
    key: String,
}

/// What becomes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Confirmed,
    Refused,
}

const USERS: usize = 100;

/// The name of a SKU that the benchmark keeps in stock.
pub(crate) fn sku(number: u32) -> String {
    format!("bench-{number:05}")
}

/// The coupon of the order with this number, and whose it is.
pub(crate) fn coupon(number: u64) -> (String, String) {
    (format!("bench-{number:08}"), user(number as usize % USERS))
}

fn user(number: usize) -> String {
    format!("user-{number:03}")
}

impl Orders {
    /// Keys begin with `key`, so that no other run has the same.
    pub(crate) fn new(shape: Shape, key: String) -> Self {
        Self::of_skus(shape, (0..shape.skus).map(sku).collect(), key)
    }

    /// Orders of these SKUs.
    pub(crate) fn of_skus(shape: Shape, skus: Vec<String>, key: String) -> Self {
        Self { shape, skus, users: (0..USERS).map(user).collect(), next: AtomicU64::new(0), key }
    }

    /// The number of the next order.
    pub(crate) fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// What must become of it.
    pub(crate) fn fate(&self, number: u64) -> Fate {
        if self.shape.refuses(number) { Fate::Refused } else { Fate::Confirmed }
    }

    /// The SKU that it wants, and how many pieces.
    pub(crate) fn line(&self, number: u64) -> (&str, i64) {
        match self.fate(number) {
            Fate::Refused => (SOLD_OUT_SKU, SOLD_OUT_QUANTITY),
            Fate::Confirmed => {
                let spread = (number.wrapping_mul(SPREAD) >> 32) as usize;
                (&self.skus[spread % self.skus.len()], 1)
            }
        }
    }

    /// Who places it.
    pub(crate) fn user(&self, number: u64) -> &str {
        &self.users[number as usize % USERS]
    }

    /// Its key.
    pub(crate) fn key(&self, number: u64) -> String {
        format!("{}-{number}", self.key)
    }

    /// As it is sent.
    pub(crate) fn request(&self, number: u64) -> CreateOrderRequest {
        let (sku, quantity) = self.line(number);
        CreateOrderRequest {
            order_key: self.key(number),
            user_id: self.user(number).to_owned(),
            lines: vec![OrderLine { sku: sku.to_owned(), quantity }],
            coupon_id: if self.shape.coupons { coupon(number).0 } else { String::new() },
            hold: false,
            pay_by: None,
        }
    }

    /// Whether an answer is the one that the order must have.
    ///
    /// # Errors
    /// What was answered instead.
    pub(crate) fn judge(&self, number: u64, order: Option<&Order>) -> Result<Fate, String> {
        let order = order.ok_or("an answer without an order")?;
        let code = order.refusal.as_ref().map_or("", |refusal| refusal.code.as_str());
        match (self.fate(number), order.status(), code) {
            (Fate::Confirmed, OrderStatus::Confirmed, "") => Ok(Fate::Confirmed),
            (Fate::Refused, OrderStatus::Cancelled, SOLD_OUT_CODE) => Ok(Fate::Refused),
            (fate, status, code) => Err(format!("an order that must be {fate:?} is {status:?} {code}")),
        }
    }
}
