//! The compare-and-set. The only statement that moves a transaction out of trying.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{MySqlConnection, query};
use tcc_types::{Gid, Timestamp};

use super::{marked, touch};
use crate::{
    Decide, Decided,
    fault::Fault,
    mysql::{
        load::load_heads,
        values::{Marks, digits, is_name, list, lists, transactions},
    },
    writer::{
        answers::{Wanted, answer_decides, unchanged},
        write::Ask,
    },
};

/// Status 1 is trying. Votes are NULL for Cancel, which needs none.
macro_rules! decide {
    ($text:ident) => {
        concat!(
            "UPDATE ",
            list!(g gid, status int, next_attempt_at int, cause $text, votes int, owner int),
            transactions!(),
            "SET t.status = v.status, t.next_attempt_at = v.next_attempt_at, t.cause = v.cause, t.owner = v.owner, \
             t.decided_at = ?, t.touched_by = UNHEX(?) WHERE t.status = 1 AND (v.votes IS NULL OR t.branch_count = v.votes)"
        )
    };
}

pub(super) const DECIDE: &str = decide!(text);

/// The same where every cause is short, as it nearly always is.
pub(super) const DECIDE_BRIEF: &str = decide!(name);

/// A row of [`DECIDE`].
fn decision_row(wanted: &Wanted) -> impl Serialize {
    let Wanted { gid, status, next_attempt_at, cause, votes, owner } = wanted;
    (digits(*gid), status.code(), next_attempt_at.as_micros(), cause, votes, owner)
}

pub(super) async fn apply(
    connection: &mut MySqlConnection,
    asks: &mut [Ask<Decide, Decided>],
    now: Timestamp,
    marks: &mut Marks,
) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    asks.sort_by_key(|ask| ask.question.gid);
    let (wanted, mark) = (Wanted::all(asks)?, marks.take());
    let are_brief = wanted.iter().all(|wanted| wanted.cause.as_deref().is_none_or(is_name));
    let text = if are_brief { DECIDE_BRIEF } else { DECIDE };
    let mut counted = 0;
    for list in lists(wanted.iter().map(decision_row))? {
        let done = query(text).bind(list).bind(now.as_micros()).bind(&mark).execute(&mut *connection).await?;
        counted += done.rows_affected();
    }
    let gids: Vec<Gid> = wanted.iter().map(|wanted| wanted.gid).collect();
    let changed = match all_confirmed(&wanted) {
        Some(all) if counted == gids.len() as u64 => all,
        Some(_) | None => marked(connection, &gids, &mark).await?,
    };
    let others = unchanged(gids.into_iter(), &changed);
    touch(connection, &others).await?;
    let mut standing = load_heads(connection, &others).await?;
    answer_decides(asks, &changed, &mut standing, now)
}

/// What has changed if everything has: a Confirm stands only with as many votes as there are branches. `None`: a Cancel is
/// among them, of which nobody here knows how many branches it has.
fn all_confirmed(wanted: &[Wanted]) -> Option<HashMap<Gid, u32>> {
    let confirmed = |wanted: &Wanted| Some((wanted.gid, u32::try_from(wanted.votes?).ok()?));
    wanted.iter().map(confirmed).collect()
}
