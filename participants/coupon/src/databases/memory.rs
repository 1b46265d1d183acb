//! Coupons in memory, where one transaction writes at a time: nothing changes between two statements of it.

use sqlx::migrate::Migrator;
use tcc_participant::{
    Store,
    memory::{MemoryConnection, MemoryDatabase},
};
use tcc_types::Gid;

use super::{Books, CouponRows};
use crate::{
    Change, Claim, Coupon, CouponBooks, CouponDatabase, CouponState, CouponStore, Held, Issued, NewCoupon, Seen,
    memory::CouponTables,
};

type Db = MemoryDatabase<CouponTables>;

impl CouponStore for CouponRows<'_, Db> {
    type Error = sqlx::Error;

    async fn lock(&mut self, claim: &Claim, gid: Gid) -> Result<Option<i64>, sqlx::Error> {
        self.0.write(|tables, now| Ok(tables.coupons.lock(claim, gid, now)?)).await
    }

    async fn look(&mut self, coupon_id: &str) -> Result<Option<Seen>, sqlx::Error> {
        self.0.read(|tables, now| tables.coupons.look(coupon_id, now)).await
    }

    async fn spend(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, sqlx::Error> {
        self.0.write(|tables, _| Ok(tables.coupons.settle(coupon_id, gid, CouponState::Used)?)).await
    }

    async fn release(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, sqlx::Error> {
        self.0.write(|tables, _| Ok(tables.coupons.settle(coupon_id, gid, CouponState::Issued)?)).await
    }

    async fn hold(&mut self, coupon_ids: &[&str]) -> Result<Vec<Option<Held>>, sqlx::Error> {
        self.0.read(|tables, now| coupon_ids.iter().map(|id| tables.coupons.held(id, now)).collect()).await
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), sqlx::Error> {
        self.0
            .write(|tables, _| {
                for change in changes {
                    if !tables.coupons.apply(*change)? {
                        return Err(sqlx::Error::RowNotFound);
                    }
                }
                Ok(())
            })
            .await
    }
}

impl Books<Db> {
    async fn issue_once(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        transaction.write(|tables, _| Ok(tables.coupons.issue(coupon)?)).await?;
        let stored = transaction.read(|tables, _| tables.coupons.coupon(&coupon.coupon_id).cloned()).await?;
        transaction.commit().await?;
        let stored = stored.ok_or(sqlx::Error::RowNotFound)?;
        Ok(if stored.issued == *coupon { Issued::Done(stored) } else { Issued::OtherFields })
    }

    async fn read<R>(&self, read: impl FnOnce(&CouponTables) -> R + Send) -> Result<R, sqlx::Error> {
        self.store.read_pool().acquire().await?.read(|tables, _| read(tables)).await
    }
}

impl CouponBooks for Books<Db> {
    async fn issue(&self, coupon: &NewCoupon) -> Result<Issued, sqlx::Error> {
        self.store.retrying(|| self.issue_once(coupon)).await
    }

    async fn get(&self, coupon_id: &str) -> Result<Option<Coupon>, sqlx::Error> {
        self.read(|tables| tables.coupons.coupon(coupon_id).cloned()).await
    }

    async fn list(&self, user_id: Option<&str>, after: Option<&str>, limit: u32) -> Result<Vec<Coupon>, sqlx::Error> {
        // No coupon_id is empty, so every one comes after "".
        let after = after.unwrap_or_default();
        self.read(|tables| {
            let later = tables.coupons.coupons().skip_while(|row| row.issued.coupon_id.as_str() <= after);
            let wanted = later.filter(|row| user_id.is_none_or(|user_id| row.issued.user_id == user_id));
            wanted.take(limit as usize).cloned().collect()
        })
        .await
    }
}

impl CouponDatabase for Db {
    type Coupons<'c> = CouponRows<'c, Self>;
    type Books = Books<Self>;

    /// Its tables are there from the beginning.
    fn migrator() -> Migrator {
        Migrator::with_migrations(Vec::new())
    }

    fn coupons(connection: &mut MemoryConnection<CouponTables>) -> CouponRows<'_, Self> {
        CouponRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}
