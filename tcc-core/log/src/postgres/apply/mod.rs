//! The statements of each kind of write, over whole groups. Runs inside the writer's transaction; sets answers, tells none.
//!
//! Other gateways write at the same time: each statement writes first, and what it did not change is looked at in a new one,
//! which sees what the first one waited for. Within a statement rows go in key order, so that two gateways rarely meet crosswise.

mod alone;
mod begin;
mod decide;
mod enlist;
mod progress;
#[cfg(test)]
mod tests;

use sqlx::PgConnection;
use tcc_types::Timestamp;

use crate::{fault::Fault, writer::plan::Run};

/// Runs the statements of one run.
pub(super) async fn apply(connection: &mut PgConnection, run: &mut Run, now: Timestamp) -> Result<(), Fault> {
    begin::apply(connection, &mut run.begins, now).await?;
    enlist::apply(connection, &mut run.enlists).await?;
    decide::apply(connection, &mut run.decides, now).await?;
    progress::park(connection, &mut run.parks).await?;
    progress::finish(connection, &mut run.finishes, now).await?;
    match &mut run.alone {
        Some(alone) => alone::apply(connection, alone, now).await,
        None => Ok(()),
    }
}

/// One column of a list of items, as it is bound to `unnest`.
fn column<'a, T, V>(items: &'a [T], of: impl Fn(&'a T) -> V) -> Vec<V> {
    items.iter().map(of).collect()
}
