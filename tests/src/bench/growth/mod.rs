//! `tcc-cluster bench growth`: what one order costs on an empty system, and on one that is full of history, of held reservations or
//! of stuck branches. Each state has a system and databases of its own.

mod args;
mod books;
mod cost;
mod database;
mod depth;
mod fill;
mod instructions;
mod measure;
mod memory;
mod report;
mod silent;
mod sql;
mod state;
mod system;
mod touched;

use std::process::ExitCode;

use anyhow::Context;

pub use self::args::GrowthArgs;
use self::{measure::measure, state::State};
use super::machine::Machine;

/// Measures every state on every store, and prints what it found. It fails if the books of any do not balance.
///
/// # Errors
/// A system does not start, or a database cannot be filled or asked.
pub(crate) async fn run(args: &GrowthArgs) -> anyhow::Result<ExitCode> {
    let binary = std::env::current_exe().context("where this binary is")?;
    let machine = Machine::look();
    let mut found = Vec::new();
    for &store in &args.stores {
        for state in State::ALL.into_iter().filter(|state| *state == State::Empty || args.states.contains(state)) {
            let one = measure(args, store, state, &binary).await.with_context(|| format!("{state} on {store}"))?;
            eprintln!("{store}, {state}: filled in {:.0} s, {:.0} orders/s", one.fill_seconds, one.orders_per_second);
            found.push(one);
            // After each: a full run takes long, and what was measured is not lost with what comes after it.
            if let Some(file) = &args.json {
                report::write_json(file, &machine, &found)?;
            }
        }
    }
    println!("{}", report::text(args, &machine, &found));
    let balanced = found.iter().all(|one| one.problems.is_empty());
    Ok(if balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
