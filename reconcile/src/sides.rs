//! Reads the log's transactions and the participants' branch rows: page by page in the order of their gids, or one by its gid.
//! Decodes the columns, and judges nothing.

use std::{
    collections::{BTreeSet, VecDeque},
    str::FromStr,
};

use tcc_machine::Settled;
use tcc_types::{BranchId, BranchRowStatus, Gid, Invalid, LogName, ParticipantName, Timestamp, TxStatus};

use crate::{AnyRow, Database, Error, LogBranch, Row, Transaction, Value, books::Books};

/// The log's database.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) name: LogName,
    pub(crate) database: Database,
}

macro_rules! transactions {
    ($which:literal) => {
        concat!(
            "SELECT t.gid, t.status, t.branch_count, t.decided_at, t.next_attempt_at, b.branch_id, b.participant, b.settled, \
             b.stuck_kind, b.stuck_since FROM (SELECT gid, status, branch_count, decided_at, next_attempt_at \
             FROM tcc_log_transactions WHERE ",
            $which,
            ") t LEFT JOIN tcc_log_branches b ON b.gid = t.gid ORDER BY t.gid, b.branch_id"
        )
    };
}

impl Log {
    /// Reads whose log it is.
    pub(crate) async fn of(mut database: Database, wanted: Option<&LogName>) -> Result<Self, Error> {
        let row = database.one("SELECT name FROM tcc_log_identity WHERE only_row = 1", &[]).await?;
        let row = row.ok_or_else(|| Error::config("log", "this database keeps no transaction log"))?;
        let name = LogName::new(database.text(&row, 0)?).map_err(|_| database.damaged("the log's name"))?;
        match wanted {
            Some(wanted) if *wanted != name => {
                Err(Error::config("log_name", format!("this database is the transaction log `{name}`, not `{wanted}`")))
            }
            _ => Ok(Self { name, database }),
        }
    }

    pub(crate) async fn get(&mut self, gid: Gid) -> Result<Option<Transaction>, Error> {
        let rows = self.database.all(transactions!("gid = ?"), &[Value::Bytes(gid.as_bytes())]).await?;
        Ok(self.transactions(&rows)?.pop().map(|(_, transaction)| transaction))
    }

    async fn page(&mut self, after: &[u8], until: Gid, limit: u32) -> Result<Vec<(Gid, Transaction)>, Error> {
        const SQL: &str = transactions!("gid > ? AND gid < ? ORDER BY gid LIMIT ?");
        let values = [Value::Bytes(after), Value::Bytes(until.as_bytes()), Value::Int(limit.into())];
        let rows = self.database.all(SQL, &values).await?;
        self.transactions(&rows)
    }

    /// From rows in the order of the gids, one for each branch.
    fn transactions(&self, rows: &[AnyRow]) -> Result<Vec<(Gid, Transaction)>, Error> {
        let mut found: Vec<(Gid, Transaction)> = Vec::new();
        for row in rows {
            let gid = Gid::from_bytes(&self.database.bytes(row, 0)?).map_err(|_| self.database.damaged("a gid"))?;
            if found.last().is_none_or(|(last, _)| *last != gid) {
                found.push((gid, self.head(row)?));
            }
            if let (Some((_, transaction)), Some(branch)) = (found.last_mut(), self.branch(row)?) {
                transaction.branches.push(branch);
            }
        }
        Ok(found)
    }

    fn head(&self, row: &AnyRow) -> Result<Transaction, Error> {
        let database = &self.database;
        let status = TxStatus::from_code(database.int(row, 1)?).ok_or_else(|| database.damaged("a transaction's status"))?;
        Ok(Transaction {
            status,
            branch_count: database.int(row, 2)?,
            decided_at: database.maybe_int(row, 3)?.map(Timestamp::from_micros),
            next_attempt_at: Timestamp::from_micros(database.int(row, 4)?),
            branches: Vec::new(),
        })
    }

    fn branch(&self, row: &AnyRow) -> Result<Option<LogBranch>, Error> {
        let database = &self.database;
        let Some(branch) = database.maybe_text(row, 5)? else { return Ok(None) };
        let settled = match database.maybe_int(row, 7)? {
            None => None,
            Some(code) => [Settled::Acknowledged, Settled::Outside].into_iter().find(|settled| *settled as i64 == code),
        };
        let stuck = match (database.maybe_int(row, 8)?, database.maybe_int(row, 9)?) {
            (Some(kind), Some(since)) => Some((stuck_words(kind).to_owned(), Timestamp::from_micros(since))),
            _ => None,
        };
        let participant = id::<ParticipantName>(database, &database.text(row, 6)?)?;
        Ok(Some(LogBranch { branch: id(database, &branch)?, participant, settled, stuck }))
    }
}

/// By the numbers of `tcc_machine::StuckKind`, for people.
const fn stuck_words(kind: i64) -> &'static str {
    match kind {
        1 => "no answer, or errors",
        2 => "its participant is not configured",
        3 => "its Confirm found no row",
        4 => "its row has the other outcome",
        _ => "for a reason that this version does not know",
    }
}

fn id<T: FromStr<Err = Invalid>>(database: &Database, text: &str) -> Result<T, Error> {
    text.parse().map_err(|bad: Invalid| database.damaged(format!("an id: {bad}")))
}

/// A database of branch rows, and what else it is compared with.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) names: BTreeSet<ParticipantName>,
    pub(crate) books: Vec<(ParticipantName, Books)>,
    pub(crate) database: Database,
}

macro_rules! rows {
    ($which:literal) => {
        concat!(
            "SELECT gid, branch_id, status, coordinator, ask_after, changed_at, forgotten_at FROM tcc_branches WHERE ",
            $which
        )
    };
}

impl Rows {
    /// `side` is its place among all.
    pub(crate) async fn get(&mut self, side: usize, gid: Gid) -> Result<Vec<Row>, Error> {
        let text = gid.to_string();
        let rows = self.database.all(rows!("gid = ? ORDER BY branch_id"), &[Value::Text(&text)]).await?;
        rows.iter().map(|row| self.row(side, row).map(|(_, row)| row)).collect()
    }

    async fn page(&mut self, side: usize, after: (&str, &str), until: Gid, limit: u32) -> Result<Vec<(Gid, Row)>, Error> {
        const SQL: &str = rows!("gid >= ? AND (gid > ? OR branch_id > ?) AND gid < ? ORDER BY gid, branch_id LIMIT ?");
        let ((gid, branch), until) = (after, until.to_string());
        let values = [Value::Text(gid), Value::Text(gid), Value::Text(branch), Value::Text(&until), Value::Int(limit.into())];
        let rows = self.database.all(SQL, &values).await?;
        rows.iter().map(|row| self.row(side, row)).collect()
    }

    fn row(&self, side: usize, row: &AnyRow) -> Result<(Gid, Row), Error> {
        let database = &self.database;
        let gid = id(database, &database.text(row, 0)?)?;
        let status = BranchRowStatus::from_code(database.int(row, 2)?).ok_or_else(|| database.damaged("a row's status"))?;
        let coordinator = database.maybe_text(row, 3)?.map(|name| id(database, &name)).transpose()?;
        let row = Row {
            side,
            branch: id(database, &database.text(row, 1)?)?,
            status,
            coordinator,
            ask_after: database.maybe_int(row, 4)?.map(Timestamp::from_micros),
            changed_at: Timestamp::from_micros(database.int(row, 5)?),
            forgotten_at: database.maybe_int(row, 6)?.map(Timestamp::from_micros),
        };
        Ok((gid, row))
    }
}

/// A walk over the log in the order of the gids, a page in memory.
#[derive(Debug)]
pub(crate) struct LogWalk {
    page: VecDeque<(Gid, Transaction)>,
    after: Option<Gid>,
    until: Gid,
    limit: u32,
    done: bool,
}

impl LogWalk {
    /// Over the gids below `until`.
    pub(crate) const fn new(until: Gid, limit: u32) -> Self {
        Self { page: VecDeque::new(), after: None, until, limit, done: false }
    }

    /// The next gid.
    pub(crate) async fn head(&mut self, log: &mut Log) -> Result<Option<Gid>, Error> {
        if self.page.is_empty() && !self.done {
            let after = self.after.map(|gid| gid.as_bytes().to_vec()).unwrap_or_default();
            self.page = log.page(&after, self.until, self.limit).await?.into();
            self.done = self.page.len() < self.limit as usize;
            self.after = self.page.back().map(|(gid, _)| *gid);
        }
        Ok(self.page.front().map(|(gid, _)| *gid))
    }

    /// The transaction, if it is the next.
    pub(crate) fn take(&mut self, gid: Gid) -> Option<Transaction> {
        self.page.pop_front_if(|(next, _)| *next == gid).map(|(_, transaction)| transaction)
    }
}

/// A walk over one database's rows in the order of their gids, a page in memory.
#[derive(Debug)]
pub(crate) struct RowsWalk {
    side: usize,
    page: VecDeque<(Gid, Row)>,
    after: Option<(Gid, BranchId)>,
    until: Gid,
    limit: u32,
    done: bool,
}

impl RowsWalk {
    /// Over the gids below `until`.
    pub(crate) const fn new(side: usize, until: Gid, limit: u32) -> Self {
        Self { side, page: VecDeque::new(), after: None, until, limit, done: false }
    }

    /// The next gid.
    pub(crate) async fn head(&mut self, rows: &mut Rows) -> Result<Option<Gid>, Error> {
        if self.page.is_empty() && !self.done {
            let gid = self.after.as_ref().map(|(gid, _)| gid.to_string()).unwrap_or_default();
            let branch = self.after.as_ref().map_or("", |(_, branch)| branch.as_str());
            self.page = rows.page(self.side, (&gid, branch), self.until, self.limit).await?.into();
            self.done = self.page.len() < self.limit as usize;
            self.after = self.page.back().map(|(gid, row)| (*gid, row.branch.clone()));
        }
        Ok(self.page.front().map(|(gid, _)| *gid))
    }

    /// All rows of the transaction, if it is the next.
    pub(crate) async fn take(&mut self, rows: &mut Rows, gid: Gid, into: &mut Vec<Row>) -> Result<(), Error> {
        while self.head(rows).await? == Some(gid) {
            into.extend(self.page.pop_front().map(|(_, row)| row));
        }
        Ok(())
    }
}
