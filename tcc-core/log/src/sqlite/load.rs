//! Loading transactions by their gids, for writes and reads alike.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use tcc_types::Gid;

use super::values::{ManyRows, Values};
use crate::{
    TxRecord,
    fault::Fault,
    rows::{self, branch_columns, head_columns},
};

pub(super) const HEADS: ManyRows = ManyRows {
    head: concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions WHERE gid IN (VALUES "),
    width: 1,
    tail: ")",
};

pub(super) const BRANCHES: ManyRows = ManyRows {
    head: concat!("SELECT ", branch_columns!(), " FROM tcc_log_branches WHERE gid IN (VALUES "),
    width: 1,
    tail: ") ORDER BY gid, seq",
};

/// Binds a row that is only a gid.
pub(super) fn put_gid(values: &mut Values, gid: &Gid) {
    values.put(&gid.as_bytes()[..]);
}

/// Reads transactions without their branches; those that are missing are left out.
pub(super) async fn load_heads(connection: &mut SqliteConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
    rows::heads(&HEADS.fetch(connection, &[], gids, put_gid).await?)
}

/// Reads transactions with their branches; those that are missing are left out. The caller's transaction makes the two agree.
pub(super) async fn load(connection: &mut SqliteConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
    let mut records = load_heads(connection, gids).await?;
    let branches = BRANCHES.fetch(connection, &[], &rows::with_branches(&records), put_gid).await?;
    rows::add_branches(&mut records, &branches)?;
    Ok(records)
}
