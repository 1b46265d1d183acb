//! Keeps the cluster up on fixed ports for people to play with, its data in a folder that stays or on their own server.

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use clap::Args;
use tcc_proto::{
    coupon::v1::IssueCouponRequest,
    inventory::v1::{AddStockRequest, ListStockRequest},
};
use tcc_types::{Clock, SystemClock};
use tonic::Code;

use crate::{
    harness::{Cluster, ClusterConfig, Folder, Ports, Role},
    store_args::StoreArgs,
};

/// What is on the shelves the first time.
const STOCK: [(&str, i64); 3] = [("apple", 1_000), ("pear", 500), ("plum", 3)];
/// Who has which coupon the first time, and what it takes off.
const COUPONS: [(&str, &str, i64); 3] =
    [("WELCOME-ALICE", "alice", 500), ("WELCOME-BOB", "bob", 500), ("FIVE-ALICE", "alice", 5)];
const COUPON_LIFE: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Where to serve.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Logs, and the databases of SQLite; kept.
    #[arg(long, default_value = "./data")]
    data: PathBuf,
    /// The gateway's port; several gateways have this one and those after it.
    #[arg(long, default_value_t = 50_051)]
    gateway_port: u16,
    /// The inventory participant's port.
    #[arg(long, default_value_t = 50_061)]
    inventory_port: u16,
    /// The coupon participant's port.
    #[arg(long, default_value_t = 50_062)]
    coupon_port: u16,
    /// What the processes log, in the language of `RUST_LOG`.
    #[arg(long, default_value = "info")]
    log: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// Serves until SIGINT or SIGTERM, then ends every process gracefully.
///
/// # Errors
/// A process does not start, or ends by itself.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let stop = tcc_service::shutdown::on_signal();
    let config = ClusterConfig {
        folder: Folder::At(std::path::absolute(&args.data)?),
        ports: Ports { gateway: args.gateway_port, inventory: args.inventory_port, coupon: args.coupon_port },
        log_filter: args.log,
        ..ClusterConfig::temporary(std::env::current_exe()?)
    };
    let mut cluster = Cluster::start(args.store.apply(config)?).await?;
    let whereabouts = cluster.whereabouts();
    seed_if_empty(&cluster).await?;
    print_how_to(&cluster);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = cluster.any_ended() => {
            let (role, status) = ended?;
            bail!("{role} ended by itself ({status}):\n{}", cluster.log_tails());
        }
    }
    println!("stopping: orders under way are finished first");
    cluster.stop().await?;
    println!("stopped; the data: {whereabouts}");
    Ok(())
}

async fn seed_if_empty(cluster: &Cluster) -> anyhow::Result<()> {
    let page = cluster.inventory().list_stock(ListStockRequest { page_size: 1, page_token: String::new() }).await?;
    if !page.into_inner().stock.is_empty() {
        return Ok(());
    }
    let expires_at = Some(tcc_wire::timestamp_to_proto(SystemClock.now().plus(COUPON_LIFE)));
    for (coupon_id, user_id, discount_minor) in COUPONS {
        let (coupon_id, user_id) = (coupon_id.to_owned(), user_id.to_owned());
        match cluster.coupons().issue_coupon(IssueCouponRequest { coupon_id, user_id, discount_minor, expires_at }).await {
            Ok(_) => {}
            // By an interrupted seeding, with the expiry of that time.
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => return Err(status.into()),
        }
    }
    // Stock comes last: a seeding that was interrupted is then done again, and what is there already changes nothing.
    for (sku, quantity) in STOCK {
        let request = AddStockRequest { receipt_id: format!("seed-{sku}"), sku: sku.to_owned(), quantity };
        cluster.inventory().add_stock(request).await?;
    }
    Ok(())
}

fn print_how_to(cluster: &Cluster) {
    let gateway = cluster.address(Role::Gateway);
    for gateway in cluster.gateway_addresses() {
        println!("gateway    {gateway}   orders, coordinator, admin");
    }
    println!("inventory  {}   stock", cluster.address(Role::Inventory));
    println!("coupon     {}   coupons", cluster.address(Role::Coupon));
    println!("data       {}", cluster.whereabouts());
    println!("logs       {}", cluster.folder().join("logs").display());
    println!();
    println!("Place an order from another terminal:");
    println!(
        "  cargo run --release -- order create --gateway http://{gateway} --user alice --line apple=2 --coupon WELCOME-ALICE"
    );
    println!("or with any gRPC client:");
    println!(
        "  grpcurl -plaintext -d '{{\"order_key\":\"my-1\",\"user_id\":\"alice\",\"lines\":[{{\"sku\":\"apple\",\"quantity\":2}}]}}' \
         {gateway} order.v1.OrderService/CreateOrder"
    );
    println!("Read it, and what is left:");
    println!("  cargo run --release -- order list --gateway http://{gateway}");
    println!("  cargo run --release -- stock list --inventory http://{}", cluster.address(Role::Inventory));
    println!();
    println!("Ctrl-C ends it gracefully.");
}
