//! Coupon: coupons of users that orders lock, use and release, as a participant of global transactions and as a small service
//! of its own. Knows nothing of orders, stock or the coordinator.
//!
//! - [`Claim`] and [`lock`], [`spend`], [`release`] are its decisions, pure over a narrow [`CouponStore`].
//! - [`Coupons`] puts them under the participant SDK; [`CouponApi`] is `coupon.v1.CouponService`.
//! - [`run`] is the whole server.

mod api;
mod books;
mod config;
mod coupon;
mod participant;
mod sqlite;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use sqlx::Sqlite;
use tcc_participant::{Engine, Store};
use tcc_proto::coupon::v1::coupon_service_server::CouponServiceServer;
use tcc_service::Server;
use tokio_util::sync::CancellationToken;

pub use api::CouponApi;
pub use books::{Coupon, CouponBooks, DISCOUNT_MINOR_MAX, Issued, NewCoupon};
pub use config::Config;
pub use coupon::{Claim, CouponState, CouponStore, Locking, Seen, SettleError, lock, release, spend};
pub use participant::{CouponDatabase, Coupons};
pub use sqlite::{SqliteBooks, SqliteCoupons};

/// Environment variables of the shipped server start with this: `TCC_COUPON__LISTEN`.
pub const ENV_PREFIX: &str = "TCC_COUPON";

/// Runs the server: opens and migrates the database, listens, tells `ready` where, and serves until `shutdown`; calls under way
/// then have `drain_ms`.
///
/// # Errors
/// A setting is wrong (it is named), the database does not open, or the address cannot be listened on.
pub async fn run(config: Config, ready: impl FnOnce(SocketAddr) + Send, shutdown: CancellationToken) -> anyhow::Result<()> {
    match config.database_url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => serve::<Sqlite>(config, ready, shutdown).await,
        Some(scheme) => anyhow::bail!("database_url: {scheme}: databases are not supported; use sqlite:"),
        None => anyhow::bail!("database_url: must be a URL such as sqlite://data/coupon.db"),
    }
}

async fn serve<D: CouponDatabase>(
    config: Config,
    ready: impl FnOnce(SocketAddr) + Send,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.participant.validate().map_err(|bad| bad.within("participant"))?;
    anyhow::ensure!(config.admin_calls_in_flight_max > 0, "admin_calls_in_flight_max: must be at least 1");
    let store = Store::<D>::open(&config.database_url, &config.participant).await.context("cannot open the database")?;
    D::migrator().run(store.write_pool()).await.context("cannot migrate the database")?;
    let engine = Engine::new(Coupons::<D>::new(), store.clone());
    let api = CouponApi::new(D::books(store), config.admin_calls_in_flight_max);

    let server = Server::bind(config.listen).await?.add_service(engine.service()).add_service(CouponServiceServer::new(api));
    ready(server.local_addr());
    server.serve(shutdown, Duration::from_millis(config.drain_ms)).await?;
    engine.close().await;
    Ok(())
}
