//! The transaction log's own tables.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "tcc_log_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    crate::owned(sqlx::migrate!("./log/sqlite"), BOOKKEEPING_TABLE)
}

/// For PostgreSQL.
#[must_use]
pub fn postgres() -> Migrator {
    crate::owned(sqlx::migrate!("./log/postgres"), BOOKKEEPING_TABLE)
}

/// For MySQL and MariaDB.
#[must_use]
pub fn mysql() -> Migrator {
    crate::owned(sqlx::migrate!("./log/mysql"), BOOKKEEPING_TABLE)
}
