//! The conformance suite on SQLite: with its usual batches, and with one commit for each write.

#![allow(clippy::unwrap_used, reason = "a test's helpers, too, fail by panicking")]

use std::sync::Arc;

use tcc_log::{DatabaseLog, LogOptions, conformance::Made};
use tcc_types::SystemClock;

async fn make(batch_max: usize) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let database_url = format!("sqlite://{}", folder.path().join("log.db").display());
    let options = LogOptions { database_url, batch_max, ..LogOptions::default() };
    let log = DatabaseLog::open(options, Arc::new(SystemClock)).await.unwrap();
    Made { log: Arc::new(log), keep: Box::new(folder) }
}

mod batched {
    tcc_log::conformance_tests!(async || crate::make(512).await);
}

mod one_by_one {
    tcc_log::conformance_tests!(async || crate::make(1).await);
}
