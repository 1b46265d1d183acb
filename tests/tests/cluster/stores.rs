//! The same system on a database server: orders, refusals, holds and a killed gateway mean what they mean on SQLite.

use sqlx::{Connection, MySqlConnection, PgConnection, SqliteConnection};
use tcc_cluster::{
    harness::{ClusterConfig, Owner, Role, Scope, ServerChoice, Store, order_with_retry, repeat},
    stage::{Stage, held, order, refusal_code, with_coupon},
};
use tcc_proto::{
    coupon::v1::{CouponState, GetCouponRequest},
    order::v1::{CancelOrderRequest, ConfirmOrderRequest, GetOrderRequest, Order, OrderStatus},
};
use tonic::Code;

use super::quick;

async fn on(store: Store) -> anyhow::Result<Stage> {
    let stage = Stage::start(ClusterConfig { store, ..quick() }).await?;
    stage.stock("apple", 10).await?;
    stage.coupon("c-1", "alice").await?;
    Ok(stage)
}

async fn read(stage: &Stage, order_id: &str) -> anyhow::Result<Order> {
    let response = stage.orders().get_order(GetOrderRequest { order_id: order_id.to_owned() }).await?;
    Ok(response.into_inner().order.unwrap())
}

async fn coupon_state(stage: &Stage, coupon_id: &str) -> anyhow::Result<CouponState> {
    let response = stage.coupons().get_coupon(GetCouponRequest { coupon_id: coupon_id.to_owned() }).await?;
    Ok(response.into_inner().coupon.unwrap().state())
}

async fn orders_are_confirmed_refused_and_repeated(store: Store) -> anyhow::Result<()> {
    let stage = on(store).await?;
    let request = with_coupon(order("k-1", &[("apple", 2)]), "c-1");
    let placed = stage.place(request.clone()).await?;
    assert_eq!((placed.status(), placed.discount_minor), (OrderStatus::Confirmed, 500));
    assert_eq!(stage.place(request).await?.order_id, placed.order_id, "the same key gave another order");
    let other = stage.place(order("k-1", &[("apple", 3)])).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let used = stage.place(with_coupon(order("k-2", &[("apple", 1)]), "c-1")).await?;
    assert_eq!((used.status(), refusal_code(&used)), (OrderStatus::Cancelled, "COUPON_USED"));
    let too_many = stage.place(order("k-3", &[("apple", 9)])).await?;
    assert_eq!((too_many.status(), refusal_code(&too_many)), (OrderStatus::Cancelled, "OUT_OF_STOCK"));
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (8, 0, 2));
    assert_eq!(read(&stage, &used.order_id).await?.status(), OrderStatus::Cancelled);
    stage.finish().await
}

async fn holds_wait_and_outlive_everybody(store: Store) -> anyhow::Result<()> {
    let mut stage = on(store).await?;
    let paid = stage.place(held(with_coupon(order("k-1", &[("apple", 2)]), "c-1"))).await?;
    let unpaid = stage.place(held(order("k-2", &[("apple", 3)]))).await?;
    assert_eq!((paid.status(), unpaid.status()), (OrderStatus::Held, OrderStatus::Held));
    for role in Role::ALL {
        stage.kill(role).await?;
    }
    for role in Role::ALL {
        stage.restart(role).await?;
    }
    assert_eq!(stage.read_stock("apple").await?.frozen, 5, "a reservation did not outlive its participant");
    assert_eq!(coupon_state(&stage, "c-1").await?, CouponState::Locked);
    let confirmed = stage.orders().confirm_order(ConfirmOrderRequest { order_id: paid.order_id }).await?.into_inner();
    let cancelled = stage.orders().cancel_order(CancelOrderRequest { order_id: unpaid.order_id }).await?.into_inner();
    assert_eq!(confirmed.order.unwrap().status(), OrderStatus::Confirmed);
    assert_eq!(cancelled.order.unwrap().status(), OrderStatus::Cancelled);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (8, 0, 2));
    assert_eq!(coupon_state(&stage, "c-1").await?, CouponState::Used);
    stage.finish().await
}

async fn the_last_piece_is_sold_once(store: Store) -> anyhow::Result<()> {
    let stage = on(store).await?;
    stage.stock("last", 5).await?;
    let keys: Vec<String> = (0..40).map(|number| format!("k-{number}")).collect();
    let placed = futures::future::try_join_all(keys.iter().map(|key| stage.place(order(key, &[("last", 1)])))).await?;
    let confirmed = placed.iter().filter(|order| order.status() == OrderStatus::Confirmed).count();
    assert_eq!(confirmed, 5);
    assert!(placed.iter().all(|one| one.status() == OrderStatus::Confirmed || refusal_code(one) == "OUT_OF_STOCK"));
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("last").await?.sold, 5);
    stage.finish().await
}

async fn a_database_that_is_killed_comes_back_with_every_order(store: Store) -> anyhow::Result<()> {
    let config = ClusterConfig { store, server: ServerChoice::Own, ..quick() };
    let stage = Stage::start(config).await?;
    stage.stock("apple", 100).await?;
    let before = stage.place(order("k-1", &[("apple", 1)])).await?;
    let hold = stage.place(held(order("k-2", &[("apple", 2)]))).await?;
    stage.server().unwrap().kill()?;
    assert!(stage.place(order("k-3", &[("apple", 4)])).await.is_err(), "an order was taken without a database");
    stage.server().unwrap().restart()?;
    // Its clients find out one by one that their connections are gone, and say "repeat".
    let placed = order_with_retry(stage.orders(), &order("k-3", &[("apple", 4)])).await?.0;
    assert_eq!(placed.status(), OrderStatus::Confirmed);
    let request = GetOrderRequest { order_id: before.order_id };
    let read = repeat(async || stage.orders().get_order(request.clone()).await).await?.0.into_inner();
    assert_eq!(read.order.unwrap().status(), OrderStatus::Confirmed);
    let request = ConfirmOrderRequest { order_id: hold.order_id };
    let confirmed = repeat(async || stage.orders().confirm_order(request.clone()).await).await?.0.into_inner();
    assert_eq!(confirmed.order.unwrap().status(), OrderStatus::Confirmed);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 7);
    stage.finish().await
}

async fn connect(store: Store, url: &str) -> sqlx::Result<()> {
    match store {
        Store::Sqlite => SqliteConnection::connect(url).await?.close().await,
        Store::Postgres => PgConnection::connect(url).await?.close().await,
        Store::Mysql => MySqlConnection::connect(url).await?.close().await,
    }
}

async fn a_temporary_cluster_leaves_nothing_on_a_given_server(store: Store) -> anyhow::Result<()> {
    let at = ServerChoice::At(tcc_servers::shared(store.kind().unwrap()).url("guest"));
    let stage = Stage::start(ClusterConfig { store, server: at, ..quick() }).await?;
    let urls = Owner::ALL.map(|owner| stage.database_url(owner).to_owned());
    for url in &urls {
        assert!(url.contains("/guest_"), "{url}");
        connect(store, url).await?;
    }
    stage.stock("apple", 1).await?;
    stage.place(order("k-1", &[("apple", 1)])).await?;
    stage.finish().await?;
    for url in &urls {
        let error = connect(store, url).await.expect_err("the database is still there");
        assert!(error.to_string().contains("guest_"), "{error}");
    }
    Ok(())
}

async fn no_password_is_told(store: Store) -> anyhow::Result<()> {
    let stage = Stage::start(ClusterConfig { store, log_filter: "debug".to_owned(), ..quick() }).await?;
    assert!(stage.database_url(Owner::Log).contains(tcc_servers::PASSWORD), "there is nothing to look for");
    stage.stock("apple", 1).await?;
    stage.place(order("k-1", &[("apple", 1)])).await?;
    assert!(!stage.whereabouts().contains(tcc_servers::PASSWORD));
    for entry in std::fs::read_dir(stage.folder().join("logs"))? {
        let path = entry?.path();
        let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        assert!(!log.is_empty(), "{} says nothing at all", path.display());
        assert!(!log.contains(tcc_servers::PASSWORD), "{} has the password", path.display());
    }
    stage.finish().await
}

on_each_server!(
    orders_are_confirmed_refused_and_repeated,
    holds_wait_and_outlive_everybody,
    the_last_piece_is_sold_once,
    a_database_that_is_killed_comes_back_with_every_order,
    a_temporary_cluster_leaves_nothing_on_a_given_server,
    no_password_is_told,
);
