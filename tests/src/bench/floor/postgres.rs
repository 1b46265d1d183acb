//! The floor on PostgreSQL: each step is one prepared statement, whose parts in `WITH` write the branch row and the business row,
//! and commits by itself: one round trip.

use sqlx::{Connection, PgConnection};

use super::steps::{Kind, Step, Value};
use crate::harness::{Databases, Owner};

macro_rules! begin {
    ($more:literal) => {
        concat!(
            "WITH t AS (INSERT INTO tcc_log_transactions (gid, try_until, decide_by, created_at, next_attempt_at, owner, ",
            "branch_count, status, try_order, decides, initiator, idempotency_key, fingerprint) ",
            "VALUES ($1, $2, $2, $3, $2, 1, $4, 1, 1, 1, $5, $6, $7)) ",
            "INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) VALUES ",
            "($1, 'order', 0, 'order', $8, $9), ($1, 'stock', 1, 'inventory', $10, $11)",
            $more
        )
    };
}
const BEGIN: &str = begin!("");
const BEGIN_WITH_COUPON: &str = begin!(", ($1, 'coupon', 2, 'coupon', $12, $13)");

const TRY_ORDER: &str = "WITH b AS (INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, \
     coordinator, reserved, not_after, ask_after, created_at, changed_at) \
     VALUES ($1, 'order', 1, 0, $2, $3, 'cluster', $4, $5, $6, $7, $7)) \
     INSERT INTO orders (order_id, order_key, initiator, user_id, lines, coupon_id, hold, status) \
     VALUES ($1, $8, $9, $10, $11, nullif($12, ''), FALSE, 1)";
const TRY_STOCK: &str = "WITH s AS (UPDATE stock SET available = available - $8, frozen = frozen + $8, updated_at = $7 \
     WHERE sku = $9 AND available >= $8 RETURNING 1), n AS (SELECT count(*) AS n FROM s) \
     INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, reserved, not_after, \
     ask_after, created_at, changed_at, refusal_code, refusal_message) \
     SELECT $1, 'stock', CASE n WHEN 1 THEN 1 ELSE 2 END, 0, $2, $3, 'cluster', CASE n WHEN 1 THEN $4::bytea END, $5, $6, $7, \
     $7, CASE n WHEN 1 THEN NULL ELSE 'OUT_OF_STOCK' END, CASE n WHEN 1 THEN NULL ELSE $10 END FROM n";
const TRY_COUPON: &str = "WITH c AS (UPDATE coupons SET state = 2, gid = $1 WHERE coupon_id = $8 AND user_id = $9 AND state = 1 \
     RETURNING 1) INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, reserved, \
     not_after, ask_after, created_at, changed_at) SELECT $1, 'coupon', 1, 0, $2, $3, 'cluster', $4, $5, $6, $7, $7 FROM c";
const DECIDE: &str =
    "UPDATE tcc_log_transactions SET status = $2, decided_at = $3, cause = nullif($4, '') WHERE gid = $1 AND status = 1";
const END_ORDER: &str = "WITH b AS (UPDATE tcc_branches SET status = $2, changed_at = $3 \
     WHERE gid = $1 AND branch_id = 'order' AND status = 1 RETURNING 1) \
     UPDATE orders SET status = $2 WHERE order_id = $1 AND EXISTS (SELECT 1 FROM b)";
const CONFIRM_STOCK: &str = "WITH b AS (UPDATE tcc_branches SET status = 3, changed_at = $2 \
     WHERE gid = $1 AND branch_id = 'stock' AND status = 1 RETURNING 1) \
     UPDATE stock SET frozen = frozen - $3, sold = sold + $3, updated_at = $2 WHERE sku = $4 AND EXISTS (SELECT 1 FROM b)";
const END_COUPON: &str = "WITH b AS (UPDATE tcc_branches SET status = $2, changed_at = $3 \
     WHERE gid = $1 AND branch_id = 'coupon' AND status = 1 RETURNING 1) \
     UPDATE coupons SET state = CASE $2 WHEN 3 THEN 3 ELSE 1 END, gid = CASE $2 WHEN 3 THEN gid END \
     WHERE coupon_id = $4 AND EXISTS (SELECT 1 FROM b)";
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

/// A connection to each database that is written to.
#[derive(Debug)]
pub(crate) struct Client(Vec<PgConnection>);

impl Client {
    pub(crate) async fn connect(databases: &Databases, owners: &[Owner]) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for owner in owners {
            let options = tcc_database::postgres::options_of(databases.url(*owner)).map_err(anyhow::Error::msg)?;
            // As the system's own sessions, whatever the server's default is.
            let options = options.options([("default_transaction_isolation", "read committed")]);
            connections.push(PgConnection::connect_with(&options).await?);
        }
        Ok(Self(connections))
    }
}

impl super::Client for Client {
    async fn write(&mut self, step: Step<'_>) -> sqlx::Result<()> {
        let mut query = sqlx::query(sql(step.kind));
        for value in &step.values {
            query = match value {
                Value::Text(text) => query.bind(*text),
                Value::Bytes(bytes) => query.bind(*bytes),
                Value::Int(number) => query.bind(*number),
            };
        }
        query.execute(&mut self.0[step.owner.index()]).await.map(drop)
    }
}
