//! The child's side: runs a server of the system in this process, by the same `run` as its shipped binary.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Context;
use serde::de::DeserializeOwned;
use tcc_service::{shutdown, telemetry};
use tokio_util::sync::CancellationToken;

use super::{Role, child::Event};

/// A child whose parent is gone has so long to end gracefully; a parked one cannot.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);
const ORPHANED: i32 = 3;

/// Runs one role until SIGTERM, SIGINT, or the end of the standard input.
///
/// # Errors
/// The configuration does not fit, the fail point is not compiled in, or the server's own error.
pub async fn run(role: Role, config_json: &str, park_at: Option<&str>) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signal();
    end_with_parent(shutdown.clone());
    if let Some(point) = park_at {
        park(point)?;
    }
    match role {
        Role::Gateway => {
            let config: tcc_gateway::Config = parse(config_json)?;
            telemetry::init(&config.telemetry, "gateway");
            tcc_gateway::run(config, report_ready, shutdown).await
        }
        Role::Inventory => {
            let config: tcc_inventory::Config = parse(config_json)?;
            telemetry::init(&config.telemetry, "inventory");
            tcc_inventory::run(config, report_ready, shutdown).await
        }
        Role::Coupon => {
            let config: tcc_coupon::Config = parse(config_json)?;
            telemetry::init(&config.telemetry, "coupon");
            tcc_coupon::run(config, report_ready, shutdown).await
        }
    }
}

fn parse<T: DeserializeOwned>(config_json: &str) -> anyhow::Result<T> {
    serde_json::from_str(config_json).context("--config-json")
}

fn report_ready(address: SocketAddr) {
    report(&Event::Ready(address));
}

fn report(event: &Event) {
    let Ok(line) = serde_json::to_string(event) else { return };
    let mut out = std::io::stdout().lock();
    // A parent that is gone cannot be told; the standard input says so too.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

// A thread, not a task: a blocking read of the standard input would hold the runtime open at the end.
fn end_with_parent(shutdown: CancellationToken) {
    std::thread::spawn(move || {
        let mut ignored = [0_u8; 256];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        shutdown.cancel();
        std::thread::sleep(ORPHAN_GRACE);
        std::process::exit(ORPHANED);
    });
}

/// `confirm.before` parks at the first arrival there, `confirm.before#3` at the third.
#[cfg(feature = "failpoints")]
fn park(point: &str) -> anyhow::Result<()> {
    use std::sync::atomic::{AtomicU32, Ordering};

    let (name, arrival) = match point.split_once('#') {
        Some((name, arrival)) => (name, arrival.parse().with_context(|| format!("--park-at {point}"))?),
        None => (point, 1_u32),
    };
    anyhow::ensure!(tcc_coordinator::failpoint::ALL.contains(&name), "there is no fail point {name}");
    let told = point.to_owned();
    let arrivals = AtomicU32::new(0);
    let stand_still = move || {
        let this = arrivals.fetch_add(1, Ordering::SeqCst) + 1;
        if this < arrival {
            return;
        }
        if this == arrival {
            report(&Event::Parked(told.clone()));
        }
        // Whatever else arrives here waits too, until the parent kills the process.
        loop {
            std::thread::park();
        }
    };
    fail::cfg_callback(name, stand_still).map_err(|error| anyhow::anyhow!("fail point {name}: {error}"))
}

#[cfg(not(feature = "failpoints"))]
fn park(point: &str) -> anyhow::Result<()> {
    anyhow::bail!("--park-at {point}: built without the feature `failpoints`")
}
