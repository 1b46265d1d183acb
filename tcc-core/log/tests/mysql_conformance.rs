//! The conformance suite on MariaDB: with its usual batches, with one commit for each write, and its races between two
//! gateways on one database.

#![allow(clippy::unwrap_used, reason = "a test's helpers, too, fail by panicking")]

use std::sync::Arc;

use tcc_log::{
    DatabaseLog, LogOptions,
    conformance::{Made, pair::Pair},
};
use tcc_servers::{Kind, shared};
use tcc_types::SystemClock;

async fn log(database_url: &str, batch_max: usize) -> Arc<DatabaseLog> {
    let options = LogOptions { database_url: database_url.to_owned(), batch_max, ..LogOptions::default() };
    Arc::new(DatabaseLog::open(options, Arc::new(SystemClock)).await.unwrap())
}

/// Tells at the end how often the database gave up one gateway's transaction for the sake of the other's.
struct Conflicts([Arc<DatabaseLog>; 2]);

impl Drop for Conflicts {
    fn drop(&mut self) {
        println!("between the two gateways: {:?}", self.0.each_ref().map(|log| log.stats()));
    }
}

async fn make(batch_max: usize) -> Made {
    Made { log: log(&shared(Kind::Mysql).create_database(), batch_max).await, keep: Box::new(()) }
}

async fn make_pair(batch_max: usize) -> Made {
    let url = shared(Kind::Mysql).create_database();
    let (one, two) = (log(&url, batch_max).await, log(&url, batch_max).await);
    let pair = Pair::new(Arc::<DatabaseLog>::clone(&one), Arc::<DatabaseLog>::clone(&two));
    Made { log: Arc::new(pair), keep: Box::new(Conflicts([one, two])) }
}

mod batched {
    tcc_log::conformance_tests!(async || crate::make(512).await);
}

mod one_by_one {
    tcc_log::conformance_tests!(async || crate::make(1).await);
}

mod two_gateways {
    tcc_log::conformance_races!(async || crate::make_pair(512).await);
}
