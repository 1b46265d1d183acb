//! Stuck branches, and what an operator may do about them.

use tcc_cluster::{
    harness::{Role, Scope},
    stage::{Stage, branch, eventually, reserve, submit},
};
use tcc_proto::tcc::v1::{
    AuditAction, AuditRecord, BranchState, CancelRequest, ConfirmTransactionRequest, GetTransactionRequest, ListAuditRequest,
    ListStuckRequest, MarkSettledRequest, ProbeRequest, StuckBranch, StuckKind, SubmitRequest, TransactionStatus,
    TryAnewRequest, Wait, Warrant,
};
use tcc_reconcile::{Outcome, Rule};
use tonic::Code;

use super::quick_with;

async fn stage() -> anyhow::Result<Stage> {
    let settings = serde_json::json!({ "stuck_after_attempts": 2, "park_after_attempts": 2, "call_timeout_ms": 500 });
    let stage = Stage::start(quick_with(settings)).await?;
    stage.stock("apple", 100).await?;
    Ok(stage)
}

fn warrant() -> Option<Warrant> {
    Some(Warrant { actor: "carol".to_owned(), reason: "ticket 7".to_owned() })
}

/// A held transaction of one inventory branch.
async fn hold(stage: &Stage) -> anyhow::Result<String> {
    let request = SubmitRequest { hold: true, ..submit(vec![branch("s", "inventory", reserve("apple", 3))]) };
    Ok(stage.coordinator().submit(request).await?.into_inner().transaction.unwrap().gid)
}

async fn confirm(stage: &Stage, gid: &str) -> anyhow::Result<()> {
    let request = ConfirmTransactionRequest { gid: gid.to_owned(), wait: Wait::Decision.into() };
    let decided = stage.coordinator().confirm(request).await?.into_inner().transaction.unwrap();
    assert_eq!(decided.status(), TransactionStatus::Confirming);
    Ok(())
}

async fn stuck(stage: &Stage, gid: &str) -> anyhow::Result<StuckBranch> {
    eventually("the branch is listed as stuck", async || {
        let page = stage.admin().list_stuck(ListStuckRequest::default()).await?.into_inner();
        Ok(page.branches.into_iter().find(|branch| branch.gid == gid))
    })
    .await
}

async fn audit(stage: &Stage, gid: &str) -> anyhow::Result<Vec<AuditRecord>> {
    let request = ListAuditRequest { gid: gid.to_owned(), ..ListAuditRequest::default() };
    Ok(stage.admin().list_audit(request).await?.into_inner().records)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_does_not_answer_is_listed_probed_and_ends_by_itself() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let gid = hold(&stage).await?;
    stage.kill(Role::Inventory).await?;
    confirm(&stage, &gid).await?;
    let listed = stuck(&stage, &gid).await?;
    assert_eq!((listed.branch_id.as_str(), listed.participant.as_str()), ("s", "inventory"));
    assert_eq!(listed.transaction_status(), TransactionStatus::Confirming);
    let why = listed.stuck.unwrap();
    assert_eq!(why.kind(), StuckKind::Unreachable);
    assert!(why.attempts >= 2 && !why.detail.is_empty(), "{why:?}");
    let of_coupon = ListStuckRequest { participant: "coupon".to_owned(), ..ListStuckRequest::default() };
    assert!(stage.admin().list_stuck(of_coupon).await?.into_inner().branches.is_empty());

    let probe = ProbeRequest { gid: gid.clone(), branch_id: "s".to_owned(), warrant: warrant() };
    stage.admin().probe(probe.clone()).await?;
    let records = audit(&stage, &gid).await?;
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].action(), records[0].warrant.clone()), (AuditAction::Probe, warrant()));
    // Not a word goes against the decision, and nobody acts without a name and a reason.
    let nameless = ProbeRequest { warrant: None, ..probe.clone() };
    assert_eq!(stage.admin().probe(nameless).await.unwrap_err().code(), Code::InvalidArgument);
    let anew = TryAnewRequest { gid: gid.clone(), branch_id: "s".to_owned(), warrant: warrant() };
    assert_eq!(stage.admin().try_anew(anew).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(audit(&stage, &gid).await?.len(), 1, "what was not done is not on the record");

    stage.restart(Role::Inventory).await?;
    stage.must_balance(Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 3);
    assert!(stage.admin().list_stuck(ListStuckRequest::default()).await?.into_inner().branches.is_empty());
    let settled = MarkSettledRequest { gid, branch_id: "s".to_owned(), warrant: warrant() };
    assert_eq!(stage.admin().mark_settled(settled).await.unwrap_err().code(), Code::FailedPrecondition);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_with_the_other_outcome_is_marked_settled_on_record() -> anyhow::Result<()> {
    let stage = stage().await?;
    let gid = hold(&stage).await?;
    // Somebody released it behind the coordinator's back.
    let not_after = Some(tcc_cluster::stage::in_time(std::time::Duration::from_secs(60)));
    let release = CancelRequest { gid: gid.clone(), branch_id: "s".to_owned(), not_after };
    stage.participant(Role::Inventory).cancel(release).await?;
    confirm(&stage, &gid).await?;
    assert_eq!(stuck(&stage, &gid).await?.stuck.unwrap().kind(), StuckKind::OtherOutcome);

    let request = MarkSettledRequest { gid: gid.clone(), branch_id: "s".to_owned(), warrant: warrant() };
    stage.admin().mark_settled(request).await?;
    let ended = eventually("the transaction ends", async || {
        let transaction = stage.coordinator().get(GetTransactionRequest { gid: gid.clone() }).await?.into_inner().transaction;
        Ok(transaction.filter(|one| one.status() == TransactionStatus::Confirmed))
    })
    .await?;
    assert_eq!(ended.branches[0].state(), BranchState::SettledOutside);
    let records = audit(&stage, &gid).await?;
    assert_eq!(records.iter().map(AuditRecord::action).collect::<Vec<_>>(), [AuditAction::MarkSettled]);
    // The reconciler takes it as settled, and does not hide it.
    let report = stage.reconcile(0).await?;
    assert_eq!((report.outcome(true), report.noted.len()), (Outcome::Agree, 1), "{report}");
    assert_eq!((report.noted[0].rule, report.noted[0].gid.unwrap().to_string()), (Rule::SettledOutside, gid.clone()));
    // The books tell that this branch ended otherwise than its transaction: nothing hides it.
    let broken = stage.finish_with_one_broken_rule().await?;
    assert!(broken.contains(&gid) && broken.contains("Cancelled"), "{broken}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reservation_is_tried_anew_and_then_confirmed() -> anyhow::Result<()> {
    let mut stage = stage().await?;
    let gid = hold(&stage).await?;
    // The participant comes back from a backup of before the Try.
    stage.terminate(Role::Inventory).await?;
    lose_reservation(&stage.folder().join("inventory.db"), &gid).await?;
    stage.restart(Role::Inventory).await?;
    confirm(&stage, &gid).await?;
    assert_eq!(stuck(&stage, &gid).await?.stuck.unwrap().kind(), StuckKind::NoReservation);

    let request = TryAnewRequest { gid: gid.clone(), branch_id: "s".to_owned(), warrant: warrant() };
    stage.admin().try_anew(request).await?;
    stage.must_balance(Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 3);
    let records = audit(&stage, &gid).await?;
    assert_eq!(records.iter().map(AuditRecord::action).collect::<Vec<_>>(), [AuditAction::TryAnew]);
    stage.finish().await
}

async fn lose_reservation(database: &std::path::Path, gid: &str) -> anyhow::Result<()> {
    use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
    let mut database = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database)).await?;
    let mut both = database.begin().await?;
    let deleted = sqlx::query("DELETE FROM tcc_branches WHERE gid = ?").bind(gid).execute(&mut *both).await?;
    assert_eq!(deleted.rows_affected(), 1);
    sqlx::query("UPDATE stock SET available = available + frozen, frozen = 0").execute(&mut *both).await?;
    both.commit().await?;
    database.close().await?;
    Ok(())
}
