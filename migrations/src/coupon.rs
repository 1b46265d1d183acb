//! The tables of the coupon participant's own data: coupons.

use sqlx::migrate::Migrator;

/// For SQLite. What was applied is kept in `coupon_migrations`.
#[must_use]
pub fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("./coupon/sqlite");
    migrator.dangerous_set_table_name("coupon_migrations");
    migrator
}
