//! What is to be measured: the command line, and nothing else. It starts nothing; `bench::run` reads it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::growth::GrowthArgs;
use crate::harness::Store;

/// Orders per second and latency of the whole system, beside the floor of the bare database.
///
/// Every run has fresh processes on fresh databases of a fresh server, and its books are checked when it has ended: a run whose
/// books do not balance has no figure, and the command fails.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// Something else than orders per second.
    #[command(subcommand)]
    pub other: Option<Other>,
    /// Sets whatever is not given by itself.
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// The databases to measure on, separated by commas.
    #[arg(long = "store", value_enum, value_delimiter = ',')]
    pub stores: Vec<Store>,
    /// Closed loop: so many orders under way at any time; several, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub in_flight: Vec<u32>,
    /// Open loop: so many orders begin in each second, whether or not earlier ones are done; latency counts from when an order
    /// was to begin. Several, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Vec<u32>,
    /// The orders are spread evenly over so many SKUs; several, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub skus: Vec<u32>,
    /// Of a hundred orders so many find their SKU sold out and are cancelled; several, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=100))]
    pub refused: Vec<u32>,
    /// Every order has a coupon, which is a third branch.
    #[arg(long)]
    pub coupons: bool,
    /// Coupons that are issued before each run. A run that needs more has no figure.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub coupons_issued: u32,
    /// How long is measured.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: Option<u64>,
    /// Load before that, which is not measured.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub warm_up_seconds: u64,
    /// Everything is run so often, in turn; the medians are reported.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: Option<u32>,
    /// Settings of this build's servers that differ from their defaults, as JSON with `participant`, `coordinator` and `log`:
    /// `{"participant": {"batches_in_flight_max": 1}}`
    #[arg(long, default_value = "{}", value_parser = parse_settings)]
    pub(crate) set: Settings,
    /// An older build of this binary, measured in turn with this one.
    #[arg(long)]
    pub against: Option<PathBuf>,
    /// Without the floor.
    #[arg(long)]
    pub no_floor: bool,
    /// The floor's client counts, separated by commas; by default those of `--in-flight`, and 16, 32 and 64; never more
    /// than 64, or 48 with coupons. The best is compared with.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=64))]
    pub floor_clients: Vec<u32>,
    /// A setting of the database servers, `name=value`, beside those that a benchmark sets by itself (memory and logs that do not
    /// make a server write its tables out all the time); may be repeated. It holds for the floor too.
    #[arg(long = "server-setting", value_parser = parse_server_setting)]
    pub(crate) server_settings: Vec<(String, String)>,
    /// Every fsync, of whichever process, takes so many microseconds longer.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub fsync_delay_us: u32,
    /// Connections to the gateway that all clients share.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub channels: u32,
    /// What the processes log, in the language of `RUST_LOG`.
    #[arg(long, default_value = "warn")]
    pub log: String,
    /// Everything that was measured, as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Throughput and p99 against orders in flight, as SVG.
    #[arg(long)]
    pub picture: Option<PathBuf>,
    /// Only puts load on a gateway that runs already, whose inventory has the SKUs `bench-00000` and on, or those of `--sku`. No floor,
    /// no books.
    #[arg(long, conflicts_with_all = ["against", "stores", "skus", "refused", "coupons"])]
    pub gateway: Option<String>,
    /// The SKUs to order from that gateway.
    #[arg(long = "sku", requires = "gateway")]
    pub sku: Vec<String>,
}

/// What can be measured beside orders per second.
#[derive(Clone, Debug, Subcommand)]
pub enum Other {
    /// What one order costs on an empty system, and on one full of history, of held reservations, of stuck branches.
    Growth(GrowthArgs),
}

/// Sections of the servers' configurations.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) participant: serde_json::Map<String, serde_json::Value>,
    pub(crate) coordinator: serde_json::Map<String, serde_json::Value>,
    pub(crate) log: serde_json::Map<String, serde_json::Value>,
}

fn parse_server_setting(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_settings(text: &str) -> Result<Settings, serde_json::Error> {
    serde_json::from_str(text)
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// 256 in flight on SQLite, once, for three seconds.
    Quick,
    /// Everything that is claimed: three stores, 1 to 1,024 in flight, a thousand SKUs and one, none refused and a fifth, five times.
    Full,
}

/// What is left out is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measures {
    pub(crate) stores: Vec<Store>,
    pub(crate) in_flight: Vec<u32>,
    pub(crate) rate: Vec<u32>,
    pub(crate) skus: Vec<u32>,
    pub(crate) refused: Vec<u32>,
    pub(crate) floor_clients: Vec<u32>,
    pub(crate) seconds: u64,
    pub(crate) repeat: u32,
}

/// What the floor is always tried with, whatever else is asked for: where servers on few cores are at their best.
const FLOOR_CLIENTS: [u32; 3] = [16, 32, 64];

/// Each client of the floor has a connection to each database that it writes to, and the servers take 200.
const fn floor_clients_max(coupons: bool) -> u32 {
    if coupons { 48 } else { 64 }
}

impl BenchArgs {
    pub(crate) fn measures(&self) -> Measures {
        let full = self.profile == Some(Profile::Full);
        let quick = self.profile == Some(Profile::Quick);
        let or = |given: &[u32], usual: &[u32]| if given.is_empty() { usual.to_vec() } else { given.to_vec() };
        let in_flight = match (&self.in_flight[..], &self.rate[..]) {
            ([], []) if quick => vec![256],
            ([], []) => vec![1, 8, 64, 256, 1_024],
            (given, _) => given.to_vec(),
        };
        let mut floor_clients = or(&self.floor_clients, &FLOOR_CLIENTS);
        if self.no_floor || self.gateway.is_some() {
            floor_clients.clear();
        } else if self.floor_clients.is_empty() {
            floor_clients.extend_from_slice(&in_flight);
        }
        for clients in &mut floor_clients {
            *clients = (*clients).min(floor_clients_max(self.coupons));
        }
        floor_clients.sort_unstable();
        floor_clients.dedup();
        Measures {
            stores: match &self.stores[..] {
                [] if full => Store::ALL.to_vec(),
                [] => vec![Store::default()],
                given => given.to_vec(),
            },
            in_flight,
            rate: self.rate.clone(),
            skus: or(&self.skus, if full { &[1_000, 1] } else { &[1_000] }),
            refused: or(&self.refused, if full { &[0, 20] } else { &[0] }),
            floor_clients,
            seconds: self.seconds.unwrap_or(if full { 5 } else { 3 }),
            repeat: self.repeat.unwrap_or(if full { 5 } else { 1 }),
        }
    }
}
