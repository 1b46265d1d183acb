//! What the README promises: its participant is the one that is compiled, and it takes part in real transactions.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use prost::Message;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tcc_cluster::stage::{self, Stage, branch, reserve, submit};
use tcc_proto::tcc::v1::{SubmitRequest, Transaction, TransactionStatus, Wait, cancel_cause};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const BEGIN: &str = "<!-- points.rs -->\n```rust\n";
const END: &str = "```\n<!-- /points.rs -->";
const EXAMPLE: &str = "tcc-core/participant/examples/points.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_readme_shows_the_example_as_it_is_compiled() -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let example = std::fs::read_to_string(root().join(EXAMPLE))?;
    let (_, shown) = readme.split_once(BEGIN).context("README.md has no begin marker")?;
    let (shown, _) = shown.split_once(END).context("README.md has no end marker")?;
    ensure!(shown == example, "README.md shows another text than {EXAMPLE}");
    Ok(())
}

/// What the example declares for itself, as another team's initiator would.
#[derive(Clone, PartialEq, prost::Message)]
struct SpendPoints {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(int64, tag = "2")]
    points: i64,
}

fn spend(user: &str, points: i64) -> prost_types::Any {
    let value = SpendPoints { user: user.to_owned(), points }.encode_to_vec();
    prost_types::Any { type_url: "type.googleapis.com/points.v1.SpendPoints".to_owned(), value }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_participant_spends_and_releases_with_the_others() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_points, address) = start_example(folder.path()).await?;
    let database = folder.path().join("data").join("points.db");
    let mut database = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database)).await?;
    sqlx::query("INSERT INTO points VALUES ('ann', 100, 0, 0)").execute(&mut database).await?;

    let mut config = stage::quick(env!("CARGO_BIN_EXE_tcc-cluster"));
    config.more_participants.insert("points".to_owned(), format!("http://{address}"));
    let stage = Stage::start(config).await?;
    stage.stock("apple", 10).await?;

    let paid = run(&stage, 60, 1).await?;
    ensure!(paid.status() == TransactionStatus::Confirmed, "{paid:?}");
    let poor = run(&stage, 60, 1).await?;
    ensure!(refusal(&poor) == Some("NOT_ENOUGH_POINTS"), "{poor:?}");
    // Inventory refuses, so the points come back.
    let sold_out = run(&stage, 40, 1_000).await?;
    ensure!(refusal(&sold_out) == Some("OUT_OF_STOCK"), "{sold_out:?}");
    stage.must_balance(tcc_cluster::harness::Scope::AtRest).await?;

    let left: (i64, i64, i64) =
        sqlx::query_as("SELECT available, frozen, spent FROM points WHERE user = 'ann'").fetch_one(&mut database).await?;
    assert_eq!(left, (40, 0, 60));
    let tried: i64 = sqlx::query_scalar("SELECT count(*) FROM tcc_branches WHERE status = 1").fetch_one(&mut database).await?;
    assert_eq!(tried, 0);
    assert_eq!(stage.read_stock("apple").await?.sold, 1);
    stage.finish().await
}

async fn run(stage: &Stage, points: i64, pieces: i64) -> anyhow::Result<Transaction> {
    let branches =
        vec![branch("points", "points", spend("ann", points)), branch("stock", "inventory", reserve("apple", pieces))];
    let request = SubmitRequest { wait: Wait::End.into(), ..submit(branches) };
    stage.coordinator().submit(request).await?.into_inner().transaction.context("no transaction")
}

fn refusal(transaction: &Transaction) -> Option<&str> {
    match transaction.cancel_cause.as_ref()?.cause.as_ref()? {
        cancel_cause::Cause::Refused(refused) => refused.refusal.as_ref().map(|refusal| refusal.code.as_str()),
        cancel_cause::Cause::Violated(_) | cancel_cause::Cause::TimedOut(_) | cancel_cause::Cause::Requested(_) => None,
    }
}

/// Builds the example (at once, where `cargo test --workspace` has built it) and starts it in a folder of its own.
async fn start_example(folder: &Path) -> anyhow::Result<(Child, String)> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["build", "--workspace", "--example", "points", "--message-format", "json"]);
    if cfg!(feature = "failpoints") {
        // The same features as the tests', so that nothing is compiled twice.
        cargo.args(["--features", "tcc-cluster/failpoints"]);
    }
    let built = cargo.stderr(Stdio::inherit()).output().await?;
    ensure!(built.status.success(), "the example does not compile");
    let messages = String::from_utf8(built.stdout)?;
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "points")
        .find_map(|message| message["executable"].as_str().map(str::to_owned))
        .context("cargo names no executable")?;

    let mut points =
        Command::new(executable).arg("127.0.0.1:0").current_dir(folder).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(points.stdout.take().context("no standard output")?).lines();
    let line = timeout(Duration::from_secs(60), lines.next_line()).await??.context("the example ended")?;
    let address = line.strip_prefix("points listens on ").with_context(|| line.clone())?;
    Ok((points, address.to_owned()))
}
