//! Every conformance case on real SQLite files.

use sqlx::Sqlite;
use tcc_participant::{Options, Store};
use tempfile::TempDir;

async fn open() -> (Store<Sqlite>, TempDir) {
    let folder = TempDir::new().expect("a folder is made");
    let url = format!("sqlite://{}", folder.path().join("participant.db").display());
    (Store::open(&url, &Options::default()).await.expect("the database opens"), folder)
}

tcc_participant::conformance_tests!(open);

/// The same with operations in batches.
mod batched {
    use super::open;

    tcc_participant::conformance_tests!(batched open);
}
