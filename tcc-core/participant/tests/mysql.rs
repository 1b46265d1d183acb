//! Every conformance case on a real MariaDB server.

use sqlx::MySql;
use tcc_participant::{Options, Store};
use tcc_servers::Kind;

async fn open() -> (Store<MySql>, ()) {
    let url = tcc_servers::shared(Kind::Mysql).create_database();
    (Store::open(&url, &Options::default()).await.expect("the database opens"), ())
}

tcc_participant::conformance_tests!(open);

/// The same with operations in batches.
mod batched {
    use super::open;

    tcc_participant::conformance_tests!(batched open);
}
