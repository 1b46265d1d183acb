//! Fills the databases of a stopped system in bulk, as if so many orders had been placed: every row that the system would have, in
//! every table, such that the books balance. Called once for each state that is measured.

use std::io::IsTerminal;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use prost::{Message, Name};
use tcc_proto::{
    inventory::v1::{ReserveStock, ReservedStock, StockLine},
    order::v1::{OrderLine, PlaceOrder},
};
use tcc_types::{Clock, SystemClock};

use super::{
    database::Database,
    sql::{CHUNK, Dialect, split},
    state::State,
};
use crate::{
    bench::{orders::sku, system::PIECES},
    harness::{Cluster, LOG_NAME, Owner, Store},
};

/// The participant that is configured and never answers.
pub(crate) const SILENT: &str = "silent";
/// What a stuck branch was tried before.
pub(crate) const ATTEMPTS: u32 = 12;
/// As the benchmark's own orders are spread.
pub(crate) const SKUS: u64 = 1_000;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 24 * 3_600 * SECOND;
/// In microseconds: within this all stuck branches come up for their next attempt once, as `stuck_probe_ms` has it.
const PROBED_WITHIN: u64 = 15_000_000;
/// How many milliseconds after one another they were minted: a million within a day, far less than the retention.
const FINISHED_STEP_MS: u64 = 80;
const KEY_MARK: &str = "KEYKEYKEYKEYKEY";
const USER_MARK: &str = "user-XYZ";
const SKU_MARK: &str = "bench-VWXYZ";
const TEMPLATE: &str = "{bar:40} {percent}% of {msg}";

/// The columns of one table, each with its expression of `n`.
type Columns = Vec<(&'static str, String)>;

/// Makes the rows of so many orders of a kind. All processes are stopped.
///
/// # Errors
/// A database's: a check of its tables, for one.
pub(crate) async fn fill(cluster: &Cluster, state: State, rows: u64) -> anyhow::Result<()> {
    let store = cluster.databases().store();
    let made = Made::new(store, state, rows);
    let tables = made.tables();
    let steps = tables.len() as u64 * rows.div_ceil(CHUNK);
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(steps).with_style(style).with_message(format!("{rows} {state} on {store}"))
    });
    for owner in [Owner::Log, Owner::Orders, Owner::Inventory] {
        let mut database = Database::to_fill(store, cluster.database_url(owner)).await?;
        for (_, table, columns) in tables.iter().filter(|(of, _, _)| *of == owner) {
            for first in (0..rows).step_by(CHUNK as usize) {
                let sql = made.dialect.insert(table, columns, first, rows.min(first + CHUNK));
                database.run(&sql).await.with_context(|| format!("{} cannot be filled", owner.name()))?;
                bar.iter().for_each(|bar| bar.inc(1));
            }
        }
        if owner == Owner::Inventory {
            stock(&mut database, state, rows).await?;
        }
        database.settle().await?;
    }
    bar.iter().for_each(ProgressBar::finish_and_clear);
    Ok(())
}

/// Every SKU, less what was taken from it: as much from each, and one more from the first.
async fn stock(database: &mut Database, state: State, rows: u64) -> anyhow::Result<()> {
    let shelves: Vec<String> = (0..SKUS)
        .map(|number| {
            let taken = i64::try_from(rows / SKUS + u64::from(number < rows % SKUS)).unwrap_or(i64::MAX);
            let (frozen, sold) = match state {
                State::Empty | State::Stuck => (0, 0),
                State::Finished => (0, taken),
                State::Held => (taken, 0),
            };
            let available = PIECES - frozen - sold;
            let sku = u32::try_from(number).map(sku).unwrap_or_default();
            format!("('{sku}', {PIECES}, {available}, {frozen}, {sold}, 0)")
        })
        .collect();
    let into = "INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) VALUES";
    database.run(&format!("{into} {}", shelves.join(", "))).await
}

/// How the rows of one kind of order are made.
#[derive(Debug)]
struct Made {
    dialect: Dialect,
    store: Store,
    state: State,
    /// Expressions of `n`.
    gid: String,
    gid_text: String,
    created_at: String,
    key: String,
    user: String,
    sku: String,
    fingerprint: String,
    /// When the last was minted.
    now: i64,
    rows: u64,
}

impl Made {
    fn new(store: Store, state: State, rows: u64) -> Self {
        let dialect = Dialect(store);
        let now = SystemClock.now().as_micros();
        let step = if state == State::Finished { FINISHED_STEP_MS } else { 1 };
        // An hour ago at the latest: nothing that is minted now comes among them.
        let ms = format!("{} - ({rows} - n) * {step}", now / 1_000 - 3_600_000);
        let (minted, number) = (dialect.hex(&ms, 12), dialect.hex("n", 12));
        let kind = match state {
            State::Empty => 0,
            State::Finished => 1,
            State::Held => 2,
            State::Stuck => 3,
        };
        // A UUID of version 7 and variant 8: its time, its kind, its number.
        let hex = dialect.concat(&[minted.clone(), format!("'700{kind}8000'"), number.clone()]);
        let text = [
            format!("substr({minted}, 1, 8)"),
            "'-'".to_owned(),
            format!("substr({minted}, 9, 4)"),
            format!("'-700{kind}-8000-'"),
            number,
        ];
        let text_of =
            |mark: &str, number: &str, digits| dialect.concat(&[format!("'{mark}'"), dialect.decimal(number, digits)]);
        Self {
            dialect,
            store,
            state,
            gid: dialect.bytes(&hex),
            gid_text: dialect.concat(&text),
            created_at: format!("({ms}) * 1000"),
            key: text_of("grown-", "n", 9),
            user: text_of("user-", "n % 100", 3),
            sku: text_of("bench-", &format!("n % {SKUS}"), 5),
            fingerprint: dialect.bytes(&dialect.hex("n", 64)),
            now,
            rows,
        }
    }

    fn tables(&self) -> Vec<(Owner, &'static str, Columns)> {
        let mut tables = vec![(Owner::Log, "tcc_log_transactions", self.transactions())];
        match self.state {
            State::Empty => return Vec::new(),
            State::Stuck => tables.push((Owner::Log, "tcc_log_branches", self.stuck_branches())),
            State::Finished | State::Held => {
                let (order, stock) = (self.order_message(), self.stock_message());
                tables.extend([
                    (Owner::Log, "tcc_log_branches", self.branches("order", 0, "order", order.clone())),
                    (Owner::Log, "tcc_log_branches", self.branches("stock", 1, "inventory", stock.clone())),
                    (Owner::Orders, "tcc_branches", self.barrier("order", order.0, self.dialect.bytes("''"))),
                    (Owner::Orders, "orders", self.orders()),
                    (Owner::Inventory, "tcc_branches", self.barrier("stock", stock.0, self.reserved())),
                ]);
            }
        }
        tables
    }

    fn transactions(&self) -> Columns {
        let after = |us: i64| format!("{} + {us}", self.created_at);
        let null = || "NULL".to_owned();
        let decide_by = if self.state == State::Held { (self.now + DAY).to_string() } else { after(10 * SECOND) };
        let (status, decided_at, finished_at, next_attempt_at) = match self.state {
            State::Held => (1, null(), null(), decide_by.clone()),
            State::Stuck => (2, after(SECOND), null(), format!("{} + n * {}", self.now, PROBED_WITHIN / self.rows)),
            State::Empty | State::Finished => (3, after(10_000), after(30_000), after(3 * SECOND)),
        };
        let mut columns = vec![
            ("gid", self.gid.clone()),
            ("try_until", after(10 * SECOND)),
            ("decide_by", decide_by),
            ("created_at", self.created_at.clone()),
            ("decided_at", decided_at),
            ("finished_at", finished_at),
            ("next_attempt_at", next_attempt_at),
            ("owner", "1".to_owned()),
            ("branch_count", if self.state == State::Stuck { "1" } else { "2" }.to_owned()),
            ("status", status.to_string()),
            ("try_order", "1".to_owned()),
            ("decides", if self.state == State::Held { "2" } else { "1" }.to_owned()),
            ("has_stuck", if self.state == State::Stuck { "1" } else { "0" }.to_owned()),
            ("initiator", "'grown'".to_owned()),
            ("idempotency_key", self.key.clone()),
            ("fingerprint", self.fingerprint.clone()),
        ];
        if self.store == Store::Mysql {
            columns.push(("touched_by", self.dialect.bytes(&self.dialect.hex("n", 32))));
        }
        columns
    }

    fn branches(&self, branch: &str, seq: u8, participant: &str, (type_url, payload): (String, String)) -> Columns {
        vec![
            ("gid", self.gid.clone()),
            ("branch_id", format!("'{branch}'")),
            ("seq", seq.to_string()),
            ("participant", format!("'{participant}'")),
            ("type_url", type_url),
            ("payload", payload),
        ]
    }

    fn stuck_branches(&self) -> Columns {
        let mut columns = self.branches("far", 0, SILENT, self.stock_message());
        columns.extend([
            ("attempts", ATTEMPTS.to_string()),
            ("stuck_kind", "1".to_owned()),
            ("stuck_since", format!("{} + {}", self.created_at, 60 * SECOND)),
            ("stuck_detail", "'the call took too long'".to_owned()),
        ]);
        columns
    }

    /// A participant's row.
    fn barrier(&self, branch: &str, type_url: String, reserved: String) -> Columns {
        let held = self.state == State::Held;
        let ask_after =
            if held { (self.now + DAY + 30 * SECOND).to_string() } else { format!("{} + {}", self.created_at, 40 * SECOND) };
        vec![
            ("gid", self.gid_text.clone()),
            ("branch_id", format!("'{branch}'")),
            ("status", if held { "1" } else { "3" }.to_owned()),
            ("empty", "0".to_owned()),
            ("type_url", type_url),
            ("request_fingerprint", self.fingerprint.clone()),
            ("coordinator", format!("'{LOG_NAME}'")),
            ("reserved", reserved),
            ("not_after", format!("{} + {}", self.created_at, 15 * SECOND)),
            ("ask_after", ask_after),
            ("created_at", self.created_at.clone()),
            ("changed_at", format!("{} + 20000", self.created_at)),
        ]
    }

    fn orders(&self) -> Columns {
        let held = self.state == State::Held;
        let flag = if held { "TRUE" } else { "FALSE" };
        vec![
            ("order_id", self.gid_text.clone()),
            ("order_key", self.key.clone()),
            ("initiator", "'grown'".to_owned()),
            ("user_id", self.user.clone()),
            ("lines", self.dialect.concat(&["'[[\"'".to_owned(), self.sku.clone(), "'\",1]]'".to_owned()])),
            ("hold", flag.to_owned()),
            ("held", flag.to_owned()),
            ("status", if held { "1" } else { "3" }.to_owned()),
        ]
    }

    /// A type and a message, as expressions.
    fn order_message(&self) -> (String, String) {
        let message = PlaceOrder {
            order_key: KEY_MARK.to_owned(),
            initiator: "grown".to_owned(),
            user_id: USER_MARK.to_owned(),
            lines: vec![OrderLine { sku: SKU_MARK.to_owned(), quantity: 1 }],
            coupon_id: String::new(),
            hold: self.state == State::Held,
        };
        (format!("'{}'", PlaceOrder::type_url()), self.expression(&message.encode_to_vec()))
    }

    fn stock_message(&self) -> (String, String) {
        let message = ReserveStock { lines: vec![line()] };
        (format!("'{}'", ReserveStock::type_url()), self.expression(&message.encode_to_vec()))
    }

    fn reserved(&self) -> String {
        self.expression(&ReservedStock { lines: vec![line()], ..ReservedStock::default() }.encode_to_vec())
    }

    fn expression(&self, message: &[u8]) -> String {
        self.dialect.message(&split(message, &[(KEY_MARK, &self.key), (USER_MARK, &self.user), (SKU_MARK, &self.sku)]))
    }
}

fn line() -> StockLine {
    StockLine { sku: SKU_MARK.to_owned(), quantity: 1 }
}
