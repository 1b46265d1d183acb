//! The tables of everything that has a database, as SQL files for each owner and each database, and the migrators that apply
//! them at start-up.
//!
//! Each owner keeps its bookkeeping in a table of its own, so that several owners (and a user's own migrations) can share one
//! database. Migrations that were released are never changed, only added to.

pub mod coupon;
pub mod inventory;
pub mod log;
pub mod orders;
pub mod participant;

use sqlx::migrate::Migrator;

/// An owner's migrations, with their bookkeeping in its own table. A database that has later ones is taken as it is: gateways of
/// the former version go on, and start again, while the next one is being rolled out.
fn owned(mut migrator: Migrator, bookkeeping_table: &'static str) -> Migrator {
    migrator.dangerous_set_table_name(bookkeeping_table);
    migrator.set_ignore_missing(true);
    migrator
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    #[tokio::test]
    async fn a_program_starts_on_a_database_that_a_later_version_has_migrated() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let migrator = crate::participant::sqlite();
        migrator.run_direct(None, &mut conn, false).await.unwrap();
        sqlx::query("INSERT INTO tcc_participant_migrations VALUES (9999, 'later', CURRENT_TIMESTAMP, TRUE, x'00', 1)")
            .execute(&mut conn)
            .await
            .unwrap();
        migrator.run_direct(None, &mut conn, false).await.unwrap();
    }
}
