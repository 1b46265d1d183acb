//! The integration-test cluster: starts the gateway and both participants as real processes, breaks them, measures them, and
//! checks that the books balance. The demo, `serve` and the tests all stand on [`harness`]. Nothing shipped depends on this crate.

pub mod bench;
pub mod chaos;
pub mod cli;
pub mod demo;
pub mod explain;
pub mod harness;
pub mod model;
mod mutants;
pub mod serve;
pub mod simulate;
pub mod stage;
pub mod store_args;
pub mod survive;
mod witness;
