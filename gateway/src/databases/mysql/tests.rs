//! How the statements over many rows find them.

use sqlx::{AssertSqlSafe, Row as _, raw_sql};
use tcc_database::mysql::inserts::{LONG, SHORT};
use tcc_participant::Options;
use tcc_servers::{Kind, shared};
use tcc_types::{SystemEntropy, Timestamp};

use super::*;
use crate::{Draft, Line};

fn gid() -> Gid {
    Gid::mint(Timestamp::from_millis(1_790_000_000_000), &SystemEntropy)
}

/// Every access to the orders goes by their key, in the order of the list, whatever the planner knows.
#[tokio::test]
async fn rows_are_found_by_their_key_in_the_order_of_the_list() {
    let store = Store::<MySql>::open(&shared(Kind::Mysql).create_database(), &Options::default()).await.unwrap();
    store.migrate(MySql::migrator()).await.unwrap();
    let mut connection = store.write_pool().acquire().await.unwrap();
    for filled in [false, true] {
        if filled {
            let fill = "INSERT INTO orders SELECT CONCAT('o-', seq), 'k', 'shop', 'u1', '[]', NULL, 0, 0, 1 FROM seq_1_to_20000; ANALYZE TABLE orders";
            raw_sql(fill).execute(&mut *connection).await.unwrap();
        }
        for count in [1, 256] {
            let settles: Vec<_> = (0..count).map(|_| (gid(), Decision::Confirm)).collect();
            let list = settled_lists(&settles).unwrap().remove(0);
            let text = SETTLE_ALL.replace("JSON_TABLE(?", &format!("JSON_TABLE('{list}'"));
            let explain = AssertSqlSafe(format!("EXPLAIN {text}"));
            let steps = raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
            let steps: Vec<(String, String)> = steps.iter().map(|step| (step.get("table"), step.get("type"))).collect();
            let [(first, _), (second, by)] = &steps[..] else { panic!("{steps:?}") };
            assert_eq!((first.as_str(), second.as_str(), by.as_str()), ("v", "o", "eq_ref"));
        }
    }
}

fn placed(number: usize, lines: i64) -> Placed {
    let line = |line| Line { sku: format!("sku-{line:050}"), quantity: 1 + line };
    let draft = Draft {
        initiator: "shop".to_owned(),
        order_key: format!("k{number}"),
        user_id: format!("u{number}"),
        lines: (0..lines).map(line).collect(),
        coupon_id: if number.is_multiple_of(2) { format!("c{number}") } else { String::new() },
        hold: number.is_multiple_of(3),
    };
    Placed::new(draft).unwrap()
}

/// Long pieces, short ones and a list in one batch: each all new, or with rows in their way, and with lines that are long.
#[tokio::test]
async fn a_batch_in_pieces_inserts_what_is_new_and_tells_what_is_not() {
    const COUNT: usize = 2 * LONG + 2 * SHORT + 10;
    let store = Store::<MySql>::open(&shared(Kind::Mysql).create_database(), &Options::default()).await.unwrap();
    store.migrate(MySql::migrator()).await.unwrap();
    let books = MySql::books(store.clone());
    // In the second of each kind of piece, and in the list.
    let in_the_way = [[LONG, LONG + 3], [2 * LONG + SHORT, 2 * LONG + 2 * SHORT - 1], [COUNT - 2, COUNT - 1]];
    for (in_the_way, lines) in [(&in_the_way[..], 1), (&in_the_way[..], 32), (&[], 1), (&[], 32)] {
        let in_the_way: Vec<usize> = in_the_way.concat();
        let mut ids: Vec<Gid> = (0..COUNT).map(|_| gid()).collect();
        ids.sort_unstable();
        let orders: Vec<Placed> = (0..COUNT).map(|number| placed(number, lines)).collect();
        let mut transaction = store.begin().await.unwrap();
        for number in &in_the_way {
            assert!(MySql::orders(&mut transaction).insert(ids[*number], &placed(9_999, 1)).await.unwrap());
        }
        let batch: Vec<(Gid, &Placed)> = ids.iter().copied().zip(&orders).collect();
        let inserted = MySql::orders(&mut transaction).insert_all(&batch).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(inserted, (0..COUNT).map(|number| !in_the_way.contains(&number)).collect::<Vec<_>>());
        for (number, (id, placed)) in batch.into_iter().enumerate() {
            let row = books.get(id).await.unwrap().unwrap();
            let is_other = row.placed.order_key().as_str() == "k9999";
            assert_eq!((is_other, row.status), (in_the_way.contains(&number), RowStatus::Tried));
            assert!(is_other || row.placed == *placed, "{number}");
        }
    }
}
