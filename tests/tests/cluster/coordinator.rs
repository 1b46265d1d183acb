//! The generic coordinator API, with the participants' payloads directly and without orders.

use std::time::Duration;

use prost::Message;
use tcc_cluster::{
    harness::{LOG_NAME, Role, Scope},
    stage::{Stage, branch, in_time, lock, mint, reserve, submit, try_request, unique},
};
use tcc_proto::{
    coupon::v1::LockedCoupon,
    tcc::v1::{
        BeginRequest, BranchRowStatus, BranchState, CancelTransactionRequest, ConfirmTransactionRequest, EnlistRequest,
        GetOutcomeRequest, GetTransactionRequest, ListTransactionsRequest, OutcomeQuery, RefusalReason, SubmitRequest,
        Transaction, TransactionStatus, TryOrder, Wait, WatchTransactionRequest, cancel_cause, enlist_response, outcome_answer,
        try_response,
    },
};
use tonic::Code;

use super::quick_stage;

async fn stocked() -> anyhow::Result<Stage> {
    let stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    stage.coupon("c-1", "alice").await?;
    Ok(stage)
}

async fn submitted(stage: &Stage, request: &SubmitRequest) -> anyhow::Result<Transaction> {
    Ok(stage.coordinator().submit(request.clone()).await?.into_inner().transaction.unwrap())
}

async fn read(stage: &Stage, gid: &str) -> anyhow::Result<Transaction> {
    let response = stage.coordinator().get(GetTransactionRequest { gid: gid.to_owned() }).await?;
    Ok(response.into_inner().transaction.unwrap())
}

fn states(transaction: &Transaction) -> Vec<BranchState> {
    transaction.branches.iter().map(|branch| branch.state()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_transaction_is_carried_out_everywhere() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let branches = vec![branch("s", "inventory", reserve("apple", 3)), branch("c", "coupon", lock("c-1", "alice"))];
    for order in [TryOrder::Parallel, TryOrder::Sequential] {
        let coupon = unique("c");
        stage.coupon(&coupon, "alice").await?;
        let mut branches = branches.clone();
        branches[1] = branch("c", "coupon", lock(&coupon, "alice"));
        let request = SubmitRequest { gid: mint(), try_order: order.into(), wait: Wait::End.into(), ..submit(branches) };
        let ended = submitted(&stage, &request).await?;
        assert_eq!((ended.gid.as_str(), ended.status()), (request.gid.as_str(), TransactionStatus::Confirmed), "{order:?}");
        assert_eq!(states(&ended), [BranchState::Done, BranchState::Done], "{order:?}");
        let output = ended.branches[1].output.clone().unwrap();
        assert_eq!(LockedCoupon::decode(output.value.as_slice())?, LockedCoupon { coupon_id: coupon, discount_minor: 500 });
        // Sent again it is joined; with the same gid and another request it is an error.
        assert_eq!(submitted(&stage, &request).await?.status(), TransactionStatus::Confirmed);
        let other = SubmitRequest { branches: vec![branch("s", "inventory", reserve("apple", 4))], ..request };
        assert_eq!(stage.coordinator().submit(other).await.unwrap_err().code(), Code::AlreadyExists);
    }
    stage.must_balance(Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 6);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_branch_cancels_the_others_and_says_why() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let branches = || vec![branch("c", "coupon", lock("c-1", "alice")), branch("s", "inventory", reserve("apple", 101))];
    for order in [TryOrder::Parallel, TryOrder::Sequential] {
        let request = SubmitRequest { try_order: order.into(), wait: Wait::End.into(), ..submit(branches()) };
        let ended = submitted(&stage, &request).await?;
        assert_eq!(ended.status(), TransactionStatus::Cancelled);
        let Some(cancel_cause::Cause::Refused(refused)) = ended.cancel_cause.unwrap().cause else { panic!("not refused") };
        assert_eq!((refused.branch_id.as_str(), refused.participant.as_str()), ("s", "inventory"));
        let refusal = refused.refusal.unwrap();
        assert_eq!((refusal.reason(), refusal.code.as_str()), (RefusalReason::Business, "OUT_OF_STOCK"));
    }
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_joins_the_same_request_and_refuses_another() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let branches = |quantity| vec![branch("s", "inventory", reserve("apple", quantity))];
    let request = SubmitRequest { idempotency_key: "key-1".to_owned(), ..submit(branches(1)) };
    let first = submitted(&stage, &request).await?;
    // Deadlines and wait are no part of the request.
    let again = SubmitRequest { try_until: Some(in_time(Duration::from_secs(20))), wait: Wait::End.into(), ..request.clone() };
    assert_eq!(submitted(&stage, &again).await?.gid, first.gid);
    let others = [
        SubmitRequest { branches: branches(2), ..request.clone() },
        SubmitRequest { branches: vec![branch("t", "inventory", reserve("apple", 1))], ..request.clone() },
        SubmitRequest { hold: true, ..request },
    ];
    for other in others {
        assert_eq!(stage.coordinator().submit(other.clone()).await.unwrap_err().code(), Code::AlreadyExists, "{other:?}");
    }
    stage.must_balance(Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 1);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_enlisted_one_by_one_are_confirmed_or_cancelled_together() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut coordinator = stage.coordinator();
    for confirm in [true, false] {
        let coupon = unique("c");
        stage.coupon(&coupon, "alice").await?;
        let gid = coordinator.begin(BeginRequest::default()).await?.into_inner().transaction.unwrap().gid;
        let stock = EnlistRequest { gid: gid.clone(), branch: Some(branch("s", "inventory", reserve("apple", 5))) };
        for _ in 0..2 {
            let answer = coordinator.enlist(stock.clone()).await?.into_inner();
            assert!(matches!(answer.outcome, Some(enlist_response::Outcome::Reserved(_))), "{answer:?}");
        }
        let other = EnlistRequest { gid: gid.clone(), branch: Some(branch("s", "inventory", reserve("apple", 6))) };
        assert_eq!(coordinator.enlist(other).await.unwrap_err().code(), Code::AlreadyExists);
        let coupons = EnlistRequest { gid: gid.clone(), branch: Some(branch("c", "coupon", lock(&coupon, "alice"))) };
        let answer = coordinator.enlist(coupons).await?.into_inner();
        let Some(enlist_response::Outcome::Reserved(reserved)) = answer.outcome else { panic!("{answer:?}") };
        let locked = LockedCoupon::decode(reserved.output.unwrap().value.as_slice())?;
        assert_eq!(locked.discount_minor, 500);
        assert_eq!(read(&stage, &gid).await?.status(), TransactionStatus::Trying);

        let wait = Wait::End.into();
        let ended = if confirm {
            let request = ConfirmTransactionRequest { gid: gid.clone(), wait };
            coordinator.confirm(request).await?.into_inner().transaction.unwrap()
        } else {
            let request = CancelTransactionRequest { gid: gid.clone(), wait };
            coordinator.cancel(request).await?.into_inner().transaction.unwrap()
        };
        let expected = if confirm { TransactionStatus::Confirmed } else { TransactionStatus::Cancelled };
        assert_eq!(ended.status(), expected);
        // Decided is decided: nobody joins any more.
        let late = EnlistRequest { gid, branch: Some(branch("late", "inventory", reserve("apple", 1))) };
        assert_eq!(coordinator.enlist(late).await.unwrap_err().code(), Code::FailedPrecondition);
    }
    stage.must_balance(Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 5);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_enlisted_branch_cancels_the_transaction() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut coordinator = stage.coordinator();
    let gid = coordinator.begin(BeginRequest::default()).await?.into_inner().transaction.unwrap().gid;
    coordinator.enlist(EnlistRequest { gid: gid.clone(), branch: Some(branch("s", "inventory", reserve("apple", 5))) }).await?;
    let foreign = EnlistRequest { gid: gid.clone(), branch: Some(branch("c", "coupon", lock("c-1", "bob"))) };
    let answer = coordinator.enlist(foreign).await?.into_inner();
    let Some(enlist_response::Outcome::Refused(refused)) = answer.outcome else { panic!("{answer:?}") };
    assert_eq!(refused.code, "NOT_OWNER");
    let request = ConfirmTransactionRequest { gid, wait: Wait::End.into() };
    let ended = coordinator.confirm(request).await?.into_inner().transaction.unwrap();
    assert_eq!(ended.status(), TransactionStatus::Cancelled, "who asks for the other outcome gets the decision");
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begun_transaction_that_nobody_decides_is_cancelled() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut coordinator = stage.coordinator();
    let request = BeginRequest { decide_by: Some(in_time(Duration::from_secs(10))), ..BeginRequest::default() };
    let gid = coordinator.begin(request).await?.into_inner().transaction.unwrap().gid;
    coordinator.enlist(EnlistRequest { gid: gid.clone(), branch: Some(branch("s", "inventory", reserve("apple", 5))) }).await?;
    stage.must_balance(Scope::AtRest).await?;
    let ended = read(&stage, &gid).await?;
    assert_eq!(ended.status(), TransactionStatus::Cancelled);
    assert!(matches!(ended.cancel_cause.unwrap().cause, Some(cancel_cause::Cause::TimedOut(_))));
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_transaction_is_told_from_its_hold_to_its_end() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let request = SubmitRequest { hold: true, ..submit(vec![branch("s", "inventory", reserve("apple", 1))]) };
    let held = submitted(&stage, &request).await?;
    assert_eq!((held.status(), held.held), (TransactionStatus::Trying, true));
    let mut coordinator = stage.coordinator();
    let mut watched = coordinator.watch(WatchTransactionRequest { gid: held.gid.clone() }).await?.into_inner();
    let first = watched.message().await?.unwrap().transaction.unwrap();
    assert_eq!(first.status(), TransactionStatus::Trying);
    coordinator.confirm(ConfirmTransactionRequest { gid: held.gid.clone(), wait: Wait::Decision.into() }).await?;
    let mut statuses = Vec::new();
    while let Some(message) = watched.message().await? {
        statuses.push(message.transaction.unwrap().status());
    }
    // A status may come again with another state of its branches, and a slow watcher may miss one; none comes after a later one.
    statuses.dedup();
    let all = [TransactionStatus::Trying, TransactionStatus::Confirming, TransactionStatus::Confirmed];
    let told: Vec<_> = all.into_iter().filter(|status| statuses.contains(status)).collect();
    assert_eq!(statuses, told);
    assert_eq!(statuses.last(), Some(&TransactionStatus::Confirmed));
    // One that has ended already: its end, and no more.
    let mut ended = coordinator.watch(WatchTransactionRequest { gid: held.gid }).await?.into_inner();
    assert_eq!(ended.message().await?.unwrap().transaction.unwrap().status(), TransactionStatus::Confirmed);
    assert!(ended.message().await?.is_none());
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_listed_newest_first_page_by_page() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut gids = Vec::new();
    for number in 0..7 {
        let quantity = if number % 3 == 0 { 1_000 } else { 1 };
        let request =
            SubmitRequest { wait: Wait::End.into(), ..submit(vec![branch("s", "inventory", reserve("apple", quantity))]) };
        gids.push(submitted(&stage, &request).await?.gid);
    }
    gids.sort();
    gids.reverse();
    let mut coordinator = stage.coordinator();
    let mut listed = Vec::new();
    let mut request = ListTransactionsRequest { page_size: 2, ..ListTransactionsRequest::default() };
    loop {
        let page = coordinator.list(request.clone()).await?.into_inner();
        assert!(page.transactions.len() <= 2);
        listed.extend(page.transactions.into_iter().map(|one| one.gid));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed, gids);

    let cancelled = ListTransactionsRequest {
        statuses: vec![TransactionStatus::Cancelled.into()],
        page_size: 2,
        ..ListTransactionsRequest::default()
    };
    let page = coordinator.list(cancelled.clone()).await?.into_inner();
    assert!(page.transactions.iter().all(|one| one.status() == TransactionStatus::Cancelled));
    let elsewhere = ListTransactionsRequest { page_token: page.next_page_token, ..ListTransactionsRequest::default() };
    assert_eq!(coordinator.list(elsewhere).await.unwrap_err().code(), Code::InvalidArgument);
    let nobody = ListTransactionsRequest { initiator: "nobody".to_owned(), ..ListTransactionsRequest::default() };
    assert!(coordinator.list(nobody).await?.into_inner().transactions.is_empty());
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submit_that_comes_after_its_cancel_is_cancelled_and_sends_no_try() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let gid = mint();
    let cancel = CancelTransactionRequest { gid: gid.clone(), wait: Wait::Decision.into() };
    let cancelled = stage.coordinator().cancel(cancel).await?.into_inner().transaction.unwrap();
    assert_eq!(cancelled.status(), TransactionStatus::Cancelled);
    let request = SubmitRequest { gid: gid.clone(), ..submit(vec![branch("s", "inventory", reserve("apple", 1))]) };
    let late = submitted(&stage, &request).await?;
    assert_eq!((late.gid.as_str(), late.status()), (gid.as_str(), TransactionStatus::Cancelled));
    let begun = BeginRequest { gid: gid.clone(), ..BeginRequest::default() };
    let late = stage.coordinator().begin(begun).await?.into_inner().transaction.unwrap();
    assert_eq!(late.status(), TransactionStatus::Cancelled);
    stage.must_balance(Scope::AtRest).await?;
    let rows = stage.ledger().await?.stock_branches;
    assert!(rows.iter().all(|row| row.gid != gid), "the participant has heard of it: {rows:?}");
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_learn_what_became_of_their_branches() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let mut coordinator = stage.coordinator();
    let one = |quantity| vec![branch("s", "inventory", reserve("apple", quantity))];
    let confirmed = submitted(&stage, &SubmitRequest { wait: Wait::End.into(), ..submit(one(1)) }).await?.gid;
    let held = submitted(&stage, &SubmitRequest { hold: true, ..submit(one(1)) }).await?.gid;
    let unknown = mint();

    let query = |gid: &str, branch_id: &str| OutcomeQuery {
        gid: gid.to_owned(),
        branch_id: branch_id.to_owned(),
        row_status: BranchRowStatus::Tried.into(),
        not_after: Some(in_time(Duration::ZERO)),
    };
    let request = GetOutcomeRequest {
        coordinator: LOG_NAME.to_owned(),
        queries: vec![query(&confirmed, "s"), query(&confirmed, "other"), query(&held, "s"), query(&unknown, "s")],
    };
    let answers = coordinator.get_outcome(request.clone()).await?.into_inner().answers;
    assert_eq!(answers.len(), 4);
    let outcome = |index: usize| answers[index].outcome.unwrap();
    assert!(matches!(outcome(0), outcome_answer::Outcome::Confirmed(_) | outcome_answer::Outcome::Finished(_)), "{answers:?}");
    assert!(matches!(outcome(1), outcome_answer::Outcome::Cancelled(_)), "it has no such branch: {answers:?}");
    assert!(matches!(outcome(2), outcome_answer::Outcome::AskAgain(_)), "{answers:?}");
    assert!(matches!(outcome(3), outcome_answer::Outcome::Cancelled(_)), "{answers:?}");
    // What was answered is durable: the unknown one can never begin.
    let late = submitted(&stage, &SubmitRequest { gid: unknown, ..submit(one(1)) }).await?;
    assert_eq!(late.status(), TransactionStatus::Cancelled);

    let elsewhere = GetOutcomeRequest { coordinator: "another-log".to_owned(), ..request };
    let answers = coordinator.get_outcome(elsewhere).await?.into_inner().answers;
    assert!(answers.iter().all(|answer| matches!(answer.outcome, Some(outcome_answer::Outcome::NotMine(_)))), "{answers:?}");
    coordinator.cancel(CancelTransactionRequest { gid: held, wait: Wait::End.into() }).await?;
    stage.must_balance(Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 1);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_contradicts_the_participants_row_cancels_the_transaction() -> anyhow::Result<()> {
    let stage = stocked().await?;
    let gid = mint();
    // Somebody else's Try of the same branch came first, with another payload.
    let other = try_request(&gid, "s", reserve("apple", 7));
    let tried = stage.participant(Role::Inventory).r#try(other).await?.into_inner().outcome.unwrap();
    assert!(matches!(tried, try_response::Outcome::Reserved(_)));
    let request = SubmitRequest { gid, wait: Wait::End.into(), ..submit(vec![branch("s", "inventory", reserve("apple", 1))]) };
    let ended = submitted(&stage, &request).await?;
    assert_eq!(ended.status(), TransactionStatus::Cancelled);
    assert!(matches!(ended.cancel_cause.unwrap().cause, Some(cancel_cause::Cause::Violated(_))));
    stage.finish().await
}
