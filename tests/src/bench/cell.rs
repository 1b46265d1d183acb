//! One thing to be measured, and the order in which things are. Pure.

use std::fmt;

use serde::Serialize;

use super::args::Measures;
use crate::harness::Store;

/// What the orders are like, and where they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) store: Store,
    pub(crate) skus: u32,
    /// Of a hundred orders.
    pub(crate) refused: u32,
    pub(crate) coupons: bool,
}

/// When orders begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// Closed loop: when an earlier one of so many is done.
    InFlight(u32),
    /// Open loop: so many in each second.
    PerSecond(u32),
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Contender {
    /// This build.
    Ours,
    /// The older build.
    Against,
    /// The bare database. Its pace is the number of clients.
    Floor,
}

/// Who under what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) shape: Shape,
    pub(crate) pace: Pace,
    pub(crate) contender: Contender,
}

impl Shape {
    /// Whether the order with this number is one that is refused: evenly, as far as whole orders can be.
    pub(crate) fn refuses(self, number: u64) -> bool {
        let share = u64::from(self.refused);
        (number * share) % 100 < share && share > 0
    }
}

/// One repetition: the contenders take turns, so that whatever else the machine does strikes them alike.
pub(crate) fn plan(measures: &Measures, coupons: bool, against: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &store in &measures.stores {
        for &skus in &measures.skus {
            for &refused in &measures.refused {
                one_shape(Shape { store, skus, refused, coupons }, measures, against, &mut cells);
            }
        }
    }
    cells
}

fn one_shape(shape: Shape, measures: &Measures, against: bool, cells: &mut Vec<Cell>) {
    let in_flight = measures.in_flight.iter().copied().map(Pace::InFlight);
    let paces: Vec<Pace> = in_flight.chain(measures.rate.iter().copied().map(Pace::PerSecond)).collect();
    let floor: Vec<Pace> = measures.floor_clients.iter().copied().map(Pace::InFlight).collect();
    for turn in 0..paces.len().max(floor.len()) {
        let mut add = |pace: Option<&Pace>, contender| {
            cells.extend(pace.map(|pace| Cell { shape, pace: *pace, contender }));
        };
        add(paces.get(turn), Contender::Ours);
        add(floor.get(turn), Contender::Floor);
        if against {
            add(paces.get(turn), Contender::Against);
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skus = if self.skus == 1 { "one SKU".to_owned() } else { format!("{} SKUs", self.skus) };
        let coupons = if self.coupons { ", with coupons" } else { "" };
        match self.refused {
            0 => write!(f, "{}, {skus}, all confirmed{coupons}", self.store),
            refused => write!(f, "{}, {skus}, {refused} % refused{coupons}", self.store),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFlight(number) => write!(f, "{number}"),
            Self::PerSecond(rate) => write!(f, "{rate}/s"),
        }
    }
}

impl Contender {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Against => "against",
            Self::Floor => "floor",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measures() -> Measures {
        Measures {
            stores: vec![Store::Sqlite],
            in_flight: vec![1, 8],
            rate: vec![500],
            skus: vec![1_000],
            refused: vec![0, 20],
            floor_clients: vec![16],
            seconds: 1,
            repeat: 1,
        }
    }

    #[test]
    fn contenders_take_turns() {
        let turns = |against| -> Vec<String> {
            let cells = plan(&measures(), false, against);
            cells.iter().take(cells.len() / 2).map(|cell| format!("{} {}", cell.contender.name(), cell.pace)).collect()
        };
        assert_eq!(turns(false), ["ours 1", "floor 16", "ours 8", "ours 500/s"]);
        let with_older = ["ours 1", "floor 16", "against 1", "ours 8", "against 8", "ours 500/s", "against 500/s"];
        assert_eq!(turns(true), with_older);
    }

    #[test]
    fn of_a_hundred_orders_exactly_the_share_is_refused() {
        for refused in [0, 1, 20, 33, 100] {
            let shape = Shape { store: Store::Sqlite, skus: 1, refused, coupons: false };
            let counted = (0..1_000).filter(|number| shape.refuses(*number)).count();
            assert_eq!(counted, 10 * refused as usize);
        }
    }
}
