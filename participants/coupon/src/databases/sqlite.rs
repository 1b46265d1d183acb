//! Coupons on SQLite, where one connection writes and nothing changes between two statements of a transaction.

#[cfg(test)]
mod tests;

use sqlx::{FromRow, Sqlite, SqliteConnection, migrate::Migrator};
use tcc_database::{sqlite::lists::ManyRows, sqlite_given, sqlite_now};
use tcc_participant::Store;
use tcc_types::Gid;

use super::{Books, CouponRows, HeldRow, all_changed, in_order};
use crate::{Change, Claim, Coupon, CouponBooks, CouponDatabase, CouponStore, Held, Issued, NewCoupon, Seen};

/// Reads rows, which only this transaction can change. `CROSS JOIN` is SQLite's word for this order of the loops.
const HOLD: ManyRows = ManyRows {
    head: concat!(
        "SELECT c.coupon_id, c.user_id, c.state, c.gid, c.discount_minor, c.expires_at <= ",
        sqlite_now!(),
        " AS expired FROM (VALUES "
    ),
    width: 1,
    tail: concat!(") AS v CROSS JOIN coupons AS c ON c.coupon_id = v.column1 WHERE ", sqlite_given!()),
};

/// Changes rows that are there.
const APPLY: ManyRows = ManyRows {
    head: "UPDATE OR FAIL coupons SET state = v.column2, gid = v.column3 FROM (VALUES ",
    width: 3,
    tail: concat!(") AS v WHERE ", sqlite_given!(), " AND coupons.coupon_id = v.column1"),
};

impl CouponStore for CouponRows<'_, Sqlite> {
    type Error = sqlx::Error;

    async fn lock(&mut self, claim: &Claim, gid: Gid) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(concat!(
            "UPDATE coupons SET state = 2, gid = ?3 WHERE coupon_id = ?1 AND user_id = ?2 AND state = 1 AND expires_at > ",
            sqlite_now!(),
            " RETURNING discount_minor",
        ))
        .bind(claim.coupon_id())
        .bind(claim.user_id())
        .bind(gid.to_string())
        .fetch_optional(&mut *self.0)
        .await
    }

    async fn look(&mut self, coupon_id: &str) -> Result<Option<Seen>, sqlx::Error> {
        let select =
            concat!("SELECT user_id, state, expires_at <= ", sqlite_now!(), " AS expired FROM coupons WHERE coupon_id = ?1");
        sqlx::query_as(select).bind(coupon_id).fetch_optional(&mut *self.0).await
    }

    async fn spend(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, sqlx::Error> {
        let update = "UPDATE coupons SET state = 3 WHERE coupon_id = ?1 AND state = 2 AND gid = ?2";
        let done = sqlx::query(update).bind(coupon_id).bind(gid.to_string()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn release(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, sqlx::Error> {
        let update = "UPDATE coupons SET state = 1, gid = NULL WHERE coupon_id = ?1 AND state = 2 AND gid = ?2";
        let done = sqlx::query(update).bind(coupon_id).bind(gid.to_string()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn hold(&mut self, coupon_ids: &[&str]) -> Result<Vec<Option<Held>>, sqlx::Error> {
        let rows = HOLD
            .fetch(self.0, &[], coupon_ids, |values, id| {
                values.put(*id);
            })
            .await?;
        let rows = rows.iter().map(HeldRow::from_row).collect::<Result<_, _>>()?;
        Ok(in_order(coupon_ids, rows))
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), sqlx::Error> {
        let changed = APPLY
            .execute(self.0, &[], changes, |values, change| {
                values.put(change.coupon_id).put(change.state.code()).put(change.gid.map(|gid| gid.to_string()));
            })
            .await?;
        all_changed(changes, changed)
    }
}

impl Books<Sqlite> {
    async fn issue_once(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        sqlx::query(
            "INSERT INTO coupons (coupon_id, user_id, discount_minor, expires_at) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (coupon_id) DO NOTHING",
        )
        .bind(&coupon.coupon_id)
        .bind(&coupon.user_id)
        .bind(coupon.discount_minor)
        .bind(coupon.expires_at.as_micros())
        .execute(&mut *transaction)
        .await?;
        let select = "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons WHERE coupon_id = ?1";
        let stored: Coupon = sqlx::query_as(select).bind(&coupon.coupon_id).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(if stored.issued == *coupon { Issued::Done(stored) } else { Issued::OtherFields })
    }
}

impl CouponBooks for Books<Sqlite> {
    async fn issue(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
        self.store.retrying(|| self.issue_once(coupon)).await
    }

    async fn get(&self, coupon_id: &str) -> Result<Option<Coupon>, sqlx::Error> {
        let select = "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons WHERE coupon_id = ?1";
        sqlx::query_as(select).bind(coupon_id).fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, user_id: Option<&str>, after: Option<&str>, limit: u32) -> Result<Vec<Coupon>, sqlx::Error> {
        // No coupon_id is empty, so every one comes after "".
        let after = after.unwrap_or_default();
        let read = match user_id {
            Some(user_id) => sqlx::query_as(
                "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons \
                 WHERE coupon_id > ?1 AND user_id = ?3 ORDER BY coupon_id LIMIT ?2",
            )
            .bind(after)
            .bind(limit)
            .bind(user_id),
            None => sqlx::query_as(
                "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons \
                 WHERE coupon_id > ?1 ORDER BY coupon_id LIMIT ?2",
            )
            .bind(after)
            .bind(limit),
        };
        read.fetch_all(self.store.read_pool()).await
    }
}

impl CouponDatabase for Sqlite {
    type Coupons<'c> = CouponRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::coupon::sqlite()
    }

    fn coupons(connection: &mut SqliteConnection) -> CouponRows<'_, Self> {
        CouponRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}
