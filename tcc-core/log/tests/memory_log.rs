//! The log on a database in memory: the conformance suite, alone and as two gateways, and what is special to it: weather, crashes,
//! and that nothing in it depends on chance.

#![allow(clippy::unwrap_used, reason = "a test's helpers, too, fail by panicking")]

mod memory;

use std::sync::Arc;

use tcc_database::memory::{Calm, Memory};
use tcc_log::{
    DatabaseLog, LogOptions, LogTables, TxLog,
    conformance::{Made, pair::Pair},
};
use tcc_types::SystemClock;

fn log(database: &Memory<LogTables>, batch_max: usize, shared: bool) -> Arc<dyn TxLog> {
    let options = LogOptions { batch_max, ..LogOptions::default() };
    Arc::new(DatabaseLog::in_memory(options, database.clone(), Arc::new(Calm), Arc::new(SystemClock), shared).unwrap())
}

fn database() -> Memory<LogTables> {
    Memory::new(LogTables::new(LogOptions::default().name))
}

fn make(batch_max: usize, shared: bool) -> Made {
    Made { log: log(&database(), batch_max, shared), keep: Box::new(()) }
}

mod batched {
    tcc_log::conformance_tests!(async || crate::make(512, false));
}

mod one_by_one {
    tcc_log::conformance_tests!(async || crate::make(1, false));
}

mod shared {
    tcc_log::conformance_tests!(async || crate::make(512, true));
}

mod two_gateways {
    use super::*;

    tcc_log::conformance_races!(async || {
        let database = database();
        Made { log: Arc::new(Pair::new(log(&database, 512, true), log(&database, 512, true))), keep: Box::new(()) }
    });
}
