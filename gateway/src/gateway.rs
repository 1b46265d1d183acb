//! A gateway without its sockets and files: the coordinator, the orders' own branch and their upkeep, put together on a log and a store
//! that are open. [`run`](crate::run) serves one; a simulation starts several.

use std::{fmt, sync::Arc};

use tcc_coordinator::{Coordinator, Error, Registry};
use tcc_log::TxLog;
use tcc_participant::{Engine, Store, Upkeep};
use tcc_proto::order::v1::order_service_server::OrderServiceServer;
use tcc_types::{Entropy, ParticipantName};
use tokio_util::sync::CancellationToken;

use crate::{InProcess, ORDER, OrderApi, OrderBranch, OrderDatabase, Orders, outcomes::OwnOutcomes};

/// One gateway.
pub struct Gateway<D: OrderDatabase> {
    coordinator: Coordinator,
    engine: Engine<OrderBranch<D>>,
    upkeep: Upkeep,
}

impl<D: OrderDatabase> fmt::Debug for Gateway<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("coordinator", &self.coordinator).finish_non_exhaustive()
    }
}

impl<D: OrderDatabase> Gateway<D> {
    /// Starts, and takes up whatever is unfinished in the log. `registry` has the participants beside the orders' own. The upkeep ends at
    /// `shutdown`.
    ///
    /// # Errors
    /// As [`Coordinator::start`].
    pub async fn start(
        log: Arc<dyn TxLog>,
        store: Store<D>,
        registry: Registry,
        config: tcc_coordinator::Config,
        entropy: Arc<dyn Entropy>,
        shutdown: &CancellationToken,
    ) -> Result<Self, Error> {
        let engine = Engine::batched(OrderBranch::<D>::new(), store);
        let name = ParticipantName::new(ORDER).map_err(|bad| Error::Invalid(vec![bad]))?;
        let registry = registry.with_reserved(name, Arc::new(InProcess(engine.clone())));
        let coordinator = Coordinator::start(log, registry, config, entropy).await?;
        let upkeep = Upkeep::start(&engine, Some(OwnOutcomes(coordinator.clone())), shutdown);
        Ok(Self { coordinator, engine, upkeep })
    }

    /// Its coordinator: whoever stops the gateway drains and closes it first.
    #[must_use]
    pub const fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Its orders.
    #[must_use]
    pub fn orders(&self) -> Orders<D::Books> {
        Orders::new(self.coordinator.clone(), D::books(self.engine.store().clone()))
    }

    /// Its order API as a gRPC service.
    #[must_use]
    pub fn order_service(&self) -> OrderServiceServer<OrderApi<D::Books>> {
        OrderServiceServer::new(OrderApi::new(self.orders()))
    }

    /// Ends the upkeep, waits for operations under way, and closes the store.
    pub async fn stop(self) {
        self.upkeep.stop().await;
        self.engine.close().await;
    }
}
