//! Loading transactions by their gids, for writes and reads alike.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use tcc_database::sqlite::lists::{ManyRows, Values};
use tcc_types::Gid;

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

/// As [`load`], but leaves out what this program cannot read (a later version may have written it): one such row must not keep
/// all others from being taken up.
pub(super) async fn load_readable(connection: &mut SqliteConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
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
