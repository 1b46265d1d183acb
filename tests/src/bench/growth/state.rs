//! What a system is full of when it is measured.

use std::fmt;

use serde::Serialize;

/// Each is measured on databases of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing but stock.
    Empty,
    /// Orders that ended long ago.
    Finished,
    /// Orders that wait for their payment, and keep their reservations.
    Held,
    /// Decided transactions with a branch at a participant that never answers.
    Stuck,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Empty, Self::Finished, Self::Held, Self::Stuck];

    /// So many at full size.
    pub(crate) const fn full(self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Finished => 1_000_000,
            Self::Held => 100_000,
            Self::Stuck => 10_000,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Finished => "finished orders",
            Self::Held => "held reservations",
            Self::Stuck => "stuck branches",
        })
    }
}
