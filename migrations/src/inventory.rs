//! The tables of the inventory participant's own data: stock and its receipts.

use sqlx::migrate::Migrator;

/// For SQLite. What was applied is kept in `inventory_migrations`.
#[must_use]
pub fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("./inventory/sqlite");
    migrator.dangerous_set_table_name("inventory_migrations");
    migrator
}
