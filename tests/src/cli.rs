//! Placing and reading orders, stock and coupons by hand, over the same gRPC APIs that every client uses.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use tcc_proto::{
    coupon::v1::{CouponState, ListCouponsRequest, coupon_service_client::CouponServiceClient},
    inventory::v1::{ListStockRequest, Stock, inventory_service_client::InventoryServiceClient},
    order::v1::{
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, ListOrdersRequest, Order, OrderLine,
        order_service_client::OrderServiceClient,
    },
};
use tcc_types::{Clock, Entropy, SystemClock, SystemEntropy};
use tokio::time::{Instant, sleep};
use tonic::{Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::explain;

const PAGE_SIZE: u32 = 50;
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);

/// Orders at a running gateway.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// The gateway.
    #[arg(long, global = true, env = "TCC_GATEWAY_URL", default_value = "http://127.0.0.1:50051")]
    gateway: String,
    #[command(subcommand)]
    command: OrderCommand,
}

#[derive(Debug, Subcommand)]
enum OrderCommand {
    /// Places an order and prints it once it is decided.
    Create(CreateArgs),
    /// Reads an order.
    Get {
        /// Its id.
        order_id: String,
    },
    /// Lists orders, newest first.
    List {
        /// Only this user's.
        #[arg(long, default_value = "")]
        user: String,
        /// How many.
        #[arg(long, default_value_t = PAGE_SIZE)]
        limit: u32,
    },
    /// Confirms a held order: it was paid for.
    Confirm {
        /// Its id.
        order_id: String,
    },
    /// Cancels an order that is not decided yet.
    Cancel {
        /// Its id.
        order_id: String,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Who orders.
    #[arg(long)]
    user: String,
    /// What: `--line apple=2`, once for each SKU.
    #[arg(long = "line", value_parser = parse_line, required = true)]
    lines: Vec<OrderLine>,
    /// A coupon of this user.
    #[arg(long, default_value = "")]
    coupon: String,
    /// Reserve now; decide later with `order confirm` or `order cancel`.
    #[arg(long)]
    hold: bool,
    /// Held orders: cancelled after so many seconds.
    #[arg(long, requires = "hold")]
    pay_within_seconds: Option<u64>,
    /// The key under which a repeated request is the same order; without it a new one is made.
    #[arg(long)]
    key: Option<String>,
}

/// Stock at a running inventory participant.
#[derive(Debug, Args)]
pub struct StockArgs {
    /// The inventory participant.
    #[arg(long, global = true, env = "TCC_INVENTORY_URL", default_value = "http://127.0.0.1:50061")]
    inventory: String,
    #[command(subcommand)]
    command: StockCommand,
}

#[derive(Debug, Subcommand)]
enum StockCommand {
    /// Lists every SKU.
    List,
}

/// Coupons at a running coupon participant.
#[derive(Debug, Args)]
pub struct CouponArgs {
    /// The coupon participant.
    #[arg(long, global = true, env = "TCC_COUPON_URL", default_value = "http://127.0.0.1:50062")]
    coupon: String,
    #[command(subcommand)]
    command: CouponCommand,
}

#[derive(Debug, Subcommand)]
enum CouponCommand {
    /// Lists coupons.
    List {
        /// Only this user's.
        #[arg(long, default_value = "")]
        user: String,
    },
}

fn parse_line(text: &str) -> Result<OrderLine, String> {
    let (sku, quantity) = text.split_once('=').ok_or("must be SKU=QUANTITY, as in apple=2")?;
    let quantity = quantity.parse().map_err(|error| format!("{quantity:?} is no quantity: {error}"))?;
    Ok(OrderLine { sku: sku.to_owned(), quantity })
}

/// Whether a server serves.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The server.
    #[arg(default_value = "http://127.0.0.1:50051")]
    url: String,
    /// Asks again for so long while it does not answer.
    #[arg(long, default_value_t = 0)]
    within_seconds: u64,
}

/// Asks a server for its health (`grpc.health.v1`) and prints it.
///
/// # Errors
/// It does not serve, or does not answer in time.
pub async fn health(args: HealthArgs) -> anyhow::Result<()> {
    let give_up = Instant::now() + Duration::from_secs(args.within_seconds);
    loop {
        match ask_health(&args.url).await {
            Ok(()) => {
                println!("{} is serving", args.url);
                return Ok(());
            }
            Err(error) if Instant::now() >= give_up => return Err(error),
            Err(_) => sleep(HEALTH_INTERVAL).await,
        }
    }
}

async fn ask_health(url: &str) -> anyhow::Result<()> {
    let mut client = HealthClient::new(connect(url).await?);
    let answer = client.check(HealthCheckRequest::default()).await.map_err(explained)?.into_inner().status();
    anyhow::ensure!(answer == ServingStatus::Serving, "{url} answers {answer:?}");
    Ok(())
}

/// Runs an `order` command and prints its result.
///
/// # Errors
/// The server's answer, explained field by field.
pub async fn order(args: OrderArgs) -> anyhow::Result<()> {
    let mut client = OrderServiceClient::new(connect(&args.gateway).await?);
    let order = match args.command {
        OrderCommand::Create(create) => client.create_order(create_request(create)?).await.map(|ok| ok.into_inner().order),
        OrderCommand::Get { order_id } => client.get_order(GetOrderRequest { order_id }).await.map(|ok| ok.into_inner().order),
        OrderCommand::Confirm { order_id } => {
            client.confirm_order(ConfirmOrderRequest { order_id }).await.map(|ok| ok.into_inner().order)
        }
        OrderCommand::Cancel { order_id } => {
            client.cancel_order(CancelOrderRequest { order_id }).await.map(|ok| ok.into_inner().order)
        }
        OrderCommand::List { user, limit } => {
            let request = ListOrdersRequest { user_id: user, page_size: limit, page_token: String::new() };
            let orders = client.list_orders(request).await.map_err(explained)?.into_inner().orders;
            println!("{}", orders_table(&orders));
            return Ok(());
        }
    };
    let order = order.map_err(explained)?.ok_or_else(|| anyhow::anyhow!("the answer has no order"))?;
    println!("{}", explain::order(&order));
    Ok(())
}

fn create_request(args: CreateArgs) -> anyhow::Result<CreateOrderRequest> {
    let order_key = args.key.unwrap_or_else(|| format!("cli-{:016x}", SystemEntropy.next_u64()));
    let pay_by = args
        .pay_within_seconds
        .map(|seconds| tcc_wire::timestamp_to_proto(SystemClock.now().plus(Duration::from_secs(seconds))));
    Ok(CreateOrderRequest { order_key, user_id: args.user, lines: args.lines, coupon_id: args.coupon, hold: args.hold, pay_by })
}

/// Runs a `stock` command and prints its result.
///
/// # Errors
/// The server's answer, explained.
pub async fn stock(args: StockArgs) -> anyhow::Result<()> {
    let mut client = InventoryServiceClient::new(connect(&args.inventory).await?);
    match args.command {
        StockCommand::List => {
            let mut stock = Vec::new();
            let mut page_token = String::new();
            loop {
                let page = client.list_stock(ListStockRequest { page_size: 0, page_token }).await.map_err(explained)?;
                let page = page.into_inner();
                stock.extend(page.stock);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            println!("{}", stock_table(&stock));
        }
    }
    Ok(())
}

/// Runs a `coupon` command and prints its result.
///
/// # Errors
/// The server's answer, explained.
pub async fn coupon(args: CouponArgs) -> anyhow::Result<()> {
    let mut client = CouponServiceClient::new(connect(&args.coupon).await?);
    match args.command {
        CouponCommand::List { user } => {
            let mut table = table(&["coupon", "user", "discount", "state"]);
            let mut page_token = String::new();
            loop {
                let request = ListCouponsRequest { user_id: user.clone(), page_size: 0, page_token };
                let page = client.list_coupons(request).await.map_err(explained)?.into_inner();
                for coupon in page.coupons {
                    let state = coupon_word(coupon.state());
                    table.add_row([coupon.coupon_id, coupon.user_id, coupon.discount_minor.to_string(), state.to_owned()]);
                }
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            println!("{table}");
        }
    }
    Ok(())
}

/// An empty table in the house's look.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header.to_vec());
    table
}

/// Aligns these columns to the right, as numbers are.
pub(crate) fn align_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
}

/// One word for a coupon's state.
pub(crate) const fn coupon_word(state: CouponState) -> &'static str {
    match state {
        CouponState::Unspecified => "unknown",
        CouponState::Issued => "issued",
        CouponState::Locked => "locked",
        CouponState::Used => "used",
    }
}

/// SKUs with their four columns.
pub(crate) fn stock_table(stock: &[Stock]) -> Table {
    let mut table = table(&["sku", "initial", "available", "frozen", "sold"]);
    for one in stock {
        let numbers = [one.initial, one.available, one.frozen, one.sold].map(|number| number.to_string());
        let [initial, available, frozen, sold] = numbers;
        table.add_row([one.sku.clone(), initial, available, frozen, sold]);
    }
    align_right(&mut table, 1..5);
    table
}

fn orders_table(orders: &[Order]) -> Table {
    let mut table = table(&["order", "status", "user", "lines", "coupon", "because"]);
    for order in orders {
        let because = order.refusal.as_ref().map(|refusal| refusal.code.clone()).unwrap_or_default();
        table.add_row([
            order.order_id.clone(),
            explain::status_word(order.status()).to_owned(),
            order.user_id.clone(),
            explain::lines(order),
            order.coupon_id.clone(),
            because,
        ]);
    }
    table
}

async fn connect(url: &str) -> anyhow::Result<Channel> {
    let endpoint = Channel::from_shared(url.to_owned()).map_err(|error| anyhow::anyhow!("{url}: {error}"))?;
    endpoint
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(60))
        .connect()
        .await
        .map_err(|error| anyhow::anyhow!("nothing answers at {url} ({error}); is `tcc-cluster serve` running?"))
}

fn explained(status: Status) -> anyhow::Error {
    anyhow::anyhow!("{}", explain::error(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_sku_and_a_quantity() {
        assert_eq!(parse_line("apple=2"), Ok(OrderLine { sku: "apple".to_owned(), quantity: 2 }));
        // Left to the server, which names the field: the command line should not know its rules twice.
        assert_eq!(parse_line("apple=-2").map(|line| line.quantity), Ok(-2));
        for bad in ["apple", "apple=", "apple=two", "apple=99999999999999999999"] {
            assert!(parse_line(bad).is_err(), "{bad}");
        }
    }
}
