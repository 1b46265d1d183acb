//! An order as callers see it: what was placed, what the gateway's row says, and what its transaction says. Pure.

use tcc_coordinator::{CancelCause, TxView};
use tcc_types::{Decision, Gid, Timestamp};

use crate::Placed;

/// Where an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderStatus {
    /// Not decided yet.
    Pending,
    /// Everything is reserved until a request, or until `pay_by`.
    Held,
    /// Decided: it will be, or has been, carried out by everyone.
    Confirmed,
    /// Decided: nothing of it stays reserved.
    Cancelled,
}

/// The status of an order's row. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RowStatus {
    /// The transaction knows more.
    Tried = 1,
    /// For good.
    Confirmed = 3,
    /// For good.
    Cancelled = 4,
}

impl RowStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tried, Self::Confirmed, Self::Cancelled];

    /// Its stored number.
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }

    /// From its stored number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

/// An order's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// The order's id, and its transaction's.
    pub id: Gid,
    /// What was ordered.
    pub placed: Placed,
    /// Where the row is.
    pub status: RowStatus,
    /// Every branch was seen reserved; that stays so until it is decided.
    pub held: bool,
}

/// Why an order was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Who said no.
    pub participant: String,
    /// For machines.
    pub code: String,
    /// For people.
    pub message: String,
}

/// One order at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: Gid,
    /// What was ordered.
    pub placed: Placed,
    /// Where it is.
    pub status: OrderStatus,
    /// Why it was cancelled, while that is known.
    pub refused: Option<Refused>,
    /// Until when it waits, while it does.
    pub pay_by: Option<Timestamp>,
    /// What its coupon takes off, in minor units, where that is known: when it has just been placed.
    pub discount_minor: i64,
}

impl Order {
    /// From its row and, where that is known, its transaction.
    #[must_use]
    pub fn of_row(row: OrderRow, transaction: Option<&TxView>) -> Self {
        let undecided = if row.held { OrderStatus::Held } else { OrderStatus::Pending };
        let status = match row.status {
            RowStatus::Confirmed => OrderStatus::Confirmed,
            RowStatus::Cancelled => OrderStatus::Cancelled,
            RowStatus::Tried => transaction.map_or(undecided, |view| status_of(view, undecided)),
        };
        Self::with_status(row.id, row.placed, status, transaction)
    }

    /// From its transaction alone: its row is not there yet, or never will be.
    #[must_use]
    pub fn of_transaction(placed: Placed, transaction: &TxView) -> Self {
        let status = status_of(transaction, OrderStatus::Pending);
        Self::with_status(transaction.gid, placed, status, Some(transaction))
    }

    fn with_status(id: Gid, placed: Placed, status: OrderStatus, transaction: Option<&TxView>) -> Self {
        let (refused, pay_by) = match status {
            OrderStatus::Pending | OrderStatus::Held => {
                (None, transaction.filter(|_| placed.hold()).map(|view| view.decide_by))
            }
            OrderStatus::Confirmed => (None, None),
            OrderStatus::Cancelled => (transaction.and_then(|view| view.cause.as_ref()).map(refused), None),
        };
        Self { id, placed, status, refused, pay_by, discount_minor: 0 }
    }

    /// What was named in the order and is not known at all: the kind of thing, and its name.
    #[must_use]
    pub fn unknown_resource(&self) -> Option<(&'static str, String)> {
        let refused = self.refused.as_ref()?;
        match refused.code.as_str() {
            "UNKNOWN_COUPON" => Some(("coupon", self.placed.coupon_id().unwrap_or_default().to_owned())),
            "UNKNOWN_SKU" => {
                let skus: Vec<&str> = self.placed.lines().iter().map(|line| line.sku.as_str()).collect();
                // A refusal has no field for the name; inventory ends its message with it. Otherwise it is one of these.
                let named = refused.message.rsplit(' ').next().filter(|name| skus.contains(name));
                Some(("sku", named.map_or_else(|| skus.join(", "), str::to_owned)))
            }
            _ => None,
        }
    }
}

fn status_of(transaction: &TxView, undecided: OrderStatus) -> OrderStatus {
    match transaction.status.decision() {
        Some(Decision::Confirm) => OrderStatus::Confirmed,
        Some(Decision::Cancel) => OrderStatus::Cancelled,
        None if transaction.held => OrderStatus::Held,
        None => undecided,
    }
}

fn refused(cause: &CancelCause) -> Refused {
    let by_coordinator =
        |code: &str, message: String| Refused { participant: "coordinator".to_owned(), code: code.to_owned(), message };
    match cause {
        CancelCause::Refused { participant, refusal, .. } => {
            Refused { participant: participant.to_string(), code: refusal.code.clone(), message: refusal.message.clone() }
        }
        CancelCause::Violated { participant, violation, .. } => {
            Refused { participant: participant.to_string(), code: "VIOLATION".to_owned(), message: violation.to_string() }
        }
        CancelCause::TimedOut => by_coordinator("TIMED_OUT", "it was not decided in time".to_owned()),
        CancelCause::Requested { by } => by_coordinator("CANCEL_REQUESTED", format!("{by} asked for it")),
        // Causes may be added; this version cannot say more of them.
        _ => by_coordinator("CANCELLED", "it was cancelled".to_owned()),
    }
}

#[cfg(test)]
mod tests;
