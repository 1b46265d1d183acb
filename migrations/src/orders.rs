//! The tables of the gateway's own data: orders.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "orders_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("./orders/sqlite");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}

/// For PostgreSQL.
#[must_use]
pub fn postgres() -> Migrator {
    let mut migrator = sqlx::migrate!("./orders/postgres");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}

/// For MySQL and MariaDB.
#[must_use]
pub fn mysql() -> Migrator {
    let mut migrator = sqlx::migrate!("./orders/mysql");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}
