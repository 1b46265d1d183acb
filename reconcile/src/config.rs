//! What to compare, and every limit of the reconciler with its name, unit and default. From a TOML file, the environment, and the
//! command's options above both.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::Deserialize;
use tcc_types::{LogName, ParticipantName};

use crate::Error;

/// What the names of environment variables begin with.
pub const ENV_PREFIX: &str = "TCC_RECONCILE";

/// What is compared, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The URL of the log's database.
    pub log: Url,
    /// What the log must be called; a database of another name is refused. Default: it is taken as it is.
    pub log_name: Option<LogName>,
    /// The URLs of the databases of participants on the SDK, by the names under which the coordinator calls them.
    pub participants: BTreeMap<ParticipantName, Url>,
    /// The gateway's orders: a URL, or `name=URL` if the coordinator calls them otherwise than `order`. The orders' rows are
    /// compared with their branches.
    pub orders: Option<Named>,
    /// Stock: a URL, or `name=URL` if the coordinator calls it otherwise than `inventory`. Its columns are compared with its
    /// branches.
    pub inventory: Option<Named>,
    /// Coupons: a URL, or `name=URL` if the coordinator calls it otherwise than `coupon`. They are compared with their branches.
    pub coupon: Option<Named>,
    /// For how long a disagreement must stand unchanged, and how late something may be, in milliseconds. The default is longer than
    /// a takeover takes (`lease_ms` + `recovery_interval_ms`), than a repeated call (`retry_cap_ms` + `call_timeout_ms`), and than a
    /// participant's pause between two sweeps, all by their defaults. 0 to 3,600,000.
    pub grace_ms: u64,
    /// Looks at what disagreed, spread over the grace. 1 to 100.
    pub looks: u32,
    /// The coordinator's `retention_ms`. A longer one than the coordinator's makes what it has deleted look lost.
    pub log_retention_ms: u64,
    /// The shortest `retention_ms` of any participant. A longer one than theirs makes what they have deleted look lost.
    pub participant_retention_ms: u64,
    /// Transactions, or rows, that one statement reads at most. 1 to 10,000.
    pub page_size: u32,
    /// Transactions that are kept for a second look at most, and findings about the columns of one database at most. What is more is
    /// only counted, and the run is incomplete. 1 to 1,000,000.
    pub candidates_max: usize,
    /// SKUs (their buckets apart) of which reservations are added up at most; more are an error. 1 to 100,000,000.
    pub resources_max: usize,
    /// How long a statement may take, in milliseconds. 1 to 3,600,000.
    pub statement_timeout_ms: u64,
    /// Also compares what is sold with the confirmed rows: reads the history of the inventory in one snapshot, so not for every
    /// minute.
    pub sold: bool,
    /// What is overdue counts as a disagreement.
    pub strict: bool,
}

impl Default for Config {
    fn default() -> Self {
        const WEEK_MS: u64 = 7 * 24 * 3_600_000;
        Self {
            log: Url::default(),
            log_name: None,
            participants: BTreeMap::new(),
            orders: None,
            inventory: None,
            coupon: None,
            grace_ms: 10_000,
            looks: 5,
            log_retention_ms: WEEK_MS,
            participant_retention_ms: WEEK_MS,
            page_size: 512,
            candidates_max: 10_000,
            resources_max: 1_000_000,
            statement_timeout_ms: 30_000,
            sold: false,
            strict: false,
        }
    }
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first that does not fit, by its name.
    pub fn validate(&self) -> Result<(), Error> {
        let limits = [
            ("grace_ms", self.grace_ms, 0, 3_600_000),
            ("looks", self.looks.into(), 1, 100),
            ("page_size", self.page_size.into(), 1, 10_000),
            ("candidates_max", self.candidates_max as u64, 1, 1_000_000),
            ("resources_max", self.resources_max as u64, 1, 100_000_000),
            ("statement_timeout_ms", self.statement_timeout_ms, 1, 3_600_000),
        ];
        if let Some((field, _, low, high)) = limits.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            return Err(Error::config(field, format!("must be {low} to {high}")));
        }
        if self.log.0.is_empty() {
            return Err(Error::config("log", "the URL of the log's database is missing"));
        }
        Ok(())
    }

    pub(crate) const fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    pub(crate) const fn statement_timeout(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms)
    }
}

/// Where a database is. Never shown: there may be a password in it.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Url(pub String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split(':').next().unwrap_or_default();
        write!(f, "{scheme}:…")
    }
}

/// A database, and the participant's name if it is not the usual one: `URL` or `name=URL`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Named {
    /// As the coordinator calls it; `None`: the usual name.
    pub name: Option<ParticipantName>,
    /// Where it is.
    pub url: Url,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split_once('=').and_then(|(name, url)| Some((ParticipantName::new(name).ok()?, url)));
        Ok(match named {
            Some((name, url)) => Self { name: Some(name), url: Url(url.to_owned()) },
            None => Self { name: None, url: Url(text.to_owned()) },
        })
    }
}

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_database_may_have_a_name_before_its_url() {
        let named: Named = "warehouse=postgres://u@h/a?sslmode=disable".parse().unwrap();
        assert_eq!(named.name.unwrap().as_str(), "warehouse");
        assert_eq!(named.url.0, "postgres://u@h/a?sslmode=disable");
        let plain: Named = "postgres://u@h/a?sslmode=disable".parse().unwrap();
        assert_eq!((plain.name, plain.url.0.as_str()), (None, "postgres://u@h/a?sslmode=disable"));
    }

    #[test]
    fn the_example_file_has_every_setting_with_its_default() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/reconcile.example.toml");
        let example: Config = tcc_service::config::load(Some(Path::new(file)), "TCC_RECONCILE_TEST").unwrap();
        example.validate().unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        for line in format!("{example:#?}").lines() {
            let field =
                line.strip_prefix("    ").and_then(|line| line.split_once(": ")).filter(|(name, _)| !name.starts_with(' '));
            if let Some((name, _)) = field {
                let there = text.contains(&format!("\n{name} = ")) || text.contains(&format!("\n[{name}]\n"));
                assert!(there, "{name} is not in the example");
            }
        }
        // What has no default.
        let Config { log, log_name, orders, inventory, coupon, participants, .. } = example.clone();
        assert_eq!(example, Config { log, log_name, orders, inventory, coupon, participants, ..Config::default() });
    }

    #[test]
    fn settings_that_do_not_fit_are_named_and_no_url_is_shown() {
        let sound = Config { log: Url("postgres://u:secret@h/a".to_owned()), ..Config::default() };
        sound.validate().unwrap();
        assert!(!format!("{sound:?}").contains("secret"));
        let bad = [
            (Config::default(), "log:"),
            (Config { looks: 0, ..sound.clone() }, "looks:"),
            (Config { page_size: 10_001, ..sound.clone() }, "page_size:"),
            (Config { grace_ms: 3_600_001, ..sound }, "grace_ms:"),
        ];
        for (config, field) in bad {
            let error = config.validate().expect_err(field).to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
