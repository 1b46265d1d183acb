//! What the databases have, for the verdict.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use tcc_proto::{coupon::v1::CouponState, order::v1::OrderStatus};
use tcc_types::Gid;

use super::verdict::{Evidence, Fate, Shelf, Stored};
use crate::harness::{AnyRow, Databases, Ledger, Owner, RowStatus, Snapshot, StockRow};

/// Reads what the ledger does not have.
pub(crate) async fn evidence(databases: &Databases, ledger: &Ledger) -> anyhow::Result<Evidence> {
    let sql = "SELECT gid, idempotency_key, status FROM tcc_log_transactions";
    let transactions = Snapshot::of(databases, Owner::Log).await?.all(sql).await?;
    let sql = "SELECT order_id, order_key, status FROM orders";
    let orders = Snapshot::of(databases, Owner::Orders).await?.all(sql).await?;
    Ok(Evidence {
        transactions: transactions.iter().map(transaction).collect::<anyhow::Result<_>>()?,
        orders: orders.iter().map(order).collect::<anyhow::Result<_>>()?,
        shelves: shelves(ledger),
        locked_coupons: ledger
            .coupons
            .iter()
            .filter(|coupon| coupon.state == CouponState::Locked)
            .map(|coupon| coupon.coupon_id.clone())
            .collect(),
        tried_rows: tried_rows(ledger),
    })
}

fn shelves(ledger: &Ledger) -> BTreeMap<String, Shelf> {
    let shelf =
        |row: &StockRow| (row.sku.clone(), Shelf { initial: row.initial, frozen: row.frozen, sold: row.sold, ordered: 0 });
    let mut shelves: BTreeMap<String, Shelf> = ledger.stock.iter().map(shelf).collect();
    for order in ledger.orders.iter().filter(|order| order.status == OrderStatus::Confirmed) {
        for (sku, pieces) in &order.lines {
            shelves.entry(sku.clone()).or_default().ordered += pieces;
        }
    }
    shelves
}

fn tried_rows(ledger: &Ledger) -> Vec<String> {
    let stock = ledger.stock_branches.iter().map(|row| ("inventory", &row.gid, &row.branch_id, row.status));
    let coupon = ledger.coupon_branches.iter().map(|row| ("coupon", &row.gid, &row.branch_id, row.status));
    let orders = ledger.order_branches.iter().map(|row| ("order", &row.gid, &row.branch_id, row.status));
    let tried = stock.chain(coupon).chain(orders).filter(|(.., status)| *status == RowStatus::Tried);
    tried.map(|(participant, gid, branch_id, _)| format!("{participant}'s row {gid}/{branch_id}")).collect()
}

fn transaction(row: &AnyRow) -> anyhow::Result<Stored> {
    let gid = Gid::from_bytes(&row.bytes(0)?).context("a gid in the log cannot be read")?;
    let fate = match Decided::of(row.integer(2)?)? {
        Decided::Confirmed => Fate::Confirmed,
        Decided::Cancelled => Fate::Cancelled,
        Decided::Nothing | Decided::Confirm | Decided::Cancel => Fate::Open,
    };
    Ok(Stored { order_key: row.text(1)?, order_id: gid.to_string(), fate })
}

fn order(row: &AnyRow) -> anyhow::Result<Stored> {
    let fate = match row.integer(2)? {
        1 => Fate::Open,
        3 => Fate::Confirmed,
        4 => Fate::Cancelled,
        other => bail!("an order has the status {other}"),
    };
    Ok(Stored { order_key: row.text(1)?, order_id: row.text(0)?, fate })
}

/// What a row of the log says of its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    /// Not yet.
    Nothing,
    /// Confirm, not everywhere done.
    Confirm,
    /// Confirm, everywhere done.
    Confirmed,
    /// Cancel, not everywhere done.
    Cancel,
    /// Cancel, everywhere done.
    Cancelled,
}

impl Decided {
    /// From the column `status`.
    pub(crate) fn of(status: i64) -> anyhow::Result<Self> {
        Ok(match status {
            1 => Self::Nothing,
            2 => Self::Confirm,
            3 => Self::Confirmed,
            4 => Self::Cancel,
            5 => Self::Cancelled,
            other => bail!("a transaction has the status {other}"),
        })
    }

    /// Whether a row that said this may say `later` later: a decision stands, and so does an end.
    pub(crate) fn may_become(self, later: Self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Confirm => matches!(later, Self::Confirm | Self::Confirmed),
            Self::Cancel => matches!(later, Self::Cancel | Self::Cancelled),
            Self::Confirmed | Self::Cancelled => later == self,
        }
    }
}
