//! Which database, where, and how many gateways: the same on the command line of the demo and of `serve`.

use anyhow::{bail, ensure};
use clap::Args;

use crate::harness::{ClusterConfig, ServerChoice, Store, store_of_url};

/// Where everything is kept.
#[derive(Clone, Debug, Default, Args)]
pub struct StoreArgs {
    /// What everything is kept in. postgres and mysql (MySQL or MariaDB) start a private server, whose data goes with it, unless
    /// --database-url names yours.
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// Your own server: postgres://USER:PASSWORD@HOST:PORT/NAME or mysql://USER:PASSWORD@HOST:PORT/NAME.
    ///
    /// The databases NAME_log, NAME_orders, NAME_inventory and NAME_coupon are used, and made where they are missing (NAME is
    /// tcc if it is left out). The demo makes databases of its own, NAME_..._log and so on, and drops them if all is well. Best
    /// given as the variable, since everybody on this machine can read arguments.
    #[arg(long, env = "TCC_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// How many gateways serve the same orders. SQLite can have one only.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    gateways: u8,
}

impl StoreArgs {
    /// So many gateways on a private server that nobody else uses.
    #[must_use]
    pub const fn private(store: Store, gateways: u8) -> Self {
        Self { store: Some(store), database_url: None, gateways }
    }

    /// Puts it into a cluster's configuration.
    ///
    /// # Errors
    /// The arguments do not fit together.
    pub fn apply(self, config: ClusterConfig) -> anyhow::Result<ClusterConfig> {
        let (store, server) = match (self.store, self.database_url) {
            (None, None) => (Store::default(), ServerChoice::default()),
            (Some(store), None) => (store, ServerChoice::Own),
            (store, Some(url)) => {
                let named = store_of_url(&url)?;
                ensure!(store.is_none_or(|store| store == named), "--database-url is the URL of another database than --store");
                (named, ServerChoice::At(url))
            }
        };
        if store == Store::Sqlite && self.gateways > 1 {
            bail!(
                "--gateways {}: SQLite keeps the transaction log in a file that belongs to one gateway at a time. Several gateways \
                 need a database server: add --store postgres or --store mysql",
                self.gateways
            );
        }
        Ok(ClusterConfig { store, server, gateways: self.gateways.into(), ..config })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn applied(args: StoreArgs) -> Result<(Store, ServerChoice, usize), String> {
        let config = args.apply(ClusterConfig::temporary(PathBuf::new())).map_err(|error| format!("{error:#}"))?;
        Ok((config.store, config.server, config.gateways))
    }

    #[test]
    fn a_url_says_which_database_it_is_and_must_not_contradict_the_store() {
        let url = "mysql://ann:hush@x/shop".to_owned();
        let at = |store| StoreArgs { store, database_url: Some(url.clone()), gateways: 2 };
        assert_eq!(applied(at(None)), Ok((Store::Mysql, ServerChoice::At(url.clone()), 2)));
        assert_eq!(applied(at(Some(Store::Mysql))), Ok((Store::Mysql, ServerChoice::At(url.clone()), 2)));
        for store in [Store::Postgres, Store::Sqlite] {
            let error = applied(at(Some(store))).expect_err("they contradict each other");
            assert!(error.contains("--store") && !error.contains("hush"), "{error}");
        }
        let private = StoreArgs { store: Some(Store::Postgres), database_url: None, gateways: 3 };
        assert_eq!(applied(private), Ok((Store::Postgres, ServerChoice::Own, 3)));
    }

    #[test]
    fn several_gateways_on_sqlite_are_refused_with_the_reason() {
        let args = |gateways| StoreArgs { store: None, database_url: None, gateways };
        assert!(applied(args(1)).is_ok());
        let error = applied(args(2)).expect_err("SQLite has one gateway");
        assert!(error.contains("one gateway at a time") && error.contains("--store postgres"), "{error}");
    }
}
