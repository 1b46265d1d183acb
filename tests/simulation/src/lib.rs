//! The whole system in one process under virtual time: gateways, participants and clients as they ship, on databases in memory and a
//! simulated network, with seeded faults. A seed decides everything; running it again does the same again.
//!
//! What is real: the coordinator with its state machine, driver, recovery, leases and retention; the log's writers; dispatch and its
//! batches; the participant SDK with its engine, barrier, sweeper and retention; inventory, coupon and the gateway's orders; tonic, its
//! connections and its services. What is simulated: time, the network below tonic, the databases below the backends' traits, randomness.
//!
//! [`run`] runs one seed, [`simulate`] many, each in a process of its own.

mod answers;
mod checks;
mod clients;
mod command;
mod coverage;
mod deliveries;
mod dice;
mod faults;
mod history;
mod hosts;
mod net;
mod operators;
mod past;
mod place;
mod preload;
mod run;
mod settings;
mod trace;
mod weather;
mod world;

pub use command::{SimulateArgs, child, simulate};
pub use dice::Dice;
pub use run::{Options, Report, run};
