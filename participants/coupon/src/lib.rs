//! Coupon: coupons of users that orders lock, use and release, as a participant of global transactions and as a small service
//! of its own. Knows nothing of orders, stock or the coordinator.
//!
//! - [`Claim`] and [`lock`], [`spend`], [`release`] are its decisions, pure over a narrow [`CouponStore`]; [`run_batch`] is the same
//!   about many operations at once.
//! - [`Coupons`] puts them under the participant SDK; [`CouponApi`] is `coupon.v1.CouponService`.
//! - [`run`] is the whole server.

mod api;
mod batch;
mod books;
mod config;
mod coupon;
mod databases;
#[cfg(feature = "memory")]
pub mod memory;
mod participant;

use std::{net::SocketAddr, pin::Pin, time::Duration};

use anyhow::Context;
use sqlx::{MySql, Postgres, Sqlite};
use tcc_participant::{DatabaseKind, Engine, GrpcOutcomes, Store, Upkeep};
use tcc_proto::coupon::v1::coupon_service_server::CouponServiceServer;
use tcc_service::Server;
use tokio_util::sync::CancellationToken;

pub use api::CouponApi;
pub use batch::{Operations, run as run_batch};
pub use books::{Coupon, CouponBooks, DISCOUNT_MINOR_MAX, Issued, NewCoupon};
pub use config::Config;
pub use coupon::{Change, Claim, CouponState, CouponStore, Held, Locking, Seen, SettleError, lock, release, spend};
pub use databases::{Books, CouponRows};
pub use participant::{CouponDatabase, Coupons};

/// Environment variables of the shipped server start with this: `TCC_COUPON__LISTEN`.
pub const ENV_PREFIX: &str = "TCC_COUPON";

/// Runs the server: opens and migrates the database, listens, tells `ready` where, and serves until `shutdown`; calls under way
/// then have `drain_ms`.
///
/// # Errors
/// A setting is wrong (it is named), the database does not open, or the address cannot be listened on.
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
        match DatabaseKind::of_url(&config.database_url)? {
            DatabaseKind::Sqlite => serve::<Sqlite>(config, ready, shutdown).await,
            DatabaseKind::Postgres => serve::<Postgres>(config, ready, shutdown).await,
            DatabaseKind::Mysql => serve::<MySql>(config, ready, shutdown).await,
        }
    })
}

async fn serve<D: CouponDatabase>(config: Config, ready: Ready, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.participant.validate().map_err(|bad| bad.within("participant"))?;
    anyhow::ensure!(config.admin_calls_in_flight_max > 0, "admin_calls_in_flight_max: must be at least 1");
    let outcomes = GrpcOutcomes::new(&config.coordinators).map_err(|bad| {
        let problems: Vec<_> = bad.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(problems.join("; "))
    })?;
    let outcomes = (!config.coordinators.is_empty()).then_some(outcomes);
    let store = Store::<D>::open(&config.database_url, &config.participant).await.context("cannot open the database")?;
    store.migrate(D::migrator()).await.context("cannot migrate the database")?;
    let engine = Engine::batched(Coupons::<D>::new(), store.clone());
    let api = CouponApi::new(D::books(store), config.admin_calls_in_flight_max);

    let server = Server::bind(config.listen).await?.add_service(engine.service()).add_service(CouponServiceServer::new(api));
    let upkeep = Upkeep::start(&engine, outcomes, &shutdown);
    ready(server.local_addr());
    server.serve(shutdown, Duration::from_millis(config.drain_ms)).await?;
    upkeep.stop().await;
    engine.close().await;
    Ok(())
}
