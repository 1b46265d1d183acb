//! What a cluster is made of, and the configuration that each of its processes is given.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

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

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Gateway => 0,
            Self::Inventory => 1,
            Self::Coupon => 2,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a cluster keeps its databases and logs.
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
    /// The gateway's.
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
    /// Databases and logs.
    pub folder: Folder,
    /// Where to listen.
    pub ports: Ports,
    /// What the processes log, in the language of `RUST_LOG`.
    pub log_filter: String,
    /// Fields of the gateway's `coordinator` section that differ from their defaults.
    pub coordinator: Value,
    /// Fields of the participants' `participant` section that differ from their defaults.
    pub participant: Value,
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
            ports: Ports::default(),
            log_filter: "info".to_owned(),
            coordinator: json!({}),
            participant: json!({}),
            more_participants: BTreeMap::new(),
            drain_ms: 5_000,
        }
    }

    fn participants(&self, peers: &Peers) -> BTreeMap<String, Value> {
        let own = [Role::Inventory, Role::Coupon].map(|role| (role.name().to_owned(), endpoint(peers.address(role))));
        let more = self.more_participants.iter().map(|(name, endpoint)| (name.clone(), endpoint.clone()));
        own.into_iter().chain(more).map(|(name, endpoint)| (name, json!({ "endpoint": endpoint }))).collect()
    }

    /// The configuration of one process, as its shipped binary would read it from a file.
    pub(crate) fn of(&self, role: Role, folder: &Path, listen: SocketAddr, peers: &Peers) -> Value {
        let telemetry = json!({ "filter": self.log_filter });
        match role {
            Role::Gateway => json!({
                "listen": listen,
                "log": { "database_url": database_url(folder, "log"), "name": LOG_NAME },
                "orders": { "database_url": database_url(folder, "orders") },
                "coordinator": self.coordinator,
                "participants": self.participants(peers),
                "drain_ms": self.drain_ms,
                "telemetry": telemetry,
            }),
            Role::Inventory | Role::Coupon => json!({
                "listen": listen,
                "database_url": database_url(folder, role.name()),
                "participant": self.participant,
                "drain_ms": self.drain_ms,
                "telemetry": telemetry,
            }),
        }
    }
}

/// Who is where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers {
    pub(crate) gateway: SocketAddr,
    pub(crate) inventory: SocketAddr,
    pub(crate) coupon: SocketAddr,
}

impl Peers {
    pub(crate) fn address(&self, role: Role) -> SocketAddr {
        match role {
            Role::Gateway => self.gateway,
            Role::Inventory => self.inventory,
            Role::Coupon => self.coupon,
        }
    }

    pub(crate) fn set(&mut self, role: Role, address: SocketAddr) {
        match role {
            Role::Gateway => self.gateway = address,
            Role::Inventory => self.inventory = address,
            Role::Coupon => self.coupon = address,
        }
    }
}

pub(crate) fn endpoint(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// The file of one database in a cluster's folder.
pub(crate) fn database_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.db"))
}

fn database_url(folder: &Path, name: &str) -> String {
    format!("sqlite://{}", database_file(folder, name).display())
}
