//! The tables of the inventory participant's own data: stock and its receipts.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "inventory_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("./inventory/sqlite");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}

/// For PostgreSQL.
#[must_use]
pub fn postgres() -> Migrator {
    let mut migrator = sqlx::migrate!("./inventory/postgres");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}

/// For MySQL and MariaDB.
#[must_use]
pub fn mysql() -> Migrator {
    let mut migrator = sqlx::migrate!("./inventory/mysql");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}
