//! The floor on MariaDB and MySQL: each step is one text of statements, from `START TRANSACTION` to `COMMIT`, in one round trip.
//! Prepared statements would need a round trip for each of the four, and that costs more than to parse them anew.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use super::steps::{Kind, Step, Value};
use crate::harness::{Databases, Owner};

macro_rules! begin {
    ($more:literal) => {
        concat!(
            "START TRANSACTION; INSERT INTO tcc_log_transactions (gid, try_until, decide_by, created_at, next_attempt_at, owner, ",
            "touched_by, branch_count, status, try_order, decides, initiator, idempotency_key, fingerprint) ",
            "VALUES ($1, $2, $2, $3, $2, 1, $1, $4, 1, 1, 1, $5, $6, $7); ",
            "INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) VALUES ",
            "($1, 'order', 0, 'order', $8, $9), ($1, 'stock', 1, 'inventory', $10, $11)",
            $more,
            "; COMMIT"
        )
    };
}
const BEGIN: &str = begin!("");
const BEGIN_WITH_COUPON: &str = begin!(", ($1, 'coupon', 2, 'coupon', $12, $13)");

const TRY_ORDER: &str = "START TRANSACTION; INSERT INTO tcc_branches (gid, branch_id, status, `empty`, type_url, \
     request_fingerprint, coordinator, reserved, not_after, ask_after, created_at, changed_at) \
     VALUES ($1, 'order', 1, 0, $2, $3, 'cluster', $4, $5, $6, $7, $7); \
     INSERT INTO orders (order_id, order_key, initiator, user_id, `lines`, coupon_id, hold, status) \
     VALUES ($1, $8, $9, $10, $11, NULLIF($12, ''), FALSE, 1); COMMIT";
// ROW_COUNT() is of the statement before.
const TRY_STOCK: &str = "START TRANSACTION; UPDATE stock SET available = available - $8, frozen = frozen + $8, updated_at = $7 \
     WHERE sku = $9 AND available >= $8; \
     INSERT INTO tcc_branches (gid, branch_id, status, `empty`, type_url, request_fingerprint, coordinator, reserved, not_after, \
     ask_after, created_at, changed_at, refusal_code, refusal_message) \
     SELECT $1, 'stock', CASE n WHEN 1 THEN 1 ELSE 2 END, 0, $2, $3, 'cluster', CASE n WHEN 1 THEN $4 END, $5, $6, $7, \
     $7, CASE n WHEN 1 THEN NULL ELSE 'OUT_OF_STOCK' END, CASE n WHEN 1 THEN NULL ELSE $10 END FROM (SELECT ROW_COUNT() AS n) AS c; \
     COMMIT";
const TRY_COUPON: &str = "START TRANSACTION; UPDATE coupons SET state = 2, gid = $1 \
     WHERE coupon_id = $8 AND user_id = $9 AND state = 1; \
     INSERT INTO tcc_branches (gid, branch_id, status, `empty`, type_url, request_fingerprint, coordinator, reserved, \
     not_after, ask_after, created_at, changed_at) \
     SELECT $1, 'coupon', 1, 0, $2, $3, 'cluster', $4, $5, $6, $7, $7 FROM DUAL WHERE ROW_COUNT() = 1; COMMIT";
const DECIDE: &str = "UPDATE tcc_log_transactions SET status = $2, decided_at = $3, cause = nullif($4, '') \
     WHERE gid = $1 AND status = 1";
const END_ORDER: &str = "START TRANSACTION; UPDATE tcc_branches SET status = $2, changed_at = $3 \
     WHERE gid = $1 AND branch_id = 'order' AND status = 1; \
     UPDATE orders SET status = $2 WHERE order_id = $1 AND ROW_COUNT() = 1; COMMIT";
const CONFIRM_STOCK: &str = "START TRANSACTION; UPDATE tcc_branches SET status = 3, changed_at = $2 \
     WHERE gid = $1 AND branch_id = 'stock' AND status = 1; \
     UPDATE stock SET frozen = frozen - $3, sold = sold + $3, updated_at = $2 WHERE sku = $4 AND ROW_COUNT() = 1; COMMIT";
const END_COUPON: &str = "START TRANSACTION; UPDATE tcc_branches SET status = $2, changed_at = $3 \
     WHERE gid = $1 AND branch_id = 'coupon' AND status = 1; \
     UPDATE coupons SET gid = CASE $2 WHEN 3 THEN gid END, state = CASE $2 WHEN 3 THEN 3 ELSE 1 END \
     WHERE coupon_id = $4 AND ROW_COUNT() = 1; COMMIT";
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
pub(crate) struct Client(Vec<MySqlConnection>);

impl Client {
    pub(crate) async fn connect(databases: &Databases, owners: &[Owner]) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for owner in owners {
            let options = tcc_database::mysql::options_of(databases.url(*owner)).map_err(anyhow::Error::msg)?;
            let mut connection = MySqlConnection::connect_with(&options).await?;
            sqlx::raw_sql(tcc_database::mysql::SESSION).execute(&mut connection).await?;
            connections.push(connection);
        }
        Ok(Self(connections))
    }
}

impl super::Client for Client {
    async fn write(&mut self, step: Step<'_>) -> sqlx::Result<()> {
        let text = filled(sql(step.kind), &step.values);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut self.0[step.owner.index()]).await.map(drop)
    }
}

/// The text with its values in the places of `$1`, `$2` and so on. They are this benchmark's own; what could end a literal is left
/// out all the same.
fn filled(sql: &str, values: &[Value<'_>]) -> String {
    let mut parts = sql.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = part.split_at(digits);
        let place = number.parse::<usize>().unwrap_or(0);
        match place.checked_sub(1).and_then(|index| values.get(index)) {
            Some(Value::Text(value)) => {
                text.push('\'');
                text.extend(value.chars().filter(|c| !matches!(c, '\'' | '\\')));
                text.push('\'');
            }
            Some(Value::Bytes(bytes)) => {
                text.push_str("x'");
                for byte in *bytes {
                    let _ = write!(text, "{byte:02x}");
                }
                text.push('\'');
            }
            Some(Value::Int(value)) => {
                let _ = write!(text, "{value}");
            }
            None => text.push_str("NULL"),
        }
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_where_their_numbers_are() {
        let values = [Value::Int(7), Value::Text("it's"), Value::Bytes(&[0, 255])];
        assert_eq!(filled("a $1, $2, ($3) $1;", &values), "a 7, 'its', (x'00ff') 7;");
    }
}
