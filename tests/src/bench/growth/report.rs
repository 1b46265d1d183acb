//! What was found, as a table for people and as JSON for programs.

use std::{fmt::Write, path::Path};

use anyhow::Context;
use serde_json::json;

use super::{args::GrowthArgs, cost::Cost, depth::deeper, measure::Found};
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
const ALL_HEADER: [&str; 7] = [
    "",
    "all rows/order",
    "all pages/order",
    "all instructions/order",
    "rows/s at rest",
    "pages/s at rest",
    "instructions/s at rest",
];
const NOT_MEASURED: &str = "-";
/// Indexes that are named of those that grew deeper.
const DEEPER_MAX: usize = 6;

/// For people.
pub(crate) fn text(args: &GrowthArgs, machine: &Machine, found: &[Found]) -> String {
    let mut text = String::new();
    let mut rest = found;
    while let Some(empty) = rest.first() {
        let (of_store, others) = rest.split_at(rest.iter().take_while(|one| one.store == empty.store).count());
        let (mut orders, mut all) = (table(&HEADER), table(&ALL_HEADER));
        for one in of_store {
            orders.add_row(cells(one, empty));
            all.add_row(all_cells(one, empty));
        }
        align_right(&mut orders, 1..HEADER.len());
        align_right(&mut all, 1..ALL_HEADER.len());
        let _ = writeln!(text, "\n{}, {} orders in each state\n{orders}\n{all}", empty.store, empty.orders);
        for one in of_store {
            text.push_str(&depth(one, empty).unwrap_or_default());
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
    let (rate, counted_rate, in_flight) = (args.rate, args.counted_rate, args.in_flight);
    let _ = writeln!(
        text,
        "\n{cores} cores, Linux {kernel}, {filesystem}; load average {low:.1} to {high:.1}. In brackets: times the empty system. What \
         an order costs is what orders add to what the same processes do in the same time without any, from the same rows, cleaned up \
         before each; nobody cleans up meanwhile. `all` is with what goes on without them, shared out to the orders, and holds for \
         their rate; at rest, the start and the end of the processes are in it. Rows and pages are counted by the database's server \
         at {rate} orders a second. Instructions are those of gateway and inventory at {counted_rate} orders a second, one at a time, \
         under callgrind, and so are SQLite's rows (entries of tables and indexes that are looked for, gone to, written or deleted) \
         and pages (looked at in its cache), as calls of its functions. A tree gets a level for every few hundredfold of rows, and \
         whoever looks for something in it looks at one page more for each: that is the least that growth costs. orders/s is with \
         {in_flight} in flight; memory is the gateway's. - is not measured."
    );
    text
}

fn name(one: &Found) -> String {
    if one.rows == 0 { one.state.to_string() } else { format!("{} {}", one.rows, one.state) }
}

/// How much of what pages grew by is the depth of indexes, where it can be told.
fn depth(one: &Found, empty: &Found) -> Option<String> {
    let (touched, of_empty) = (one.touched.as_ref()?, empty.touched.as_ref()?);
    let (pages, pages_of_empty) = (touched.sum().pages().per_order, of_empty.sum().pages().per_order);
    if let (Some(below_roots), Some(of_empty)) = (one.below_roots, empty.below_roots) {
        let by_depth = below_roots - of_empty;
        return (one.rows > 0).then(|| by_depth_of(one, [pages, pages_of_empty, by_depth], "below the roots of trees"));
    }
    let mut deeper = deeper(&one.index_levels[0], &empty.index_levels, &touched.per_order, &of_empty.per_order);
    deeper.sort_by(|a, b| b.pages.total_cmp(&a.pages));
    let by_depth: f64 = deeper.iter().map(|one| one.pages).sum();
    let list: Vec<String> = deeper
        .iter()
        .take(DEEPER_MAX)
        .map(|one| {
            let [before, after] = one.levels_of_empty;
            format!("{} {:+.1}: {} levels, not {before} to {after}", one.index, one.pages, one.levels)
        })
        .collect();
    let where_it_is = format!("in deeper indexes ({})", list.join("; "));
    (!list.is_empty()).then(|| by_depth_of(one, [pages, pages_of_empty, by_depth], &where_it_is))
}

fn by_depth_of(one: &Found, [pages, pages_of_empty, by_depth]: [f64; 3], where_it_is: &str) -> String {
    let (more, times) = (pages - pages_of_empty, (pages - by_depth) / pages_of_empty);
    format!(
        "{}: {more:+.1} pages an order, {by_depth:+.1} of them {where_it_is}; without these {times:.2} times the empty system\n",
        name(one)
    )
}

/// A figure, and how many times the empty system's it is.
fn beside(value: Option<f64>, of_empty: Option<f64>, digits: usize) -> String {
    match (value, of_empty) {
        (Some(value), Some(of_empty)) if of_empty > 0.0 => format!("{value:.digits$} ({:.2})", value / of_empty),
        (Some(value), _) => format!("{value:.digits$}"),
        (None, _) => NOT_MEASURED.to_owned(),
    }
}

/// Rows, pages and instructions.
fn costs(one: &Found) -> [Option<Cost<f64>>; 3] {
    let touched = one.touched.as_ref().map(Cost::sum);
    [touched.as_ref().map(Cost::rows), touched.as_ref().map(Cost::pages), one.instructions.clone()]
}

const DIGITS: [usize; 3] = [1, 1, 0];

fn without_figure(one: &Found, cells: usize) -> Vec<String> {
    let mut row = vec![name(one), "no figure".to_owned()];
    row.resize(cells, NOT_MEASURED.to_owned());
    row
}

fn cells(one: &Found, empty: &Found) -> Vec<String> {
    if !one.problems.is_empty() {
        return without_figure(one, HEADER.len());
    }
    let mut row = vec![name(one)];
    for ((cost, of_empty), digits) in costs(one).iter().zip(costs(empty)).zip(DIGITS) {
        row.push(beside(cost.as_ref().map(|cost| cost.per_order), of_empty.map(|cost| cost.per_order), digits));
    }
    row.push(beside(Some(one.orders_per_second), Some(empty.orders_per_second), 0));
    row.extend(one.resident_kib.map(|kib| format!("{:.1}", kib as f64 / 1_024.0)));
    row.push(format!("{:.1}", one.kib_per_transaction()));
    row
}

fn all_cells(one: &Found, empty: &Found) -> Vec<String> {
    if !one.problems.is_empty() {
        return without_figure(one, ALL_HEADER.len());
    }
    let mut row = vec![name(one)];
    for ((cost, of_empty), digits) in costs(one).iter().zip(costs(empty)).zip(DIGITS) {
        row.push(beside(cost.as_ref().map(|cost| cost.with_background), of_empty.map(|cost| cost.with_background), digits));
    }
    row.extend(costs(one).map(|cost| beside(cost.map(|cost| cost.at_rest_per_second), None, 0)));
    row
}

/// For programs.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_json(file: &Path, machine: &Machine, found: &[Found]) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&json!({ "machine": machine, "states": found }))?;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
