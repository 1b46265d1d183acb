//! The shipped participants' own rows against their branch rows, which commit together: so one look in one snapshot is enough. Each
//! kind of books has a pure comparison and a thin reader.

pub mod coupons;
pub mod orders;
pub mod stock;

use std::collections::HashSet;

use tcc_types::{BranchId, BranchRowStatus, Gid, ParticipantName};

use crate::{AnyRow, Config, Database, Error, Finding, Value};

/// What a participant keeps beside its branch rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Books {
    /// The gateway's orders.
    Orders,
    /// Stock, as the participant `inventory` keeps it.
    Stock,
    /// Coupons, as the participant `coupon` keeps them.
    Coupons,
}

/// What a comparison of one participant's books has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// At most `candidates_max`, each once.
    pub found: HashSet<Finding>,
    /// How many there were beside these.
    pub left_out: u64,
    /// Rows of the books that were compared.
    pub resources: u64,
}

impl Checked {
    fn add(&mut self, found: impl IntoIterator<Item = Finding>, config: &Config) {
        for finding in found {
            if self.found.len() < config.candidates_max {
                self.found.insert(finding);
            } else if !self.found.contains(&finding) {
                self.left_out += 1;
            }
        }
    }
}

impl Books {
    pub(crate) async fn check(
        self,
        name: &ParticipantName,
        database: &mut Database,
        config: &Config,
    ) -> Result<Checked, Error> {
        match self {
            Self::Orders => orders::check(name, database, config).await,
            Self::Stock => stock::check(name, database, config).await,
            Self::Coupons => coupons::check(name, database, config).await,
        }
    }
}

/// A branch row with what it reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserving<T> {
    /// Its transaction.
    pub gid: Gid,
    /// Its id.
    pub branch: BranchId,
    /// Where it is.
    pub status: BranchRowStatus,
    /// What it reserved.
    pub reserved: T,
}

/// The columns of a branch row that [`key_of`] reads, from a column on.
fn key_of(database: &Database, row: &AnyRow, from: usize) -> Result<(Gid, BranchId, BranchRowStatus), Error> {
    let gid = database.text(row, from)?.parse().map_err(|_| database.damaged("a row's gid"))?;
    let branch = BranchId::new(database.text(row, from + 1)?).map_err(|_| database.damaged("a row's branch id"))?;
    let status = BranchRowStatus::from_code(database.int(row, from + 2)?).ok_or_else(|| database.damaged("a row's status"))?;
    Ok((gid, branch, status))
}

/// A walk along the primary key over the rows that hold or have spent something.
#[derive(Debug, Default)]
struct Spoken {
    gid: String,
    branch: String,
}

impl Spoken {
    /// The next page: gid, branch, status, the type of what was asked, and what was reserved.
    async fn page(&mut self, database: &mut Database, limit: u32) -> Result<Vec<AnyRow>, Error> {
        const SQL: &str = "SELECT gid, branch_id, status, type_url, reserved FROM tcc_branches WHERE status IN (1, 3) \
             AND gid >= ? AND (gid > ? OR branch_id > ?) ORDER BY gid, branch_id LIMIT ?";
        let values = [Value::Text(&self.gid), Value::Text(&self.gid), Value::Text(&self.branch), Value::Int(limit.into())];
        let rows = database.all(SQL, &values).await?;
        if let Some(last) = rows.last() {
            (self.gid, self.branch) = (database.text(last, 0)?, database.text(last, 1)?);
        }
        Ok(rows)
    }
}

/// Whether a row's type is this one: several participants may share a database.
fn is_of(database: &Database, row: &AnyRow, column: usize, type_name: &str) -> Result<bool, Error> {
    let type_url = database.maybe_text(row, column)?.unwrap_or_default();
    Ok(type_url.rsplit('/').next() == Some(type_name))
}
