//! What sweeps and retention ask of the store, call by call. Each case panics where the contract is broken.

use std::time::Duration;

use tcc_types::{BranchId, BranchKey, BranchRowStatus, Clock, Gid, SystemClock, Timestamp, TryCall};

use super::{BenchDatabase, Effects, Fixture, State};
use crate::OldRow;

const TRIED: Option<BranchRowStatus> = Some(BranchRowStatus::Tried);
const LIMIT: u32 = 100;

/// A tried branch that asks from that instant on.
async fn tried_that_asks_after<D: BenchDatabase>(f: &Fixture<D>, ask_after: Timestamp) -> TryCall {
    let call = TryCall { ask_after, ..f.new_call() };
    f.assert_yes(f.try_branch(&call).await);
    call
}

async fn due<D: BenchDatabase>(f: &Fixture<D>, limit: u32) -> Vec<BranchKey> {
    let due = f.store().tried_due(limit).await.expect("rows are read");
    due.into_iter().map(|row| row.key).collect()
}

/// Walks over all rows below that gid, so many at a time.
async fn walk<D: BenchDatabase>(f: &Fixture<D>, minted_before: Gid, limit: u32) -> Vec<OldRow> {
    let mut walked: Vec<OldRow> = Vec::new();
    loop {
        let after = walked.last().map(|row| &row.key);
        let page = f.store().ended_page(after, minted_before, limit).await.expect("rows are read");
        assert!(page.len() <= usize::try_from(limit).expect("it is small"), "a page over its limit");
        if page.is_empty() {
            return walked;
        }
        walked.extend(page);
    }
}

fn all() -> Gid {
    Gid::first_of(SystemClock.now().plus(Duration::from_secs(86_400)))
}

/// Whatever the server's time zone is. Ten minutes tell a wrong zone from two readings of one clock.
pub async fn the_clock_is_utc<D: BenchDatabase>(f: Fixture<D>) {
    let here = SystemClock.now();
    let there = f.store().now().await.expect("the clock is read");
    let apart = here.until(there).max(there.until(here));
    assert!(apart < Duration::from_secs(600), "the database says {there}, this machine {here}");
    let call = f.branch_in(State::Tried).await;
    let row = f.store().branch_row(&call.key).await.expect("the row is read").expect("there is a row");
    let after = f.store().now().await.expect("the clock is read");
    assert!(there <= row.created_at && row.created_at <= after, "{there} {row:?} {after}");
}

/// By the database's clock, longest overdue first.
pub async fn overdue_reservations_come_in_the_order_in_which_they_ask<D: BenchDatabase>(f: Fixture<D>) {
    let third = tried_that_asks_after(&f, Timestamp::from_millis(3_000)).await;
    let first = tried_that_asks_after(&f, Timestamp::from_millis(1_000)).await;
    let second = tried_that_asks_after(&f, Timestamp::from_millis(2_000)).await;
    // Not due for two hours, and settled.
    f.branch_in(State::Tried).await;
    let settled = tried_that_asks_after(&f, Timestamp::from_millis(500)).await;
    f.cancel(&settled).await;
    f.branch_in(State::EmptyRollback).await;
    assert_eq!(due(&f, LIMIT).await, [first.key.clone(), second.key.clone(), third.key]);
    assert_eq!(due(&f, 2).await, [first.key.clone(), second.key]);
    let found = f.store().tried_due(1).await.expect("rows are read").pop().expect("there is one");
    assert_eq!((found.key, found.coordinator), (first.key, first.coordinator));
    assert_eq!((found.not_after, found.ask_after), (first.not_after, first.ask_after));
}

/// The compare-and-set of a sweep.
pub async fn only_a_tried_row_is_postponed_and_it_remembers_when_it_was_forgotten<D: BenchDatabase>(f: Fixture<D>) {
    let call = tried_that_asks_after(&f, Timestamp::from_millis(1_000)).await;
    let row = async || f.store().branch_row(&call.key).await.expect("the row is read").expect("there is a row");
    let listed = async || f.store().forgotten(None, LIMIT).await.expect("rows are read");
    let later = call.not_after;
    assert!(f.store().postpone(&call.key, later, false).await.expect("it is postponed"));
    assert_eq!((row().await.ask_after, row().await.forgotten_at), (Some(later), None));
    assert_eq!((due(&f, LIMIT).await, listed().await), (vec![], vec![]));

    let before = f.store().now().await.expect("the clock is read");
    assert!(f.store().postpone(&call.key, Timestamp::from_millis(2_000), true).await.expect("it is postponed"));
    let forgotten_at = row().await.forgotten_at.expect("it is kept");
    assert!(before <= forgotten_at, "{before} {forgotten_at}");
    assert_eq!((due(&f, LIMIT).await, listed().await), (vec![call.key.clone()], vec![row().await]));
    // The first time is what counts, also when somebody else hears less.
    for forgotten in [true, false] {
        assert!(f.store().postpone(&call.key, later, forgotten).await.expect("it is postponed"));
        assert_eq!(row().await.forgotten_at, Some(forgotten_at));
    }
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;

    f.cancel(&call).await;
    assert!(!f.store().postpone(&call.key, Timestamp::from_millis(1_000), true).await.expect("it answers"));
    assert!(!f.store().postpone(&f.new_call().key, later, true).await.expect("it answers"), "a row came from nowhere");
    assert_eq!((due(&f, LIMIT).await, listed().await), (vec![], vec![]));
}

/// The list for operators goes on where it was.
pub async fn forgotten_reservations_are_listed_in_pages<D: BenchDatabase>(f: Fixture<D>) {
    let mut wanted = Vec::new();
    for _ in 0..2 {
        for branch in ["a", "b", "c"] {
            let mut call = f.new_call();
            call.key.branch = BranchId::new(branch).expect("it is well-formed");
            call.key.gid =
                wanted.last().map_or(call.key.gid, |key: &BranchKey| if branch == "a" { call.key.gid } else { key.gid });
            f.assert_yes(f.try_branch(&call).await);
            f.store().postpone(&call.key, call.ask_after, true).await.expect("it is postponed");
            wanted.push(call.key);
        }
    }
    wanted.sort();
    let mut listed: Vec<BranchKey> = Vec::new();
    loop {
        let page = f.store().forgotten(listed.last(), 2).await.expect("rows are read");
        assert!(page.len() <= 2, "a page over its limit");
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|row| row.key));
    }
    assert_eq!(listed, wanted);
}

/// Whatever the size of a step, each row comes once.
pub async fn a_walk_meets_every_older_row_once_in_the_order_of_keys<D: BenchDatabase>(f: Fixture<D>) {
    let mut wanted = Vec::new();
    for state in State::ALL {
        let first = f.branch_in(state).await;
        let mut sibling = first.clone();
        sibling.key.branch = BranchId::new("A-stock").expect("it is well-formed");
        f.cancel(&sibling).await;
        wanted.extend([first.key, sibling.key]);
    }
    wanted.sort();
    for limit in [1, 3, LIMIT] {
        let walked: Vec<_> = walk(&f, all(), limit).await.into_iter().map(|row| row.key).collect();
        assert_eq!(walked, wanted, "{limit} at a time");
    }
    let newest = wanted.last().expect("there is one").gid;
    let older: Vec<_> = walk(&f, newest, 2).await.into_iter().map(|row| row.key).collect();
    assert_eq!(older, wanted[..wanted.len() - 2], "the bound is not below the gid");
    for row in walk(&f, all(), LIMIT).await {
        let kept = f.store().branch_row(&row.key).await.expect("the row is read").expect("there is a row");
        assert_eq!((row.status, row.coordinator), (kept.status, kept.coordinator));
        assert_eq!((row.not_after, row.changed_at), (kept.not_after, kept.changed_at));
    }
}

/// By exact key, status and time.
pub async fn a_deletion_spares_what_is_tried_and_what_is_not_as_it_was_read<D: BenchDatabase>(f: Fixture<D>) {
    let tried = f.branch_in(State::Tried).await;
    let cancelled = f.branch_in(State::Cancelled).await;
    let kept = f.branch_in(State::Refused).await;
    let changed = f.branch_in(State::Tried).await;
    let read = walk(&f, all(), LIMIT).await;
    let row_of = |call: &TryCall| read.iter().find(|row| row.key == call.key).expect("it was met").clone();
    f.confirm(&changed).await;
    let mut confirmed = row_of(&changed);
    confirmed.status = BranchRowStatus::Confirmed;
    let mut earlier = row_of(&kept);
    earlier.changed_at = earlier.changed_at.minus(Duration::from_secs(1));
    for row in [row_of(&tried), row_of(&changed), confirmed, earlier] {
        assert_eq!(f.store().delete_ended(std::slice::from_ref(&row)).await.expect("it answers"), 0, "{row:?}");
    }
    let both = [row_of(&tried), row_of(&cancelled)];
    assert_eq!(f.store().delete_ended(&both).await.expect("it answers"), 1);
    assert_eq!(f.store().delete_ended(&both).await.expect("it answers"), 0);
    let left: Vec<_> = walk(&f, all(), LIMIT).await.into_iter().map(|row| row.key).collect();
    // Of two gids that were minted within a millisecond either may come first.
    let mut spared = [tried.key, kept.key, changed.key];
    spared.sort();
    assert_eq!(left, spared);
}
