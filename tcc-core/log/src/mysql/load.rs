//! Loading transactions by their gids, for writes and reads alike.

use std::collections::HashMap;

use sqlx::{MySqlConnection, mysql::MySqlRow, query};
use tcc_types::{BranchId, Gid};

use super::values::{branches, digits, gid_lists, list, lists, transactions};
use crate::{
    TxRecord,
    fault::Fault,
    rows::{self, branch_columns, head_columns},
};

pub(super) const HEADS: &str = concat!("SELECT ", head_columns!(), " FROM ", list!(g gid), transactions!());

pub(super) const BRANCHES: &str =
    concat!("SELECT ", branch_columns!(), " FROM ", list!(g gid), branches!(), "ORDER BY b.gid, b.seq");

/// Of the branches of a list, those that are there.
pub(super) const BRANCH_KEYS: &str =
    concat!("SELECT b.gid, b.branch_id FROM ", list!(g gid, branch_id id), branches!(), "AND b.branch_id = v.branch_id");

/// Keys of branches as lists for [`BRANCH_KEYS`].
pub(super) fn key_lists<'a>(keys: impl IntoIterator<Item = (Gid, &'a BranchId)>) -> Result<Vec<String>, Fault> {
    lists(keys.into_iter().map(|(gid, branch)| (digits(gid), branch.as_str())))
}

/// Runs a text over lists that it takes as its only value; returns the rows of all of them.
pub(super) async fn fetch(
    connection: &mut MySqlConnection,
    text: &'static str,
    lists: &[String],
) -> Result<Vec<MySqlRow>, Fault> {
    let mut rows = Vec::new();
    for list in lists {
        rows.extend(query(text).bind(list).fetch_all(&mut *connection).await?);
    }
    Ok(rows)
}

/// Reads transactions without their branches; those that are missing are left out.
pub(super) async fn load_heads(connection: &mut MySqlConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
    rows::heads(&fetch(connection, HEADS, &gid_lists(gids)?).await?)
}

/// Reads transactions with their branches; those that are missing are left out. Where the two must agree, the caller's
/// transaction sees to that.
pub(super) async fn load(connection: &mut MySqlConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
    let mut records = load_heads(connection, gids).await?;
    let branches = fetch(connection, BRANCHES, &gid_lists(&rows::with_branches(&records))?).await?;
    rows::add_branches(&mut records, &branches)?;
    Ok(records)
}

/// As [`load`], but leaves out what this program cannot read (a later version may have written it): one such row must not keep
/// all others from being taken up.
pub(super) async fn load_readable(connection: &mut MySqlConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
    match load(connection, gids).await {
        Err(Fault::Other(_)) => {}
        loaded => return loaded,
    }
    let mut records = HashMap::new();
    for gid in gids {
        match load(connection, &[*gid]).await {
            Ok(readable) => records.extend(readable),
            Err(Fault::Other(error)) => tracing::error!(%gid, %error, "left to whoever can read it"),
            Err(fault) => return Err(fault),
        }
    }
    Ok(records)
}
