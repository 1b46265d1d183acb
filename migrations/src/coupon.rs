//! The tables of the coupon participant's own data: coupons.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "coupon_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("./coupon/sqlite");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}

/// For PostgreSQL.
#[must_use]
pub fn postgres() -> Migrator {
    let mut migrator = sqlx::migrate!("./coupon/postgres");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}

/// For MySQL and MariaDB.
#[must_use]
pub fn mysql() -> Migrator {
    let mut migrator = sqlx::migrate!("./coupon/mysql");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}
