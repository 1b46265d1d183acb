//! Stock against the rows that hold it (DESIGN: S4): of each bucket of each SKU, available + frozen + sold = initial, none is negative,
//! and what is frozen is what the tried rows hold of it.

use std::collections::BTreeMap;

use prost::{Message, Name};
use tcc_proto::inventory::v1::{ReserveStock, ReservedStock};
use tcc_types::{BranchRowStatus, ParticipantName};

use super::{Checked, Reserving, Spoken, is_of, key_of};
use crate::{AnyRow, Config, Database, Error, Finding, Rule, Value};

/// Branches that a finding names at most.
const HOLDERS_MAX: usize = 8;

/// One bucket of one SKU, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Of which SKU.
    pub sku: String,
    /// Which.
    pub bucket: i64,
    /// All pieces ever added.
    pub initial: i64,
    /// Free.
    pub available: i64,
    /// Reserved.
    pub frozen: i64,
    /// Spent.
    pub sold: i64,
}

/// What branches say of one bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Pieces of the tried rows.
    pub tried: i64,
    /// Pieces of the confirmed rows, if they were read.
    pub confirmed: i64,
    /// Some of the tried rows.
    pub holders: Vec<String>,
}

/// What branches say, by SKU and bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations(BTreeMap<(String, i64), Held>);

impl Reservations {
    /// Adds a row up.
    pub fn add(&mut self, row: &Reserving<ReservedStock>) {
        for (sku, bucket, quantity) in pieces(&row.reserved) {
            let held = self.0.entry((sku, bucket)).or_default();
            match row.status {
                BranchRowStatus::Tried => {
                    held.tried += quantity;
                    if held.holders.len() < HOLDERS_MAX {
                        held.holders.push(format!("{}/{}", row.gid, row.branch));
                    }
                }
                BranchRowStatus::Confirmed => held.confirmed += quantity,
                BranchRowStatus::Refused | BranchRowStatus::Cancelled => {}
            }
        }
    }

    /// How many buckets they are of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong with a bucket. It is then no more among what is [left](Self::unknown).
    pub fn compare(&mut self, participant: &str, bucket: &Bucket) -> Vec<Finding> {
        let Bucket { sku, bucket: number, initial, available, frozen, sold } = bucket;
        let held = self.0.remove(&(sku.clone(), *number)).unwrap_or_default();
        let finding = |rule| Finding::new(rule).at(participant).resource(place(sku, *number));
        let mut found = Vec::new();
        if available + frozen + sold != *initial || [available, frozen, sold].into_iter().any(|column| *column < 0) {
            let columns = format!("available {available} + frozen {frozen} + sold {sold}");
            found.push(finding(Rule::StockUnbalanced).says(columns).says(format!("initial is {initial}")));
        }
        if *frozen != held.tried {
            found.push(finding(Rule::FrozenDiffers).says(format!("frozen is {frozen}")).says(held.words()));
        }
        // More may be sold: confirmed rows are deleted in the end.
        if held.confirmed > (*sold).max(0) {
            let confirmed = format!("confirmed rows have spent {}", held.confirmed);
            found.push(finding(Rule::SoldTooLow).says(format!("sold is {sold}")).says(confirmed));
        }
        found
    }

    /// What is held of buckets that are not there.
    pub fn unknown(&self, participant: &str) -> impl Iterator<Item = Finding> {
        self.0.iter().filter(|(_, held)| held.tried != 0).map(move |((sku, bucket), held)| {
            let finding = Finding::new(Rule::FrozenDiffers).at(participant).resource(place(sku, *bucket));
            finding.says("there is no such stock").says(held.words())
        })
    }
}

impl Held {
    fn words(&self) -> String {
        let more = if self.holders.len() == HOLDERS_MAX { " and perhaps more" } else { "" };
        match self.holders.as_slice() {
            [] => "no tried row holds any".to_owned(),
            holders => format!("tried rows hold {}: {}{more}", self.tried, holders.join(", ")),
        }
    }
}

fn place(sku: &str, bucket: i64) -> String {
    format!("{sku}, bucket {bucket}")
}

/// What was reserved, by SKU and bucket. All of a line without shares is from bucket 0.
fn pieces(reserved: &ReservedStock) -> impl Iterator<Item = (String, i64, i64)> {
    reserved.lines.iter().enumerate().flat_map(|(index, line)| {
        let shares = reserved.shares.iter().filter(move |share| share.line as usize == index);
        let mut pieces: Vec<_> = shares.map(|share| (line.sku.clone(), i64::from(share.bucket), share.quantity)).collect();
        if pieces.is_empty() {
            pieces.push((line.sku.clone(), 0, line.quantity));
        }
        pieces
    })
}

/// Reads and compares, in one snapshot.
pub(super) async fn check(name: &ParticipantName, database: &mut Database, config: &Config) -> Result<Checked, Error> {
    database.begin().await?;
    let mut reservations = Reservations::default();
    if config.sold {
        add_all(&mut reservations, database, config).await?;
    } else {
        add_tried(&mut reservations, database, config).await?;
    }
    let mut checked = Checked::default();
    let mut after = (String::new(), -1);
    loop {
        const SQL: &str = "SELECT sku, bucket, initial, available, frozen, sold FROM stock \
             WHERE sku >= ? AND (sku > ? OR bucket > ?) ORDER BY sku, bucket LIMIT ?";
        let (sku, bucket) = &after;
        let values = [Value::Text(sku), Value::Text(sku), Value::Int(*bucket), Value::Int(config.page_size.into())];
        let rows = database.all(SQL, &values).await?;
        for row in &rows {
            let bucket = bucket_of(database, row)?;
            checked.add(reservations.compare(name.as_str(), &bucket), config);
            checked.resources += 1;
            after = (bucket.sku, bucket.bucket);
        }
        if rows.len() < config.page_size as usize {
            break;
        }
    }
    database.end().await?;
    checked.add(reservations.unknown(name.as_str()), config);
    Ok(checked)
}

/// Only the tried rows: by their index, so that history is not read.
async fn add_tried(reservations: &mut Reservations, database: &mut Database, config: &Config) -> Result<(), Error> {
    let mut after = (i64::MIN, String::new(), String::new());
    loop {
        const SQL: &str = "SELECT gid, branch_id, status, type_url, reserved, ask_after FROM tcc_branches WHERE status = 1 \
             AND ask_after >= ? AND (ask_after > ? OR gid > ? OR (gid = ? AND branch_id > ?)) \
             ORDER BY ask_after, gid, branch_id LIMIT ?";
        let (asks, gid, branch) = &after;
        let (asks, gid) = (Value::Int(*asks), Value::Text(gid));
        let values = [asks, asks, gid, gid, Value::Text(branch), Value::Int(config.page_size.into())];
        let rows = database.all(SQL, &values).await?;
        add_page(reservations, database, &rows, config)?;
        match rows.last() {
            Some(last) if rows.len() >= config.page_size as usize => {
                after = (database.int(last, 5)?, database.text(last, 0)?, database.text(last, 1)?);
            }
            _ => return Ok(()),
        }
    }
}

/// The tried and the confirmed rows: all of history.
async fn add_all(reservations: &mut Reservations, database: &mut Database, config: &Config) -> Result<(), Error> {
    let mut spoken = Spoken::default();
    loop {
        let rows = spoken.page(database, config.page_size).await?;
        add_page(reservations, database, &rows, config)?;
        if rows.len() < config.page_size as usize {
            return Ok(());
        }
    }
}

fn add_page(reservations: &mut Reservations, database: &Database, rows: &[AnyRow], config: &Config) -> Result<(), Error> {
    for row in rows {
        if !is_of(database, row, 3, &ReserveStock::full_name())? {
            continue;
        }
        let (gid, branch, status) = key_of(database, row, 0)?;
        let reserved = ReservedStock::decode(&database.bytes(row, 4)?[..]);
        let reserved = reserved.map_err(|_| database.damaged(format!("what {gid}/{branch} reserved")))?;
        reservations.add(&Reserving { gid, branch, status, reserved });
        if reservations.len() > config.resources_max {
            return Err(Error::config("resources_max", "reservations of more SKUs were found"));
        }
    }
    Ok(())
}

fn bucket_of(database: &Database, row: &AnyRow) -> Result<Bucket, Error> {
    let int = |column| database.int(row, column);
    let (sku, bucket, initial) = (database.text(row, 0)?, int(1)?, int(2)?);
    Ok(Bucket { sku, bucket, initial, available: int(3)?, frozen: int(4)?, sold: int(5)? })
}

#[cfg(test)]
mod tests {
    use tcc_proto::inventory::v1::{ReservedShare, StockLine};
    use tcc_types::{BranchId, Gid, Timestamp};

    use super::*;

    fn row(status: BranchRowStatus, lines: &[(&str, i64)], shares: &[(u32, u32, i64)]) -> Reserving<ReservedStock> {
        let line = |(sku, quantity): &(&str, i64)| StockLine { sku: (*sku).to_owned(), quantity: *quantity };
        let share =
            |(line, bucket, quantity): &(u32, u32, i64)| ReservedShare { line: *line, bucket: *bucket, quantity: *quantity };
        Reserving {
            gid: Gid::first_of(Timestamp::from_millis(1_790_000_000_000)),
            branch: BranchId::new("stock").unwrap(),
            status,
            reserved: ReservedStock { lines: lines.iter().map(line).collect(), shares: shares.iter().map(share).collect() },
        }
    }

    fn apple(bucket: i64, [initial, available, frozen, sold]: [i64; 4]) -> Bucket {
        Bucket { sku: "apple".to_owned(), bucket, initial, available, frozen, sold }
    }

    fn of(rows: &[Reserving<ReservedStock>], buckets: &[Bucket]) -> Vec<Rule> {
        let mut reservations = Reservations::default();
        rows.iter().for_each(|row| reservations.add(row));
        let found: Vec<_> = buckets.iter().flat_map(|bucket| reservations.compare("inventory", bucket)).collect();
        let unknown: Vec<_> = reservations.unknown("inventory").collect();
        found.into_iter().chain(unknown).map(|finding| finding.rule).collect()
    }

    #[test]
    fn stock_that_its_rows_account_for_is_sound() {
        let rows = [
            row(BranchRowStatus::Tried, &[("apple", 2)], &[]),
            row(BranchRowStatus::Tried, &[("pear", 0), ("apple", 3)], &[(1, 0, 1), (1, 2, 2)]),
            row(BranchRowStatus::Confirmed, &[("apple", 4)], &[]),
            row(BranchRowStatus::Cancelled, &[("apple", 90)], &[]),
            row(BranchRowStatus::Refused, &[("apple", 90)], &[]),
        ];
        // More may be sold than confirmed rows are left.
        assert_eq!(of(&rows, &[apple(0, [12, 4, 3, 5]), apple(2, [2, 0, 2, 0])]), []);
    }

    #[test]
    fn each_column_that_is_wrong_is_found() {
        let tried = [row(BranchRowStatus::Tried, &[("apple", 2)], &[])];
        assert_eq!(of(&tried, &[apple(0, [10, 7, 2, 0])]), [Rule::StockUnbalanced]);
        assert_eq!(of(&tried, &[apple(0, [10, 9, 2, -1])]), [Rule::StockUnbalanced]);
        assert_eq!(of(&tried, &[apple(0, [10, 7, 3, 0])]), [Rule::FrozenDiffers]);
        assert_eq!(of(&tried, &[apple(0, [10, 10, 0, 0])]), [Rule::FrozenDiffers]);
        assert_eq!(of(&[], &[apple(0, [10, 9, 1, 0])]), [Rule::FrozenDiffers]);
        let confirmed = [row(BranchRowStatus::Confirmed, &[("apple", 2)], &[])];
        assert_eq!(of(&confirmed, &[apple(0, [10, 9, 0, 1])]), [Rule::SoldTooLow]);
    }

    #[test]
    fn a_share_of_another_bucket_is_no_share_of_this_one() {
        let tried = [row(BranchRowStatus::Tried, &[("apple", 2)], &[(0, 1, 2)])];
        assert_eq!(of(&tried, &[apple(0, [5, 3, 2, 0]), apple(1, [5, 5, 0, 0])]), [Rule::FrozenDiffers, Rule::FrozenDiffers]);
        assert_eq!(of(&tried, &[apple(0, [5, 5, 0, 0]), apple(1, [5, 3, 2, 0])]), []);
    }

    #[test]
    fn what_is_held_of_no_sku_is_found_with_its_branches() {
        let tried = row(BranchRowStatus::Tried, &[("ghost", 2)], &[]);
        let mut reservations = Reservations::default();
        reservations.add(&tried);
        let found: Vec<_> = reservations.unknown("inventory").map(|finding| finding.to_string()).collect();
        let key = format!("{}/stock", tried.gid);
        assert_eq!(
            found,
            [format!(
                "frozen_is_not_what_tried_rows_hold participant inventory of ghost, bucket 0: there is no such stock; tried rows hold 2: {key}"
            )]
        );
    }
}
