//! Coupons on MySQL and MariaDB, under READ COMMITTED. The client counts the rows that an update found, not those that it changed:
//! the guards are in the `WHERE`, so that both are the same.

#[cfg(test)]
mod tests;

use serde::Serialize;
use sqlx::{MySql, MySqlConnection, migrate::Migrator};
use tcc_database::{mysql::lists::lists, mysql_list, mysql_now};
use tcc_participant::Store;
use tcc_types::Gid;

use super::{Books, CouponRows, HeldRow, all_changed, in_order};
use crate::{Change, Claim, Coupon, CouponBooks, CouponDatabase, CouponStore, Held, Issued, NewCoupon, Seen};

/// The row `c` of each coupon of a list, in the list's order and never in another way.
macro_rules! coupon_of_list {
    () => {
        " STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY) ON c.coupon_id = v.coupon_id "
    };
}

/// Locks rows in the order of the list.
const HOLD: &str = concat!(
    "SELECT c.coupon_id, c.user_id, c.state, c.gid, c.discount_minor, c.expires_at <= ",
    mysql_now!(),
    " AS expired FROM ",
    mysql_list!(coupon_id id),
    coupon_of_list!(),
    "FOR UPDATE"
);

/// Changes rows that are locked.
const APPLY: &str =
    concat!("UPDATE ", mysql_list!(coupon_id id, state int, gid id), coupon_of_list!(), "SET c.state = v.state, c.gid = v.gid");

fn row_lists<T: Serialize>(rows: impl Iterator<Item = T>) -> Result<Vec<String>, sqlx::Error> {
    lists(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn id_lists(coupon_ids: &[&str]) -> Result<Vec<String>, sqlx::Error> {
    row_lists(coupon_ids.iter().map(|coupon_id| (coupon_id,)))
}

fn change_lists(changes: &[Change<'_>]) -> Result<Vec<String>, sqlx::Error> {
    row_lists(changes.iter().map(|change| (change.coupon_id, change.state.code(), change.gid.map(|gid| gid.to_string()))))
}

impl CouponStore for CouponRows<'_, MySql> {
    type Error = sqlx::Error;

    async fn lock(&mut self, claim: &Claim, gid: Gid) -> Result<Option<i64>, sqlx::Error> {
        let locked = sqlx::query(concat!(
            "UPDATE coupons SET state = 2, gid = ? WHERE coupon_id = ? AND user_id = ? AND state = 1 AND expires_at > ",
            mysql_now!(),
        ))
        .bind(gid.to_string())
        .bind(claim.coupon_id())
        .bind(claim.user_id())
        .execute(&mut *self.0)
        .await?;
        if locked.rows_affected() == 0 {
            return Ok(None);
        }
        // It never changes, and nobody else can touch the row now.
        let select = "SELECT discount_minor FROM coupons WHERE coupon_id = ?";
        sqlx::query_scalar(select).bind(claim.coupon_id()).fetch_one(&mut *self.0).await.map(Some)
    }

    async fn look(&mut self, coupon_id: &str) -> Result<Option<Seen>, sqlx::Error> {
        let select =
            concat!("SELECT user_id, state, expires_at <= ", mysql_now!(), " AS expired FROM coupons WHERE coupon_id = ?",);
        sqlx::query_as(select).bind(coupon_id).fetch_optional(&mut *self.0).await
    }

    async fn spend(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, sqlx::Error> {
        let update = "UPDATE coupons SET state = 3 WHERE coupon_id = ? AND state = 2 AND gid = ?";
        let done = sqlx::query(update).bind(coupon_id).bind(gid.to_string()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn release(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, sqlx::Error> {
        let update = "UPDATE coupons SET state = 1, gid = NULL WHERE coupon_id = ? AND state = 2 AND gid = ?";
        let done = sqlx::query(update).bind(coupon_id).bind(gid.to_string()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn hold(&mut self, coupon_ids: &[&str]) -> Result<Vec<Option<Held>>, sqlx::Error> {
        let mut rows: Vec<HeldRow> = Vec::with_capacity(coupon_ids.len());
        for list in id_lists(coupon_ids)? {
            rows.extend(sqlx::query_as(HOLD).bind(list).fetch_all(&mut *self.0).await?);
        }
        Ok(in_order(coupon_ids, rows))
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), sqlx::Error> {
        let mut changed = 0;
        for list in change_lists(changes)? {
            changed += sqlx::query(APPLY).bind(list).execute(&mut *self.0).await?.rows_affected();
        }
        all_changed(changes, changed)
    }
}

impl Books<MySql> {
    async fn issue_once(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        // Waits for another issue of the same id that has not committed yet; the look sees what stands.
        sqlx::query(
            "INSERT INTO coupons (coupon_id, user_id, discount_minor, expires_at) VALUES (?, ?, ?, ?) \
             ON DUPLICATE KEY UPDATE coupon_id = coupon_id",
        )
        .bind(&coupon.coupon_id)
        .bind(&coupon.user_id)
        .bind(coupon.discount_minor)
        .bind(coupon.expires_at.as_micros())
        .execute(&mut *transaction)
        .await?;
        let select = "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons WHERE coupon_id = ?";
        let stored: Coupon = sqlx::query_as(select).bind(&coupon.coupon_id).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(if stored.issued == *coupon { Issued::Done(stored) } else { Issued::OtherFields })
    }
}

impl CouponBooks for Books<MySql> {
    async fn issue(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
        self.store.retrying(|| self.issue_once(coupon)).await
    }

    async fn get(&self, coupon_id: &str) -> Result<Option<Coupon>, sqlx::Error> {
        let select = "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons WHERE coupon_id = ?";
        sqlx::query_as(select).bind(coupon_id).fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, user_id: Option<&str>, after: Option<&str>, limit: u32) -> Result<Vec<Coupon>, sqlx::Error> {
        // No coupon_id is empty, so every one comes after "".
        let after = after.unwrap_or_default();
        let read = match user_id {
            Some(user_id) => sqlx::query_as(
                "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons \
                 WHERE user_id = ? AND coupon_id > ? ORDER BY coupon_id LIMIT ?",
            )
            .bind(user_id)
            .bind(after)
            .bind(i64::from(limit)),
            None => sqlx::query_as(
                "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons \
                 WHERE coupon_id > ? ORDER BY coupon_id LIMIT ?",
            )
            .bind(after)
            .bind(i64::from(limit)),
        };
        read.fetch_all(self.store.read_pool()).await
    }
}

impl CouponDatabase for MySql {
    type Coupons<'c> = CouponRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::coupon::mysql()
    }

    fn coupons(connection: &mut MySqlConnection) -> CouponRows<'_, Self> {
        CouponRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}
