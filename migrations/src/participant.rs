//! The participant SDK's own tables. They live beside the user's in the user's database, so their names begin with `tcc_`, and
//! their bookkeeping has a table of its own.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "tcc_participant_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    crate::owned(sqlx::migrate!("./participant/sqlite"), BOOKKEEPING_TABLE)
}

/// For PostgreSQL. Run it with `tcc_database::postgres::migrate`.
#[must_use]
pub fn postgres() -> Migrator {
    crate::owned(sqlx::migrate!("./participant/postgres"), BOOKKEEPING_TABLE)
}

/// For MySQL and MariaDB. Run it with `tcc_database::mysql::migrate`.
#[must_use]
pub fn mysql() -> Migrator {
    crate::owned(sqlx::migrate!("./participant/mysql"), BOOKKEEPING_TABLE)
}
