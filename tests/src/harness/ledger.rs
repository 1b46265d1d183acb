//! Everything that the cluster's parts know of stock, coupons, branches, orders and transactions, read at one time.
//!
//! What must agree at every moment (a participant's business rows and its branch rows) is read in one read transaction of its
//! database; the rest over gRPC.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use prost::Message;
use tcc_proto::{
    coupon::v1::{CouponState, LockedCoupon},
    inventory::v1::ReservedStock,
    order::v1::{ListOrdersRequest, Order, OrderStatus, order_service_client::OrderServiceClient},
    tcc::v1::{ListTransactionsRequest, Transaction, TransactionStatus, coordinator_client::CoordinatorClient},
};
use tcc_types::Gid;

use super::{
    Cluster, Owner,
    databases::Databases,
    reader::{AnyRow, Snapshot},
};

/// The largest page that the services give by default.
const PAGE_SIZE: u32 = 500;

/// One SKU as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StockRow {
    /// Its id.
    pub sku: String,
    /// All pieces ever added.
    pub initial: i64,
    /// Free.
    pub available: i64,
    /// Reserved.
    pub frozen: i64,
    /// Spent.
    pub sold: i64,
}

/// One coupon as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CouponRow {
    /// Its id.
    pub coupon_id: String,
    /// Where it is.
    pub state: CouponState,
    /// Which transaction locked or used it.
    pub gid: String,
}

/// The status of a branch row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStatus {
    /// Reserved.
    Tried,
    /// The business said no.
    Refused,
    /// Spent.
    Confirmed,
    /// Released.
    Cancelled,
}

/// One row of a participant's barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchRow<T> {
    /// Its transaction.
    pub gid: String,
    /// Its id.
    pub branch_id: String,
    /// Where it is.
    pub status: RowStatus,
    /// What its Try reserved.
    pub reserved: T,
}

/// One branch as the coordinator's log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBranch {
    /// Its transaction.
    pub gid: String,
    /// Its id.
    pub branch_id: String,
    /// Who was called for it.
    pub participant: String,
    /// An operator has settled it by other means.
    pub settled_outside: bool,
}

/// One order as the gateway tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// Its id, also its transaction's gid.
    pub order_id: String,
    /// Where it is.
    pub status: OrderStatus,
    /// Pieces by SKU.
    pub lines: BTreeMap<String, i64>,
    /// Its coupon; empty: none.
    pub coupon_id: String,
}

/// What everybody knows.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// In sku order.
    pub stock: Vec<StockRow>,
    /// The branches of inventory, with the pieces by SKU that each reserved.
    pub stock_branches: Vec<BranchRow<BTreeMap<String, i64>>>,
    /// In coupon order.
    pub coupons: Vec<CouponRow>,
    /// The branches of coupon, with the coupon that each locked.
    pub coupon_branches: Vec<BranchRow<String>>,
    /// The orders' own branches.
    pub order_branches: Vec<BranchRow<()>>,
    /// Newest first.
    pub orders: Vec<OrderRow>,
    /// Status by gid.
    pub transactions: BTreeMap<String, TransactionStatus>,
    /// What every transaction consists of, in the order of gid and branch.
    pub log_branches: Vec<LogBranch>,
}

impl Ledger {
    pub(crate) async fn read(cluster: &Cluster) -> anyhow::Result<Self> {
        let databases = cluster.databases();
        let (stock, stock_branches) = read_inventory(databases).await?;
        let (coupons, coupon_branches) = read_coupons(databases).await?;
        let order_branches = read_branches(&mut Snapshot::of(databases, Owner::Orders).await?, |_| Ok(())).await?;
        let orders = list_orders(cluster).await?.into_iter().map(order_row).collect();
        let transactions = list_transactions(cluster, &[]).await?;
        let transactions = transactions.into_iter().map(|one| (one.gid.clone(), one.status())).collect();
        let log_branches = read_log_branches(databases).await?;
        Ok(Self { stock, stock_branches, coupons, coupon_branches, order_branches, orders, transactions, log_branches })
    }

    /// What has not ended yet, in words; `None`: everything has.
    pub(crate) async fn unfinished(cluster: &Cluster) -> anyhow::Result<Option<String>> {
        let open = [TransactionStatus::Trying, TransactionStatus::Confirming, TransactionStatus::Cancelling];
        let open = list_transactions(cluster, &open).await?;
        if let Some(first) = open.first() {
            return Ok(Some(format!(
                "{} transactions have not ended, for one {} ({:?})",
                open.len(),
                first.gid,
                first.status()
            )));
        }
        for owner in [Owner::Inventory, Owner::Coupon, Owner::Orders] {
            let mut snapshot = Snapshot::of(cluster.databases(), owner).await?;
            let count = snapshot.all("SELECT count(*) FROM tcc_branches WHERE status = 1").await?;
            let tried = count.first().context("no count")?.integer(0)?;
            if tried != 0 {
                return Ok(Some(format!("{tried} rows of {} are still tried", owner.name())));
            }
        }
        Ok(None)
    }
}

type StockBranch = BranchRow<BTreeMap<String, i64>>;

async fn read_inventory(databases: &Databases) -> anyhow::Result<(Vec<StockRow>, Vec<StockBranch>)> {
    let mut snapshot = Snapshot::of(databases, Owner::Inventory).await?;
    let rows = snapshot.all("SELECT sku, initial, available, frozen, sold FROM stock ORDER BY sku").await?;
    let one = |row: &AnyRow| {
        let (sku, initial, available) = (row.text(0)?, row.integer(1)?, row.integer(2)?);
        anyhow::Ok(StockRow { sku, initial, available, frozen: row.integer(3)?, sold: row.integer(4)? })
    };
    let mut stock: Vec<StockRow> = Vec::with_capacity(rows.len());
    for row in &rows {
        let bucket = one(row)?;
        // A SKU may be split over several rows; the branches say how much of it they hold in all.
        match stock.last_mut().filter(|last| last.sku == bucket.sku) {
            Some(sum) => {
                sum.initial += bucket.initial;
                sum.available += bucket.available;
                sum.frozen += bucket.frozen;
                sum.sold += bucket.sold;
            }
            None => stock.push(bucket),
        }
    }
    let branches = read_branches(&mut snapshot, |reserved| {
        let reserved = ReservedStock::decode(reserved)?;
        Ok(reserved.lines.into_iter().map(|line| (line.sku, line.quantity)).collect())
    });
    Ok((stock, branches.await?))
}

async fn read_coupons(databases: &Databases) -> anyhow::Result<(Vec<CouponRow>, Vec<BranchRow<String>>)> {
    let mut snapshot = Snapshot::of(databases, Owner::Coupon).await?;
    let rows = snapshot.all("SELECT coupon_id, state, gid FROM coupons ORDER BY coupon_id").await?;
    let coupon = |row: &AnyRow| {
        let state = i32::try_from(row.integer(1)?).ok().and_then(|state| CouponState::try_from(state).ok());
        Ok(CouponRow { coupon_id: row.text(0)?, state: state.context("an unknown coupon state")?, gid: row.text(2)? })
    };
    let coupons = rows.iter().map(coupon).collect::<anyhow::Result<_>>()?;
    let branches = read_branches(&mut snapshot, |reserved| Ok(LockedCoupon::decode(reserved)?.coupon_id)).await?;
    Ok((coupons, branches))
}

async fn read_log_branches(databases: &Databases) -> anyhow::Result<Vec<LogBranch>> {
    const SETTLED_OUTSIDE: i64 = 2;
    let mut snapshot = Snapshot::of(databases, Owner::Log).await?;
    let rows =
        snapshot.all("SELECT gid, branch_id, participant, settled FROM tcc_log_branches ORDER BY gid, branch_id").await?;
    let branch = |row: &AnyRow| {
        let gid = Gid::from_bytes(&row.bytes(0)?).context("a gid in the log cannot be read")?.to_string();
        let settled_outside = row.integer(3)? == SETTLED_OUTSIDE;
        Ok(LogBranch { gid, branch_id: row.text(1)?, participant: row.text(2)?, settled_outside })
    };
    rows.iter().map(branch).collect()
}

async fn read_branches<T>(
    snapshot: &mut Snapshot,
    reserved: impl Fn(&[u8]) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<BranchRow<T>>> {
    let rows = snapshot.all("SELECT gid, branch_id, status, reserved FROM tcc_branches ORDER BY gid, branch_id").await?;
    let branch = |row: &AnyRow| {
        let status = match row.integer(2)? {
            1 => RowStatus::Tried,
            2 => RowStatus::Refused,
            3 => RowStatus::Confirmed,
            4 => RowStatus::Cancelled,
            other => bail!("a branch row has the status {other}"),
        };
        let reserved = reserved(&row.bytes(3)?).context("what a branch reserved cannot be read")?;
        Ok(BranchRow { gid: row.text(0)?, branch_id: row.text(1)?, status, reserved })
    };
    rows.iter().map(branch).collect()
}

fn order_row(order: Order) -> OrderRow {
    let status = order.status();
    let lines = order.lines.into_iter().map(|line| (line.sku, line.quantity)).collect();
    OrderRow { order_id: order.order_id, status, lines, coupon_id: order.coupon_id }
}

async fn list_orders(cluster: &Cluster) -> anyhow::Result<Vec<Order>> {
    let mut client = OrderServiceClient::new(cluster.any_gateway_channel());
    let mut orders = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListOrdersRequest { user_id: String::new(), page_size: PAGE_SIZE, page_token };
        let page = client.list_orders(request).await?.into_inner();
        orders.extend(page.orders);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(orders);
        }
    }
}

async fn list_transactions(cluster: &Cluster, statuses: &[TransactionStatus]) -> anyhow::Result<Vec<Transaction>> {
    let mut client = CoordinatorClient::new(cluster.any_gateway_channel());
    let mut transactions = Vec::new();
    let mut page_token = String::new();
    loop {
        let statuses = statuses.iter().map(|status| i32::from(*status)).collect();
        let request = ListTransactionsRequest { statuses, initiator: String::new(), page_size: PAGE_SIZE, page_token };
        let page = client.list(request).await?.into_inner();
        transactions.extend(page.transactions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(transactions);
        }
    }
}
