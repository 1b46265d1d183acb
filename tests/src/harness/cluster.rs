//! The gateways and both participants as processes, on databases, a folder and ports that stay theirs.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tcc_proto::{
    coupon::v1::coupon_service_client::CouponServiceClient,
    inventory::v1::inventory_service_client::InventoryServiceClient,
    order::v1::order_service_client::OrderServiceClient,
    tcc::v1::{admin_client::AdminClient, coordinator_client::CoordinatorClient, participant_client::ParticipantClient},
};
use tcc_servers::Server;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::{
    Child, ClusterConfig, Folder, Ledger, Links, Owner, Party, Role, Scope, Store, broken_rules,
    child::{Launch, log_tail},
    config::{Peers, Reach, endpoint},
    databases::Databases,
};

/// A call of the harness that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A running cluster. Dropped, it kills its processes.
///
/// Where a method takes a [`Party`], a [`Role`] will do: [`Role::Gateway`] is the first gateway.
#[derive(Debug)]
pub struct Cluster {
    // In the order of dropping: processes first, then what they work on.
    processes: Vec<Process>,
    links: Links,
    peers: Peers,
    config: ClusterConfig,
    databases: Databases,
    folder: PathBuf,
    temporary: Option<TempDir>,
}

/// A process's place: it stays when the process is gone.
#[derive(Debug)]
struct Process {
    party: Party,
    role: Role,
    address: SocketAddr,
    channel: Channel,
    child: Option<Child>,
}

impl Cluster {
    /// Starts both participants and the gateways, and waits until each serves.
    ///
    /// # Errors
    /// The store cannot have so many gateways, a database server is missing or does not start, or a process did not start or
    /// ended before it served: then with the end of its log.
    pub async fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        ensure!(config.gateways >= 1, "a cluster has at least one gateway");
        if config.store == Store::Sqlite && config.gateways > 1 {
            bail!("SQLite's log is a file that belongs to one gateway at a time: several gateways need PostgreSQL or MySQL");
        }
        let (folder, temporary) = match &config.folder {
            Folder::Temporary => {
                let temporary = tempfile::Builder::new().prefix("tcc-cluster-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
            Folder::At(path) => (path.clone(), None),
        };
        std::fs::create_dir_all(folder.join("logs")).with_context(|| format!("cannot make {}", folder.display()))?;
        let databases = Databases::open(&config, &folder).await?;
        let peers = Peers::choose(config.ports, config.gateways)?;
        let links = if config.linked { Links::start(&peers, &databases).await? } else { Links::default() };
        let processes = Party::processes(config.gateways).into_iter().filter_map(|party| {
            let (role, address) = (party.role()?, peers.address(party)?);
            Some(Process::new(party, role, address))
        });
        let processes = processes.collect::<anyhow::Result<_>>()?;
        let mut cluster = Self { processes, links, peers, config, databases, folder, temporary };
        for party in Party::processes(cluster.gateways()) {
            cluster.restart(party).await?;
        }
        Ok(cluster)
    }

    /// Ends a process at once (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill(&mut self, party: impl Into<Party>) -> anyhow::Result<()> {
        self.take(party)?.kill().await
    }

    /// Asks a process to end gracefully (SIGTERM), and waits until it is gone.
    ///
    /// # Errors
    /// It is not running, or does not end.
    pub async fn terminate(&mut self, party: impl Into<Party>) -> anyhow::Result<ExitStatus> {
        let mut child = self.take(party)?;
        child.ask_to_end()?;
        child.wait().await
    }

    /// Freezes a process (SIGSTOP): calls to it stay under way, and it knows nothing of the time that passes, until it is killed or
    /// goes on.
    ///
    /// # Errors
    /// It is not running.
    pub fn freeze(&self, party: impl Into<Party>) -> anyhow::Result<()> {
        self.running(party)?.freeze()
    }

    /// Lets a frozen process go on where it was.
    ///
    /// # Errors
    /// It is not running.
    pub fn thaw(&self, party: impl Into<Party>) -> anyhow::Result<()> {
        self.running(party)?.thaw()
    }

    /// From now on a process can write no file beyond so many bytes, as if its disk were full; `None`: it can again. For clusters
    /// whose `disks_may_fill`.
    ///
    /// # Errors
    /// It is not running.
    pub fn limit_files(&self, party: impl Into<Party>, bytes: Option<u64>) -> anyhow::Result<()> {
        ensure!(self.config.disks_may_fill, "the processes of this cluster would end at the limit");
        self.running(party)?.limit_files(bytes)
    }

    /// Brings a process back on its former port and its former database, and waits until it serves.
    ///
    /// # Errors
    /// It is running, or does not start.
    pub async fn restart(&mut self, party: impl Into<Party>) -> anyhow::Result<()> {
        let party = party.into();
        let child = self.launch(party, None)?.start().await?;
        self.put(party, child)
    }

    /// Brings the gateway back such that it stands still when it reaches a fail point; see [`Cluster::parked`].
    ///
    /// # Errors
    /// It is running, does not start, or was built without the feature `failpoints`.
    pub async fn restart_gateway_parking_at(&mut self, point: &str) -> anyhow::Result<()> {
        let gateway = Party::from(Role::Gateway);
        let child = self.launch(gateway, Some(point))?.start().await?;
        self.put(gateway, child)
    }

    /// How a process that is not running is started on its former port and its former database. For whoever cannot wait for that with
    /// the cluster in hand; [`Cluster::put`] gives it back.
    pub(crate) fn launch(&self, party: impl Into<Party>, park_at: Option<&str>) -> anyhow::Result<Launch> {
        let process = self.process(party)?;
        ensure!(process.child.is_none(), "{} is running", process.party);
        Ok(self.launch_as(process.party, process.role, process.address, park_at, &process.party.to_string()))
    }

    /// Gives the cluster a process that [`Cluster::launch`] has started.
    pub(crate) fn put(&mut self, party: impl Into<Party>, child: Child) -> anyhow::Result<()> {
        let party = party.into();
        let process = self.processes.iter_mut().find(|process| process.party == party);
        let process = process.with_context(|| format!("there is no {party}"))?;
        ensure!(process.child.is_none(), "{party} is running");
        process.child = Some(child);
        Ok(())
    }

    /// Takes a running process away, to be killed.
    pub(crate) fn take(&mut self, party: impl Into<Party>) -> anyhow::Result<Child> {
        let party = party.into();
        let process = self.processes.iter_mut().find(|process| process.party == party);
        process.and_then(|process| process.child.take()).with_context(|| format!("{party} is not running"))
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
        let gateway = Party::from(Role::Gateway);
        let process = self.processes.iter_mut().find(|process| process.party == gateway);
        process.and_then(|process| process.child.as_mut()).context("the gateway is not running")
    }

    /// Starts one more gateway on the same databases, beside those that it was configured with. On SQLite it must not succeed.
    ///
    /// # Errors
    /// The expected one is [`Exited`](super::Exited).
    pub async fn start_second_gateway(&self) -> anyhow::Result<Child> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let unknown = Party::Gateway(self.gateways());
        self.launch_as(unknown, Role::Gateway, listen, None, "second-gateway").start().await
    }

    /// Waits until any process ends by itself; tells which and how. Cancel-safe.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn any_ended(&mut self) -> anyhow::Result<(Role, ExitStatus)> {
        let mut ends = Vec::new();
        for process in &mut self.processes {
            if let Some(child) = &mut process.child {
                let role = process.role;
                ends.push(Box::pin(async move { child.ended().await.map(|status| (role, status)) }));
            }
        }
        if ends.is_empty() {
            bail!("no process is running");
        }
        let (ended, _, _) = futures::future::select_all(ends).await;
        Ok(ended?)
    }

    /// Ends everything gracefully: the gateways first, so that the orders under way still find their participants.
    ///
    /// # Errors
    /// A process does not end, or ends with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for party in Party::processes(self.gateways()).into_iter().rev() {
            if self.process(party)?.child.is_some() {
                let status = self.terminate(party).await?;
                if !status.success() {
                    bail!("{party} ended with {status}; the end of its log:\n{}", log_tail(&self.log_file(party)));
                }
            }
        }
        self.databases.drop_temporary().await
    }

    /// Logs, and the databases of SQLite.
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

    /// Where the databases are, in words that may be shown to anybody.
    #[must_use]
    pub fn whereabouts(&self) -> String {
        self.databases.whereabouts()
    }

    /// The URL of a database, with its password.
    #[must_use]
    pub fn database_url(&self, owner: Owner) -> &str {
        self.databases.url(owner)
    }

    /// The private server that holds the databases, if one does. It may be killed if it is this cluster's own.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        self.databases.server()
    }

    /// Empties a database as a lost disk would. Whoever has it open is to be stopped before, or killed soon after.
    ///
    /// # Errors
    /// The database's.
    pub async fn wipe(&self, owner: Owner) -> anyhow::Result<()> {
        self.databases.wipe(owner).await
    }

    /// How many gateways it has, running or not.
    #[must_use]
    pub fn gateways(&self) -> usize {
        self.peers.gateways.len()
    }

    /// What stands between its parties, if it is `linked`.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Where a process listens, running or not.
    ///
    /// # Panics
    /// The cluster has no such process.
    #[must_use]
    pub fn address(&self, party: impl Into<Party>) -> SocketAddr {
        self.must(party).address
    }

    /// As [`Cluster::address`], for each gateway.
    #[must_use]
    pub fn gateway_addresses(&self) -> &[SocketAddr] {
        &self.peers.gateways
    }

    /// A channel to a process; it connects again after a restart.
    ///
    /// # Panics
    /// The cluster has no such process.
    #[must_use]
    pub fn channel(&self, party: impl Into<Party>) -> Channel {
        self.must(party).channel.clone()
    }

    /// A channel to the first gateway that runs, or else to the first.
    #[must_use]
    pub fn any_gateway_channel(&self) -> Channel {
        let running = self.processes.iter().find(|process| process.role == Role::Gateway && process.child.is_some());
        running.map_or_else(|| self.channel(Role::Gateway), |process| process.channel.clone())
    }

    /// The gateway's orders.
    #[must_use]
    pub fn orders(&self) -> OrderServiceClient<Channel> {
        self.orders_at(0)
    }

    /// The orders of one of several gateways.
    #[must_use]
    pub fn orders_at(&self, index: usize) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel(Party::Gateway(index)))
    }

    /// The orders of every gateway.
    #[must_use]
    pub fn all_orders(&self) -> Vec<OrderServiceClient<Channel>> {
        (0..self.gateways()).map(|index| self.orders_at(index)).collect()
    }

    /// The orders of every gateway, through what stands between them and their clients.
    ///
    /// # Errors
    /// The cluster is not `linked`.
    pub fn orders_by_link(&self) -> anyhow::Result<Vec<OrderServiceClient<Channel>>> {
        let client = |index| {
            let address = self.links.address(Party::Clients, Party::Gateway(index)).context("the cluster is not linked")?;
            Ok(OrderServiceClient::new(channel(address)?))
        };
        (0..self.gateways()).map(client).collect()
    }

    /// The gateway's coordinator.
    #[must_use]
    pub fn coordinator(&self) -> CoordinatorClient<Channel> {
        self.coordinator_at(0)
    }

    /// The coordinator of one of several gateways.
    #[must_use]
    pub fn coordinator_at(&self, index: usize) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channel(Party::Gateway(index)))
    }

    /// The gateway's operator API.
    #[must_use]
    pub fn admin(&self) -> AdminClient<Channel> {
        self.admin_at(0)
    }

    /// The operator API of one of several gateways.
    #[must_use]
    pub fn admin_at(&self, index: usize) -> AdminClient<Channel> {
        AdminClient::new(self.channel(Party::Gateway(index)))
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
    pub fn participant(&self, party: impl Into<Party>) -> ParticipantClient<Channel> {
        ParticipantClient::new(self.channel(party))
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
        let tail = |process: &Process| format!("--- {}\n{}\n", process.party, log_tail(&self.log_file(process.party)));
        self.processes.iter().map(tail).collect()
    }

    pub(crate) const fn databases(&self) -> &Databases {
        &self.databases
    }

    fn process(&self, party: impl Into<Party>) -> anyhow::Result<&Process> {
        let party = party.into();
        self.processes.iter().find(|process| process.party == party).with_context(|| format!("there is no {party}"))
    }

    fn must(&self, party: impl Into<Party>) -> &Process {
        match self.process(party) {
            Ok(process) => process,
            Err(error) => panic!("{error}"),
        }
    }

    fn running(&self, party: impl Into<Party>) -> anyhow::Result<&Child> {
        let process = self.process(party)?;
        process.child.as_ref().with_context(|| format!("{} is not running", process.party))
    }

    fn launch_as(&self, party: Party, role: Role, listen: SocketAddr, park_at: Option<&str>, name: &str) -> Launch {
        let from = Reach { from: party, peers: &self.peers, databases: &self.databases, links: &self.links };
        Launch {
            binary: self.config.binary.clone(),
            role,
            config_json: self.config.of(role, listen, &from).to_string(),
            park_at: park_at.map(ToOwned::to_owned),
            disk_may_fill: self.config.disks_may_fill,
            log_file: log_file(&self.folder, name),
        }
    }

    fn log_file(&self, party: Party) -> PathBuf {
        log_file(&self.folder, &party.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
        }
    }
}

impl Process {
    fn new(party: Party, role: Role, address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { party, role, address, channel: channel(address)?, child: None })
    }
}

fn channel(address: SocketAddr) -> anyhow::Result<Channel> {
    // As users should: a connection that has gone silent is given up.
    let endpoint = tcc_service::address(&endpoint(address), CONNECT_TIMEOUT, KEEPALIVE).map_err(anyhow::Error::msg)?;
    Ok(endpoint.timeout(CALL_TIMEOUT).connect_lazy())
}

fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join("logs").join(format!("{name}.log"))
}
