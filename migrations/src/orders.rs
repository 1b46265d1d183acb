//! The tables of the gateway's own data: orders.

use sqlx::migrate::Migrator;

/// For SQLite. What was applied is kept in `orders_migrations`.
#[must_use]
pub fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("./orders/sqlite");
    migrator.dangerous_set_table_name("orders_migrations");
    migrator
}
