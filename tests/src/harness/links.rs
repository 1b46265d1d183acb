//! A proxy between every two parties that speak with each other, and between each of them and its database.

use std::{fmt, net::SocketAddr, sync::Arc};

use anyhow::Context;

use super::{Owner, Party, Proxy, Store, config::Peers, databases::Databases};

/// What goes from one party to another, and what comes back.
#[derive(Debug)]
pub struct Link {
    /// Who connects.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// Through what.
    pub proxy: Proxy,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// All links of a cluster; none where parties reach each other directly.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<[Link]>);

impl Links {
    /// Who connects to whom in a cluster with so many gateways, in an order that is always the same. A file is not connected to.
    #[must_use]
    pub fn pairs(store: Store, gateways: usize) -> Vec<(Party, Party)> {
        let mut pairs = Vec::new();
        for gateway in (0..gateways).map(Party::Gateway) {
            pairs.push((Party::Clients, gateway));
            for participant in [Party::Inventory, Party::Coupon] {
                pairs.push((gateway, participant));
                // Participants ask gateways what became of their rows.
                pairs.push((participant, gateway));
            }
            for owner in [Owner::Log, Owner::Orders] {
                pairs.push((gateway, Party::Database(owner)));
            }
        }
        pairs.push((Party::Inventory, Party::Database(Owner::Inventory)));
        pairs.push((Party::Coupon, Party::Database(Owner::Coupon)));
        match store {
            Store::Sqlite => pairs.retain(|(_, to)| !matches!(to, Party::Database(_))),
            Store::Postgres | Store::Mysql => {}
        }
        pairs
    }

    /// Stands between everybody.
    pub(crate) async fn start(peers: &Peers, databases: &Databases) -> anyhow::Result<Self> {
        let mut links = Vec::new();
        for (from, to) in Self::pairs(databases.store(), peers.gateways.len()) {
            let target = match to {
                Party::Gateway(index) => peers.gateways[index],
                Party::Inventory => peers.inventory,
                Party::Coupon => peers.coupon,
                Party::Database(_) => databases.address().context("proxies need a private database server, or SQLite")?,
                Party::Clients => anyhow::bail!("nobody connects to clients"),
            };
            links.push(Link { from, to, proxy: Proxy::start(target).await? });
        }
        Ok(Self(links.into()))
    }

    /// All of them, in the order of [`Self::pairs`].
    #[must_use]
    pub fn all(&self) -> &[Link] {
        &self.0
    }

    /// Those that lead to a party.
    #[must_use]
    pub fn to(&self, to: Party) -> Vec<&Link> {
        self.0.iter().filter(|link| link.to == to).collect()
    }

    /// Where one party reaches another; `None`: directly.
    pub(crate) fn address(&self, from: Party, to: Party) -> Option<SocketAddr> {
        self.0.iter().find(|link| (link.from, link.to) == (from, to)).map(|link| link.proxy.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_linked_once_to_whom_they_need() {
        for (store, gateways, expected) in [(Store::Postgres, 3, 3 * 7 + 2), (Store::Mysql, 1, 9), (Store::Sqlite, 1, 5)] {
            let mut pairs = Links::pairs(store, gateways);
            assert_eq!(pairs.len(), expected, "{store}");
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), expected, "{store}: a pair is there twice");
        }
    }
}
