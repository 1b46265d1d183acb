//! The machines that run servers: each wires what ships to a database in memory and to the simulated network, and serves until it is
//! stopped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tcc_coordinator::{
    EndpointConfig, GrpcEndpoint, Registry,
    service::{admin_server, coordinator_server},
};
use tcc_coupon::{CouponBooks, CouponDatabase, Coupons, NewCoupon, memory::CouponTables};
use tcc_database::memory::{Memory, MemoryDatabase, Tables};
use tcc_gateway::{COUPON, Gateway, INVENTORY, memory::OrderTables};
use tcc_inventory::{Inventory, Line, Receipt, Spread, StockBooks, StockDatabase, memory::StockTables};
use tcc_log::DatabaseLog;
use tcc_participant::{
    BatchParticipant, CoordinatorConfig, Database, Engine, GrpcOutcomes, ParticipantService, Store, Upkeep, memory::HasBranches,
};
use tcc_proto::tcc::v1::participant_server::ParticipantServer;
use tcc_types::{Entropy, Invalid, LogName, ParticipantName, Timestamp};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    answers::Rows,
    deliveries::{Deliveries, Mischief},
    net::{connector, incoming},
    place::{Db, Host},
    settings::Settings,
    weather,
    world::World,
};

/// A process that cannot start is started again after this.
const START_AGAIN: Duration = Duration::from_millis(200);
/// The name of the one log that there is.
pub(crate) const LOG: &str = "main";

/// The one user that coupons are issued to.
pub(crate) const USER: &str = "user";

fn bad(bad: Vec<Invalid>) -> String {
    bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What is there before the first order: repeated until it is.
async fn until_done<T>(work: impl AsyncFn() -> Result<T, sqlx::Error>) {
    while work().await.is_err() {
        sleep(START_AGAIN).await;
    }
}

/// What a machine needs to run.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) world: Arc<World>,
    pub(crate) host: Host,
    pub(crate) settings: Arc<Settings>,
    pub(crate) mischief: Arc<Mutex<Mischief>>,
}

impl Machine {
    /// Runs what this machine is for.
    pub(crate) async fn serve(self) -> turmoil::Result {
        match self.host {
            Host::Gateway(number) => self.gateway(number).await,
            Host::Inventory(_) => self.inventory().await,
            Host::Coupon(_) => self.coupon().await,
            Host::Client(_) | Host::Operator(_) => Err("it serves nobody".into()),
        }
    }

    async fn gateway(self, number: u8) -> turmoil::Result {
        let (world, host) = (&self.world, self.host);
        let options = tcc_log::LogOptions { name: LogName::new(LOG)?, ..self.settings.log() };
        let weather = weather::Line::between(world, host, Db::Log);
        let log = Arc::new(DatabaseLog::in_memory(options, world.log.clone(), weather, world.clock(Db::Log), true)?);
        let store = self.store::<OrderTables>(Db::Orders, &world.orders)?;
        let inventory = Host::Inventory(number % self.settings.inventories);
        let registry = Registry::default()
            .with(ParticipantName::new(INVENTORY)?, self.endpoint(inventory)?)
            .with(ParticipantName::new(COUPON)?, self.endpoint(Host::Coupon(0))?);
        let stop = CancellationToken::new();
        let gateway = loop {
            let entropy: Arc<dyn Entropy> = Arc::new(world.dice(format_args!("{host} since {:?}", world.elapsed())));
            let config = self.settings.coordinator();
            match Gateway::start(Arc::clone(&log) as _, store.clone(), registry.clone(), config, entropy, &stop).await {
                Ok(gateway) => break gateway,
                Err(error) => world.tell(host, format_args!("does not start: {error}")),
            }
            sleep(START_AGAIN).await;
        };
        world.tell(host, format_args!("serves"));
        Server::builder()
            .add_service(gateway.order_service())
            .add_service(coordinator_server(gateway.coordinator().clone()))
            .add_service(admin_server(gateway.coordinator().clone()))
            .serve_with_incoming(incoming(world, host).await?)
            .await?;
        Err("a gateway has ended by itself".into())
    }

    async fn inventory(self) -> turmoil::Result {
        let store = self.store::<StockTables>(Db::Inventory, &self.world.inventory)?;
        let database = self.world.inventory.clone();
        let books = <MemoryDatabase<StockTables> as StockDatabase>::books(store.clone());
        for number in 0..self.settings.skus {
            let sku = format!("sku-{number}");
            let receipt =
                Receipt { id: format!("first-{number}"), line: Line::new(sku.clone(), self.settings.pieces).map_err(bad)? };
            until_done(async || books.receive(&receipt).await).await;
            let spread = Spread::new(sku, self.settings.buckets).map_err(bad)?;
            until_done(async || books.spread(&spread).await).await;
        }
        self.participant(Engine::batched(Inventory::new(), store), database).await
    }

    async fn coupon(self) -> turmoil::Result {
        let store = self.store::<CouponTables>(Db::Coupon, &self.world.coupon)?;
        let database = self.world.coupon.clone();
        let books = <MemoryDatabase<CouponTables> as CouponDatabase>::books(store.clone());
        for number in 0..self.settings.coupons {
            let coupon = NewCoupon {
                coupon_id: format!("coupon-{number}"),
                user_id: USER.to_owned(),
                discount_minor: 100,
                expires_at: Timestamp::MAX,
            };
            until_done(async || books.issue(&coupon).await).await;
        }
        self.participant(Engine::batched(Coupons::new(), store), database).await
    }

    async fn participant<P, T>(self, engine: Engine<P>, database: Memory<T>) -> turmoil::Result
    where
        P: BatchParticipant<Db = MemoryDatabase<T>>,
        T: Tables + HasBranches,
    {
        let (world, host) = (&self.world, self.host);
        let urls = (0..self.settings.gateways).map(|number| Host::Gateway(number).url());
        let coordinator = CoordinatorConfig { ask_timeout_ms: 500, ..CoordinatorConfig::at(urls) };
        let coordinators = BTreeMap::from([(LogName::new(LOG)?, coordinator)]);
        let outcomes = GrpcOutcomes::over(&coordinators, connector(world, host)).map_err(bad)?;
        let _upkeep = Upkeep::start(&engine, Some(outcomes), &CancellationToken::new());
        let service = ParticipantService::new(engine);
        let service = Deliveries::new(service, world, host, Rows::of(database), Arc::clone(&self.mischief));
        world.tell(host, format_args!("serves"));
        Server::builder()
            .add_service(ParticipantServer::new(service))
            .serve_with_incoming(incoming(world, host).await?)
            .await?;
        Err("a participant has ended by itself".into())
    }

    fn store<T>(&self, db: Db, database: &Memory<T>) -> Result<Store<MemoryDatabase<T>>, Box<dyn std::error::Error>>
    where
        T: Tables,
        MemoryDatabase<T>: Database,
        T: HasBranches,
    {
        let weather = weather::Line::between(&self.world, self.host, db);
        Ok(Store::in_memory(database.clone(), weather, self.world.clock(db), &self.settings.participant())?)
    }

    fn endpoint(&self, host: Host) -> Result<Arc<GrpcEndpoint>, String> {
        let config = EndpointConfig {
            connect_timeout_ms: 200,
            batch_max: self.settings.endpoint_batch_max,
            plain_recheck_ms: 1_000,
            ..EndpointConfig::at(host.url())
        };
        Ok(Arc::new(GrpcEndpoint::over(&config, connector(&self.world, self.host))?))
    }
}
