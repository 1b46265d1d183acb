//! The tables of the inventory participant's own data: stock and its receipts.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "inventory_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    crate::owned(sqlx::migrate!("./inventory/sqlite"), BOOKKEEPING_TABLE)
}

/// For PostgreSQL.
#[must_use]
pub fn postgres() -> Migrator {
    crate::owned(sqlx::migrate!("./inventory/postgres"), BOOKKEEPING_TABLE)
}

/// For MySQL and MariaDB.
#[must_use]
pub fn mysql() -> Migrator {
    crate::owned(sqlx::migrate!("./inventory/mysql"), BOOKKEEPING_TABLE)
}
