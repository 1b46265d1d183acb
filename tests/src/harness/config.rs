//! What a cluster is made of, and the configuration that each of its processes is given.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context;
use serde_json::{Value, json};
use tcc_servers::Kind;

use super::{
    Links, Party,
    databases::{self, Databases},
};

/// The name of the cluster's transaction log.
pub const LOG_NAME: &str = "cluster";

/// One of the cluster's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Role {
    /// The order API with the coordinator.
    Gateway,
    /// Stock.
    Inventory,
    /// Coupons.
    Coupon,
}

impl Role {
    /// In the order in which they are started.
    pub const ALL: [Self; 3] = [Self::Inventory, Self::Coupon, Self::Gateway];

    /// As in the configuration, in log files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Inventory => "inventory",
            Self::Coupon => "coupon",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which database everything is kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Store {
    /// A file for each owner.
    #[default]
    Sqlite,
    /// A PostgreSQL database for each owner.
    Postgres,
    /// A MySQL or MariaDB database for each owner.
    Mysql,
}

impl Store {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sqlite, Self::Postgres, Self::Mysql];
    /// Those that several gateways can share.
    pub const SERVERS: [Self; 2] = [Self::Postgres, Self::Mysql];

    /// The server that it needs.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Kind::Postgres),
            Self::Mysql => Some(Kind::Mysql),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
        })
    }
}

/// Which server holds the databases, for a store that needs one. Each owner has a database of its own on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerChoice {
    /// A private one that all clusters of this process share: nobody may kill it.
    #[default]
    Shared,
    /// A private one of this cluster only, to be killed and restarted at will.
    Own,
    /// The user's. The URL's database part, or else `tcc`, begins the names of the databases, which are made where they are
    /// missing. A cluster in a temporary folder has databases of its own there, dropped when it stops.
    At(String),
}

/// Who keeps rows in a database of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The coordinator's transactions.
    Log,
    /// The gateway's orders.
    Orders,
    /// Stock.
    Inventory,
    /// Coupons.
    Coupon,
}

impl Owner {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Log, Self::Orders, Self::Inventory, Self::Coupon];

    /// As its database is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Coupon => "coupon",
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Log => 0,
            Self::Orders => 1,
            Self::Inventory => 2,
            Self::Coupon => 3,
        }
    }
}

/// Where a cluster keeps its logs, and its databases if they are files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// A new one, removed with the cluster.
    Temporary,
    /// This one, made if it is missing and kept.
    At(PathBuf),
}

/// The ports to listen on; 0 takes a free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// The first gateway's; the others have the ports after it.
    pub gateway: u16,
    /// The inventory participant's.
    pub inventory: u16,
    /// The coupon participant's.
    pub coupon: u16,
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The tcc-cluster binary whose hidden roles the processes are.
    pub binary: PathBuf,
    /// Logs, and the databases of SQLite.
    pub folder: Folder,
    /// What everything is kept in.
    pub store: Store,
    /// Where, if that needs a server.
    pub server: ServerChoice,
    /// Settings of that server by name, if the cluster starts one of its own.
    pub server_settings: Vec<(String, String)>,
    /// How many gateways serve the same log. SQLite's log belongs to one at a time.
    pub gateways: usize,
    /// Where to listen.
    pub ports: Ports,
    /// What the processes log, in the language of `RUST_LOG`.
    pub log_filter: String,
    /// Fields of the gateways' `coordinator` section that differ from their defaults.
    pub coordinator: Value,
    /// Fields of the gateways' `log` section that differ from their defaults.
    pub log: Value,
    /// Fields of the participants' `participant` section, the orders' own included, that differ from their defaults.
    pub participant: Value,
    /// Everybody reaches everybody, and their databases, through [`Links`] that can be harmed. The harness itself goes past them.
    pub linked: bool,
    /// Processes take [`Cluster::limit_files`](super::Cluster::limit_files) as a full disk, and not as their end.
    pub disks_may_fill: bool,
    /// Participants beside the cluster's own, by name: where they are.
    pub more_participants: BTreeMap<String, String>,
    /// How long open calls may go on when a process ends gracefully.
    pub drain_ms: u64,
}

impl ClusterConfig {
    /// A throw-away cluster of the given binary on free ports.
    #[must_use]
    pub fn temporary(binary: PathBuf) -> Self {
        Self {
            binary,
            folder: Folder::Temporary,
            store: Store::default(),
            server: ServerChoice::default(),
            server_settings: Vec::new(),
            gateways: 1,
            ports: Ports::default(),
            log_filter: "info".to_owned(),
            coordinator: json!({}),
            log: json!({}),
            participant: json!({}),
            linked: false,
            disks_may_fill: false,
            more_participants: BTreeMap::new(),
            drain_ms: 5_000,
        }
    }

    fn participants(&self, from: &Reach<'_>) -> BTreeMap<String, Value> {
        let own = [("inventory", Party::Inventory), ("coupon", Party::Coupon)];
        let own = own.map(|(name, party)| (name.to_owned(), from.endpoint(party)));
        let more = self.more_participants.iter().map(|(name, endpoint)| (name.clone(), endpoint.clone()));
        own.into_iter().chain(more).map(|(name, endpoint)| (name, json!({ "endpoint": endpoint }))).collect()
    }

    /// The configuration of one process, as its shipped binary would read it from a file.
    pub(crate) fn of(&self, role: Role, listen: SocketAddr, from: &Reach<'_>) -> Value {
        let telemetry = json!({ "filter": self.log_filter });
        let gateways: Vec<String> = from.peers.gateways().map(|gateway| from.endpoint(gateway)).collect();
        let of_participant = |owner| {
            json!({
                "listen": listen,
                "database_url": from.url(owner),
                "participant": self.participant,
                "coordinators": { LOG_NAME: { "endpoints": gateways } },
                "drain_ms": self.drain_ms,
                "telemetry": telemetry,
            })
        };
        match role {
            Role::Gateway => json!({
                "listen": listen,
                "log": with(json!({ "database_url": from.url(Owner::Log), "name": LOG_NAME }), &self.log),
                "orders": { "database_url": from.url(Owner::Orders), "participant": self.participant },
                "coordinator": self.coordinator,
                "participants": self.participants(from),
                "drain_ms": self.drain_ms,
                "telemetry": telemetry,
            }),
            Role::Inventory => of_participant(Owner::Inventory),
            Role::Coupon => of_participant(Owner::Coupon),
        }
    }
}

/// How one party reaches the others: through its links, where it has any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach<'a> {
    pub(crate) from: Party,
    pub(crate) peers: &'a Peers,
    pub(crate) databases: &'a Databases,
    pub(crate) links: &'a Links,
}

impl Reach<'_> {
    fn endpoint(&self, to: Party) -> String {
        let direct = || self.peers.address(to).map(endpoint).unwrap_or_default();
        self.links.address(self.from, to).map_or_else(direct, endpoint)
    }

    fn url(&self, owner: Owner) -> String {
        let url = self.databases.url(owner);
        let link = self.links.address(self.from, Party::Database(owner));
        link.map_or_else(|| url.to_owned(), |address| databases::through(url, address))
    }
}

/// Who is where.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) gateways: Vec<SocketAddr>,
    pub(crate) inventory: SocketAddr,
    pub(crate) coupon: SocketAddr,
}

impl Peers {
    /// Every port is known before anybody starts, since gateways and participants must know of each other.
    pub(crate) fn choose(ports: Ports, gateways: usize) -> anyhow::Result<Self> {
        let localhost = |port| -> anyhow::Result<SocketAddr> {
            let port = if port == 0 { tcc_servers::free_port()? } else { port };
            Ok((Ipv4Addr::LOCALHOST, port).into())
        };
        let nth = |index: usize| match ports.gateway {
            0 => localhost(0),
            first => localhost(u16::try_from(index).ok().and_then(|index| first.checked_add(index)).context("no such port")?),
        };
        let gateways = (0..gateways).map(nth).collect::<anyhow::Result<_>>()?;
        Ok(Self { gateways, inventory: localhost(ports.inventory)?, coupon: localhost(ports.coupon)? })
    }

    pub(crate) fn gateways(&self) -> impl Iterator<Item = Party> {
        (0..self.gateways.len()).map(Party::Gateway)
    }

    /// Where a process listens; `None`: it is none of ours.
    pub(crate) fn address(&self, party: Party) -> Option<SocketAddr> {
        match party {
            Party::Gateway(index) => self.gateways.get(index).copied(),
            Party::Inventory => Some(self.inventory),
            Party::Coupon => Some(self.coupon),
            Party::Clients | Party::Database(_) => None,
        }
    }
}

pub(crate) fn endpoint(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// An object with the fields of another put into it.
fn with(mut object: Value, fields: &Value) -> Value {
    if let (Some(object), Some(fields)) = (object.as_object_mut(), fields.as_object()) {
        object.extend(fields.clone());
    }
    object
}
