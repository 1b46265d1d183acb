//! Every conformance case on a real PostgreSQL server.

use sqlx::Postgres;
use tcc_participant::{Options, Store};
use tcc_servers::Kind;

async fn open() -> (Store<Postgres>, ()) {
    let url = tcc_servers::shared(Kind::Postgres).create_database();
    (Store::open(&url, &Options::default()).await.expect("the database opens"), ())
}

tcc_participant::conformance_tests!(open);

/// The same with operations in batches.
mod batched {
    use super::open;

    tcc_participant::conformance_tests!(batched open);
}
