//! The participant SDK's own tables. They live beside the user's in the user's database, so their names begin with `tcc_`, and
//! their bookkeeping has a table of its own.

use sqlx::migrate::Migrator;

/// Where it is recorded which of these migrations a database has.
pub const BOOKKEEPING_TABLE: &str = "tcc_participant_migrations";

/// For SQLite.
#[must_use]
pub fn sqlite() -> Migrator {
    keeping_books(sqlx::migrate!("./participant/sqlite"))
}

/// For PostgreSQL. Run it with [`postgres::migrate`](crate::postgres::migrate).
#[must_use]
pub fn postgres() -> Migrator {
    keeping_books(sqlx::migrate!("./participant/postgres"))
}

/// For MySQL and MariaDB. Run it with [`mysql::migrate`](crate::mysql::migrate).
#[must_use]
pub fn mysql() -> Migrator {
    keeping_books(sqlx::migrate!("./participant/mysql"))
}

fn keeping_books(mut migrator: Migrator) -> Migrator {
    migrator.dangerous_set_table_name(BOOKKEEPING_TABLE);
    migrator
}
