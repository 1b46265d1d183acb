//! What makes a process depend on nothing but its seed: what libraries draw by themselves (the order of hash maps, the runtime's choices,
//! jitter) and what they measure comes from the operating system, and there a small preloaded library stands in.

use std::process::Command;

use tcc_preload::Library;

const SOURCE: &str = include_str!("preload/world.c");
const SEED_VARIABLE: &str = "TCC_SIMULATION_SEED";

/// Builds the library.
///
/// # Errors
/// There is no C compiler, or this system knows no preloading.
pub(crate) fn build() -> anyhow::Result<Library> {
    tcc_preload::build(SOURCE)
}

/// Lets a process have the library, under this seed.
pub(crate) fn under(command: &mut Command, library: &Library, seed: u64) {
    command.env(tcc_preload::VARIABLE, library.preload()).env(SEED_VARIABLE, seed.to_string());
}
