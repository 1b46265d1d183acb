//! Everything that the cluster's parts know of stock, coupons, branches, orders and transactions, read at one time.
//!
//! What must agree at every moment (a participant's business rows and its branch rows) is read in one read transaction of its
//! database; the rest over gRPC.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, bail};
use prost::Message;
use sqlx::{
    Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tcc_proto::{
    coupon::v1::{CouponState, LockedCoupon},
    inventory::v1::ReservedStock,
    order::v1::{ListOrdersRequest, Order, OrderStatus},
    tcc::v1::{ListTransactionsRequest, Transaction, TransactionStatus},
};
use tcc_types::Gid;

use super::{Cluster, config::database_file};

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
        let (stock, stock_branches) = read_inventory(cluster.folder()).await?;
        let (coupons, coupon_branches) = read_coupons(cluster.folder()).await?;
        let order_branches = read_order_branches(cluster.folder()).await?;
        let orders = list_orders(cluster).await?.into_iter().map(order_row).collect();
        let transactions = list_transactions(cluster, &[]).await?;
        let transactions = transactions.into_iter().map(|one| (one.gid.clone(), one.status())).collect();
        let log_branches = read_log_branches(cluster.folder()).await?;
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
        for name in ["inventory", "coupon", "orders"] {
            let mut database = open_read_only(&database_file(cluster.folder(), name)).await?;
            let tried: i64 =
                sqlx::query_scalar("SELECT count(*) FROM tcc_branches WHERE status = 1").fetch_one(&mut database).await?;
            if tried != 0 {
                return Ok(Some(format!("{tried} rows of {name} are still tried")));
            }
        }
        Ok(None)
    }
}

async fn open_read_only(file: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    SqliteConnection::connect_with(&options).await.with_context(|| format!("cannot read {}", file.display()))
}

async fn read_inventory(folder: &Path) -> anyhow::Result<(Vec<StockRow>, Vec<BranchRow<BTreeMap<String, i64>>>)> {
    let mut database = open_read_only(&database_file(folder, "inventory")).await?;
    let mut snapshot = database.begin().await?;
    let stock = sqlx::query("SELECT sku, initial, available, frozen, sold FROM stock ORDER BY sku")
        .map(|row: SqliteRow| StockRow {
            sku: row.get(0),
            initial: row.get(1),
            available: row.get(2),
            frozen: row.get(3),
            sold: row.get(4),
        })
        .fetch_all(&mut *snapshot)
        .await?;
    let branches = read_branches(&mut snapshot, |reserved| {
        let reserved = ReservedStock::decode(reserved)?;
        Ok(reserved.lines.into_iter().map(|line| (line.sku, line.quantity)).collect())
    });
    Ok((stock, branches.await?))
}

async fn read_coupons(folder: &Path) -> anyhow::Result<(Vec<CouponRow>, Vec<BranchRow<String>>)> {
    let mut database = open_read_only(&database_file(folder, "coupon")).await?;
    let mut snapshot = database.begin().await?;
    let rows = sqlx::query("SELECT coupon_id, state, coalesce(gid, '') FROM coupons ORDER BY coupon_id")
        .fetch_all(&mut *snapshot)
        .await?;
    let coupon = |row: &SqliteRow| {
        let state: i32 = row.get(1);
        let state = CouponState::try_from(state).context("an unknown coupon state")?;
        Ok(CouponRow { coupon_id: row.get(0), state, gid: row.get(2) })
    };
    let coupons = rows.iter().map(coupon).collect::<anyhow::Result<_>>()?;
    let branches = read_branches(&mut snapshot, |reserved| Ok(LockedCoupon::decode(reserved)?.coupon_id)).await?;
    Ok((coupons, branches))
}

async fn read_order_branches(folder: &Path) -> anyhow::Result<Vec<BranchRow<()>>> {
    let mut database = open_read_only(&database_file(folder, "orders")).await?;
    let mut snapshot = database.begin().await?;
    read_branches(&mut snapshot, |_| Ok(())).await
}

async fn read_log_branches(folder: &Path) -> anyhow::Result<Vec<LogBranch>> {
    let mut database = open_read_only(&database_file(folder, "log")).await?;
    let rows = sqlx::query(
        "SELECT gid, branch_id, participant, coalesce(settled, 0) = 2 FROM tcc_log_branches ORDER BY gid, branch_id",
    )
    .fetch_all(&mut database)
    .await?;
    let branch = |row: &SqliteRow| {
        let gid = Gid::from_bytes(row.get::<&[u8], _>(0)).context("a gid in the log cannot be read")?;
        Ok(LogBranch { gid: gid.to_string(), branch_id: row.get(1), participant: row.get(2), settled_outside: row.get(3) })
    };
    rows.iter().map(branch).collect()
}

async fn read_branches<T>(
    database: &mut SqliteConnection,
    reserved: impl Fn(&[u8]) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<BranchRow<T>>> {
    let rows = sqlx::query("SELECT gid, branch_id, status, coalesce(reserved, x'') FROM tcc_branches ORDER BY gid, branch_id")
        .fetch_all(database)
        .await?;
    let branch = |row: &SqliteRow| {
        let status = match row.get::<i64, _>(2) {
            1 => RowStatus::Tried,
            2 => RowStatus::Refused,
            3 => RowStatus::Confirmed,
            4 => RowStatus::Cancelled,
            other => bail!("a branch row has the status {other}"),
        };
        let reserved = reserved(row.get::<&[u8], _>(3)).context("what a branch reserved cannot be read")?;
        Ok(BranchRow { gid: row.get(0), branch_id: row.get(1), status, reserved })
    };
    rows.iter().map(branch).collect()
}

fn order_row(order: Order) -> OrderRow {
    let status = order.status();
    let lines = order.lines.into_iter().map(|line| (line.sku, line.quantity)).collect();
    OrderRow { order_id: order.order_id, status, lines, coupon_id: order.coupon_id }
}

async fn list_orders(cluster: &Cluster) -> anyhow::Result<Vec<Order>> {
    let mut client = cluster.orders();
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
    let mut client = cluster.coordinator();
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
