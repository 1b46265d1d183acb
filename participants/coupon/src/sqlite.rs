//! Coupons on SQLite: the statements, and nothing that decides.

use sqlx::{FromRow, Row, Sqlite, SqliteConnection, migrate::Migrator, sqlite::SqliteRow};
use tcc_migrations::sqlite_now;
use tcc_participant::Store;
use tcc_types::{Gid, Timestamp};

use crate::{Claim, Coupon, CouponBooks, CouponDatabase, CouponState, CouponStore, Issued, NewCoupon, Seen};

/// The coupon rows inside a local transaction that somebody else owns.
pub struct SqliteCoupons<'c>(pub &'c mut SqliteConnection);

impl CouponStore for SqliteCoupons<'_> {
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
        let row = sqlx::query(concat!(
            "SELECT user_id, state, expires_at <= ",
            sqlite_now!(),
            " AS expired FROM coupons WHERE coupon_id = ?1",
        ))
        .bind(coupon_id)
        .fetch_optional(&mut *self.0)
        .await?;
        row.map(|row| Ok(Seen { user_id: row.try_get("user_id")?, state: state(&row)?, expired: row.try_get("expired")? }))
            .transpose()
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
}

/// The coupons of one SQLite database.
#[derive(Clone, Debug)]
pub struct SqliteBooks {
    store: Store<Sqlite>,
}

impl SqliteBooks {
    /// Over a database that has the tables of `tcc_migrations::coupon`.
    #[must_use]
    pub fn new(store: Store<Sqlite>) -> Self {
        Self { store }
    }
}

impl CouponBooks for SqliteBooks {
    async fn issue(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
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

impl<'r> FromRow<'r, SqliteRow> for Coupon {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let gid: Option<String> = row.try_get("gid")?;
        let gid = gid.map(|gid| gid.parse()).transpose().map_err(|bad| decode_error("gid", bad))?;
        let issued = NewCoupon {
            coupon_id: row.try_get("coupon_id")?,
            user_id: row.try_get("user_id")?,
            discount_minor: row.try_get("discount_minor")?,
            expires_at: Timestamp::from_micros(row.try_get("expires_at")?),
        };
        Ok(Self { issued, state: state(row)?, gid })
    }
}

fn state(row: &SqliteRow) -> Result<CouponState, sqlx::Error> {
    let code: i64 = row.try_get("state")?;
    CouponState::from_code(code).ok_or_else(|| decode_error("state", format!("{code} is no state of a coupon")))
}

fn decode_error(column: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: source.into() }
}

impl CouponDatabase for Sqlite {
    type Coupons<'c> = SqliteCoupons<'c>;
    type Books = SqliteBooks;

    fn migrator() -> Migrator {
        tcc_migrations::coupon::sqlite()
    }

    fn coupons(connection: &mut SqliteConnection) -> SqliteCoupons<'_> {
        SqliteCoupons(connection)
    }

    fn books(store: Store<Self>) -> SqliteBooks {
        SqliteBooks::new(store)
    }
}
