//! Loading transactions by their gids, for writes and reads alike.

use std::collections::HashMap;

use sqlx::{PgConnection, query};
use tcc_types::Gid;

use crate::{
    TxRecord,
    fault::Fault,
    rows::{self, branch_columns, head_columns},
};

/// The gids as they are bound.
pub(super) fn bytes_of(gids: &[Gid]) -> Vec<&[u8]> {
    gids.iter().map(|gid| &gid.as_bytes()[..]).collect()
}

pub(super) const TOUCH: &str =
    "SELECT gid FROM tcc_log_transactions WHERE gid = ANY($1::bytea[]) ORDER BY gid FOR NO KEY UPDATE";

/// Locks what others wrote, which is a write too: the commit that follows waits until theirs is on every disk and standby that it
/// has to be on. A transaction that only reads would tell of it earlier, for instance after a crash that cut the wait for a standby
/// short.
pub(super) async fn touch(connection: &mut PgConnection, gids: &[Gid]) -> Result<(), Fault> {
    if !gids.is_empty() {
        query(TOUCH).bind(bytes_of(gids)).execute(connection).await?;
    }
    Ok(())
}

/// Reads transactions without their branches; those that are missing are left out.
pub(super) async fn load_heads(connection: &mut PgConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
    if gids.is_empty() {
        return Ok(HashMap::new());
    }
    let text = concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions WHERE gid = ANY($1::bytea[])");
    rows::heads(&query(text).bind(bytes_of(gids)).fetch_all(connection).await?)
}

/// Reads transactions with their branches; those that are missing are left out. Where the two must agree, the caller's
/// transaction sees to that.
pub(super) async fn load(connection: &mut PgConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
    let mut records = load_heads(connection, gids).await?;
    let with_branches = rows::with_branches(&records);
    if !with_branches.is_empty() {
        let text =
            concat!("SELECT ", branch_columns!(), " FROM tcc_log_branches WHERE gid = ANY($1::bytea[]) ORDER BY gid, seq");
        let branches = query(text).bind(bytes_of(&with_branches)).fetch_all(connection).await?;
        rows::add_branches(&mut records, &branches)?;
    }
    Ok(records)
}

/// As [`load`], but leaves out what this program cannot read (a later version may have written it): one such row must not keep
/// all others from being taken up.
pub(super) async fn load_readable(connection: &mut PgConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Fault> {
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
