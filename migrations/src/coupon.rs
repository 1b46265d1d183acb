//! The tables of the coupon participant's own data: coupons.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "coupon_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    crate::owned(sqlx::migrate!("./coupon/sqlite"), BOOKKEEPING_TABLE)
}

/// For PostgreSQL.
#[must_use]
pub fn postgres() -> Migrator {
    crate::owned(sqlx::migrate!("./coupon/postgres"), BOOKKEEPING_TABLE)
}

/// For MySQL and MariaDB.
#[must_use]
pub fn mysql() -> Migrator {
    crate::owned(sqlx::migrate!("./coupon/mysql"), BOOKKEEPING_TABLE)
}
