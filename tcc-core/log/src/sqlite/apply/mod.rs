//! The statements of each kind of write, over whole groups. Runs inside the writer's transaction; sets answers, tells none.

mod alone;
mod begin;
mod decide;
mod enlist;
#[cfg(test)]
mod equivalence;
mod progress;
#[cfg(test)]
mod tests;

use sqlx::SqliteConnection;
use tcc_types::Timestamp;

use crate::{fault::Fault, writer::plan::Run};

/// Runs the statements of one run.
pub(super) async fn apply(connection: &mut SqliteConnection, run: &mut Run, now: Timestamp) -> Result<(), Fault> {
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
