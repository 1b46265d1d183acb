//! Whether the books balance, by a few statements instead of a whole ledger: a million orders are too many to be carried here.

use std::collections::BTreeMap;

use prost::Message;
use tcc_proto::inventory::v1::ReservedStock;

use super::{fill::ATTEMPTS, state::State};
use crate::harness::{Cluster, Owner, Snapshot};

/// Sentences that are kept.
const PROBLEMS_MAX: usize = 20;

/// What must be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) state: State,
    /// Filled in.
    pub(crate) rows: u64,
    /// Told to be confirmed since.
    pub(crate) confirmed: u64,
}

/// What is wrong, each as a sentence, when every process has ended.
pub(crate) async fn problems(cluster: &Cluster, expected: Expected) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let Expected { state, rows, confirmed } = expected;
    let of = |kind| if state == kind { rows } else { 0 };
    let (ended, held, stuck) = (of(State::Finished) + confirmed, of(State::Held), of(State::Stuck));
    let counts = [
        (Owner::Log, "SELECT status, count(*) FROM tcc_log_transactions GROUP BY status", [held, stuck, ended]),
        (Owner::Orders, "SELECT status, count(*) FROM orders GROUP BY status", [held, 0, ended]),
        (Owner::Orders, "SELECT status, count(*) FROM tcc_branches GROUP BY status", [held, 0, ended]),
        (Owner::Inventory, "SELECT status, count(*) FROM tcc_branches GROUP BY status", [held, 0, ended]),
    ];
    for (owner, sql, wanted) in counts {
        let mut wanted: BTreeMap<i64, u64> = (1..).zip(wanted).filter(|(_, count)| *count > 0).collect();
        for row in Snapshot::of(cluster.databases(), owner).await?.all(sql).await? {
            let (status, found) = (row.integer(0)?, row.integer(1)?.unsigned_abs());
            let expected = wanted.remove(&status).unwrap_or(0);
            if found != expected {
                problems.push(format!("{sql} of {}: {found} of status {status}, not {expected}", owner.name()));
            }
        }
        problems.extend(wanted.iter().map(|(status, count)| format!("{sql} of {}: no {status}, not {count}", owner.name())));
    }
    let sql = "SELECT count(*) FROM tcc_log_branches";
    let branches = number(cluster, Owner::Log, sql).await?;
    if branches != 2 * (ended + held) + stuck {
        problems.push(format!("{sql}: {branches}"));
    }
    stock(cluster, &mut problems).await?;
    problems.truncate(PROBLEMS_MAX);
    Ok(problems)
}

/// How many stuck branches were tried again since they were filled in.
pub(crate) async fn probed(cluster: &Cluster) -> anyhow::Result<u64> {
    const { assert!(ATTEMPTS == 12, "the statement below says so") };
    number(cluster, Owner::Log, "SELECT count(*) FROM tcc_log_branches WHERE stuck_since IS NOT NULL AND attempts > 12").await
}

/// How often stuck branches have been tried, as far as that is written down.
pub(crate) async fn attempts(cluster: &Cluster) -> anyhow::Result<u64> {
    // A sum would be of another type on each database.
    let sql = "SELECT attempts, count(*) FROM tcc_log_branches WHERE stuck_since IS NOT NULL GROUP BY attempts";
    let rows = Snapshot::of(cluster.databases(), Owner::Log).await?.all(sql).await?;
    let products = rows.iter().map(|row| Ok(row.integer(0)?.unsigned_abs() * row.integer(1)?.unsigned_abs()));
    products.sum()
}

async fn number(cluster: &Cluster, owner: Owner, sql: &'static str) -> anyhow::Result<u64> {
    let rows = Snapshot::of(cluster.databases(), owner).await?.all(sql).await?;
    Ok(rows.first().map(|row| row.integer(0)).transpose()?.unwrap_or_default().unsigned_abs())
}

/// Of every SKU: available, frozen and sold make its initial pieces, and frozen and sold are what branches say.
async fn stock(cluster: &Cluster, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut snapshot = Snapshot::of(cluster.databases(), Owner::Inventory).await?;
    let mut spoken_for: BTreeMap<String, [i64; 2]> = BTreeMap::new();
    let sql = "SELECT status, reserved, count(*) FROM tcc_branches WHERE status IN (1, 3) GROUP BY status, reserved";
    for row in snapshot.all(sql).await? {
        let (status, reserved, count) = (row.integer(0)?, ReservedStock::decode(&row.bytes(1)?[..])?, row.integer(2)?);
        for line in reserved.lines {
            spoken_for.entry(line.sku).or_default()[usize::from(status == 3)] += count * line.quantity;
        }
    }
    for row in snapshot.all("SELECT sku, initial, available, frozen, sold FROM stock").await? {
        let (sku, initial, available) = (row.text(0)?, row.integer(1)?, row.integer(2)?);
        let (frozen, sold) = (row.integer(3)?, row.integer(4)?);
        let [reserved, spent] = spoken_for.remove(&sku).unwrap_or_default();
        if available + frozen + sold != initial || frozen != reserved || sold != spent {
            problems.push(format!(
                "{sku}: {available} available, {frozen} frozen and {sold} sold of {initial}; branches reserve {reserved} and spent {spent}"
            ));
        }
    }
    problems.extend(spoken_for.keys().map(|sku| format!("branches reserved {sku}, which is no SKU")));
    Ok(())
}
