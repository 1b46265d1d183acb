//! Inventory: stock that orders reserve, spend and release, as a participant of global transactions and as a small service of
//! its own. Knows nothing of orders, coupons or the coordinator.
//!
//! - [`Lines`] and [`reserve`], [`spend`], [`release`] are its decisions, pure over a narrow [`StockStore`].
//! - [`Inventory`] puts them under the participant SDK; [`InventoryApi`] is `inventory.v1.InventoryService`.
//! - [`run`] is the whole server.

mod api;
mod books;
mod config;
mod lines;
mod participant;
mod sqlite;
mod stock;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use sqlx::Sqlite;
use tcc_participant::{Engine, Store};
use tcc_proto::inventory::v1::inventory_service_server::InventoryServiceServer;
use tcc_service::Server;
use tokio_util::sync::CancellationToken;

pub use api::InventoryApi;
pub use books::{Receipt, Received, Stock, StockBooks};
pub use config::Config;
pub use lines::{LINES_MAX, Line, Lines, QUANTITY_MAX, STOCK_MAX};
pub use participant::{Inventory, StockDatabase};
pub use sqlite::{SqliteBooks, SqliteStock};
pub use stock::{Reservation, SettleError, StockStore, release, reserve, spend};

/// Environment variables of the shipped server start with this: `TCC_INVENTORY__LISTEN`.
pub const ENV_PREFIX: &str = "TCC_INVENTORY";

/// Runs the server: opens and migrates the database, listens, tells `ready` where, and serves until `shutdown`; calls under way
/// then have `drain_ms`.
///
/// # Errors
/// A setting is wrong (it is named), the database does not open, or the address cannot be listened on.
pub async fn run(config: Config, ready: impl FnOnce(SocketAddr) + Send, shutdown: CancellationToken) -> anyhow::Result<()> {
    match config.database_url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => serve::<Sqlite>(config, ready, shutdown).await,
        Some(scheme) => anyhow::bail!("database_url: {scheme}: databases are not supported; use sqlite:"),
        None => anyhow::bail!("database_url: must be a URL such as sqlite://data/inventory.db"),
    }
}

async fn serve<D: StockDatabase>(
    config: Config,
    ready: impl FnOnce(SocketAddr) + Send,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.participant.validate().map_err(|bad| bad.within("participant"))?;
    anyhow::ensure!(config.admin_calls_in_flight_max > 0, "admin_calls_in_flight_max: must be at least 1");
    let store = Store::<D>::open(&config.database_url, &config.participant).await.context("cannot open the database")?;
    D::migrator().run(store.write_pool()).await.context("cannot migrate the database")?;
    let engine = Engine::new(Inventory::<D>::new(), store.clone());
    let api = InventoryApi::new(D::books(store), config.admin_calls_in_flight_max);

    let server = Server::bind(config.listen).await?.add_service(engine.service()).add_service(InventoryServiceServer::new(api));
    ready(server.local_addr());
    server.serve(shutdown, Duration::from_millis(config.drain_ms)).await?;
    engine.close().await;
    Ok(())
}
