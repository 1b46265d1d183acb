//! Coupons on PostgreSQL, under READ COMMITTED: a guarded update that waited for another transaction checks its guard again.

#[cfg(test)]
mod tests;

use sqlx::{PgConnection, Postgres, migrate::Migrator};
use tcc_database::postgres_now;
use tcc_participant::Store;
use tcc_types::Gid;

use super::{Books, CouponRows, HeldRow, all_changed, in_order};
use crate::{Change, Claim, Coupon, CouponBooks, CouponDatabase, CouponStore, Held, Issued, NewCoupon, Seen};

/// Locks the rows in the order of their ids.
const HOLD: &str = concat!(
    "SELECT c.coupon_id, c.user_id, c.state, c.gid, c.discount_minor, c.expires_at <= ",
    postgres_now!(),
    " AS expired FROM unnest($1::text[]) AS v(coupon_id) JOIN coupons AS c ON c.coupon_id = v.coupon_id ",
    "ORDER BY c.coupon_id FOR UPDATE OF c"
);

/// Changes rows that are locked. Each is looked up by its id: a plain join could walk through all coupons for as long as the planner
/// takes the table for small.
const APPLY: &str = "UPDATE coupons AS c SET state = v.state, gid = v.gid \
     FROM unnest($1::text[], $2::bigint[], $3::text[]) AS v(coupon_id, state, gid) \
     WHERE c.coupon_id = ANY(ARRAY[v.coupon_id])";

impl CouponStore for CouponRows<'_, Postgres> {
    type Error = sqlx::Error;

    async fn lock(&mut self, claim: &Claim, gid: Gid) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(concat!(
            "UPDATE coupons SET state = 2, gid = $3 WHERE coupon_id = $1 AND user_id = $2 AND state = 1 AND expires_at > ",
            postgres_now!(),
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
            concat!("SELECT user_id, state, expires_at <= ", postgres_now!(), " AS expired FROM coupons WHERE coupon_id = $1",);
        sqlx::query_as(select).bind(coupon_id).fetch_optional(&mut *self.0).await
    }

    async fn spend(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, sqlx::Error> {
        let update = "UPDATE coupons SET state = 3 WHERE coupon_id = $1 AND state = 2 AND gid = $2";
        let done = sqlx::query(update).bind(coupon_id).bind(gid.to_string()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn release(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, sqlx::Error> {
        let update = "UPDATE coupons SET state = 1, gid = NULL WHERE coupon_id = $1 AND state = 2 AND gid = $2";
        let done = sqlx::query(update).bind(coupon_id).bind(gid.to_string()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn hold(&mut self, coupon_ids: &[&str]) -> Result<Vec<Option<Held>>, sqlx::Error> {
        let rows: Vec<HeldRow> = sqlx::query_as(HOLD).bind(coupon_ids).fetch_all(&mut *self.0).await?;
        Ok(in_order(coupon_ids, rows))
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), sqlx::Error> {
        let changed = sqlx::query(APPLY)
            .bind(changes.iter().map(|change| change.coupon_id).collect::<Vec<_>>())
            .bind(changes.iter().map(|change| change.state.code()).collect::<Vec<_>>())
            .bind(changes.iter().map(|change| change.gid.map(|gid| gid.to_string())).collect::<Vec<_>>())
            .execute(&mut *self.0)
            .await?;
        all_changed(changes, changed.rows_affected())
    }
}

impl Books<Postgres> {
    async fn issue_once(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        // Waits for another issue of the same id that has not committed yet; the look sees what stands.
        sqlx::query(
            "INSERT INTO coupons (coupon_id, user_id, discount_minor, expires_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (coupon_id) DO NOTHING",
        )
        .bind(&coupon.coupon_id)
        .bind(&coupon.user_id)
        .bind(coupon.discount_minor)
        .bind(coupon.expires_at.as_micros())
        .execute(&mut *transaction)
        .await?;
        let select = "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons WHERE coupon_id = $1";
        let stored: Coupon = sqlx::query_as(select).bind(&coupon.coupon_id).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(if stored.issued == *coupon { Issued::Done(stored) } else { Issued::OtherFields })
    }
}

impl CouponBooks for Books<Postgres> {
    async fn issue(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
        self.store.retrying(|| self.issue_once(coupon)).await
    }

    async fn get(&self, coupon_id: &str) -> Result<Option<Coupon>, sqlx::Error> {
        let select = "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons WHERE coupon_id = $1";
        sqlx::query_as(select).bind(coupon_id).fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, user_id: Option<&str>, after: Option<&str>, limit: u32) -> Result<Vec<Coupon>, sqlx::Error> {
        // No coupon_id is empty, so every one comes after "".
        let after = after.unwrap_or_default();
        let read = match user_id {
            Some(user_id) => sqlx::query_as(
                "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons \
                 WHERE coupon_id > $1 AND user_id = $3 ORDER BY coupon_id LIMIT $2",
            )
            .bind(after)
            .bind(i64::from(limit))
            .bind(user_id),
            None => sqlx::query_as(
                "SELECT coupon_id, user_id, discount_minor, expires_at, state, gid FROM coupons \
                 WHERE coupon_id > $1 ORDER BY coupon_id LIMIT $2",
            )
            .bind(after)
            .bind(i64::from(limit)),
        };
        read.fetch_all(self.store.read_pool()).await
    }
}

impl CouponDatabase for Postgres {
    type Coupons<'c> = CouponRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::coupon::postgres()
    }

    fn coupons(connection: &mut PgConnection) -> CouponRows<'_, Self> {
        CouponRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}
