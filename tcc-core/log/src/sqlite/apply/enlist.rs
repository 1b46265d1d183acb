//! Enlisting: the branch and the raised count in one commit.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use tcc_machine::Decides;
use tcc_types::{Gid, TxStatus};

use super::begin::insert_branches;
use crate::{
    Enlisted, Error, NewBranch, TxRecord,
    sqlite::{
        rows,
        values::ManyRows,
        write::{Ask, Enlist},
    },
};

/// Status 1 is trying, 3 is decided on request and open to branches. The plus signs keep the planner from taking these terms for
/// a reason to scan the table instead of looking up each gid.
pub(super) const RAISE: ManyRows = ManyRows {
    head: "UPDATE tcc_log_transactions AS t SET branch_count = t.branch_count + 1 FROM (VALUES ",
    width: 3,
    tail: ") AS v WHERE t.gid = v.column1 AND +t.status = 1 AND +t.decides = 3 AND +t.branch_count < v.column3 \
           AND NOT EXISTS (SELECT 1 FROM tcc_log_branches AS b WHERE b.gid = v.column1 AND b.branch_id = v.column2) \
           RETURNING gid, branch_count",
};

pub(super) async fn apply(connection: &mut SqliteConnection, asks: &mut [Ask<Enlist, Enlisted>]) -> Result<(), Error> {
    if asks.is_empty() {
        return Ok(());
    }
    let rows = RAISE
        .fetch(connection, &[], asks, |values, ask| {
            let Enlist { gid, branch, branches_max } = &ask.question;
            values.put(&gid.as_bytes()[..]).put(branch.branch.as_str()).put(i64::from(*branches_max));
        })
        .await?;
    let mut raised = HashMap::with_capacity(rows.len());
    for row in &rows {
        raised.insert(rows::gid(row, 0)?, rows::count(row, 1)?);
    }
    let mut branches: Vec<(Gid, i64, &NewBranch)> = Vec::with_capacity(raised.len());
    for ask in asks.iter() {
        if let Some(count) = raised.get(&ask.question.gid) {
            branches.push((ask.question.gid, i64::from(*count) - 1, &ask.question.branch));
        }
    }
    insert_branches(connection, &branches).await?;
    let losers: Vec<Gid> = asks.iter().map(|ask| ask.question.gid).filter(|gid| !raised.contains_key(gid)).collect();
    let mut standing = rows::load(connection, &losers).await?;
    for ask in asks {
        let gid = ask.question.gid;
        let answer = match raised.get(&gid) {
            Some(branch_count) => Enlisted::Inserted { branch_count: *branch_count },
            None => why_not(&ask.question, standing.remove(&gid))?,
        };
        ask.answer(answer);
    }
    Ok(())
}

/// Why nothing was enlisted. A branch that is there is told first: a repeated call must learn that it succeeded, even if the
/// transaction has been decided since.
fn why_not(question: &Enlist, standing: Option<TxRecord>) -> Result<Enlisted, Error> {
    let Some(mut record) = standing else { return Ok(Enlisted::Missing) };
    if let Some(index) = record.branches.iter().position(|branch| branch.branch == question.branch.branch) {
        return Ok(Enlisted::Exists(Box::new(record.branches.swap_remove(index))));
    }
    let open = match record.decides {
        Decides::OnRequestOpen => record.status == TxStatus::Trying,
        Decides::AtVotes | Decides::OnRequest => false,
    };
    if !open {
        Ok(Enlisted::Closed(record.status))
    } else if record.branch_count >= question.branches_max {
        Ok(Enlisted::Full)
    } else {
        Err(Error::Unusable("the log refused a branch without a reason".to_owned()))
    }
}
