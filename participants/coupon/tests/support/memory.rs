//! The database in memory for the tests that run on every database: the few statements with which they go around the framework.

use std::sync::Arc;

use tcc_coupon::{Coupon, CouponState, memory::CouponTable};
use tcc_participant::{
    Options, Store,
    memory::{Calm, MemoryError},
};
use tcc_types::{Gid, SystemClock, Timestamp};

use super::{Fresh, InMemory, TestDatabase};

impl TestDatabase for InMemory {
    fn fresh() -> Fresh {
        Fresh::at(String::new())
    }

    async fn opened(fresh: &Fresh, options: &Options) -> Store<Self> {
        Store::in_memory(fresh.memory.clone(), Arc::new(Calm), Arc::new(SystemClock), options).unwrap()
    }

    async fn execute(store: &Store<Self>, statement: String) -> Result<(), sqlx::Error> {
        let mut transaction = store.begin().await?;
        transaction.write(|tables, _| Ok(update(&mut tables.coupons, &statement)?)).await?;
        transaction.commit().await
    }
}

/// `UPDATE coupons SET state = 1, gid = NULL WHERE coupon_id = 'c1'`; any text is some gid.
fn update(coupons: &mut CouponTable, statement: &str) -> Result<(), MemoryError> {
    let set = statement.strip_prefix("UPDATE coupons SET ").unwrap();
    let (set, wanted) = set.split_once(" WHERE coupon_id = ").unwrap_or((set, ""));
    let wanted = wanted.trim_matches('\'');
    let ids: Vec<_> = coupons.coupons().map(|coupon| coupon.issued.coupon_id.clone()).collect();
    for id in ids.iter().filter(|id| wanted.is_empty() || *id == wanted) {
        let mut changed = coupons.coupon(id).unwrap().clone();
        for (name, value) in set.split(", ").map(|set| set.split_once(" = ").unwrap()) {
            put(&mut changed, name, value)?;
        }
        coupons.change(id, |coupon| *coupon = changed)?;
    }
    Ok(())
}

fn put(coupon: &mut Coupon, name: &str, value: &str) -> Result<(), MemoryError> {
    match name {
        "state" => coupon.state = CouponState::from_code(value.parse().unwrap()).ok_or(MemoryError::Check)?,
        "gid" => coupon.gid = (value != "NULL").then(|| Gid::first_of(Timestamp::EPOCH)),
        "discount_minor" => coupon.issued.discount_minor = value.parse().unwrap(),
        "expires_at" => coupon.issued.expires_at = Timestamp::from_micros(value.parse().unwrap()),
        _ => panic!("no column {name}"),
    }
    Ok(())
}
