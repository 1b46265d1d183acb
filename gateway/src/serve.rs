//! The whole server: opens, serves, and ends in order. What is behind its services is put together by [`Gateway`].

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use sqlx::{MySql, Postgres, Sqlite};
use tcc_coordinator::{
    Coordinator, Registry,
    service::{admin_server, coordinator_server},
};
use tcc_participant::{DatabaseKind, Store};
use tcc_service::Server;
use tcc_types::{Invalid, SystemClock, SystemEntropy};
use tokio_util::sync::CancellationToken;

use crate::{Config, Gateway, OrderDatabase};

/// Runs the server: checks the configuration, listens, opens the log and the orders, takes up what is unfinished, tells `ready`
/// where it listens, and serves until `shutdown`.
///
/// At the end health says NOT_SERVING and nothing is begun any more; calls and transactions under way have `drain_ms`; what has
/// not ended then is handed to the next start's recovery. Everything accepted is durable when this returns.
///
/// # Errors
/// Settings are wrong (each is named), the address cannot be listened on, the log is another gateway's, or a database does not
/// open.
pub async fn run(
    config: Config,
    ready: impl FnOnce(SocketAddr) + Send + 'static,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    running(config, Box::new(ready), shutdown).await
}

type Ready = Box<dyn FnOnce(SocketAddr) + Send>;

// Not generic, and the future in a box: the whole server is compiled here, once, and not again with each program that runs it.
#[inline(never)]
fn running(
    config: Config,
    ready: Ready,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> {
    Box::pin(async move {
        let registry = checked(&config)?;
        match DatabaseKind::of_url(&config.orders.database_url).map_err(|bad| bad.within("orders"))? {
            DatabaseKind::Sqlite => serve::<Sqlite>(config, registry, ready, shutdown).await,
            DatabaseKind::Postgres => serve::<Postgres>(config, registry, ready, shutdown).await,
            DatabaseKind::Mysql => serve::<MySql>(config, registry, ready, shutdown).await,
        }
    })
}

async fn serve<D: OrderDatabase>(
    config: Config,
    registry: Registry,
    ready: Ready,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // Listening first: an address that is taken costs nothing yet. Clients that come early wait.
    let server = Server::bind(config.listen).await?;
    let log = tcc_log::open(config.log, Arc::new(SystemClock)).await.map_err(|error| anyhow!("log: {error}"))?;
    let store = Store::<D>::open(&config.orders.database_url, &config.orders.participant).await;
    let store = store.map_err(|error| anyhow!("orders: {error}"))?;
    store.migrate(D::migrator()).await.context("orders: cannot migrate the database")?;
    let gateway = Gateway::start(log, store, registry, config.coordinator, Arc::new(SystemEntropy), &shutdown).await?;
    let server = server
        .add_service(gateway.order_service())
        .add_service(coordinator_server(gateway.coordinator().clone()))
        .add_service(admin_server(gateway.coordinator().clone()));
    ready(server.local_addr());

    let served = serve_and_drain(server, gateway.coordinator(), shutdown, Duration::from_millis(config.drain_ms)).await;
    gateway.stop().await;
    served
}

/// Serves until the token; then calls and transactions end side by side, since the ones wait for the others.
async fn serve_and_drain(
    server: Server,
    coordinator: &Coordinator,
    shutdown: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    let readiness = server.readiness();
    let mut ready = coordinator.ready();
    // Health tells load balancers what a request to begin an order would be told.
    let following = async {
        while let Ok(()) = {
            readiness.set_ready(*ready.borrow_and_update());
            ready.changed().await
        } {}
        std::future::pending::<Infallible>().await
    };
    // A server that fails by itself ends the transactions in the same order.
    let stopping = shutdown.child_token();
    let serving = async {
        let served = server.serve(stopping.clone(), drain).await;
        stopping.cancel();
        served
    };
    let draining = async {
        stopping.cancelled().await;
        tracing::info!(drain_ms = drain.as_millis(), "stopping");
        coordinator.drain(drain).await;
    };
    let (served, ()) = tokio::select! {
        ended = async { tokio::join!(serving, draining) } => ended,
        never = following => match never {},
    };
    // Only now: until the last call has ended, it may read the log.
    coordinator.close().await;
    tracing::info!("stopped");
    Ok(served?)
}

/// The participants, once every setting has been found sound.
fn checked(config: &Config) -> anyhow::Result<Registry> {
    match (config.validate(), config.endpoints()) {
        (Ok(()), Ok(registry)) => Ok(registry),
        (settings, endpoints) => {
            let bad = settings.err().into_iter().chain(endpoints.err()).flatten();
            Err(anyhow!("configuration: {}", bad.map(|bad: Invalid| bad.to_string()).collect::<Vec<_>>().join("; ")))
        }
    }
}
