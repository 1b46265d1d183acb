//! The order's own branch on every database, through the SDK and the in-process endpoint.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod databases;

use std::time::Duration;

use databases::{Fresh, InMemory, TestDatabase, on_every_database};
use prost::{Message, Name};
use tcc_barrier::{Answer, Call};
use tcc_coordinator::Endpoint;
use tcc_gateway::{InProcess, LINES_MAX, OrderBooks, OrderBranch, QUANTITY_MAX, RowStatus};
use tcc_participant::{Engine, Options, within};
use tcc_proto::order::v1::{OrderLine, PlaceOrder};
use tcc_types::{
    BranchId, BranchKey, CancelCall, Clock, ConfirmCall, Gid, LogName, Payload, SettleAnswer, SystemClock, SystemEntropy,
    Timestamp, TryAnswer, TryCall, ViolationKind,
};
use tokio::task::JoinSet;

on_every_database! {
    a_row_follows_its_branch,
    a_row_reads_back_as_it_was_placed,
    a_cancelled_branch_without_a_try_leaves_no_order_and_lets_none_in,
    what_is_no_order_is_refused_for_good,
    orders_are_listed_newest_first_from_any_point,
    only_a_hold_that_is_tried_is_marked_held,
    tries_and_cancels_in_any_order_end_in_one_outcome,
    the_longest_names_and_the_most_lines_fit_and_read_back,
    an_id_that_has_a_row_beside_the_framework_is_refused,
    the_database_itself_forbids_rows_that_no_order_has,
    a_batch_of_orders_answers_and_leaves_what_they_do_one_by_one,
    a_batch_of_the_longest_orders_reads_back,
    a_batch_in_which_a_row_has_changed_changes_nothing,
}

struct World<D: TestDatabase> {
    endpoint: InProcess<OrderBranch<D>>,
    books: D::Books,
    fresh: Fresh,
}

impl<D: TestDatabase> World<D> {
    async fn new() -> Self {
        let fresh = D::fresh();
        let store = D::opened(&fresh, &Options::default()).await;
        let books = D::books(store.clone());
        Self { endpoint: InProcess(Engine::batched(OrderBranch::new(), store)), books, fresh }
    }

    /// What somebody does to the tables beside the framework.
    async fn execute(&self, statement: &str) -> Result<(), sqlx::Error> {
        D::execute(self.endpoint.0.store(), statement.to_owned()).await
    }

    async fn place(&self, key: &BranchKey, order: &PlaceOrder) -> TryAnswer {
        self.endpoint.try_branch(try_call(key, order)).await.unwrap()
    }

    async fn confirm(&self, key: &BranchKey) -> SettleAnswer {
        self.endpoint.confirm(ConfirmCall { key: key.clone() }).await.unwrap()
    }

    async fn cancel(&self, key: &BranchKey) -> SettleAnswer {
        self.endpoint.cancel(CancelCall { key: key.clone(), not_after: in_a_minute() }).await.unwrap()
    }

    /// In one transaction, with the answers in the calls' order, which is that of their keys.
    async fn together(&self, calls: &[Call<'_>]) -> Result<Vec<Answer>, within::Error> {
        let mut transaction = self.endpoint.0.store().begin().await.unwrap();
        let answers = within::batch(&OrderBranch::<D>::new(), &mut transaction, calls, &Options::default()).await?;
        transaction.commit().await.unwrap();
        Ok(answers)
    }

    async fn alone(&self, call: Call<'_>) -> Answer {
        match call {
            Call::Try(call) => Answer::Tried(self.endpoint.try_branch(call.clone()).await.unwrap()),
            Call::Confirm(call) => Answer::Settled(self.endpoint.confirm(call.clone()).await.unwrap()),
            Call::Cancel(call) => Answer::Settled(self.endpoint.cancel(call.clone()).await.unwrap()),
        }
    }

    async fn status(&self, key: &BranchKey) -> Option<RowStatus> {
        self.books.get(key.gid).await.unwrap().map(|row| row.status)
    }

    async fn listed(&self, user_id: Option<&str>, before: Option<Gid>, limit: u32) -> Vec<Gid> {
        self.books.list(user_id, before, limit).await.unwrap().into_iter().map(|row| row.id).collect()
    }
}

fn in_a_minute() -> Timestamp {
    SystemClock.now().plus(Duration::from_secs(60))
}

fn key(branch: &str) -> BranchKey {
    BranchKey { gid: Gid::mint(SystemClock.now(), &SystemEntropy), branch: BranchId::new(branch).unwrap() }
}

fn order(order_key: &str) -> PlaceOrder {
    let line = |sku: &str, quantity| OrderLine { sku: sku.to_owned(), quantity };
    PlaceOrder {
        order_key: order_key.to_owned(),
        initiator: "shop".to_owned(),
        user_id: "ann".to_owned(),
        lines: vec![line("pear", 2), line("apple", 1)],
        coupon_id: String::new(),
        hold: false,
    }
}

fn try_call(key: &BranchKey, order: &PlaceOrder) -> TryCall {
    TryCall {
        key: key.clone(),
        payload: Payload { type_url: PlaceOrder::type_url(), value: order.encode_to_vec().into() },
        not_after: in_a_minute(),
        ask_after: in_a_minute(),
        coordinator: LogName::new("test").unwrap(),
    }
}

fn code(answer: TryAnswer) -> String {
    match answer {
        TryAnswer::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

async fn a_row_follows_its_branch<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let (one, other) = (key("order"), key("order"));
    for _ in 0..2 {
        assert_eq!(world.place(&one, &order("k-1")).await, TryAnswer::Reserved(None));
        assert_eq!(world.place(&other, &order("k-2")).await, TryAnswer::Reserved(None));
        assert_eq!((world.status(&one).await, world.status(&other).await), (Some(RowStatus::Tried), Some(RowStatus::Tried)));
    }
    for _ in 0..2 {
        assert_eq!(world.confirm(&one).await, SettleAnswer::Done);
        assert_eq!(world.cancel(&other).await, SettleAnswer::Done);
        let after = (world.status(&one).await, world.status(&other).await);
        assert_eq!(after, (Some(RowStatus::Confirmed), Some(RowStatus::Cancelled)));
    }
    assert!(matches!(world.cancel(&one).await, SettleAnswer::Violation(bad) if bad.kind == ViolationKind::OtherOutcome));
    assert_eq!(world.status(&one).await, Some(RowStatus::Confirmed));
}

async fn a_row_reads_back_as_it_was_placed<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let key = key("order");
    let with_everything = PlaceOrder { coupon_id: "c-1".to_owned(), hold: true, ..order("k:1/") };
    world.place(&key, &with_everything).await;
    let row = world.books.get(key.gid).await.unwrap().unwrap();
    assert_eq!((row.id, row.status, row.held), (key.gid, RowStatus::Tried, false));
    assert_eq!((row.placed.order_key().as_str(), row.placed.initiator().as_str()), ("k:1/", "shop"));
    assert_eq!((row.placed.user_id(), row.placed.coupon_id(), row.placed.hold()), ("ann", Some("c-1"), true));
    let lines: Vec<_> = row.placed.lines().iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
    assert_eq!(lines, [("apple", 1), ("pear", 2)]);
}

async fn a_cancelled_branch_without_a_try_leaves_no_order_and_lets_none_in<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let key = key("order");
    assert_eq!(world.cancel(&key).await, SettleAnswer::Done);
    assert_eq!(code(world.place(&key, &order("k-1")).await), "SUSPENDED");
    assert_eq!(world.status(&key).await, None);
}

async fn what_is_no_order_is_refused_for_good<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let malformed = PlaceOrder { lines: Vec::new(), ..order("k-1") };
    assert_eq!(code(world.place(&key("order"), &malformed).await), "BAD_REQUEST");
    // One transaction, one order: a second branch of it with another id gets nowhere.
    let first = key("order");
    world.place(&first, &order("k-1")).await;
    let second = BranchKey { branch: BranchId::new("order-2").unwrap(), ..first.clone() };
    assert_eq!(code(world.place(&second, &order("k-2")).await), "BAD_REQUEST");
    assert_eq!(world.confirm(&first).await, SettleAnswer::Done);
}

async fn orders_are_listed_newest_first_from_any_point<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let mut placed = Vec::new();
    for number in 0..5_i64 {
        // Ids of the same millisecond have no order among themselves.
        let at = Timestamp::from_millis(1_790_000_000_000 + number);
        let key = BranchKey { gid: Gid::mint(at, &SystemEntropy), branch: BranchId::new("order").unwrap() };
        let user_id = if number % 2 == 0 { "ann" } else { "bob" }.to_owned();
        world.place(&key, &PlaceOrder { user_id, ..order(&format!("k-{number}")) }).await;
        placed.insert(0, key.gid);
    }
    assert_eq!(world.listed(None, None, 9).await, placed);
    assert_eq!(world.listed(None, None, 2).await, placed[..2]);
    assert_eq!(world.listed(None, Some(placed[1]), 9).await, placed[2..]);
    assert_eq!(world.listed(Some("bob"), None, 9).await, [placed[1], placed[3]]);
    assert_eq!(world.listed(Some("bob"), Some(placed[1]), 9).await, [placed[3]]);
    assert!(world.listed(Some("carol"), None, 9).await.is_empty());
}

async fn only_a_hold_that_is_tried_is_marked_held<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let (hold, plain, settled) = (key("order"), key("order"), key("order"));
    world.place(&hold, &PlaceOrder { hold: true, ..order("k-1") }).await;
    world.place(&plain, &order("k-2")).await;
    world.place(&settled, &PlaceOrder { hold: true, ..order("k-3") }).await;
    world.cancel(&settled).await;
    for _ in 0..2 {
        for key in [&hold, &plain, &settled] {
            world.books.mark_held(key.gid).await.unwrap();
        }
    }
    let held = async |key: &BranchKey| world.books.get(key.gid).await.unwrap().unwrap().held;
    assert_eq!((held(&hold).await, held(&plain).await, held(&settled).await), (true, false, false));
}

async fn tries_and_cancels_in_any_order_end_in_one_outcome<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let mut keys = Vec::new();
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let key = key("order");
        for _ in 0..2 {
            let (tries, cancels, key_of_try, key_of_cancel) =
                (world.endpoint.0.clone(), world.endpoint.0.clone(), key.clone(), key.clone());
            let order = order(&format!("k-{number}"));
            calls.spawn(async move {
                tries.try_branch(try_call(&key_of_try, &order)).await.unwrap();
            });
            calls.spawn(async move {
                cancels.cancel(CancelCall { key: key_of_cancel, not_after: in_a_minute() }).await.unwrap();
            });
        }
        keys.push(key);
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    for key in &keys {
        assert!(matches!(world.status(key).await, None | Some(RowStatus::Cancelled)), "{key}");
    }
    assert_eq!(world.endpoint.0.store().count_tried().await.unwrap(), 0);
}

async fn the_longest_names_and_the_most_lines_fit_and_read_back<D: TestDatabase>() {
    let world = World::<D>::new().await;
    // Every character that an order key may have, and then some more.
    let printable: String = ('!'..='~').collect();
    let line = |number| OrderLine { sku: format!("{number:0>64}"), quantity: QUANTITY_MAX };
    let longest = PlaceOrder {
        order_key: format!("{printable:k<128}"),
        initiator: "I".repeat(64),
        user_id: "U".repeat(64),
        lines: (0..LINES_MAX).map(line).collect(),
        coupon_id: "C".repeat(64),
        hold: true,
    };
    let key = key("order");
    assert_eq!(world.place(&key, &longest).await, TryAnswer::Reserved(None));
    let placed = world.books.get(key.gid).await.unwrap().unwrap().placed;
    assert_eq!((placed.order_key().as_str(), placed.initiator().as_str()), (&*longest.order_key, &*longest.initiator));
    assert_eq!((placed.user_id(), placed.coupon_id()), (&*longest.user_id, Some(&*longest.coupon_id)));
    let lines: Vec<_> = placed.lines().iter().map(|line| (line.sku.clone(), line.quantity)).collect();
    assert_eq!(lines, longest.lines.into_iter().map(|line| (line.sku, line.quantity)).collect::<Vec<_>>());
}

async fn an_id_that_has_a_row_beside_the_framework_is_refused<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let (there, other) = (key("order"), key("order"));
    world.place(&other, &order("k-1")).await;
    world.execute(&format!("UPDATE orders SET order_id = '{}'", there.gid)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(code(world.place(&there, &order("k-2")).await), "ORDER_EXISTS");
    }
    assert_eq!(world.cancel(&there).await, SettleAnswer::Done);
    let row = world.books.get(there.gid).await.unwrap().unwrap();
    assert_eq!((row.placed.order_key().as_str(), row.status), ("k-1", RowStatus::Tried));
}

async fn the_database_itself_forbids_rows_that_no_order_has<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let key = key("order");
    world.place(&key, &order("k-1")).await;
    for change in ["held = TRUE", "status = 2", "status = 0", "status = 5"] {
        let error = world.execute(&format!("UPDATE orders SET {change}")).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_check_violation(), "{change}: {error}");
    }
    let lines = D::LINES;
    assert!(world.execute(&format!("UPDATE orders SET {lines} = 'pear'")).await.is_err());
    world.execute(&format!("UPDATE orders SET {lines} = '[[\"pear\", 1]]'")).await.unwrap();
    assert_eq!(world.status(&key).await, Some(RowStatus::Tried));
}

/// Branches of orders in the order of their keys.
fn keys(count: usize) -> Vec<BranchKey> {
    let mut keys: Vec<_> = (0..count).map(|_| key("order")).collect();
    keys.sort();
    keys
}

async fn a_batch_of_orders_answers_and_leaves_what_they_do_one_by_one<D: TestDatabase>() {
    let (alone, together) = (World::<D>::new().await, World::<D>::new().await);
    let keys = keys(12);
    // What is there already: orders to confirm, to cancel and to try again, and a row that was put there beside the framework.
    for world in [&alone, &together] {
        world.place(&key("order"), &order("beside")).await;
        world.execute(&format!("UPDATE orders SET order_id = '{}'", keys[8].gid)).await.unwrap();
        for (number, key) in keys[..4].iter().enumerate() {
            world.place(key, &order(&format!("k-{number}"))).await;
        }
    }
    let second = BranchKey { branch: BranchId::new("order-2").unwrap(), ..keys[5].clone() };
    let malformed = PlaceOrder { lines: Vec::new(), ..order("k-7") };
    let everything = PlaceOrder { coupon_id: "c-1".to_owned(), hold: true, ..order("k:5/\"'\\") };
    let tries = [
        try_call(&keys[3], &order("k-3")),
        try_call(&keys[5], &everything),
        try_call(&second, &order("k-6")),
        try_call(&keys[7], &malformed),
        try_call(&keys[8], &order("k-8")),
        try_call(&keys[9], &order("k-9")),
    ];
    let confirms = [0, 1, 10].map(|index: usize| ConfirmCall { key: keys[index].clone() });
    let cancels = [2, 11].map(|index: usize| CancelCall { key: keys[index].clone(), not_after: in_a_minute() });
    let mut calls: Vec<_> = tries.iter().map(Call::Try).collect();
    calls.extend(confirms.iter().map(Call::Confirm));
    calls.extend(cancels.iter().map(Call::Cancel));
    calls.sort_by(|one, other| one.key().cmp(other.key()));
    for _ in 0..2 {
        let mut expected = Vec::new();
        for call in &calls {
            expected.push(alone.alone(*call).await);
        }
        assert_eq!(together.together(&calls).await.unwrap(), expected);
        let (rows, others) =
            (alone.books.list(None, None, 99).await.unwrap(), together.books.list(None, None, 99).await.unwrap());
        assert_eq!(others, rows);
        assert_eq!(rows.len(), 7);
    }
    let statuses = [1, 2, 3, 5, 9, 11].map(|index: usize| together.status(&keys[index]));
    let mut seen = Vec::new();
    for status in statuses {
        seen.push(status.await);
    }
    let (tried, cancelled) = (Some(RowStatus::Tried), Some(RowStatus::Cancelled));
    assert_eq!(seen, [Some(RowStatus::Confirmed), cancelled, tried, tried, tried, None]);
}

async fn a_batch_of_the_longest_orders_reads_back<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let line = |number| OrderLine { sku: format!("{number:0>64}"), quantity: QUANTITY_MAX };
    let longest = PlaceOrder { lines: (0..LINES_MAX).map(line).collect(), coupon_id: "C".repeat(64), ..order("k") };
    // More than one text holds where lists are bound as texts.
    let keys = keys(256);
    let tries: Vec<_> = keys.iter().map(|key| try_call(key, &longest)).collect();
    let answers = world.together(&tries.iter().map(Call::Try).collect::<Vec<_>>()).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == Answer::Tried(TryAnswer::Reserved(None))), "{answers:?}");
    let rows = world.books.list(None, None, 999).await.unwrap();
    assert_eq!(rows.iter().rev().map(|row| row.id).collect::<Vec<_>>(), keys.iter().map(|key| key.gid).collect::<Vec<_>>());
    assert!(rows.iter().all(|row| row.placed == rows[0].placed && row.status == RowStatus::Tried));
    let lines = rows[0].placed.lines().iter().map(|line| (line.sku.clone(), line.quantity));
    assert_eq!(lines.collect::<Vec<_>>(), longest.lines.into_iter().map(|line| (line.sku, line.quantity)).collect::<Vec<_>>());
}

async fn a_batch_in_which_a_row_has_changed_changes_nothing<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let keys = keys(2);
    for key in &keys {
        world.place(key, &order("k-1")).await;
    }
    world.execute(&format!("UPDATE orders SET status = 4 WHERE order_id = '{}'", keys[1].gid)).await.unwrap();
    let confirms: Vec<_> = keys.iter().map(|key| ConfirmCall { key: key.clone() }).collect();
    let error = world.together(&confirms.iter().map(Call::Confirm).collect::<Vec<_>>()).await.unwrap_err();
    assert!(error.to_string().contains("the rows of 1 of 2 orders are not tried"), "{error}");
    assert_eq!(world.status(&keys[0]).await, Some(RowStatus::Tried));
    // Alone, the one that can be had is.
    assert_eq!(world.confirm(&keys[0]).await, SettleAnswer::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory_an_orders_row_is_where_its_branch_is_at_each_commit() {
    let world = World::<InMemory>::new().await;
    let memory = world.fresh.memory.clone();
    memory.observe(Box::new(|_, after| after.check().unwrap()));
    let mut calls = JoinSet::new();
    for number in 0..60 {
        let engine = world.endpoint.0.clone();
        calls.spawn(async move {
            let key = key("order");
            if number % 5 > 0 {
                engine.try_branch(try_call(&key, &order(&format!("k-{number}")))).await.unwrap();
            }
            match number % 3 {
                0 => {}
                1 if number % 5 > 0 => assert_eq!(engine.confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done),
                _ => {
                    let cancelled = engine.cancel(CancelCall { key, not_after: in_a_minute() }).await;
                    assert_eq!(cancelled.unwrap(), SettleAnswer::Done);
                }
            }
        });
    }
    calls.join_all().await;
    let tables = memory.durable();
    let counts = [RowStatus::Tried, RowStatus::Confirmed, RowStatus::Cancelled]
        .map(|status| tables.orders.orders().filter(|row| row.status == status).count());
    assert_eq!(counts, [16, 16, 16]);
    assert_eq!(tables.branches.tried().count(), 16);
    // What does not fit is told.
    let first = tables.orders.orders().find(|row| row.status == RowStatus::Tried).unwrap().id;
    for status in [RowStatus::Confirmed, RowStatus::Cancelled] {
        let mut broken = tables.clone();
        assert!(broken.orders.change(first, |row| row.status = status).unwrap());
        assert!(broken.check().unwrap_err().contains("its branch is Tried"));
    }
    let mut forgotten = tables.clone();
    forgotten.branches = Default::default();
    assert!(forgotten.check().is_err());
}
