//! The participant SDK's own tables. They live beside the user's in the user's database, so their names begin with `tcc_`, and
//! their bookkeeping has a table of its own.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "tcc_participant_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("./participant/sqlite");
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}
