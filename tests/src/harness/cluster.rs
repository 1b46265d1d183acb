//! The gateway and both participants as processes, on one folder and on ports that stay theirs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, bail};
use tcc_proto::{
    coupon::v1::coupon_service_client::CouponServiceClient,
    inventory::v1::inventory_service_client::InventoryServiceClient,
    order::v1::order_service_client::OrderServiceClient,
    tcc::v1::{admin_client::AdminClient, coordinator_client::CoordinatorClient, participant_client::ParticipantClient},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

use super::{
    Child, ClusterConfig, Folder, Ledger, Role, Scope, broken_rules,
    child::{Launch, log_tail},
    config::{Peers, endpoint},
};

/// A call of the harness that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A port may be taken for a moment by somebody else's outgoing connection: a restart tries again for so long.
const PORT_WITHIN: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A running cluster. Dropped, it kills its processes.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    folder: PathBuf,
    peers: Peers,
    children: [Option<Child>; 3],
    channels: [Channel; 3],
    temporary: Option<TempDir>,
}

impl Cluster {
    /// Starts both participants and the gateway, and waits until each serves.
    ///
    /// # Errors
    /// A process did not start, or ended before it served: then with the end of its log.
    pub async fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        let (folder, temporary) = match &config.folder {
            Folder::Temporary => {
                let temporary = tempfile::Builder::new().prefix("tcc-cluster-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
            Folder::At(path) => (path.clone(), None),
        };
        std::fs::create_dir_all(folder.join("logs")).with_context(|| format!("cannot make {}", folder.display()))?;
        let localhost = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut peers = Peers {
            gateway: localhost(config.ports.gateway),
            inventory: localhost(config.ports.inventory),
            coupon: localhost(config.ports.coupon),
        };
        let mut children = [None, None, None];
        for role in Role::ALL {
            let launch = Launch {
                binary: &config.binary,
                role,
                config_json: config.of(role, &folder, peers.address(role), &peers).to_string(),
                park_at: None,
                log_file: log_file(&folder, role),
            };
            let child = Child::start(launch).await?;
            peers.set(role, child.address());
            children[role.index()] = Some(child);
        }
        let channel = |role| channel_to(peers.address(role));
        let channels = [channel(Role::Gateway)?, channel(Role::Inventory)?, channel(Role::Coupon)?];
        Ok(Self { config, folder, peers, children, channels, temporary })
    }

    /// Ends a process at once (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill(&mut self, role: Role) -> anyhow::Result<()> {
        let mut child = self.take(role)?;
        child.kill().await
    }

    /// Asks a process to end gracefully (SIGTERM), and waits until it is gone.
    ///
    /// # Errors
    /// It is not running, or does not end.
    pub async fn terminate(&mut self, role: Role) -> anyhow::Result<ExitStatus> {
        let mut child = self.take(role)?;
        child.ask_to_end()?;
        child.wait().await
    }

    /// Freezes a process (SIGSTOP), so that calls to it stay under way until it is killed.
    ///
    /// # Errors
    /// It is not running.
    pub fn freeze(&self, role: Role) -> anyhow::Result<()> {
        self.children[role.index()].as_ref().with_context(|| format!("{role} is not running"))?.freeze()
    }

    /// Brings a process back on its former port and its former database, and waits until it serves.
    ///
    /// # Errors
    /// It is running, or does not start.
    pub async fn restart(&mut self, role: Role) -> anyhow::Result<()> {
        self.start_again(role, None).await
    }

    /// Brings the gateway back such that it stands still when it reaches a fail point; see [`Cluster::parked`].
    ///
    /// # Errors
    /// It is running, does not start, or was built without the feature `failpoints`.
    pub async fn restart_gateway_parking_at(&mut self, point: &str) -> anyhow::Result<()> {
        self.start_again(Role::Gateway, Some(point)).await
    }

    /// Waits until the gateway stands still at its fail point; tells which. Cancel-safe.
    ///
    /// # Errors
    /// The gateway is not running, or ended.
    pub async fn parked(&mut self) -> anyhow::Result<String> {
        self.gateway()?.parked().await
    }

    /// Asks the gateway to end (SIGTERM); tells whether it stood still at its fail point instead, which it does for good.
    ///
    /// # Errors
    /// The gateway is not running.
    pub async fn parks_rather_than_ends(&mut self) -> anyhow::Result<bool> {
        let gateway = self.gateway()?;
        gateway.ask_to_end()?;
        Ok(gateway.parked().await.is_ok())
    }

    fn gateway(&mut self) -> anyhow::Result<&mut Child> {
        self.children[Role::Gateway.index()].as_mut().context("the gateway is not running")
    }

    /// Starts a second gateway on the same databases, which must not succeed.
    ///
    /// # Errors
    /// The expected one is [`Exited`](super::Exited).
    pub async fn start_second_gateway(&self) -> anyhow::Result<Child> {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let launch = Launch {
            binary: &self.config.binary,
            role: Role::Gateway,
            config_json: self.config.of(Role::Gateway, &self.folder, listen, &self.peers).to_string(),
            park_at: None,
            log_file: self.folder.join("logs").join("second-gateway.log"),
        };
        Child::start(launch).await
    }

    /// Waits until any process ends by itself; tells which and how. Cancel-safe.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn any_ended(&mut self) -> anyhow::Result<(Role, ExitStatus)> {
        let mut ends = Vec::new();
        for (role, child) in [Role::Gateway, Role::Inventory, Role::Coupon].into_iter().zip(&mut self.children) {
            if let Some(child) = child {
                ends.push(Box::pin(async move { child.ended().await.map(|status| (role, status)) }));
            }
        }
        if ends.is_empty() {
            bail!("no process is running");
        }
        let (ended, _, _) = futures::future::select_all(ends).await;
        Ok(ended?)
    }

    /// Ends everything gracefully: the gateway first, so that the orders under way still find their participants.
    ///
    /// # Errors
    /// A process does not end, or ends with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for role in [Role::Gateway, Role::Coupon, Role::Inventory] {
            if self.children[role.index()].is_some() {
                let status = self.terminate(role).await?;
                if !status.success() {
                    bail!("{role} ended with {status}; the end of its log:\n{}", log_tail(&log_file(&self.folder, role)));
                }
            }
        }
        Ok(())
    }

    /// Databases and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a temporary folder for whoever wants to look into it.
    pub fn keep_folder(&mut self) -> &Path {
        if let Some(temporary) = &mut self.temporary {
            temporary.disable_cleanup(true);
        }
        &self.folder
    }

    /// Where a process listens, running or not.
    #[must_use]
    pub fn address(&self, role: Role) -> SocketAddr {
        self.peers.address(role)
    }

    /// A channel to a process; it connects again after a restart.
    #[must_use]
    pub fn channel(&self, role: Role) -> Channel {
        self.channels[role.index()].clone()
    }

    /// The gateway's orders.
    #[must_use]
    pub fn orders(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel(Role::Gateway))
    }

    /// The gateway's coordinator.
    #[must_use]
    pub fn coordinator(&self) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channel(Role::Gateway))
    }

    /// The gateway's operator API.
    #[must_use]
    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel(Role::Gateway))
    }

    /// Stock.
    #[must_use]
    pub fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.channel(Role::Inventory))
    }

    /// Coupons.
    #[must_use]
    pub fn coupons(&self) -> CouponServiceClient<Channel> {
        CouponServiceClient::new(self.channel(Role::Coupon))
    }

    /// A participant's side of the contract, called directly as the coordinator would.
    #[must_use]
    pub fn participant(&self, role: Role) -> ParticipantClient<Channel> {
        ParticipantClient::new(self.channel(role))
    }

    /// Everything the cluster knows, from its databases and its services.
    ///
    /// # Errors
    /// A process is not running, or a database cannot be read.
    pub async fn ledger(&self) -> anyhow::Result<Ledger> {
        Ledger::read(self).await
    }

    /// The rules that do not hold, each as a sentence. Empty: the books balance.
    ///
    /// # Errors
    /// As [`Cluster::ledger`].
    pub async fn books(&self, scope: Scope) -> anyhow::Result<Vec<String>> {
        Ok(broken_rules(&self.ledger().await?, scope))
    }

    /// Waits until every transaction has ended everywhere; after `within` returns what has not.
    ///
    /// # Errors
    /// As [`Cluster::ledger`], after the whole time.
    pub async fn quiet(&self, within: Duration) -> anyhow::Result<Result<(), String>> {
        let give_up = Instant::now() + within;
        loop {
            let open = Ledger::unfinished(self).await;
            let late = Instant::now() >= give_up;
            match open {
                Ok(None) => return Ok(Ok(())),
                Ok(Some(what)) if late => return Ok(Err(what)),
                Err(error) if late => return Err(error),
                Ok(Some(_)) | Err(_) => sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// The end of each process's log.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let tail = |role| format!("--- {role}\n{}\n", log_tail(&log_file(&self.folder, role)));
        Role::ALL.map(tail).concat()
    }

    fn take(&mut self, role: Role) -> anyhow::Result<Child> {
        self.children[role.index()].take().with_context(|| format!("{role} is not running"))
    }

    async fn start_again(&mut self, role: Role, park_at: Option<&str>) -> anyhow::Result<()> {
        if self.children[role.index()].is_some() {
            bail!("{role} is running");
        }
        let give_up = Instant::now() + PORT_WITHIN;
        loop {
            let launch = Launch {
                binary: &self.config.binary,
                role,
                config_json: self.config.of(role, &self.folder, self.peers.address(role), &self.peers).to_string(),
                park_at,
                log_file: log_file(&self.folder, role),
            };
            match Child::start(launch).await {
                Ok(child) => {
                    self.children[role.index()] = Some(child);
                    return Ok(());
                }
                Err(error) if format!("{error:#}").contains("cannot listen on") && Instant::now() < give_up => {
                    sleep(POLL_INTERVAL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
        }
    }
}

fn log_file(folder: &Path, role: Role) -> PathBuf {
    folder.join("logs").join(format!("{role}.log"))
}

fn channel_to(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(endpoint(address))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT).tcp_nodelay(true).connect_lazy())
}
