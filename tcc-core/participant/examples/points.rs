//! A whole participant: loyalty points that an order may spend.

use std::{env, time::Duration};

use sqlx::{Sqlite, SqliteConnection, sqlite::SqliteQueryResult};
use tcc_participant::{BranchContext, Engine, GrpcOutcomes, Options, Participant, Result, Store, Tried, Upkeep};
use tcc_service::{Server, shutdown, telemetry};

/// What a Try asks for, and what it keeps for Confirm and Cancel.
#[derive(Clone, PartialEq, prost::Message)]
struct SpendPoints {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(int64, tag = "2")]
    points: i64,
}

impl prost::Name for SpendPoints {
    const PACKAGE: &'static str = "points.v1";
    const NAME: &'static str = "SpendPoints";
}

struct Points;

impl Participant for Points {
    type Db = Sqlite;
    type Payload = SpendPoints;
    type Reserved = SpendPoints;

    async fn on_try(&self, db: &mut SqliteConnection, _: &BranchContext, want: SpendPoints) -> Result<Tried<SpendPoints>> {
        let freeze = "UPDATE points SET available = available - ?1, frozen = frozen + ?1
                      WHERE user = ?2 AND ?1 BETWEEN 1 AND available";
        let changed = sqlx::query(freeze).bind(want.points).bind(&want.user).execute(db).await?;
        Ok(match changed.rows_affected() {
            0 => Tried::refused("NOT_ENOUGH_POINTS", format!("{} cannot spend {} points", want.user, want.points)),
            _ => Tried::reserved(want),
        })
    }

    async fn on_confirm(&self, db: &mut SqliteConnection, _: &BranchContext, kept: SpendPoints) -> Result<()> {
        let spend = "UPDATE points SET frozen = frozen - ?1, spent = spent + ?1 WHERE user = ?2";
        one_row(sqlx::query(spend).bind(kept.points).bind(kept.user).execute(db).await?)
    }

    async fn on_cancel(&self, db: &mut SqliteConnection, _: &BranchContext, kept: SpendPoints) -> Result<()> {
        let release = "UPDATE points SET frozen = frozen - ?1, available = available + ?1 WHERE user = ?2";
        one_row(sqlx::query(release).bind(kept.points).bind(kept.user).execute(db).await?)
    }
}

/// What was frozen must still be there; if not, the branch stays as it is and is asked again.
fn one_row(done: SqliteQueryResult) -> Result<()> {
    if done.rows_affected() == 1 { Ok(()) } else { Err("the user's row is gone".into()) }
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS points (user TEXT PRIMARY KEY,
    available INTEGER CHECK (available >= 0), frozen INTEGER CHECK (frozen >= 0), spent INTEGER)";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    telemetry::init(&telemetry::Telemetry::default(), "points");
    let listen = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50063".to_owned());
    let store = Store::open("sqlite://data/points.db", &Options::default()).await?;
    sqlx::query(TABLE).execute(store.write_pool()).await?;
    let (engine, stop) = (Engine::new(Points, store), shutdown::on_signal());
    let server = Server::bind(listen.parse()?).await?.add_service(engine.service());
    println!("points listens on {}", server.local_addr());
    // Asks what became of points that stay frozen past their time, and deletes rows that ended long ago.
    let upkeep = Upkeep::start(&engine, Some(GrpcOutcomes::at("main", ["http://127.0.0.1:50051"])?), &stop);
    server.serve(stop, Duration::from_secs(5)).await?;
    upkeep.stop().await;
    engine.close().await;
    Ok(())
}
