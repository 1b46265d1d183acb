//! A whole gateway with participants that have no shelves: they refuse by the names of what is asked, through the real SDK.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prost::Message;
use sqlx::{Sqlite, SqliteConnection};
use tcc_gateway::Config;
use tcc_participant::{BranchContext, Engine, HandlerError, Options, Participant, Store, Tried};
use tcc_proto::{
    coupon::v1::{LockCoupon, LockedCoupon},
    inventory::v1::ReserveStock,
    order::v1::{
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, ListOrdersRequest, ListOrdersResponse,
        Order, OrderLine, order_service_client::OrderServiceClient,
    },
    tcc::v1::coordinator_client::CoordinatorClient,
};
use tcc_service::Server;
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, transport::Channel};

/// Conditions that tests wait for come true within this.
const WITHIN: Duration = Duration::from_secs(30);

/// Says what it is asked to by the name of the SKU.
pub(crate) struct Stock {
    /// While it is set, nothing is answered.
    pub(crate) mute: Arc<AtomicBool>,
}

impl Participant for Stock {
    type Db = Sqlite;
    type Payload = ReserveStock;
    type Reserved = ();

    async fn on_try(
        &self,
        _conn: &mut SqliteConnection,
        _branch: &BranchContext,
        payload: ReserveStock,
    ) -> Result<Tried<()>, HandlerError> {
        if self.mute.load(Ordering::SeqCst) {
            return Err(HandlerError::from("mute"));
        }
        let refused = payload.lines.iter().find_map(|line| match line.sku.as_str() {
            sku if sku.starts_with("unknown") => Some(Tried::refused("UNKNOWN_SKU", format!("there is no sku {sku}"))),
            sku if sku.starts_with("sold-out") => Some(Tried::refused("OUT_OF_STOCK", format!("sku {sku}: none left"))),
            _ => None,
        });
        Ok(refused.unwrap_or_else(|| Tried::reserved(())))
    }

    async fn on_confirm(&self, _: &mut SqliteConnection, _: &BranchContext, (): ()) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn on_cancel(&self, _: &mut SqliteConnection, _: &BranchContext, (): ()) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Says what it is asked to by the id of the coupon.
pub(crate) struct Coupons;

impl Participant for Coupons {
    type Db = Sqlite;
    type Payload = LockCoupon;
    type Reserved = ();

    async fn on_try(
        &self,
        _conn: &mut SqliteConnection,
        _branch: &BranchContext,
        payload: LockCoupon,
    ) -> Result<Tried<()>, HandlerError> {
        if payload.coupon_id.starts_with("unknown") {
            return Ok(Tried::refused("UNKNOWN_COUPON", "there is none"));
        }
        Ok(Tried::reserved_with((), &LockedCoupon { coupon_id: payload.coupon_id, discount_minor: 500 }))
    }

    async fn on_confirm(&self, _: &mut SqliteConnection, _: &BranchContext, (): ()) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn on_cancel(&self, _: &mut SqliteConnection, _: &BranchContext, (): ()) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// A server that runs in this process.
struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

async fn participant<P: Participant<Db = Sqlite>>(participant: P, folder: &Path, name: &str) -> Running {
    let url = format!("sqlite://{}/{name}.db", folder.display());
    let store = Store::<Sqlite>::open(&url, &Options::default()).await.unwrap();
    let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (address, shutdown) = (server.local_addr(), CancellationToken::new());
    let server = server.add_service(Engine::new(participant, store).service());
    let stop = shutdown.clone();
    let ended = TaskTracker::new().spawn(async move { Ok(server.serve(stop, Duration::ZERO).await?) });
    Running { address, shutdown, ended }
}

/// Everything that orders need.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) stock_is_mute: Arc<AtomicBool>,
    gateway: Option<Running>,
    participants: Vec<Running>,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stock_is_mute = Arc::new(AtomicBool::new(false));
        let stock = participant(Stock { mute: Arc::clone(&stock_is_mute) }, folder.path(), "inventory").await;
        let coupon = participant(Coupons, folder.path(), "coupon").await;
        let mut config = Config { listen: ([127, 0, 0, 1], 0).into(), drain_ms: 10_000, ..Config::default() };
        config.log.database_url = format!("sqlite://{}/log.db", folder.path().display());
        config.orders.database_url = format!("sqlite://{}/orders.db", folder.path().display());
        config.coordinator.retry_base_ms = 5;
        config.coordinator.retry_cap_ms = 50;
        config.coordinator.recovery_interval_ms = 20;
        config.coordinator.idle_driver_ms = 20;
        for (name, running) in [("inventory", &stock), ("coupon", &coupon)] {
            let endpoint = config.participants.iter_mut().find(|(known, _)| known.as_str() == name).unwrap().1;
            endpoint.endpoint = format!("http://{}", running.address);
        }
        let mut world = Self { config, stock_is_mute, gateway: None, participants: vec![stock, coupon], _folder: folder };
        world.start_gateway().await;
        world
    }

    pub(crate) async fn start_gateway(&mut self) {
        let shutdown = CancellationToken::new();
        let (ready, address) = oneshot::channel();
        let run = tcc_gateway::run(self.config.clone(), |address| ready.send(address).unwrap(), shutdown.clone());
        let ended = TaskTracker::new().spawn(run);
        self.gateway = Some(Running { address: address.await.unwrap(), shutdown, ended });
    }

    /// Tells the gateway to stop, and does not wait.
    pub(crate) fn stopping(&self) {
        self.gateway.as_ref().unwrap().shutdown.cancel();
    }

    /// Stops the gateway in order.
    pub(crate) async fn stop_gateway(&mut self) {
        let gateway = self.gateway.take().unwrap();
        gateway.shutdown.cancel();
        gateway.ended.await.unwrap().unwrap();
    }

    pub(crate) async fn stop(mut self) {
        self.stop_gateway().await;
        for running in self.participants {
            running.shutdown.cancel();
            running.ended.await.unwrap().unwrap();
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.as_ref().unwrap().address
    }

    pub(crate) fn channel(&self) -> Channel {
        let address = self.address();
        Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
    }

    pub(crate) fn orders(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel())
    }

    pub(crate) fn coordinator(&self) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channel())
    }

    pub(crate) async fn create(&self, request: CreateOrderRequest) -> Result<Order, Status> {
        Ok(self.orders().create_order(request).await?.into_inner().order.unwrap())
    }

    pub(crate) async fn get(&self, order_id: &str) -> Result<Order, Status> {
        let request = GetOrderRequest { order_id: order_id.to_owned() };
        Ok(self.orders().get_order(request).await?.into_inner().order.unwrap())
    }

    pub(crate) async fn confirm(&self, order_id: &str) -> Result<Order, Status> {
        let request = ConfirmOrderRequest { order_id: order_id.to_owned() };
        Ok(self.orders().confirm_order(request).await?.into_inner().order.unwrap())
    }

    pub(crate) async fn cancel(&self, order_id: &str) -> Result<Order, Status> {
        let request = CancelOrderRequest { order_id: order_id.to_owned() };
        Ok(self.orders().cancel_order(request).await?.into_inner().order.unwrap())
    }

    pub(crate) async fn list(&self, request: ListOrdersRequest) -> Result<ListOrdersResponse, Status> {
        Ok(self.orders().list_orders(request).await?.into_inner())
    }
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + WITHIN;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "not within {WITHIN:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn order(order_key: &str, skus: &[&str]) -> CreateOrderRequest {
    let line = |sku: &&str| OrderLine { sku: (*sku).to_owned(), quantity: 1 };
    CreateOrderRequest {
        order_key: order_key.to_owned(),
        user_id: "ann".to_owned(),
        lines: skus.iter().map(line).collect(),
        ..CreateOrderRequest::default()
    }
}

/// The bytes of a payload for a transaction without the gateway's help.
pub(crate) fn any<M: Message + prost::Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}
