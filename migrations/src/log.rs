//! The transaction log's own tables.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "tcc_log_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("./log/sqlite");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}

/// For PostgreSQL.
#[must_use]
pub fn postgres() -> Migrator {
    let mut migrator = sqlx::migrate!("./log/postgres");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}
