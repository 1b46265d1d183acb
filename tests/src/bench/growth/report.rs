//! What was found, as a table for people and as JSON for programs.

use std::{fmt::Write, path::Path};

use anyhow::Context;
use serde_json::json;

use super::{measure::Found, touched::Touched};
use crate::{
    bench::machine::Machine,
    cli::{align_right, table},
};

const HEADER: [&str; 9] = [
    "",
    "rows/order",
    "pages/order",
    "instructions/order",
    "orders/s",
    "at rest MiB",
    "loaded MiB",
    "1,024 in flight MiB",
    "KiB each",
];
const NOT_MEASURED: &str = "-";

/// For people.
pub(crate) fn text(machine: &Machine, found: &[Found]) -> String {
    let mut text = String::new();
    let mut rest = found;
    while let Some(empty) = rest.first() {
        let (of_store, others) = rest.split_at(rest.iter().take_while(|one| one.store == empty.store).count());
        let mut table = table(&HEADER);
        for one in of_store {
            table.add_row(cells(one, empty));
        }
        align_right(&mut table, 1..HEADER.len());
        let _ = writeln!(text, "\n{}, {} orders in each state\n{table}", empty.store, empty.orders);
        for one in of_store {
            if let Some(Touched { rows, pages }) = one.touched_at_rest {
                let _ =
                    writeln!(text, "{}: {rows:.0} rows and {pages:.0} pages a second at rest, its start included", name(one));
            }
            if one.probed > 0 {
                let _ = writeln!(text, "{}: {} were tried again meanwhile", name(one), one.probed);
            }
            for problem in &one.problems {
                let _ = writeln!(text, "no figure: {}: {problem}", name(one));
            }
        }
        rest = others;
    }
    let Machine { cores, kernel, filesystem } = machine;
    let loads = found.iter().flat_map(|one| one.load_average);
    let (low, high) = loads.fold((f64::INFINITY, 0.0_f64), |(low, high), load| (low.min(load), high.max(load)));
    let _ = writeln!(
        text,
        "\n{cores} cores, Linux {kernel}, {filesystem}; load average {low:.1} to {high:.1}. In brackets: times the empty system. What the \
         same processes do in the same time without orders is taken off rows, pages and instructions; PostgreSQL does not vacuum \
         meanwhile. Instructions are those of gateway and inventory, one order at a time, under callgrind; memory is the gateway's. \
         - is not measured."
    );
    text
}

fn name(one: &Found) -> String {
    if one.rows == 0 { one.state.to_string() } else { format!("{} {}", one.rows, one.state) }
}

fn cells(one: &Found, empty: &Found) -> Vec<String> {
    let beside = |value: Option<f64>, of_empty: Option<f64>, digits: usize| match (value, of_empty) {
        (Some(value), Some(of_empty)) if of_empty > 0.0 => format!("{value:.digits$} ({:.2})", value / of_empty),
        (Some(value), _) => format!("{value:.digits$}"),
        (None, _) => NOT_MEASURED.to_owned(),
    };
    if !one.problems.is_empty() {
        let mut cells = vec![name(one), "no figure".to_owned()];
        cells.resize(HEADER.len(), NOT_MEASURED.to_owned());
        return cells;
    }
    let [rest, loaded, many] = one.resident_kib.map(|kib| format!("{:.1}", kib as f64 / 1_024.0));
    vec![
        name(one),
        beside(one.touched.map(|touched| touched.rows), empty.touched.map(|touched| touched.rows), 1),
        beside(one.touched.map(|touched| touched.pages), empty.touched.map(|touched| touched.pages), 1),
        beside(one.instructions, empty.instructions, 0),
        beside(Some(one.orders_per_second), Some(empty.orders_per_second), 0),
        rest,
        loaded,
        many,
        format!("{:.1}", one.kib_per_transaction()),
    ]
}

/// For programs.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_json(file: &Path, machine: &Machine, found: &[Found]) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&json!({ "machine": machine, "states": found }))?;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
