//! The floor on SQLite: each step is one prepared text of statements, from `BEGIN IMMEDIATE` to `COMMIT`, handed to the connection's
//! thread at once. A file has one writer at a time, so all clients share one connection to each, and wait for it in turn: quicker
//! than to let them find the file locked.

use std::sync::Arc;

use sqlx::SqliteConnection;
use tokio::sync::Mutex;

use super::{
    open_sqlite,
    steps::{Kind, Step, Value},
};
use crate::harness::{Databases, Owner};

macro_rules! begin {
    ($more:literal) => {
        concat!(
            "BEGIN IMMEDIATE; INSERT INTO tcc_log_transactions (gid, try_until, decide_by, created_at, next_attempt_at, owner, ",
            "branch_count, status, try_order, decides, initiator, idempotency_key, fingerprint) ",
            "VALUES ($1, $2, $2, $3, $2, 1, $4, 1, 1, 1, $5, $6, $7); ",
            "INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) VALUES ",
            "($1, 'order', 0, 'order', $8, $9), ($1, 'stock', 1, 'inventory', $10, $11)",
            $more,
            "; COMMIT"
        )
    };
}
const BEGIN: &str = begin!("");
const BEGIN_WITH_COUPON: &str = begin!(", ($1, 'coupon', 2, 'coupon', $12, $13)");

const TRY_ORDER: &str = "BEGIN IMMEDIATE; INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, \
     request_fingerprint, coordinator, reserved, not_after, ask_after, created_at, changed_at) \
     VALUES ($1, 'order', 1, 0, $2, $3, 'cluster', $4, $5, $6, $7, $7); \
     INSERT INTO orders (order_id, order_key, initiator, user_id, lines, coupon_id, hold, status) \
     VALUES ($1, $8, $9, $10, $11, nullif($12, ''), FALSE, 1); COMMIT";
// changes() is of the statement before.
const TRY_STOCK: &str = "BEGIN IMMEDIATE; UPDATE stock SET available = available - $8, frozen = frozen + $8, updated_at = $7 \
     WHERE sku = $9 AND available >= $8; \
     INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, reserved, not_after, \
     ask_after, created_at, changed_at, refusal_code, refusal_message) \
     SELECT $1, 'stock', CASE n WHEN 1 THEN 1 ELSE 2 END, 0, $2, $3, 'cluster', CASE n WHEN 1 THEN $4 END, $5, $6, $7, \
     $7, CASE n WHEN 1 THEN NULL ELSE 'OUT_OF_STOCK' END, CASE n WHEN 1 THEN NULL ELSE $10 END FROM (SELECT changes() AS n); \
     COMMIT";
const TRY_COUPON: &str = "BEGIN IMMEDIATE; UPDATE coupons SET state = 2, gid = $1 \
     WHERE coupon_id = $8 AND user_id = $9 AND state = 1; \
     INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, reserved, \
     not_after, ask_after, created_at, changed_at) \
     SELECT $1, 'coupon', 1, 0, $2, $3, 'cluster', $4, $5, $6, $7, $7 WHERE changes() = 1; COMMIT";
const DECIDE: &str = "UPDATE tcc_log_transactions SET status = $2, decided_at = $3, cause = nullif($4, '') \
     WHERE gid = $1 AND status = 1";
const END_ORDER: &str = "BEGIN IMMEDIATE; UPDATE tcc_branches SET status = $2, changed_at = $3 \
     WHERE gid = $1 AND branch_id = 'order' AND status = 1; \
     UPDATE orders SET status = $2 WHERE order_id = $1 AND changes() = 1; COMMIT";
const CONFIRM_STOCK: &str = "BEGIN IMMEDIATE; UPDATE tcc_branches SET status = 3, changed_at = $2 \
     WHERE gid = $1 AND branch_id = 'stock' AND status = 1; \
     UPDATE stock SET frozen = frozen - $3, sold = sold + $3, updated_at = $2 WHERE sku = $4 AND changes() = 1; COMMIT";
const END_COUPON: &str = "BEGIN IMMEDIATE; UPDATE tcc_branches SET status = $2, changed_at = $3 \
     WHERE gid = $1 AND branch_id = 'coupon' AND status = 1; \
     UPDATE coupons SET state = CASE $2 WHEN 3 THEN 3 ELSE 1 END, gid = CASE $2 WHEN 3 THEN gid END \
     WHERE coupon_id = $4 AND changes() = 1; COMMIT";
const FINISH: &str = "UPDATE tcc_log_transactions SET status = $2, finished_at = $3 WHERE gid = $1 AND status IN (2, 4)";

const fn sql(kind: Kind) -> &'static str {
    match kind {
        Kind::Begin => BEGIN,
        Kind::BeginWithCoupon => BEGIN_WITH_COUPON,
        Kind::TryOrder => TRY_ORDER,
        Kind::TryStock => TRY_STOCK,
        Kind::TryCoupon => TRY_COUPON,
        Kind::Decide => DECIDE,
        Kind::EndOrder => END_ORDER,
        Kind::ConfirmStock => CONFIRM_STOCK,
        Kind::EndCoupon => END_COUPON,
        Kind::Finish => FINISH,
    }
}

/// A connection to each file that is written to.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<[Mutex<SqliteConnection>]>);

impl Client {
    pub(crate) async fn connect(databases: &Databases, owners: &[Owner]) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for owner in owners {
            connections.push(Mutex::new(open_sqlite(databases.url(*owner)).await?));
        }
        Ok(Self(connections.into()))
    }
}

impl super::Client for Client {
    async fn write(&mut self, step: Step<'_>) -> sqlx::Result<()> {
        let mut query = sqlx::query(sql(step.kind));
        for value in &step.values {
            query = match value {
                Value::Text(text) => query.bind((*text).to_owned()),
                Value::Bytes(bytes) => query.bind(bytes.to_vec()),
                Value::Int(number) => query.bind(*number),
            };
        }
        let mut connection = self.0[step.owner.index()].lock().await;
        query.execute(&mut *connection).await.map(drop)
    }
}
