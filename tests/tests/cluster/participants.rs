//! The contract's table, asked of the shipped participants over the wire, without a coordinator.

use std::time::Duration;

use futures::future::try_join_all;
use tcc_cluster::{
    harness::{Role, Scope},
    stage::{Stage, ago, in_time, lock, mint, reserve, try_request},
};
use tcc_proto::tcc::v1::{
    BranchRowStatus, CancelRequest, ConfirmRequest, RefusalReason, TryRequest, ViolationKind, cancel_response,
    confirm_response, try_response,
};

use super::quick_stage;

async fn send_try(stage: &Stage, role: Role, request: &TryRequest) -> anyhow::Result<try_response::Outcome> {
    Ok(stage.participant(role).r#try(request.clone()).await?.into_inner().outcome.unwrap())
}

async fn confirm(stage: &Stage, role: Role, request: &TryRequest) -> anyhow::Result<confirm_response::Outcome> {
    let request = ConfirmRequest { gid: request.gid.clone(), branch_id: request.branch_id.clone() };
    Ok(stage.participant(role).confirm(request).await?.into_inner().outcome.unwrap())
}

async fn cancel(stage: &Stage, role: Role, request: &TryRequest) -> anyhow::Result<cancel_response::Outcome> {
    let TryRequest { gid, branch_id, not_after, .. } = request.clone();
    let response = stage.participant(role).cancel(CancelRequest { gid, branch_id, not_after }).await?;
    Ok(response.into_inner().outcome.unwrap())
}

fn refusal(outcome: &try_response::Outcome) -> Option<(RefusalReason, &str)> {
    match outcome {
        try_response::Outcome::Refused(refused) => Some((refused.reason(), &refused.code)),
        try_response::Outcome::Reserved(_) | try_response::Outcome::Violation(_) => None,
    }
}

/// One branch at each shipped participant.
async fn both(stage: &Stage) -> anyhow::Result<[(Role, TryRequest); 2]> {
    stage.stock("apple", 10).await?;
    stage.coupon("c-1", "alice").await?;
    let gid = mint();
    Ok([
        (Role::Inventory, try_request(&gid, "stock", reserve("apple", 4))),
        (Role::Coupon, try_request(&gid, "coupon", lock("c-1", "alice"))),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_try_after_its_cancel_is_refused_and_reserves_nothing() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    for (role, request) in both(&stage).await? {
        // An empty rollback: there was no Try. Delivered twice.
        for _ in 0..2 {
            assert!(matches!(cancel(&stage, role, &request).await?, cancel_response::Outcome::Done(_)), "{role}");
        }
        for _ in 0..2 {
            let late = send_try(&stage, role, &request).await?;
            assert_eq!(refusal(&late).map(|(reason, _)| reason), Some(RefusalReason::Suspended), "{role}");
        }
        let confirmed = confirm(&stage, role, &request).await?;
        let confirm_response::Outcome::Violation(violation) = confirmed else { panic!("{role}: {confirmed:?}") };
        assert_eq!(violation.kind(), ViolationKind::OtherOutcome, "{role}");
        assert_eq!(violation.row_status(), BranchRowStatus::Cancelled, "{role}");
    }
    assert_eq!(stage.read_stock("apple").await?.available, 10);
    stage.finish_called_by_hand().await
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_deliveries_have_one_effect() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    for (role, request) in both(&stage).await? {
        // Without its Try there is nothing to confirm.
        let confirmed = confirm(&stage, role, &request).await?;
        let confirm_response::Outcome::Violation(violation) = confirmed else { panic!("{role}: {confirmed:?}") };
        assert_eq!(violation.kind(), ViolationKind::NoReservation, "{role}");

        let tried = try_join_all((0..16).map(|_| send_try(&stage, role, &request))).await?;
        assert!(matches!(tried[0], try_response::Outcome::Reserved(_)), "{role}: {:?}", tried[0]);
        assert!(tried.iter().all(|one| *one == tried[0]), "{role}: {tried:?}");
        assert_eq!(stage.books(Scope::Always).await?, Vec::<String>::new());

        let mut other = request.clone();
        other.payload = Some(if role == Role::Inventory { reserve("apple", 5) } else { lock("c-1", "bob") });
        let answer = send_try(&stage, role, &other).await?;
        let try_response::Outcome::Violation(violation) = answer else { panic!("{role}: {answer:?}") };
        assert_eq!(violation.kind(), ViolationKind::DifferentPayload, "{role}");

        let confirmed = try_join_all((0..16).map(|_| confirm(&stage, role, &request))).await?;
        assert!(confirmed.iter().all(|one| matches!(one, confirm_response::Outcome::Done(_))), "{role}: {confirmed:?}");
        assert_eq!(send_try(&stage, role, &request).await?, tried[0], "{role}: a Try after its Confirm");
        let cancelled = cancel(&stage, role, &request).await?;
        let cancel_response::Outcome::Violation(violation) = cancelled else { panic!("{role}: {cancelled:?}") };
        assert_eq!(violation.kind(), ViolationKind::OtherOutcome, "{role}");
    }
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (6, 0, 4));
    stage.finish_called_by_hand().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_reservation_is_released_once() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    for (role, request) in both(&stage).await? {
        send_try(&stage, role, &request).await?;
        let cancelled = try_join_all((0..16).map(|_| cancel(&stage, role, &request))).await?;
        assert!(cancelled.iter().all(|one| matches!(one, cancel_response::Outcome::Done(_))), "{role}: {cancelled:?}");
        let again = send_try(&stage, role, &request).await?;
        assert_eq!(refusal(&again).map(|(reason, _)| reason), Some(RefusalReason::Suspended), "{role}");
    }
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (10, 0, 0));
    stage.finish_called_by_hand().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_past_not_after_is_refused_unless_its_branch_has_a_row() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    for (role, request) in both(&stage).await? {
        let late = TryRequest { not_after: Some(ago(Duration::from_secs(1))), ..request.clone() };
        let answer = send_try(&stage, role, &late).await?;
        assert_eq!(refusal(&answer).map(|(reason, _)| reason), Some(RefusalReason::Late), "{role}");
        // No row was left by it: the same branch in time is reserved, and from then on never late.
        assert!(matches!(send_try(&stage, role, &request).await?, try_response::Outcome::Reserved(_)), "{role}");
        assert!(matches!(send_try(&stage, role, &late).await?, try_response::Outcome::Reserved(_)), "{role}");
        cancel(&stage, role, &request).await?;
    }
    stage.finish_called_by_hand().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_business_refusal_is_stored_and_repeated() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("apple", 3).await?;
    stage.coupon("c-1", "bob").await?;
    let gid = mint();
    let cases = [
        (Role::Inventory, try_request(&gid, "stock", reserve("apple", 4)), "OUT_OF_STOCK"),
        (Role::Inventory, try_request(&gid, "nothing", reserve("no-such-sku", 1)), "UNKNOWN_SKU"),
        (Role::Inventory, try_request(&gid, "negative", reserve("apple", -1)), "BAD_REQUEST"),
        (Role::Coupon, try_request(&gid, "coupon", lock("c-1", "alice")), "NOT_OWNER"),
        (Role::Coupon, try_request(&gid, "unknown", lock("c-2", "alice")), "UNKNOWN_COUPON"),
    ];
    for (role, request, code) in &cases {
        for _ in 0..2 {
            let answer = send_try(&stage, *role, request).await?;
            assert_eq!(refusal(&answer), Some((RefusalReason::Business, *code)), "{role}");
        }
    }
    // Stored: what was refused once stays refused, though it could be had now.
    stage
        .inventory()
        .add_stock(tcc_proto::inventory::v1::AddStockRequest {
            receipt_id: "more".to_owned(),
            sku: "apple".to_owned(),
            quantity: 10,
        })
        .await?;
    for (role, request, code) in &cases {
        let answer = send_try(&stage, *role, request).await?;
        assert_eq!(refusal(&answer), Some((RefusalReason::Business, *code)), "{role}");
        assert!(matches!(cancel(&stage, *role, request).await?, cancel_response::Outcome::Done(_)), "{role}");
        assert!(matches!(confirm(&stage, *role, request).await?, confirm_response::Outcome::Violation(_)), "{role}");
    }
    stage.finish_called_by_hand().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_outlives_a_killed_participant() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    for (role, mut request) in both(&stage).await? {
        request.not_after = Some(in_time(Duration::from_secs(3_600)));
        let tried = send_try(&stage, role, &request).await?;
        stage.kill(role).await?;
        stage.restart(role).await?;
        assert_eq!(send_try(&stage, role, &request).await?, tried, "{role}");
        assert!(matches!(confirm(&stage, role, &request).await?, confirm_response::Outcome::Done(_)), "{role}");
        stage.kill(role).await?;
        stage.restart(role).await?;
        assert!(matches!(confirm(&stage, role, &request).await?, confirm_response::Outcome::Done(_)), "{role}");
    }
    assert_eq!(stage.read_stock("apple").await?.sold, 4);
    stage.finish_called_by_hand().await
}
