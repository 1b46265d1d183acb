//! What all owners of a database have in common, for each kind of database: how a URL names it, how a session must be set up, how
//! its clock is read, how migrations run, and pooled connections whose server may vanish. No tables, and nothing of transactions.

pub mod lease;
#[cfg(feature = "memory")]
pub mod memory;
pub mod mysql;
pub mod postgres;
pub mod sqlite;

/// What is wrong with a URL that has a parameter which is not in `known`: the driver would pass it over, and log its value, which
/// may be a mistyped password.
fn unknown_parameter(url: &str, known: &[&str], problem: &'static str) -> Result<(), &'static str> {
    let (_, parameters) = url.split_once('?').unwrap_or_default();
    let mut names = parameters.split('&').filter(|one| !one.is_empty()).map(|one| one.split('=').next().unwrap_or_default());
    if names.all(|name| known.contains(&name)) { Ok(()) } else { Err(problem) }
}
