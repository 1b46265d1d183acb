//! The floor: the rows of an order as shipped, written straight to the same kind of database by as many clients as are asked for,
//! one transaction for each durable step, without gRPC and without a coordinator. Whoever batches nothing cannot be faster.
//!
//! The steps: begun; the Try of each branch (its row and its business row); decided; the Confirm or Cancel of each branch that
//! reserved (both rows); finished. Log, orders, stock and coupons are in databases of their own on one server, as the system's.

mod mysql;
mod postgres;
mod rows;
mod sqlite;
mod steps;

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Context, bail, ensure};
use sqlx::{
    AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::task::JoinSet;

use self::{rows::Rows, steps::Step};
use super::{
    cell::{Cell, Pace},
    counters::Counters,
    coupons,
    figures::Figures,
    load::{self, Tallies, Tally, Window},
    machine,
    orders::{Orders, SOLD_OUT_SKU, sku},
    system::{Conditions, PIECES},
};
use crate::harness::{ClusterConfig, Databases, Owner, ServerChoice, Snapshot, Store};

/// Writes steps, each as one transaction.
pub(crate) trait Client: Send + 'static {
    fn write(&mut self, step: Step<'_>) -> impl Future<Output = sqlx::Result<()>> + Send;
}

/// Measures it on a fresh server, and checks what it wrote.
///
/// # Errors
/// The database does not start, or fails.
pub(crate) async fn run(cell: Cell, conditions: &Conditions) -> anyhow::Result<Result<Figures, Vec<String>>> {
    let Pace::InFlight(clients) = cell.pace else { bail!("the floor has clients, and no rate") };
    let store = cell.shape.store;
    let folder = tempfile::Builder::new().prefix("tcc-floor-").tempdir()?;
    let config = ClusterConfig {
        store,
        server: ServerChoice::Own,
        server_settings: machine::server_settings(store, &conditions.server_settings),
        ..ClusterConfig::temporary(folder.path().to_owned())
    };
    let databases = Databases::open(&config, folder.path()).await?;
    prepare(&databases, cell, conditions).await?;
    let file = conditions.fsync_file.as_deref();
    let mut counters = Counters::new(store, databases.url(Owner::Log), file).await?;
    let owners = if cell.shape.coupons { &Owner::ALL[..] } else { &Owner::ALL[..3] };
    let work = Work { orders: Arc::new(Orders::new(cell.shape, "floor".to_owned())), coupons: cell.shape.coupons };
    let mut ready = Ready::new();
    match store {
        Store::Sqlite => {
            let client = sqlite::Client::connect(&databases, owners).await?;
            for _ in 0..clients {
                ready.add(client.clone());
            }
        }
        Store::Postgres => {
            for _ in 0..clients {
                ready.add(postgres::Client::connect(&databases, owners).await?);
            }
        }
        Store::Mysql => {
            for _ in 0..clients {
                ready.add(mysql::Client::connect(&databases, owners).await?);
            }
        }
    }
    let window = Window::new(conditions.warm_up, conditions.measured);
    let tallies = Arc::new(Tallies::new(window)?);
    let tasks = ready.go(&work, &tallies);
    let (wrote, counts) = tokio::join!(load::all(tasks), load::at_both_ends(window, async || counters.read().await));
    wrote?;
    let tally = tallies.sum()?;
    let problems = books(&databases, &tally, cell).await?;
    if !problems.is_empty() {
        return Ok(Err(problems));
    }
    let [before, after] = counts?;
    Ok(Ok(Figures::of(&tally, window.length()).with_counts(before, after, tally.done)))
}

/// What clients write.
#[derive(Clone, Debug)]
struct Work {
    orders: Arc<Orders>,
    coupons: bool,
}

/// Clients that are connected and wait to begin together.
struct Ready(Vec<Begin>);

type Begin = Box<dyn FnOnce(&mut JoinSet<()>, Work, Arc<Tallies>)>;

impl Ready {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, client: impl Client) {
        self.0.push(Box::new(|tasks, work, tallies| {
            tasks.spawn(write(client, work, tallies));
        }));
    }

    fn go(self, work: &Work, tallies: &Arc<Tallies>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for begin in self.0 {
            begin(&mut tasks, work.clone(), Arc::clone(tallies));
        }
        tasks
    }
}

async fn write(mut client: impl Client, work: Work, tallies: Arc<Tallies>) {
    while tallies.is_open() {
        let since = Instant::now();
        let rows = Rows::new(&work.orders, work.orders.take(), work.coupons);
        let written = order(&mut client, &rows).await;
        let failed = written.is_err();
        tallies.ended(since, written.map(|()| rows.fate).map_err(|error| error.to_string()));
        // One failure spoils the run, and whoever failed may be within a transaction.
        if failed {
            return;
        }
    }
}

async fn order(client: &mut impl Client, rows: &Rows) -> sqlx::Result<()> {
    client.write(rows.begin()).await?;
    for step in rows.tries() {
        client.write(step).await?;
    }
    client.write(rows.decide()).await?;
    for step in rows.ends() {
        client.write(step).await?;
    }
    client.write(rows.finish()).await
}

/// Makes the tables by the system's own migrations, and fills the shelves.
async fn prepare(databases: &Databases, cell: Cell, conditions: &Conditions) -> anyhow::Result<()> {
    let store = databases.store();
    for owner in Owner::ALL {
        migrate(store, databases.url(owner), owner).await.with_context(|| format!("the tables of {}", owner.name()))?;
    }
    let shelves = (0..cell.shape.skus).map(|number| (sku(number), PIECES)).chain([(SOLD_OUT_SKU.to_owned(), 1)]);
    let shelves: Vec<String> = shelves.map(|(sku, pieces)| format!("('{sku}', {pieces}, {pieces}, 0, 0, 0)")).collect();
    for some in shelves.chunks(1_000) {
        let sql = format!("INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) VALUES {}", some.join(", "));
        execute(store, databases.url(Owner::Inventory), sql).await?;
    }
    if cell.shape.coupons {
        coupons::issue_at(store, databases.url(Owner::Coupon), conditions.coupons_issued).await?;
    }
    Ok(())
}

async fn execute(store: Store, url: &str, sql: String) -> anyhow::Result<()> {
    match store {
        Store::Sqlite => SqliteConnection::connect(url).await?.execute(AssertSqlSafe(sql)).await.map(drop)?,
        Store::Postgres => PgConnection::connect(url).await?.execute(AssertSqlSafe(sql)).await.map(drop)?,
        Store::Mysql => MySqlConnection::connect(url).await?.execute(AssertSqlSafe(sql)).await.map(drop)?,
    }
    Ok(())
}

async fn migrate(store: Store, url: &str, owner: Owner) -> anyhow::Result<()> {
    match store {
        Store::Sqlite => {
            let mut connection = open_sqlite(url).await?;
            use tcc_migrations::{coupon, inventory, log, orders, participant};
            for migrator in of(owner, [log::sqlite, orders::sqlite, inventory::sqlite, coupon::sqlite], participant::sqlite) {
                migrator.run_direct(None, &mut connection, false).await?;
            }
            connection.close().await?;
        }
        Store::Postgres => {
            let mut connection = PgConnection::connect(url).await?;
            use tcc_migrations::{coupon, inventory, log, orders, participant};
            let business = [log::postgres, orders::postgres, inventory::postgres, coupon::postgres];
            for migrator in of(owner, business, participant::postgres) {
                tcc_database::postgres::migrate(&mut connection, &migrator).await?;
            }
            connection.close().await?;
        }
        Store::Mysql => {
            use tcc_migrations::{coupon, inventory, log, orders, participant};
            for migrator in of(owner, [log::mysql, orders::mysql, inventory::mysql, coupon::mysql], participant::mysql) {
                let mut connection = MySqlConnection::connect(url).await?;
                tcc_database::mysql::migrate(&mut connection, migrator).await?;
                connection.close().await?;
            }
        }
    }
    Ok(())
}

/// The migrations of one database: its owner's, and those of the barrier unless it is the log's.
fn of(owner: Owner, business: [fn() -> Migrator; 4], barrier: fn() -> Migrator) -> Vec<Migrator> {
    match owner {
        Owner::Log => vec![business[0]()],
        Owner::Orders => vec![barrier(), business[1]()],
        Owner::Inventory => vec![barrier(), business[2]()],
        Owner::Coupon => vec![barrier(), business[3]()],
    }
}

/// As the system opens it: every commit is synced.
pub(crate) async fn open_sqlite(url: &str) -> anyhow::Result<SqliteConnection> {
    let file = tcc_database::sqlite::path_of(url).map_err(anyhow::Error::msg)?;
    let options = SqliteConnectOptions::new()
        .filename(Path::new(&file))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// What is wrong with what was written, each as a sentence.
async fn books(databases: &Databases, tally: &Tally, cell: Cell) -> anyhow::Result<Vec<String>> {
    if tally.failed > 0 {
        let first = tally.first_failure.as_deref().unwrap_or("it is not known how");
        return Ok(vec![format!("{} orders could not be written; the first: {first}", tally.failed)]);
    }
    let (yes, no) = (i64::try_from(tally.confirmed)?, i64::try_from(tally.refused)?);
    let mut counts: Vec<(Owner, &'static str, i64)> = vec![
        (Owner::Inventory, "SELECT count(*) FROM stock WHERE available + frozen + sold <> initial OR frozen <> 0", 0),
        (Owner::Inventory, "SELECT count(*) FROM tcc_branches WHERE status = 3", yes),
        (Owner::Inventory, "SELECT count(*) FROM tcc_branches WHERE status = 2", no),
        (Owner::Orders, "SELECT count(*) FROM tcc_branches WHERE status = 3", yes),
        (Owner::Orders, "SELECT count(*) FROM tcc_branches WHERE status = 4", no),
        (Owner::Orders, "SELECT count(*) FROM orders WHERE status = 3", yes),
        (Owner::Orders, "SELECT count(*) FROM orders WHERE status = 4", no),
        (Owner::Log, "SELECT count(*) FROM tcc_log_transactions WHERE status = 3", yes),
        (Owner::Log, "SELECT count(*) FROM tcc_log_transactions WHERE status = 5", no),
        (Owner::Log, "SELECT count(*) FROM tcc_log_branches", (yes + no) * if cell.shape.coupons { 3 } else { 2 }),
    ];
    if cell.shape.coupons {
        counts.push((Owner::Coupon, "SELECT count(*) FROM tcc_branches WHERE status = 3", yes));
        counts.push((Owner::Coupon, "SELECT count(*) FROM coupons WHERE state = 3", yes));
        counts.push((Owner::Coupon, "SELECT count(*) FROM coupons WHERE state = 2", 0));
    }
    let mut problems = Vec::new();
    for (owner, sql, wanted) in counts {
        let rows = Snapshot::of(databases, owner).await?.all(sql).await?;
        let found = rows.first().context("no count")?.integer(0)?;
        if found != wanted {
            problems.push(format!("{} of {}: {found} rows, not {wanted}", sql, owner.name()));
        }
    }
    let mut sold = 0;
    for row in Snapshot::of(databases, Owner::Inventory).await?.all("SELECT sold FROM stock").await? {
        sold += row.integer(0)?;
    }
    if sold != yes {
        problems.push(format!("{sold} pieces are sold, not {yes}"));
    }
    ensure!(yes + no > 0, "the floor wrote no order");
    Ok(problems)
}
