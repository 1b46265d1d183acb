//! Orders on MySQL and MariaDB. The client counts the rows that an update found, not those that it changed: the guards are in the
//! `WHERE`, so that both are the same.

#[cfg(test)]
mod tests;

use serde::Serialize;
use sqlx::{
    MySql, MySqlConnection, QueryBuilder,
    migrate::Migrator,
    mysql::{MySqlArguments, MySqlQueryResult},
    query::Query,
};
use tcc_database::{
    mysql::{
        inserts::{Insert, Piece},
        lists::{is_name, lists},
    },
    mysql_insert, mysql_list,
};
use tcc_participant::Store;
use tcc_types::{Decision, Gid};

use super::{Books, OrderRows, changed, lines_to_text, settled};
use crate::{OrderBooks, OrderDatabase, OrderRow, OrderStore, Placed, RowStatus};

/// Inserts all rows or, where one is there, none.
macro_rules! insert_all {
    () => {
        "INSERT INTO orders (order_id, order_key, initiator, user_id, `lines`, coupon_id, hold, status) "
    };
    ($text:ident) => {
        concat!(
            insert_all!(),
            "SELECT v.order_id, v.order_key, v.initiator, v.user_id, v.ordered, v.coupon_id, v.hold, ? FROM ",
            mysql_list!(order_id id, order_key id, initiator id, user_id id, ordered $text, coupon_id id, hold int)
        )
    };
}

const INSERT_ALL: &str = insert_all!(text);

/// The same where every order's lines are short.
const INSERT_ALL_BRIEF: &str = insert_all!(name);

const INSERT_VALUES: Insert = mysql_insert!(concat!(insert_all!(), "VALUES "), "(?, ?, ?, ?, ?, ?, ?, ?)", "");

const INSERT_ONE: &str = concat!(insert_all!(), "VALUES (?, ?, ?, ?, ?, ?, ?, ?)");

/// Looks each row up by its key, in the order of the list and never in another way.
const SETTLE_ALL: &str = concat!(
    "UPDATE ",
    mysql_list!(order_id id, status int),
    " STRAIGHT_JOIN orders AS o FORCE INDEX (PRIMARY) ON o.order_id = v.order_id SET o.status = v.status WHERE o.status = 1"
);

type MySqlQuery = Query<'static, MySql, MySqlArguments>;

/// An order to insert, with its lines as they are stored.
struct Row<'a> {
    id: Gid,
    placed: &'a Placed,
    lines: String,
}

impl Row<'_> {
    /// What a list to insert has of it.
    fn listed(&self) -> impl Serialize {
        let Self { id, placed, lines } = self;
        let (key, initiator) = (placed.order_key().as_str(), placed.initiator().as_str());
        (id.to_string(), key, initiator, placed.user_id(), lines, placed.coupon_id(), u8::from(placed.hold()))
    }

    /// Binds what an insert of values has of it.
    fn bind(&self, query: MySqlQuery) -> MySqlQuery {
        let Self { id, placed, lines } = self;
        query
            .bind(id.to_string())
            .bind(placed.order_key().as_str())
            .bind(placed.initiator().as_str())
            .bind(placed.user_id())
            .bind(lines)
            .bind(placed.coupon_id())
            .bind(placed.hold())
            .bind(RowStatus::Tried.code())
    }
}

/// What an insert does; `None` if it cannot insert all of the rows at once.
fn insert_of(piece: &Piece<'_, Row<'_>>) -> Result<Option<MySqlQuery>, sqlx::Error> {
    match piece {
        Piece::Values(text, rows) => Ok(Some(rows.iter().fold(sqlx::query(*text), |query, row| row.bind(query)))),
        Piece::List(rows) => {
            let text = if rows.iter().all(|row| is_name(&row.lines)) { INSERT_ALL_BRIEF } else { INSERT_ALL };
            let lists = encoded(lists(rows.iter().map(Row::listed)))?;
            let [list] = &*lists else { return Ok(None) };
            Ok(Some(sqlx::query(text).bind(RowStatus::Tried.code()).bind(list)))
        }
    }
}

impl OrderRows<'_, MySql> {
    async fn insert_row(&mut self, row: &Row<'_>) -> Result<bool, sqlx::Error> {
        is_new(row.bind(sqlx::query(INSERT_ONE)).execute(&mut *self.0).await)
    }
}

/// Whether an insert found nothing in its way.
fn is_new(inserted: Result<MySqlQueryResult, sqlx::Error>) -> Result<bool, sqlx::Error> {
    match inserted {
        Ok(_) => Ok(true),
        // The branch's row lets one Try of an order in, so this never comes from a race but from a row that was put there
        // beside the framework. Only the statement was undone, and the transaction goes on to store the refusal.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

impl OrderStore for OrderRows<'_, MySql> {
    type Error = sqlx::Error;

    async fn insert(&mut self, id: Gid, placed: &Placed) -> Result<bool, sqlx::Error> {
        self.insert_row(&Row { id, placed, lines: lines_to_text(placed)? }).await
    }

    async fn settle(&mut self, id: Gid, decision: Decision) -> Result<bool, sqlx::Error> {
        let settled = sqlx::query("UPDATE orders SET status = ? WHERE order_id = ? AND status = 1")
            .bind(settled(decision).code())
            .bind(id.to_string())
            .execute(&mut *self.0)
            .await?;
        Ok(settled.rows_affected() == 1)
    }

    async fn insert_all(&mut self, orders: &[(Gid, &Placed)]) -> Result<Vec<bool>, sqlx::Error> {
        let row = |&(id, placed): &(Gid, _)| Ok(Row { id, placed, lines: lines_to_text(placed)? });
        let rows = orders.iter().map(row).collect::<Result<Vec<_>, sqlx::Error>>()?;
        let mut inserted = Vec::with_capacity(rows.len());
        for piece in INSERT_VALUES.pieces(&rows, |row| row.lines.len()) {
            let all = match insert_of(&piece)? {
                Some(insert) => is_new(insert.execute(&mut *self.0).await)?,
                None => false,
            };
            let (Piece::Values(_, rows) | Piece::List(rows)) = piece;
            // What is too long for one list goes in one by one, and so does what has a row in its way.
            for row in rows {
                inserted.push(all || self.insert_row(row).await?);
            }
        }
        Ok(inserted)
    }

    async fn settle_all(&mut self, settles: &[(Gid, Decision)]) -> Result<usize, sqlx::Error> {
        let mut settled = 0;
        for list in settled_lists(settles)? {
            settled += sqlx::query(SETTLE_ALL).bind(list).execute(&mut *self.0).await?.rows_affected();
        }
        changed(settled)
    }
}

fn settled_lists(settles: &[(Gid, Decision)]) -> Result<Vec<String>, sqlx::Error> {
    encoded(lists(settles.iter().map(|(id, decision)| (id.to_string(), settled(*decision).code()))))
}

fn encoded(lists: Result<Vec<String>, serde_json::Error>) -> Result<Vec<String>, sqlx::Error> {
    lists.map_err(|error| sqlx::Error::Encode(error.into()))
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT order_id, order_key, initiator, user_id, `lines`, coupon_id, hold, held, status FROM orders ", $rest)
    };
}

impl Books<MySql> {
    async fn mark_held_once(&self, id: Gid) -> Result<(), sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        sqlx::query("UPDATE orders SET held = 1 WHERE order_id = ? AND hold = 1 AND status = 1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

impl OrderBooks for Books<MySql> {
    async fn get(&self, id: Gid) -> Result<Option<OrderRow>, sqlx::Error> {
        let read = sqlx::query_as(select!("WHERE order_id = ?")).bind(id.to_string());
        read.fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, user_id: Option<&str>, before: Option<Gid>, limit: u32) -> Result<Vec<OrderRow>, sqlx::Error> {
        let mut text = QueryBuilder::<MySql>::new(select!("WHERE TRUE"));
        if let Some(user_id) = user_id {
            text.push(" AND user_id = ").push_bind(user_id);
        }
        if let Some(before) = before {
            text.push(" AND order_id < ").push_bind(before.to_string());
        }
        text.push(" ORDER BY order_id DESC LIMIT ").push_bind(i64::from(limit));
        text.build_query_as().fetch_all(self.store.read_pool()).await
    }

    async fn mark_held(&self, id: Gid) -> Result<(), sqlx::Error> {
        // Looking first spares repeated requests the commit.
        let marked = "SELECT 1 FROM orders WHERE order_id = ? AND hold = 1 AND held = 0 AND status = 1";
        if sqlx::query(marked).bind(id.to_string()).fetch_optional(self.store.read_pool()).await?.is_none() {
            return Ok(());
        }
        self.store.retrying(|| self.mark_held_once(id)).await
    }
}

impl OrderDatabase for MySql {
    type Orders<'c> = OrderRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::orders::mysql()
    }

    fn orders(connection: &mut MySqlConnection) -> OrderRows<'_, Self> {
        OrderRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}
