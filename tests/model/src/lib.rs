//! The protocol under a model checker. The state machine ([`tcc_machine::Machine`]) and the barrier ([`tcc_barrier::steps`]) are the ones
//! that ship; the network, the crashes, the clock and the transaction log around them are a model of what the contract demands of them.
//!
//! A *configuration* says how much of everything there is: transactions, gateways, crashes, lost answers. The checker goes through
//! every order in which it can happen, and looks in each state whether the rules hold.
//!
//! What is modelled as more than can happen: a message that was sent may arrive at any time, any number of times, or never; a gateway may take
//! a transaction up at any time, whoever else drives it (leases carry no safety).

mod action;
mod configuration;
mod configurations;
mod driver;
mod fingerprint;
mod gateway;
mod heal;
mod log;
mod mark;
mod participant;
mod replay;
mod rules;
mod run;
mod state;
mod statements;
mod steps;
mod symmetry;
mod upkeep;
mod world;

pub use self::{
    configuration::{Bounds, Configuration, Kind, Planned, Time},
    configurations::all,
    mark::Mark,
    run::{Finding, Report, Symmetry, check, check_and_explain},
    statements::{Operation, Sees, Statements},
};

/// What the checker's own program exits with if a rule is broken: no other failure does.
pub const BROKEN: u8 = 42;
