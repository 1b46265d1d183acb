//! The `tcc-cluster` command as people use it: the demo, and a served cluster with orders placed by hand.

use std::{
    ffi::OsStr,
    fmt::Debug,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tcc_servers::{Kind, PASSWORD, Server};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Nothing here takes longer, also on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);

async fn run<S: AsRef<OsStr>>(arguments: &[S]) -> anyhow::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcc-cluster"));
    Ok(timeout(WITHIN, command.args(arguments).kill_on_drop(true).output()).await??)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a successful command printed.
async fn said<S: AsRef<OsStr> + Debug>(arguments: &[S]) -> anyhow::Result<String> {
    let output = run(arguments).await?;
    anyhow::ensure!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}

/// What a failed command printed.
async fn complained<S: AsRef<OsStr> + Debug>(arguments: &[S]) -> anyhow::Result<String> {
    let output = run(arguments).await?;
    anyhow::ensure!(!output.status.success(), "{arguments:?}: {}", text(&output.stdout));
    Ok(text(&output.stderr))
}

struct Served {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    gateway: String,
    inventory: String,
    coupon: String,
}

async fn serve(data: &Path) -> anyhow::Result<Served> {
    serve_with(data, &[]).await
}

async fn serve_with(data: &Path, more: &[(&str, &str)]) -> anyhow::Result<Served> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tcc-cluster"))
        .args(["serve", "--gateway-port", "0", "--inventory-port", "0", "--coupon-port", "0", "--data"])
        .arg(data)
        .envs(more.iter().copied())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(process.stdout.take().context("no standard output")?).lines();
    let mut address = async |name: &str| {
        let line = timeout(WITHIN, lines.next_line()).await??.context("serve ended")?;
        let mut words = line.split_whitespace();
        anyhow::ensure!(words.next() == Some(name), "not the line of {name}: {line}");
        Ok(format!("http://{}", words.next().context("no address")?))
    };
    let (gateway, inventory, coupon) = (address("gateway").await?, address("inventory").await?, address("coupon").await?);
    Ok(Served { process, lines, gateway, inventory, coupon })
}

impl Served {
    /// As Ctrl-C does; the rest of what it says must be read, so that it can be said.
    async fn interrupt(mut self) -> anyhow::Result<()> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).context("has ended")?;
        kill_process(id, Signal::INT)?;
        while timeout(WITHIN, self.lines.next_line()).await??.is_some() {}
        let status = timeout(WITHIN, self.process.wait()).await??;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_its_verdict_as_the_last_line() -> anyhow::Result<()> {
    let said = said(&["demo", "--orders", "150", "--concurrency", "16"]).await?;
    assert_eq!(said.lines().last(), Some("verdict: books balance"), "{said}");
    for part in ["sku-20", "p99", "placed twice, one key", "OUT_OF_STOCK", "COUPON_USED", "NOT_OWNER", "COUPON_EXPIRED"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_cluster_takes_orders_by_hand_and_keeps_them() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let served = serve(data.path()).await?;
    let gateway = served.gateway.as_str();
    let order = |rest: &[&str]| {
        let mut all = vec!["order".to_owned()];
        all.extend(rest.iter().map(|word| (*word).to_owned()));
        all.extend(["--gateway".to_owned(), gateway.to_owned()]);
        all
    };

    let create = order(&["create", "--user", "alice", "--line", "apple=2", "--coupon", "WELCOME-ALICE", "--key", "k-1"]);
    let placed = said(&create).await?;
    assert!(placed.contains("confirmed") && placed.contains("2 x apple"), "{placed}");
    let order_id = placed.lines().next().and_then(|line| line.strip_prefix("order ")).context("no order id")?.to_owned();
    assert!(said(&create).await?.contains(&order_id), "the same key gave another order");
    assert!(said(&order(&["get", &order_id])).await?.contains("confirmed"));

    let held = said(&order(&["create", "--user", "bob", "--line", "pear=1", "--hold"])).await?;
    let held_id = held.lines().next().and_then(|line| line.strip_prefix("order ")).context("no order id")?.to_owned();
    assert!(held.contains("held"), "{held}");
    assert!(said(&order(&["cancel", &held_id])).await?.contains("CANCEL_REQUESTED"));
    let listed = said(&order(&["list"])).await?;
    assert!(listed.contains(&order_id) && listed.contains(&held_id), "{listed}");

    let wrong = complained(&order(&["create", "--user", "alice", "--line", "apple=0", "--key", "k-2"])).await?;
    assert!(wrong.contains("InvalidArgument") && wrong.contains("lines[0].quantity"), "{wrong}");
    let other = complained(&order(&["create", "--user", "alice", "--line", "apple=3", "--key", "k-1"])).await?;
    assert!(other.contains("AlreadyExists"), "{other}");

    let stock = said(&["stock", "list", "--inventory", &served.inventory]).await?;
    let apple = stock.lines().find(|line| line.contains("apple")).context("no apples")?;
    assert!(apple.contains("1000") && apple.contains("998"), "{stock}");
    let coupons = said(&["coupon", "list", "--coupon", &served.coupon, "--user", "alice"]).await?;
    assert!(coupons.contains("WELCOME-ALICE") && coupons.contains("used"), "{coupons}");
    assert!(said(&["health", gateway]).await?.contains("is serving"));
    served.interrupt().await?;

    let again = serve(data.path()).await?;
    let kept = said(&["order", "get", &order_id, "--gateway", &again.gateway]).await?;
    assert!(kept.contains("confirmed"), "{kept}");
    again.interrupt().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_on_a_server_outlives_a_gateway_too() -> anyhow::Result<()> {
    for store in ["postgres", "mysql"] {
        let said = said(&["demo", "--orders", "150", "--concurrency", "16", "--store", store, "--gateways", "2"]).await?;
        assert_eq!(said.lines().last(), Some("verdict: books balance"), "{store}: {said}");
        assert!(!said.contains(PASSWORD), "{store}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_on_the_users_own_server_keeps_its_orders_there() -> anyhow::Result<()> {
    for kind in Kind::ALL {
        let server = tokio::task::spawn_blocking(move || Server::start(kind)).await??;
        let url = server.url("shop");
        let (data, variable) = (tempfile::tempdir()?, [("TCC_DATABASE_URL", url.as_str())]);
        let served = serve_with(data.path(), &variable).await?;
        let create = ["order", "create", "--user", "ann", "--line", "apple=2", "--key", "k-1", "--gateway", &served.gateway];
        let placed = said(&create).await?;
        assert!(placed.contains("confirmed"), "{kind}: {placed}");
        let order_id = placed.lines().next().and_then(|line| line.strip_prefix("order ")).context("no order id")?.to_owned();
        served.interrupt().await?;
        let files = std::fs::read_dir(data.path())?.map(|entry| Ok(entry?.file_name())).collect::<anyhow::Result<Vec<_>>>()?;
        assert_eq!(files, ["logs"], "{kind}: a database is in the folder");

        let again = serve_with(data.path(), &variable).await?;
        let kept = said(&["order", "get", &order_id, "--gateway", &again.gateway]).await?;
        assert!(kept.contains("confirmed"), "{kind}: {kept}");
        again.interrupt().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_contradict_each_other_are_refused_without_repeating_a_password() -> anyhow::Result<()> {
    let url = "postgres://ann:hush-hush@127.0.0.1:1/shop";
    for (arguments, part) in [
        (vec!["serve", "--gateways", "2"], "one gateway at a time"),
        (vec!["serve", "--store", "mysql", "--database-url", url], "--store"),
        (vec!["serve", "--database-url", url], "127.0.0.1:1"),
        (vec!["serve", "--database-url", "oracle://ann:hush-hush@x/y"], "postgres://"),
    ] {
        let said = complained(&arguments).await?;
        assert!(said.contains(part) && !said.contains("hush"), "{arguments:?}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_gateway_is_said_plainly() -> anyhow::Result<()> {
    let said = complained(&["order", "list", "--gateway", "http://127.0.0.1:1"]).await?;
    assert!(said.contains("nothing answers at http://127.0.0.1:1"), "{said}");
    let said = complained(&["order", "create", "--user", "a", "--line", "apple"]).await?;
    assert!(said.contains("SKU=QUANTITY"), "{said}");
    Ok(())
}
