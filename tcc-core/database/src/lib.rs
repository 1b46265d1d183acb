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

/// A URL as it may be told: without user, password and parameters.
#[must_use]
pub fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.split(':').next().unwrap_or_default().to_owned() };
    // A password may have any character that its writer forgot to escape: the last `@` ends it.
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_told_without_what_may_be_secret() {
        assert_eq!(without_secrets("mysql://tcc:secret@db:3306/log"), "mysql://db:3306/log");
        assert_eq!(without_secrets("postgres://tcc:se@cret@db/log?password=x"), "postgres://db/log");
        assert_eq!(without_secrets("sqlite://data/log.db"), "sqlite://data/log.db");
    }
}
