//! Medians over the repetitions, and the ratio to the floor. Pure.

use serde::Serialize;

use super::{
    cell::{Cell, Contender, Pace, Shape},
    figures::{Figures, Run, Spread},
};

/// All repetitions of one cell.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) cell: Cell,
    /// `None`: a run of it has no figure, so it has none.
    pub(crate) medians: Option<Medians>,
    /// The median of its orders per second over that of the floor's best.
    pub(crate) of_floor: Option<f64>,
    /// Why it has no figure.
    pub(crate) problems: Vec<String>,
}

/// Medians of each figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Medians {
    pub(crate) orders_per_second: Spread,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
    pub(crate) p999_us: Spread,
    pub(crate) commits_per_order: Option<Spread>,
    pub(crate) fsyncs_per_order: Option<Spread>,
    pub(crate) messages_per_order: Option<Spread>,
}

impl Medians {
    fn of(figures: &[Figures]) -> Option<Self> {
        let all = |pick: fn(&Figures) -> f64| Spread::of(figures.iter().map(pick));
        // Measured in every run, or not at all.
        let each =
            |pick: fn(&Figures) -> Option<f64>| figures.iter().map(pick).collect::<Option<Vec<f64>>>().and_then(Spread::of);
        Some(Self {
            orders_per_second: all(|one| one.orders_per_second)?,
            p50_us: all(|one| one.p50_us)?,
            p99_us: all(|one| one.p99_us)?,
            p999_us: all(|one| one.p999_us)?,
            commits_per_order: each(|one| one.commits_per_order),
            fsyncs_per_order: each(|one| one.fsyncs_per_order),
            messages_per_order: each(|one| one.messages_per_order),
        })
    }
}

/// One line for each cell, in the order in which the cells were first run.
pub(crate) fn summarize(runs: &[Run]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for run in runs {
        if lines.iter().all(|line| line.cell != run.cell) {
            lines.push(line(run.cell, runs));
        }
    }
    let best: Vec<Option<f64>> = lines.iter().map(|line| floor_of(line.cell.shape, &lines)).collect();
    for (line, best) in lines.iter_mut().zip(best) {
        line.of_floor = line.medians.zip(best).map(|(medians, best)| medians.orders_per_second.median / best);
    }
    lines
}

fn line(cell: Cell, runs: &[Run]) -> Line {
    let of_cell = runs.iter().filter(|run| run.cell == cell);
    let mut figures = Vec::new();
    let mut problems = Vec::new();
    for run in of_cell {
        match &run.outcome {
            Ok(found) => figures.push(*found),
            Err(broken) => problems.extend(broken.iter().map(|what| format!("repetition {}: {what}", run.repetition))),
        }
    }
    let medians = if problems.is_empty() { Medians::of(&figures) } else { None };
    Line { cell, medians, of_floor: None, problems }
}

/// The floor at the number of clients at which it is best.
fn floor_of(shape: Shape, lines: &[Line]) -> Option<f64> {
    let floors = lines.iter().filter(|line| line.cell.shape == shape && line.cell.contender == Contender::Floor);
    floors.filter_map(|line| line.medians.map(|medians| medians.orders_per_second.median)).max_by(f64::total_cmp)
}

/// One shape's lines, sorted for people: by contender, then by pace.
pub(crate) fn sorted(shape: Shape, lines: &[Line]) -> Vec<&Line> {
    let mut of_shape: Vec<&Line> = lines.iter().filter(|line| line.cell.shape == shape).collect();
    of_shape.sort_by_key(|line| {
        let pace = match line.cell.pace {
            Pace::InFlight(number) => (0, number),
            Pace::PerSecond(rate) => (1, rate),
        };
        (line.cell.contender as u8, pace)
    });
    of_shape
}

/// Each shape once, in order of appearance.
pub(crate) fn shapes(lines: &[Line]) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for line in lines {
        if !shapes.contains(&line.cell.shape) {
            shapes.push(line.cell.shape);
        }
    }
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Store;

    fn run(contender: Contender, number: u32, outcome: Result<f64, &str>) -> Run {
        let shape = Shape { store: Store::Sqlite, skus: 1, refused: 0, coupons: false };
        Run {
            cell: Cell { shape, pace: Pace::InFlight(number), contender },
            repetition: 1,
            machine_load: [0.0; 2],
            outcome: outcome
                .map(|orders_per_second| Figures { orders_per_second, ..Figures::default() })
                .map_err(|what| vec![what.to_owned()]),
        }
    }

    #[test]
    fn the_ratio_is_to_the_floors_best_client_count() {
        let floor = Contender::Floor;
        let runs =
            [run(floor, 1, Ok(10.0)), run(floor, 16, Ok(40.0)), run(floor, 64, Ok(30.0)), run(Contender::Ours, 8, Ok(80.0))];
        let lines = summarize(&runs);
        assert_eq!(lines.iter().map(|line| line.of_floor).collect::<Vec<_>>(), [Some(0.25), Some(1.0), Some(0.75), Some(2.0)]);
    }

    #[test]
    fn one_run_whose_books_do_not_balance_leaves_its_cell_without_a_figure() {
        let runs = [run(Contender::Ours, 8, Ok(80.0)), run(Contender::Ours, 8, Err("a piece is gone"))];
        let lines = summarize(&runs);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].medians.is_none());
        assert_eq!(lines[0].problems, ["repetition 1: a piece is gone"]);
        // Nor is a floor that does not balance anything to compare with.
        let runs = [run(Contender::Ours, 8, Ok(80.0)), run(Contender::Floor, 8, Err("a piece is gone"))];
        assert_eq!(summarize(&runs)[0].of_floor, None);
    }
}
