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
