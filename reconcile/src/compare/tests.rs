//! One transaction, as the log and two participants have it: what agrees, and each way to disagree.

use tcc_types::{BranchId, TxStatus};

use super::*;

const NOW_MS: i64 = 1_790_000_000_000;
const GRACE: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn now() -> Timestamp {
    Timestamp::from_millis(NOW_MS)
}

fn ago(span: Duration) -> Timestamp {
    now().minus(span)
}

fn name(text: &str) -> ParticipantName {
    ParticipantName::new(text).unwrap()
}

fn terms() -> Terms {
    let side = |names: &[&str]| Side { names: names.iter().map(|text| name(text)).collect(), now: now() };
    Terms {
        log: LogName::new("main").unwrap(),
        now: now(),
        sides: vec![side(&["inventory"]), side(&["coupon", "points"])],
        grace: GRACE,
        log_retention: 7 * DAY,
        participant_retention: 7 * DAY,
    }
}

fn branch(id: &str, participant: &str) -> LogBranch {
    LogBranch { branch: BranchId::new(id).unwrap(), participant: name(participant), settled: None, stuck: None }
}

/// A transaction of the branches `stock` at inventory and `coupon` at coupon, decided a minute ago if it is.
fn transaction(status: TxStatus) -> Transaction {
    Transaction {
        status,
        branch_count: 2,
        decided_at: status.decision().map(|_| ago(Duration::from_secs(60))),
        next_attempt_at: now(),
        branches: vec![branch("stock", "inventory"), branch("coupon", "coupon")],
    }
}

fn row(side: usize, id: &str, status: BranchRowStatus) -> Row {
    Row {
        side,
        branch: BranchId::new(id).unwrap(),
        status,
        coordinator: Some(terms().log),
        ask_after: Some(now()),
        changed_at: ago(Duration::from_secs(60)),
        forgotten_at: None,
    }
}

fn stock(status: BranchRowStatus) -> Row {
    row(0, "stock", status)
}

fn coupon(status: BranchRowStatus) -> Row {
    row(1, "coupon", status)
}

fn gid() -> Gid {
    Gid::first_of(ago(Duration::from_secs(61)))
}

fn found(transaction: impl Into<Option<Transaction>>, rows: &[Row]) -> Vec<Finding> {
    compare(&Case { gid: gid(), transaction: transaction.into(), rows: rows.to_vec() }, &terms())
}

fn rules(transaction: impl Into<Option<Transaction>>, rows: &[Row]) -> Vec<Rule> {
    found(transaction, rows).into_iter().map(|finding| finding.rule).collect()
}

/// The only finding about the branch `stock`, the coupon being as it should.
fn of_stock(status: TxStatus, row: Option<BranchRowStatus>) -> Option<Rule> {
    let sound = match status.decision() {
        None => BranchRowStatus::Tried,
        Some(Decision::Confirm) => BranchRowStatus::Confirmed,
        Some(Decision::Cancel) => BranchRowStatus::Cancelled,
    };
    let rows: Vec<Row> = row.map(stock).into_iter().chain([coupon(sound)]).collect();
    let found = found(transaction(status), &rows);
    assert!(found.len() <= 1, "{found:?}");
    found.first().map(|finding| {
        assert_eq!((finding.gid, finding.branch.as_ref().unwrap().as_str()), (Some(gid()), "stock"));
        assert_eq!(finding.participant.as_deref(), Some("inventory"));
        assert!(finding.says[0].starts_with("the log has"), "{finding}");
        finding.rule
    })
}

#[test]
fn every_status_of_a_transaction_meets_every_status_of_a_row() {
    use BranchRowStatus::{Cancelled as RowCancelled, Confirmed as RowConfirmed, Refused, Tried};
    use Rule::{
        CancelledButConfirmed, CancelledUndecided, ConfirmedButCancelled, ConfirmedUndecided, RowMissing, TriedButSettled,
    };
    use TxStatus::{Cancelled, Cancelling, Confirmed, Confirming, Trying};
    // In the order: no row, tried, refused, confirmed, cancelled.
    let table = [
        (Trying, [None, None, None, Some(ConfirmedUndecided), Some(CancelledUndecided)]),
        (Confirming, [Some(RowMissing), None, Some(CancelledButConfirmed), None, Some(CancelledButConfirmed)]),
        (Confirmed, [Some(RowMissing), Some(TriedButSettled), Some(CancelledButConfirmed), None, Some(CancelledButConfirmed)]),
        (Cancelling, [None, None, None, Some(ConfirmedButCancelled), None]),
        (Cancelled, [None, Some(TriedButSettled), None, Some(ConfirmedButCancelled), None]),
    ];
    assert_eq!(table.map(|(status, _)| status), TxStatus::ALL);
    for (status, wanted) in table {
        let rows = [None, Some(Tried), Some(Refused), Some(RowConfirmed), Some(RowCancelled)];
        for (row, wanted) in rows.into_iter().zip(wanted) {
            assert_eq!(of_stock(status, row), wanted, "{status:?}, {row:?}");
        }
    }
}

#[test]
fn a_branch_that_was_acknowledged_holds_nothing_any_more() {
    let mut confirming = transaction(TxStatus::Confirming);
    confirming.branches[0].settled = Some(Settled::Acknowledged);
    let rows = [stock(BranchRowStatus::Tried), coupon(BranchRowStatus::Tried)];
    let found = found(confirming, &rows);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].rule, found[0].branch.as_ref().unwrap().as_str()), (Rule::TriedButSettled, "stock"));
}

#[test]
fn what_an_operator_settled_outside_is_noted_and_no_disagreement() {
    for status in [TxStatus::Confirming, TxStatus::Confirmed] {
        let mut settled = transaction(status);
        settled.branches[0].settled = Some(Settled::Outside);
        let sound = coupon(BranchRowStatus::Confirmed);
        assert_eq!(rules(settled.clone(), &[stock(BranchRowStatus::Cancelled), sound.clone()]), [Rule::SettledOutside]);
        assert_eq!(rules(settled.clone(), std::slice::from_ref(&sound)), [Rule::SettledOutside]);
        // It asks for the outcome and obeys it.
        assert_eq!(rules(settled.clone(), &[stock(BranchRowStatus::Tried), sound.clone()]), []);
        assert_eq!(rules(settled, &[stock(BranchRowStatus::Confirmed), sound]), []);
    }
    assert_eq!(Rule::SettledOutside.severity(), crate::Severity::Noted);
}

#[test]
fn a_row_that_its_participant_may_have_deleted_is_not_missing() {
    let confirmed = |decided_at| Transaction { decided_at: Some(decided_at), ..transaction(TxStatus::Confirmed) };
    let sound = [coupon(BranchRowStatus::Confirmed)];
    assert_eq!(rules(confirmed(ago(7 * DAY)), &sound), []);
    assert_eq!(rules(confirmed(ago(6 * DAY)), &sound), [Rule::RowMissing]);
}

#[test]
fn a_participant_whose_database_was_not_given_is_not_judged() {
    let mut confirmed = transaction(TxStatus::Confirmed);
    confirmed.branches[0].participant = name("elsewhere");
    assert_eq!(rules(confirmed, &[coupon(BranchRowStatus::Confirmed)]), []);
}

#[test]
fn a_row_in_the_database_of_another_participant_is_not_the_branchs() {
    let rows = [row(1, "stock", BranchRowStatus::Confirmed), coupon(BranchRowStatus::Confirmed)];
    assert_eq!(rules(transaction(TxStatus::Confirmed), &rows), [Rule::RowMissing, Rule::NotInTransaction]);
}

#[test]
fn participants_may_share_a_database() {
    let mut confirmed = transaction(TxStatus::Confirmed);
    confirmed.branches[0].participant = name("points");
    let rows = [row(1, "stock", BranchRowStatus::Confirmed), coupon(BranchRowStatus::Confirmed)];
    assert_eq!(rules(confirmed, &rows), []);
}

#[test]
fn a_branch_that_its_transaction_does_not_have_may_only_have_ended_without_effect() {
    let sound = coupon(BranchRowStatus::Confirmed);
    for (status, wanted) in [
        (BranchRowStatus::Tried, vec![Rule::NotInTransaction]),
        (BranchRowStatus::Confirmed, vec![Rule::NotInTransaction]),
        (BranchRowStatus::Refused, vec![]),
        (BranchRowStatus::Cancelled, vec![]),
    ] {
        let rows = [stock(BranchRowStatus::Confirmed), sound.clone(), row(0, "unlisted", status)];
        assert_eq!(rules(transaction(TxStatus::Confirmed), &rows), wanted, "{status:?}");
    }
}

#[test]
fn branches_that_the_log_has_lost_are_missed() {
    let mut confirming = transaction(TxStatus::Confirming);
    confirming.branches.pop();
    let found = rules(confirming, &[stock(BranchRowStatus::Tried), coupon(BranchRowStatus::Tried)]);
    assert_eq!(found, [Rule::BranchesMissing, Rule::NotInTransaction]);
}

#[test]
fn a_reservation_of_an_unknown_transaction_is_an_orphan_however_old_it_is() {
    assert_eq!(rules(None, &[stock(BranchRowStatus::Tried)]), [Rule::Orphan]);
    let old = Row { changed_at: ago(100 * DAY), forgotten_at: Some(ago(DAY)), ..stock(BranchRowStatus::Tried) };
    let found = found(None, &[old]);
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().contains("it is forgotten"), "{}", found[0]);
}

#[test]
fn an_ended_branch_of_a_transaction_that_the_log_must_still_have_is_found() {
    let ended = |status, changed_at| Row { changed_at, ..stock(status) };
    for status in [BranchRowStatus::Refused, BranchRowStatus::Confirmed, BranchRowStatus::Cancelled] {
        assert_eq!(rules(None, &[ended(status, ago(6 * DAY))]), [Rule::TransactionMissing], "{status:?}");
        assert_eq!(rules(None, &[ended(status, ago(7 * DAY))]), [], "{status:?}: the log has deleted it");
    }
    let empty = Row { coordinator: None, ask_after: None, ..stock(BranchRowStatus::Cancelled) };
    assert_eq!(rules(None, &[empty]), [], "whose it is cannot be told");
}

#[test]
fn branches_that_ended_differently_are_found_even_when_the_log_has_forgotten_them() {
    let old = |row: Row| Row { changed_at: ago(8 * DAY), ..row };
    for other in [BranchRowStatus::Refused, BranchRowStatus::Cancelled] {
        let rows = [old(stock(BranchRowStatus::Confirmed)), old(coupon(other))];
        let found = found(None, &rows);
        assert_eq!(found.len(), 1);
        let wanted = format!("inventory has stock as Confirmed; coupon+points has coupon as {other:?}");
        assert_eq!(found[0].rule, Rule::MixedOutcome);
        assert!(found[0].to_string().ends_with(&wanted), "{}", found[0]);
    }
    assert_eq!(rules(None, &[old(stock(BranchRowStatus::Confirmed)), old(coupon(BranchRowStatus::Confirmed))]), []);
}

#[test]
fn rows_of_other_logs_are_passed_over() {
    let other = |row: Row| Row { coordinator: Some(LogName::new("other").unwrap()), ..row };
    let rows = [other(stock(BranchRowStatus::Tried)), other(coupon(BranchRowStatus::Confirmed))];
    assert_eq!(rules(None, &rows), []);
}

#[test]
fn what_is_late_by_more_than_the_grace_is_overdue() {
    let due = |next_attempt_at| Transaction { next_attempt_at, ..transaction(TxStatus::Cancelling) };
    assert_eq!(rules(due(ago(GRACE)), &[]), []);
    assert_eq!(rules(due(ago(2 * GRACE)), &[]), [Rule::TransactionOverdue]);
    let ended = Transaction { next_attempt_at: ago(DAY), ..transaction(TxStatus::Cancelled) };
    assert_eq!(rules(ended, &[]), []);
    let asks = |at, status| [Row { ask_after: Some(at), ..stock(status) }];
    let trying = || transaction(TxStatus::Trying);
    assert_eq!(rules(trying(), &asks(ago(GRACE), BranchRowStatus::Tried)), []);
    assert_eq!(rules(trying(), &asks(ago(2 * GRACE), BranchRowStatus::Tried)), [Rule::RowOverdue]);
    assert_eq!(rules(trying(), &asks(ago(2 * GRACE), BranchRowStatus::Refused)), []);
}

#[test]
fn a_stuck_branch_is_told_with_its_reason_and_is_no_disagreement() {
    let mut confirming = transaction(TxStatus::Confirming);
    confirming.branches[1].stuck = Some(("no answer".to_owned(), ago(DAY)));
    let found = found(confirming, &[stock(BranchRowStatus::Confirmed), coupon(BranchRowStatus::Tried)]);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rule, found[0].participant.as_deref()), (Rule::Stuck, Some("coupon")));
    assert_eq!(found[0].rule.severity(), crate::Severity::Overdue);
    assert!(found[0].to_string().contains("no answer"), "{}", found[0]);
}
