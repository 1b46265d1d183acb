//! What was found, as tables for people and as JSON for programs.

use std::{fmt::Write, path::Path};

use anyhow::Context;
use serde_json::{Value, json};

use super::{
    args::Measures,
    cell::{Cell, Contender},
    figures::{Run, Spread},
    machine::Machine,
    summary::{Line, shapes, sorted},
};
use crate::cli::{align_right, table};

/// Everything.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Versions and how they sync, one for each store.
    pub(crate) databases: Vec<String>,
    pub(crate) measures: Measures,
    pub(crate) fsync_delay_us: u32,
    /// Why fsyncs were not counted, if they were not.
    pub(crate) fsyncs_not_counted: Option<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) runs: Vec<Run>,
}

const HEADER: [&str; 10] =
    ["", "in flight", "orders/s (min-max)", "x floor", "p50 ms", "p99 ms", "p99.9 ms", "commits", "fsyncs", "messages"];
const NOT_MEASURED: &str = "-";
/// Sentences that are printed for one line; the JSON has all.
const PROBLEMS_PRINTED_MAX: usize = 5;

impl Report {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for shape in shapes(&self.lines) {
            let mut table = table(&HEADER);
            for line in sorted(shape, &self.lines) {
                table.add_row(cells(line));
            }
            align_right(&mut table, 1..HEADER.len());
            let _ = writeln!(text, "\n{shape}\n{table}");
        }
        text.push_str(&self.circumstances());
        for line in self.lines.iter().filter(|line| !line.problems.is_empty()) {
            for problem in line.problems.iter().take(PROBLEMS_PRINTED_MAX) {
                let _ = writeln!(text, "no figure: {}: {problem}", name(line.cell));
            }
        }
        text
    }

    fn circumstances(&self) -> String {
        let Machine { cores, kernel, filesystem } = &self.machine;
        let loads = self.runs.iter().flat_map(|run| run.machine_load);
        let (low, high) = loads.fold((f64::INFINITY, 0.0_f64), |(low, high), load| (low.min(load), high.max(load)));
        let Measures { seconds, repeat, .. } = self.measures;
        let mut text = format!(
            "\n{cores} cores, Linux {kernel}, {filesystem}; load average {low:.1} to {high:.1} before and after runs; {seconds} s \
             measured, {repeat} runs of each, medians.\n"
        );
        for database in &self.databases {
            let _ = writeln!(text, "{database}");
        }
        if self.fsync_delay_us > 0 {
            let _ = writeln!(text, "every fsync took {} us longer", self.fsync_delay_us);
        }
        if let Some(reason) = &self.fsyncs_not_counted {
            let _ = writeln!(text, "fsyncs were not measured: {reason}");
        }
        text.push_str(
            "commits, fsyncs and messages are per order; - is not measured. The floor's clients are its number in flight, and its best \
             is what others are compared with.\n",
        );
        text
    }

    /// For programs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_json(&self, file: &Path) -> anyhow::Result<()> {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                let mut value = of_cell(line.cell);
                value["medians"] = json!(line.medians);
                value["times_floor"] = json!(line.of_floor);
                value["problems"] = json!(line.problems);
                value
            })
            .collect();
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| {
                let mut value = of_cell(run.cell);
                value["repetition"] = json!(run.repetition);
                value["load_average"] = json!({ "before": run.machine_load[0], "after": run.machine_load[1] });
                match &run.outcome {
                    Ok(figures) => value["figures"] = json!(figures),
                    Err(problems) => value["problems"] = json!(problems),
                }
                value
            })
            .collect();
        let all = json!({
            "machine": self.machine,
            "databases": self.databases,
            "seconds": self.measures.seconds,
            "repeat": self.measures.repeat,
            "fsync_delay_us": self.fsync_delay_us,
            "fsyncs_not_counted": self.fsyncs_not_counted,
            "cells": lines,
            "runs": runs,
        });
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// As it is called in sentences.
pub(crate) fn name(cell: Cell) -> String {
    format!("{}, {}, {} in flight", cell.shape, cell.contender.name(), cell.pace)
}

fn of_cell(cell: Cell) -> Value {
    json!({
        "store": cell.shape.store.to_string(),
        "skus": cell.shape.skus,
        "refused_percent": cell.shape.refused,
        "coupons": cell.shape.coupons,
        "contender": cell.contender,
        "pace": cell.pace,
    })
}

fn cells(line: &Line) -> Vec<String> {
    let mut cells = vec![line.cell.contender.name().to_owned(), line.cell.pace.to_string()];
    let Some(medians) = &line.medians else {
        cells.push("no figure".to_owned());
        cells.resize(HEADER.len(), NOT_MEASURED.to_owned());
        return cells;
    };
    let Spread { median, min, max } = medians.orders_per_second;
    cells.push(if min < max { format!("{median:.0} ({min:.0}-{max:.0})") } else { format!("{median:.0}") });
    let ratio = line.of_floor.map(|ratio| format!("{ratio:.2}"));
    cells.push(ratio.unwrap_or_else(|| NOT_MEASURED.to_owned()));
    for latency in [medians.p50_us, medians.p99_us, medians.p999_us] {
        cells.push(format!("{:.1}", latency.median / 1_000.0));
    }
    for per_order in [medians.commits_per_order, medians.fsyncs_per_order, medians.messages_per_order] {
        cells.push(per_order.map_or_else(|| NOT_MEASURED.to_owned(), |spread| format!("{:.2}", spread.median)));
    }
    cells
}

/// What a finished run says on the way.
pub(crate) fn brief(run: &Run) -> String {
    match &run.outcome {
        Ok(figures) => format!("{}: {:.0} orders/s", short(run.cell), figures.orders_per_second),
        Err(_) => format!("{}: no figure", short(run.cell)),
    }
}

fn short(cell: Cell) -> String {
    let clients = if cell.contender == Contender::Floor { " clients" } else { "" };
    format!("{}, {} {}{clients}", cell.shape, cell.contender.name(), cell.pace)
}
