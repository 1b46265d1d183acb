//! The protocol under a model checker. The state machine ([`tcc_machine::Machine`]), what GetOutcome answers ([`tcc_machine::outcome_of`]), the
//! barrier ([`tcc_barrier::steps`]) and the rule of deletion ([`tcc_barrier::judge_deletion`]) are the ones that ship; the network, the crashes,
//! the clocks, the transaction log and the databases around them are a model of what the contract demands of them.
//!
//! A *configuration* says how much of everything there is: transactions, gateways, crashes, lost answers, lost rows. The checker goes through
//! every order in which it can happen, and looks in each state whether the rules hold. What a configuration is there to show must have been
//! seen to happen ([`Mark`]).
//!
//! What is modelled as more than can happen: a message that was sent may arrive at any time, any number of times, or never; a gateway may take
//! a transaction up at any time, whoever else drives it (leases carry no safety); what a participant was told by the coordinator that it asked,
//! it may act on at any time, any number of times; every row may be looked at by retention at any time.
//!
//! In these configurations a write in the log and an operation at a participant are one step each. Others ([`Statements`]) take the barrier apart:
//! each statement of each operation is a step, on one branch's row at READ COMMITTED.
//!
//! Explored depth first, so that little waits to be explored; what is found is then looked for breadth first, for the shortest way there.

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
