//! Everything that a caller can get wrong: the right code, the field or limit by name, nothing reserved, and the server goes on.

use std::time::Duration;

use tcc_cluster::{
    harness::{LOG_NAME, Role},
    stage::{Stage, ago, any, branch, held, in_time, lock, mint, order, reserve, submit, try_request, with_coupon},
};
use tcc_proto::{
    coupon::v1::{GetCouponRequest, IssueCouponRequest, ListCouponsRequest},
    inventory::v1::{AddStockRequest, GetStockRequest, ListStockRequest, ReserveStock},
    order::v1::{
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, ListOrdersRequest, OrderLine, OrderStatus,
    },
    tcc::v1::{
        BeginRequest, BranchRowStatus, BranchSpec, CancelTransactionRequest, ConfirmTransactionRequest, EnlistRequest,
        GetOutcomeRequest, GetTransactionRequest, ListAuditRequest, ListStuckRequest, ListTransactionsRequest,
        MarkSettledRequest, OutcomeQuery, ProbeRequest, SubmitRequest, TryRequest, Warrant, WatchTransactionRequest,
    },
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::quick_stage;

/// What an error's details name: fields, limits, resources.
fn named(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let fields = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations).map(|bad| bad.field.clone());
    let limits = details.quota_failure().into_iter().flat_map(|bad| &bad.violations).map(|bad| bad.subject.clone());
    let states = details.precondition_failure().into_iter().flat_map(|bad| &bad.violations).map(|bad| bad.r#type.clone());
    let resources = details.resource_info().into_iter().map(|info| info.resource_type.clone());
    fields.chain(limits).chain(states).chain(resources).collect()
}

/// Gathers what is wrong with the answers, so that one run tells of all.
#[derive(Default)]
struct Verdicts(Vec<String>, usize);

impl Verdicts {
    fn check<T>(&mut self, what: &str, answer: Result<T, Status>, code: Code, name: &str) {
        self.1 += 1;
        match answer {
            Ok(_) => self.0.push(format!("{what}: was accepted")),
            Err(status) => {
                let info = status.get_error_details().error_info().cloned();
                let names = named(&status);
                if status.code() != code || !names.iter().any(|one| one == name) {
                    self.0
                        .push(format!("{what}: {:?} naming {names:?}, not {code:?} naming {name:?}: {status}", status.code()));
                }
                if info.is_none_or(|info| info.reason.is_empty() || info.domain.is_empty()) {
                    self.0.push(format!("{what}: without ErrorInfo: {status}"));
                }
            }
        }
    }

    fn invalid<T>(&mut self, what: &str, answer: Result<T, Status>, field: &str) {
        self.check(what, answer, Code::InvalidArgument, field);
    }

    fn none(self, at_least: usize) {
        assert!(self.0.is_empty(), "{} of {} cases:\n{}", self.0.len(), self.1, self.0.join("\n"));
        assert!(self.1 >= at_least, "only {} cases", self.1);
        println!("{} cases of bad input", self.1);
    }
}

async fn stocked() -> anyhow::Result<Stage> {
    let stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    stage.coupon("c-1", "alice").await?;
    Ok(stage)
}

/// Nothing is reserved, and a good order still goes through.
async fn goes_on(stage: Stage) -> anyhow::Result<()> {
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (100, 0, 0));
    assert!(stage.ledger().await?.stock_branches.is_empty(), "a participant has heard of a bad request");
    let good = stage.place(with_coupon(order("good", &[("apple", 1)]), "c-1")).await?;
    assert_eq!(good.status(), OrderStatus::Confirmed);
    stage.finish().await
}

fn line(sku: &str, quantity: i64) -> OrderLine {
    OrderLine { sku: sku.to_owned(), quantity }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_order_is_refused_by_field() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut verdicts = Verdicts::default();
    let good = || order("key", &[("apple", 1)]);
    let many: Vec<OrderLine> = (0..101).map(|number| line(&format!("s{number}"), 1)).collect();
    let long = "x".repeat(65);
    let cases: Vec<(&str, CreateOrderRequest, &str)> = vec![
        ("no key", CreateOrderRequest { order_key: String::new(), ..good() }, "order_key"),
        ("a key with a space", CreateOrderRequest { order_key: "a b".to_owned(), ..good() }, "order_key"),
        ("a key with an umlaut", CreateOrderRequest { order_key: "ä".to_owned(), ..good() }, "order_key"),
        ("a long key", CreateOrderRequest { order_key: "x".repeat(129), ..good() }, "order_key"),
        ("no user", CreateOrderRequest { user_id: String::new(), ..good() }, "user_id"),
        ("a bad user", CreateOrderRequest { user_id: "a/b".to_owned(), ..good() }, "user_id"),
        ("a long user", CreateOrderRequest { user_id: long.clone(), ..good() }, "user_id"),
        ("no lines", order("key", &[]), "lines"),
        ("too many lines", CreateOrderRequest { lines: many, ..good() }, "lines"),
        ("no sku", order("key", &[("", 1)]), "lines[0].sku"),
        ("a bad sku", order("key", &[("apple", 1), ("a b", 1)]), "lines[1].sku"),
        ("a long sku", order("key", &[(&long, 1)]), "lines[0].sku"),
        ("nothing of it", order("key", &[("apple", 0)]), "lines[0].quantity"),
        ("less than nothing", order("key", &[("apple", -1)]), "lines[0].quantity"),
        ("the smallest number", order("key", &[("apple", i64::MIN)]), "lines[0].quantity"),
        ("too much", order("key", &[("apple", 1_000_000_001)]), "lines[0].quantity"),
        ("the largest number", order("key", &[("apple", i64::MAX)]), "lines[0].quantity"),
        ("a sku twice", order("key", &[("apple", 1), ("apple", 2)]), "lines[1].sku"),
        ("a bad coupon", with_coupon(good(), "a b"), "coupon_id"),
        ("a long coupon", with_coupon(good(), &long), "coupon_id"),
        ("pay_by without hold", CreateOrderRequest { pay_by: Some(in_time(Duration::from_secs(60))), ..good() }, "pay_by"),
        ("pay_by in the past", CreateOrderRequest { pay_by: Some(ago(Duration::from_secs(1))), ..held(good()) }, "pay_by"),
        (
            "pay_by too far away",
            CreateOrderRequest { pay_by: Some(in_time(Duration::from_secs(8 * 24 * 3_600))), ..held(good()) },
            "pay_by",
        ),
        (
            "pay_by that is no instant",
            CreateOrderRequest { pay_by: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }), ..held(good()) },
            "pay_by",
        ),
    ];
    for (what, request, field) in cases {
        verdicts.invalid(what, stage.orders().create_order(request).await, field);
    }
    let two = order("a b", &[("apple", 0)]);
    let both = stage.orders().create_order(two).await.unwrap_err();
    assert!(["order_key", "lines[0].quantity"].iter().all(|field| named(&both).iter().any(|one| one == field)), "{both}");

    let unknown = stage.orders().create_order(order("u-1", &[("apple", 1), ("no-such", 1)])).await;
    verdicts.check("an unknown sku", unknown, Code::NotFound, "sku");
    let unknown = stage.orders().create_order(with_coupon(order("u-2", &[("apple", 1)]), "no-such")).await;
    verdicts.check("an unknown coupon", unknown, Code::NotFound, "coupon");

    let mut bad_initiator = Request::new(good());
    bad_initiator.metadata_mut().insert("tcc-initiator", "a b".parse()?);
    verdicts.invalid("a bad initiator", stage.orders().create_order(bad_initiator).await, "tcc-initiator");

    let mut orders = stage.orders();
    for bad in ["", "x", "67e55044-10b1-426f-9247-bb680e5fe0c8"] {
        let order_id = bad.to_owned();
        verdicts.invalid("get", orders.get_order(GetOrderRequest { order_id: order_id.clone() }).await, "order_id");
        verdicts.invalid("confirm", orders.confirm_order(ConfirmOrderRequest { order_id: order_id.clone() }).await, "order_id");
        verdicts.invalid("cancel", orders.cancel_order(CancelOrderRequest { order_id }).await, "order_id");
    }
    let order_id = mint();
    let none = orders.get_order(GetOrderRequest { order_id: order_id.clone() }).await;
    verdicts.check("get an unknown order", none, Code::NotFound, "order");
    let none = orders.confirm_order(ConfirmOrderRequest { order_id }).await;
    verdicts.check("confirm an unknown order", none, Code::NotFound, "order");

    let list = |user_id: &str, page_size, page_token: &str| ListOrdersRequest {
        user_id: user_id.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    verdicts.invalid("a large page", orders.list_orders(list("", 501, "")).await, "page_size");
    verdicts.invalid("no token", orders.list_orders(list("", 0, "garbage")).await, "page_token");
    verdicts.invalid("a bad user in a list", orders.list_orders(list("a b", 0, "")).await, "user_id");
    verdicts.none(38);
    // The unknown SKU and coupon did begin a transaction, which must have been undone.
    let rows = stage.ledger().await?.stock_branches;
    assert!(rows.len() <= 2, "{rows:?}");
    stage.must_balance(tcc_cluster::harness::Scope::AtRest).await?;
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (100, 0, 0));
    let good = stage.place(with_coupon(order("good", &[("apple", 1)]), "c-1")).await?;
    assert_eq!(good.status(), OrderStatus::Confirmed);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_submit_is_refused_by_field() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut verdicts = Verdicts::default();
    let stock = || branch("s", "inventory", reserve("apple", 1));
    let good = || submit(vec![stock()]);
    let spec = |change: fn(&mut BranchSpec)| {
        let mut one = stock();
        change(&mut one);
        submit(vec![one])
    };
    let many = (0..65).map(|number| branch(&format!("b{number}"), "inventory", reserve("apple", 1))).collect();
    let large =
        prost_types::Any { type_url: "type.googleapis.com/inventory.v1.ReserveStock".to_owned(), value: vec![0; 70_000] };
    // An hour-old UUIDv7 is fine; these are from 1970 and from the year 10889.
    let ancient = "00000000-0001-7000-8000-000000000000".to_owned();
    let future = "ffffffff-ffff-7000-8000-000000000000".to_owned();
    let cases: Vec<(&str, SubmitRequest, &str)> = vec![
        ("no branches", submit(vec![]), "branches"),
        ("too many branches", submit(many), "branches"),
        (
            "an unknown participant",
            submit(vec![stock(), branch("x", "nobody", reserve("apple", 1))]),
            "branches[1].participant",
        ),
        ("no participant", spec(|one| one.participant.clear()), "branches[0].participant"),
        ("an address for a participant", spec(|one| one.participant = "http://evil".to_owned()), "branches[0].participant"),
        ("no branch id", spec(|one| one.branch_id.clear()), "branches[0].branch_id"),
        ("a bad branch id", spec(|one| one.branch_id = "a b".to_owned()), "branches[0].branch_id"),
        ("a long branch id", spec(|one| one.branch_id = "x".repeat(65)), "branches[0].branch_id"),
        ("a branch id twice", submit(vec![stock(), stock()]), "branches[1].branch_id"),
        ("no payload", spec(|one| one.payload = None), "branches[0].payload"),
        ("an untyped payload", spec(|one| one.payload = Some(prost_types::Any::default())), "branches[0].payload.type_url"),
        ("a large payload", submit(vec![branch("s", "inventory", large)]), "branches[0].payload"),
        ("a gid that is none", SubmitRequest { gid: "x".to_owned(), ..good() }, "gid"),
        ("a gid in capitals", SubmitRequest { gid: mint().to_uppercase(), ..good() }, "gid"),
        ("a random gid", SubmitRequest { gid: "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned(), ..good() }, "gid"),
        ("an ancient gid", SubmitRequest { gid: ancient, ..good() }, "gid"),
        ("a gid from the future", SubmitRequest { gid: future, ..good() }, "gid"),
        ("a key with a space", SubmitRequest { idempotency_key: "a b".to_owned(), ..good() }, "idempotency_key"),
        ("a long key", SubmitRequest { idempotency_key: "x".repeat(129), ..good() }, "idempotency_key"),
        ("a deadline in the past", SubmitRequest { try_until: Some(ago(Duration::from_secs(1))), ..good() }, "try_until"),
        (
            "a deadline too far away",
            SubmitRequest { try_until: Some(in_time(Duration::from_secs(3_600))), ..good() },
            "try_until",
        ),
        ("decide_by without hold", SubmitRequest { decide_by: Some(in_time(Duration::from_secs(60))), ..good() }, "decide_by"),
        (
            "decide_by before try_until",
            SubmitRequest {
                hold: true,
                try_until: Some(in_time(Duration::from_secs(20))),
                decide_by: Some(in_time(Duration::from_secs(10))),
                ..good()
            },
            "decide_by",
        ),
        (
            "decide_by too far away",
            SubmitRequest { hold: true, decide_by: Some(in_time(Duration::from_secs(8 * 24 * 3_600))), ..good() },
            "decide_by",
        ),
        ("an unknown order", SubmitRequest { try_order: 77, ..good() }, "try_order"),
        ("an unknown wait", SubmitRequest { wait: 77, ..good() }, "wait"),
    ];
    for (what, request, field) in cases {
        verdicts.invalid(what, stage.coordinator().submit(request).await, field);
    }
    let mut bad_initiator = Request::new(good());
    bad_initiator.metadata_mut().insert("tcc-initiator", "a b".parse()?);
    verdicts.invalid("a bad initiator", stage.coordinator().submit(bad_initiator).await, "tcc-initiator");
    verdicts.none(27);
    goes_on(stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_bad_request_to_the_coordinator_is_refused_by_field() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut verdicts = Verdicts::default();
    let mut coordinator = stage.coordinator();
    let far = Some(in_time(Duration::from_secs(8 * 24 * 3_600)));
    let begin = |decide_by| BeginRequest { decide_by, ..BeginRequest::default() };
    verdicts.invalid("begin until the past", coordinator.begin(begin(Some(ago(Duration::from_secs(1))))).await, "decide_by");
    verdicts.invalid("begin for too long", coordinator.begin(begin(far)).await, "decide_by");
    verdicts.invalid("begin a bad gid", coordinator.begin(BeginRequest { gid: "x".into(), ..begin(None) }).await, "gid");

    let stock = || Some(branch("s", "inventory", reserve("apple", 1)));
    let enlist = |gid: &str, branch| EnlistRequest { gid: gid.to_owned(), branch };
    verdicts.invalid("enlist nothing", coordinator.enlist(enlist(&mint(), None)).await, "branch");
    verdicts.invalid("enlist nowhere", coordinator.enlist(enlist("", stock())).await, "gid");
    verdicts.check(
        "enlist in the unknown",
        coordinator.enlist(enlist(&mint(), stock())).await,
        Code::NotFound,
        "tcc.v1.Transaction",
    );
    let gid = coordinator.begin(BeginRequest::default()).await?.into_inner().transaction.unwrap().gid;
    let nobody = Some(branch("s", "nobody", reserve("apple", 1)));
    verdicts.invalid("enlist nobody", coordinator.enlist(enlist(&gid, nobody)).await, "branch.participant");
    let untyped = Some(branch("s", "inventory", prost_types::Any::default()));
    verdicts.invalid("enlist untyped", coordinator.enlist(enlist(&gid, untyped)).await, "branch.payload.type_url");
    coordinator.cancel(CancelTransactionRequest { gid, wait: 0 }).await?;

    for bad in ["", "x"] {
        let gid = bad.to_owned();
        verdicts.invalid("get", coordinator.get(GetTransactionRequest { gid: gid.clone() }).await, "gid");
        verdicts.invalid("watch", coordinator.watch(WatchTransactionRequest { gid: gid.clone() }).await, "gid");
        let confirm = ConfirmTransactionRequest { gid: gid.clone(), wait: 0 };
        verdicts.invalid("confirm", coordinator.confirm(confirm).await, "gid");
        verdicts.invalid("cancel", coordinator.cancel(CancelTransactionRequest { gid, wait: 0 }).await, "gid");
    }
    let gid = mint();
    let unknown = GetTransactionRequest { gid: gid.clone() };
    verdicts.check("get the unknown", coordinator.get(unknown).await, Code::NotFound, "tcc.v1.Transaction");
    let unknown = WatchTransactionRequest { gid: gid.clone() };
    verdicts.check("watch the unknown", coordinator.watch(unknown).await, Code::NotFound, "tcc.v1.Transaction");
    let unknown = ConfirmTransactionRequest { gid, wait: 0 };
    verdicts.check("confirm the unknown", coordinator.confirm(unknown).await, Code::NotFound, "tcc.v1.Transaction");

    let list = ListTransactionsRequest::default;
    verdicts.invalid("a large page", coordinator.list(ListTransactionsRequest { page_size: 501, ..list() }).await, "page_size");
    let garbage = ListTransactionsRequest { page_token: "garbage".to_owned(), ..list() };
    verdicts.invalid("a bad token", coordinator.list(garbage).await, "page_token");
    let nobody = ListTransactionsRequest { initiator: "a b".to_owned(), ..list() };
    verdicts.invalid("a bad initiator", coordinator.list(nobody).await, "initiator");
    let status = ListTransactionsRequest { statuses: vec![77], ..list() };
    verdicts.invalid("a bad status", coordinator.list(status).await, "statuses[0]");

    let query = OutcomeQuery {
        gid: mint(),
        branch_id: "s".to_owned(),
        row_status: BranchRowStatus::Tried.into(),
        not_after: Some(in_time(Duration::ZERO)),
    };
    let ask =
        |coordinator: &str, queries: Vec<OutcomeQuery>| GetOutcomeRequest { coordinator: coordinator.to_owned(), queries };
    verdicts.invalid("ask nothing", coordinator.get_outcome(ask(LOG_NAME, vec![])).await, "queries");
    let many = ask(LOG_NAME, vec![query.clone(); 257]);
    verdicts.invalid("ask too much", coordinator.get_outcome(many).await, "queries");
    verdicts.invalid("ask nobody", coordinator.get_outcome(ask("", vec![query.clone()])).await, "coordinator");
    let bad = OutcomeQuery { gid: "x".to_owned(), ..query.clone() };
    verdicts.invalid("ask of no gid", coordinator.get_outcome(ask(LOG_NAME, vec![bad])).await, "queries[0].gid");
    let bad = OutcomeQuery { row_status: 0, ..query };
    verdicts.invalid("ask without a row", coordinator.get_outcome(ask(LOG_NAME, vec![bad])).await, "queries[0].row_status");
    verdicts.none(27);
    goes_on(stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_request_of_an_operator_is_refused_by_field() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut verdicts = Verdicts::default();
    let mut admin = stage.admin();
    let warrant = |actor: &str, reason: &str| Some(Warrant { actor: actor.to_owned(), reason: reason.to_owned() });
    let gid = {
        let request = SubmitRequest { wait: 2, ..submit(vec![branch("c", "coupon", lock("c-1", "nobody"))]) };
        stage.coordinator().submit(request).await?.into_inner().transaction.unwrap().gid
    };
    let probe =
        |gid: &str, branch_id: &str, warrant| ProbeRequest { gid: gid.to_owned(), branch_id: branch_id.to_owned(), warrant };
    let ok = || warrant("carol", "why not");
    verdicts.invalid("no gid", admin.probe(probe("", "c", ok())).await, "gid");
    verdicts.invalid("no branch", admin.probe(probe(&gid, "", ok())).await, "branch_id");
    verdicts.invalid("no warrant", admin.probe(probe(&gid, "c", None)).await, "warrant");
    verdicts.invalid("no actor", admin.probe(probe(&gid, "c", warrant("", "x"))).await, "warrant.actor");
    verdicts.invalid("no reason", admin.probe(probe(&gid, "c", warrant("x", ""))).await, "warrant.reason");
    verdicts.invalid("a long reason", admin.probe(probe(&gid, "c", warrant("x", &"y".repeat(513)))).await, "warrant.reason");
    let unknown = admin.probe(probe(&mint(), "c", ok())).await;
    verdicts.check("an unknown transaction", unknown, Code::NotFound, "tcc.v1.Transaction");
    let unknown = admin.probe(probe(&gid, "other", ok())).await;
    verdicts.check("an unknown branch", unknown, Code::NotFound, "tcc.v1.Branch");
    let settle = MarkSettledRequest { gid, branch_id: "c".to_owned(), warrant: ok() };
    assert_eq!(admin.mark_settled(settle).await.unwrap_err().code(), Code::FailedPrecondition);
    let large = ListStuckRequest { page_size: 501, ..ListStuckRequest::default() };
    verdicts.invalid("a large page of stuck ones", admin.list_stuck(large).await, "page_size");
    let garbage = ListStuckRequest { page_token: "garbage".to_owned(), ..ListStuckRequest::default() };
    verdicts.invalid("a bad token of stuck ones", admin.list_stuck(garbage).await, "page_token");
    let garbage = ListAuditRequest { page_token: "garbage".to_owned(), ..ListAuditRequest::default() };
    verdicts.invalid("a bad token of audits", admin.list_audit(garbage).await, "page_token");
    assert!(admin.list_audit(ListAuditRequest::default()).await?.into_inner().records.is_empty());
    verdicts.none(11);
    goes_on(stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_request_to_a_participant_is_refused_by_field() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut verdicts = Verdicts::default();
    let good = || try_request(&mint(), "s", reserve("apple", 1));
    let cases: Vec<(&str, TryRequest, &str)> = vec![
        ("a bad gid", TryRequest { gid: "x".to_owned(), ..good() }, "gid"),
        ("a bad branch", TryRequest { branch_id: "a b".to_owned(), ..good() }, "branch_id"),
        ("no payload", TryRequest { payload: None, ..good() }, "payload"),
        ("an untyped payload", TryRequest { payload: Some(prost_types::Any::default()), ..good() }, "payload.type_url"),
        ("no not_after", TryRequest { not_after: None, ..good() }, "not_after"),
        ("no ask_after", TryRequest { ask_after: None, ..good() }, "ask_after"),
        ("no coordinator", TryRequest { coordinator: String::new(), ..good() }, "coordinator"),
    ];
    for role in [Role::Inventory, Role::Coupon] {
        for (what, request, field) in &cases {
            verdicts.invalid(what, stage.participant(role).r#try(request.clone()).await, field);
        }
    }

    let mut inventory = stage.inventory();
    let add = |receipt_id: &str, sku: &str, quantity| AddStockRequest {
        receipt_id: receipt_id.to_owned(),
        sku: sku.to_owned(),
        quantity,
    };
    verdicts.invalid("no receipt", inventory.add_stock(add("", "apple", 1)).await, "receipt_id");
    verdicts.invalid("a bad sku", inventory.add_stock(add("r", "a b", 1)).await, "sku");
    for quantity in [0, -1, 1_000_000_001, i64::MAX, i64::MIN] {
        verdicts.invalid("a bad quantity", inventory.add_stock(add("r", "apple", quantity)).await, "quantity");
    }
    let reused = inventory.add_stock(add("test-apple", "apple", 99)).await;
    verdicts.check("a reused receipt", reused, Code::AlreadyExists, "receipt");
    let unknown = inventory.get_stock(GetStockRequest { sku: "no-such".to_owned() }).await;
    verdicts.check("an unknown sku", unknown, Code::NotFound, "sku");
    let large = ListStockRequest { page_size: 1_001, page_token: String::new() };
    verdicts.invalid("a large page of stock", inventory.list_stock(large).await, "page_size");
    let garbage = ListStockRequest { page_size: 0, page_token: "garbage".to_owned() };
    verdicts.invalid("a bad token of stock", inventory.list_stock(garbage).await, "page_token");

    let mut coupons = stage.coupons();
    let issue = |coupon_id: &str, user_id: &str, discount_minor, expires_at| IssueCouponRequest {
        coupon_id: coupon_id.to_owned(),
        user_id: user_id.to_owned(),
        discount_minor,
        expires_at,
    };
    let later = || Some(in_time(Duration::from_secs(60)));
    verdicts.invalid("no coupon id", coupons.issue_coupon(issue("", "alice", 1, later())).await, "coupon_id");
    verdicts.invalid("no user", coupons.issue_coupon(issue("c", "", 1, later())).await, "user_id");
    verdicts.invalid("no discount", coupons.issue_coupon(issue("c", "alice", 0, later())).await, "discount_minor");
    verdicts.invalid("no expiry", coupons.issue_coupon(issue("c", "alice", 1, None)).await, "expires_at");
    let reused = coupons.issue_coupon(issue("c-1", "bob", 500, later())).await;
    verdicts.check("a reused coupon id", reused, Code::AlreadyExists, "coupon");
    let unknown = coupons.get_coupon(GetCouponRequest { coupon_id: "no-such".to_owned() }).await;
    verdicts.check("an unknown coupon", unknown, Code::NotFound, "coupon");
    let large = ListCouponsRequest { page_size: 1_001, ..ListCouponsRequest::default() };
    verdicts.invalid("a large page of coupons", coupons.list_coupons(large).await, "page_size");
    verdicts.none(14 + 11 + 7);
    goes_on(stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_of_another_list_or_filter_is_refused() -> anyhow::Result<()> {
    let stage = stocked().await?;
    stage.stock("pear", 1).await?;
    for number in 0..3 {
        stage.place(order(&format!("k-{number}"), &[("apple", 1)])).await?;
    }
    let mut verdicts = Verdicts::default();
    let list = |user_id: &str, page_token: String| ListOrdersRequest { user_id: user_id.to_owned(), page_size: 1, page_token };
    let of_all = stage.orders().list_orders(list("", String::new())).await?.into_inner().next_page_token;
    let of_stock = ListStockRequest { page_size: 1, page_token: String::new() };
    let of_stock = stage.inventory().list_stock(of_stock).await?.into_inner().next_page_token;
    assert!(!of_all.is_empty() && !of_stock.is_empty());
    verdicts.invalid("another filter", stage.orders().list_orders(list("alice", of_all.clone())).await, "page_token");
    verdicts.invalid("another list", stage.orders().list_orders(list("", of_stock)).await, "page_token");
    let transactions = ListTransactionsRequest { page_size: 1, page_token: of_all, ..ListTransactionsRequest::default() };
    verdicts.invalid("another service", stage.coordinator().list(transactions).await, "page_token");
    verdicts.none(3);
    stage.finish().await
}

/// A payload that no participant can read is a refusal, not an error that would be repeated for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_cannot_be_read_cancels_its_transaction() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let type_url = any(&ReserveStock::default()).type_url;
    let payloads = [
        prost_types::Any { type_url, value: vec![0xff; 16] },
        prost_types::Any { type_url: "type.googleapis.com/no.such.Message".to_owned(), value: Vec::new() },
        reserve("apple", -1),
        any(&ReserveStock::default()),
    ];
    for payload in payloads {
        let request = SubmitRequest { wait: 2, ..submit(vec![branch("s", "inventory", payload.clone())]) };
        let ended = stage.coordinator().submit(request).await?.into_inner().transaction.unwrap();
        assert_eq!(ended.status(), tcc_proto::tcc::v1::TransactionStatus::Cancelled, "{payload:?}");
    }
    stage.must_balance(tcc_cluster::harness::Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.available, 100);
    stage.finish().await
}
