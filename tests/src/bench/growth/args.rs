//! What growth is measured with: the command line, and nothing else. It starts nothing; `growth::run` reads it.

use std::path::PathBuf;

use clap::Args;

use super::state::State;
use crate::harness::Store;

/// What one order costs on an empty system, and on one that is full of history, of held reservations, of stuck branches.
///
/// The same small load is put on each, on databases of its own that were filled in bulk. Rows, pages and instructions are counted
/// at a fixed rate of orders, and once more for as long without any order; what they differ by is divided by the orders, and both
/// are reported. The books are checked after each.
#[derive(Clone, Debug, Args)]
pub struct GrowthArgs {
    /// The databases to measure on, separated by commas.
    #[arg(long = "store", value_enum, value_delimiter = ',', default_value = "sqlite")]
    pub stores: Vec<Store>,
    /// What the systems are full of that are compared with an empty one, separated by commas.
    #[arg(long = "full-of", value_enum, value_delimiter = ',', default_values_t = [State::Finished, State::Held, State::Stuck])]
    pub states: Vec<State>,
    /// Shrinks everything: of 1,000,000 finished orders, 100,000 held ones and 10,000 stuck branches, and of the load.
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    pub scale: f64,
    /// Orders under way at any time, while time is measured.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub in_flight: u32,
    /// Orders of which rows, pages and time are counted.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub orders: u32,
    /// Orders in a second, evenly, while rows and pages are counted: so few that they seldom share a batch, since how many do is
    /// chance.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// Orders of which instructions are counted, and SQLite's rows and pages: under callgrind, which is slow. 0: none.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub counted_orders: u32,
    /// Of those, in a second.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub counted_rate: u32,
    /// What the processes log, in the language of `RUST_LOG`.
    #[arg(long, default_value = "warn")]
    pub log: String,
    /// Everything that was measured, as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if (0.000_1..=1.0).contains(&scale) { Ok(scale) } else { Err("must be 0.0001 to 1".to_owned()) }
}

impl GrowthArgs {
    /// So many of what there are so many of at full size; never none.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        ((full as f64 * self.scale).round() as u64).max(1)
    }

    /// Of which rows, pages and time are counted. Below a thousand, chance would be seen.
    pub(crate) fn load(&self) -> u64 {
        self.scaled(u64::from(self.orders)).max(1_000)
    }
}
