//! The tables of the gateway's own data: orders.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "orders_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    crate::owned(sqlx::migrate!("./orders/sqlite"), BOOKKEEPING_TABLE)
}

/// For PostgreSQL.
#[must_use]
pub fn postgres() -> Migrator {
    crate::owned(sqlx::migrate!("./orders/postgres"), BOOKKEEPING_TABLE)
}

/// For MySQL and MariaDB.
#[must_use]
pub fn mysql() -> Migrator {
    crate::owned(sqlx::migrate!("./orders/mysql"), BOOKKEEPING_TABLE)
}
