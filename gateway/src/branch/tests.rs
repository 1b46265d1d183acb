//! The decisions over an in-process store.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, ready},
};

use tcc_types::{BranchId, BranchKey, SystemEntropy, Timestamp};

use super::*;
use crate::{Draft, Line, RowStatus};

#[derive(Default)]
struct Memory(BTreeMap<Gid, RowStatus>);

impl OrderStore for Memory {
    type Error = Infallible;

    fn insert(&mut self, id: Gid, _placed: &Placed) -> impl Future<Output = Result<bool, Infallible>> + Send {
        let inserted = !self.0.contains_key(&id);
        self.0.entry(id).or_insert(RowStatus::Tried);
        ready(Ok(inserted))
    }

    fn settle(&mut self, id: Gid, decision: Decision) -> impl Future<Output = Result<bool, Infallible>> + Send {
        let row = self.0.get_mut(&id).filter(|status| **status == RowStatus::Tried);
        let was_tried = row.is_some();
        if let Some(row) = row {
            *row = match decision {
                Decision::Confirm => RowStatus::Confirmed,
                Decision::Cancel => RowStatus::Cancelled,
            };
        }
        ready(Ok(was_tried))
    }

    async fn insert_all(&mut self, orders: &[(Gid, &Placed)]) -> Result<Vec<bool>, Infallible> {
        assert!(orders.is_sorted_by(|(one, _), (other, _)| one < other) && !orders.is_empty());
        let mut inserted = Vec::new();
        for (id, placed) in orders {
            inserted.push(self.insert(*id, placed).await?);
        }
        Ok(inserted)
    }

    async fn settle_all(&mut self, settles: &[(Gid, Decision)]) -> Result<usize, Infallible> {
        assert!(settles.is_sorted_by(|(one, _), (other, _)| one < other) && !settles.is_empty());
        let mut settled = 0;
        for (id, decision) in settles {
            settled += usize::from(self.settle(*id, *decision).await?);
        }
        Ok(settled)
    }
}

fn branch(id: &str) -> BranchContext {
    let gid = Gid::mint(Timestamp::from_millis(1_790_000_000_000), &SystemEntropy);
    BranchContext::new(BranchKey { gid, branch: BranchId::new(id).unwrap() })
}

fn placed() -> Placed {
    Placed::new(Draft {
        order_key: "k-1".to_owned(),
        initiator: "shop".to_owned(),
        user_id: "ann".to_owned(),
        lines: vec![Line { sku: "apple".to_owned(), quantity: 1 }],
        ..Draft::default()
    })
    .unwrap()
}

fn code(placing: Placing) -> String {
    match placing {
        Placing::Inserted => panic!("not refused"),
        Placing::Refused(refusal) => refusal.code,
    }
}

#[tokio::test]
async fn an_order_is_placed_and_then_settled_once() {
    for (decision, status) in [(Decision::Confirm, RowStatus::Confirmed), (Decision::Cancel, RowStatus::Cancelled)] {
        let (mut store, branch) = (Memory::default(), branch(ORDER));
        assert_eq!(place(&mut store, &branch, &placed()).await, Ok(Placing::Inserted));
        assert_eq!(store.0[&branch.gid()], RowStatus::Tried);
        settle(&mut store, branch.gid(), decision).await.unwrap();
        assert_eq!(store.0[&branch.gid()], status);
        for other in [Decision::Confirm, Decision::Cancel] {
            assert!(matches!(settle(&mut store, branch.gid(), other).await, Err(SettleError::NotTried(_))));
        }
        assert_eq!(store.0[&branch.gid()], status);
    }
}

#[tokio::test]
async fn a_branch_with_another_id_is_no_order() {
    let mut store = Memory::default();
    assert_eq!(code(place(&mut store, &branch("order-2"), &placed()).await.unwrap()), "BAD_REQUEST");
    assert!(store.0.is_empty());
}

#[tokio::test]
async fn an_id_that_has_a_row_is_refused() {
    let (mut store, branch) = (Memory::default(), branch(ORDER));
    place(&mut store, &branch, &placed()).await.unwrap();
    assert_eq!(code(place(&mut store, &branch, &placed()).await.unwrap()), "ORDER_EXISTS");
}

/// Branches in the order of their keys.
fn branches(ids: &[&str]) -> Vec<BranchContext> {
    let mut branches: Vec<_> = ids.iter().map(|_| branch(ORDER)).collect();
    branches.sort_by(|one, other| one.key.cmp(&other.key));
    for (branch, id) in branches.iter_mut().zip(ids) {
        branch.key.branch = BranchId::new(*id).unwrap();
    }
    branches
}

#[tokio::test]
async fn many_orders_are_placed_as_each_would_be() {
    let mut store = Memory::default();
    let branches = branches(&[ORDER, "order-2", ORDER, ORDER, "order-2"]);
    place(&mut store, &branches[2], &placed()).await.unwrap();
    let orders: Vec<_> = branches.iter().map(|branch| (branch.clone(), placed())).collect();
    let placings = place_all(&mut store, &orders).await.unwrap();
    for (branch, placing) in branches.iter().zip(&placings) {
        let mut alone = Memory::default();
        if branch == &branches[2] {
            place(&mut alone, branch, &placed()).await.unwrap();
        }
        assert_eq!(place(&mut alone, branch, &placed()).await.unwrap(), *placing);
    }
    assert_eq!(placings.iter().filter(|placing| **placing == Placing::Inserted).count(), 2);
    assert_eq!(store.0.len(), 3);
    assert_eq!(place_all(&mut store, &orders[4..]).await.unwrap(), placings[4..]);
}

#[tokio::test]
async fn many_orders_are_settled_if_all_of_them_are_tried() {
    let (mut store, branches) = (Memory::default(), branches(&[ORDER; 3]));
    let orders: Vec<_> = branches.iter().map(|branch| (branch.clone(), placed())).collect();
    place_all(&mut store, &orders).await.unwrap();
    let ids: Vec<_> = branches.iter().map(BranchContext::gid).collect();
    let settles = vec![(ids[2], Decision::Confirm), (ids[0], Decision::Cancel)];
    settle_all(&mut store, settles.clone()).await.unwrap();
    let expected = [(ids[0], RowStatus::Cancelled), (ids[1], RowStatus::Tried), (ids[2], RowStatus::Confirmed)];
    assert_eq!(store.0.iter().map(|(id, status)| (*id, *status)).collect::<Vec<_>>(), expected);
    let more = [settles, vec![(ids[1], Decision::Confirm)]].concat();
    let error = settle_all(&mut store, more).await.unwrap_err();
    assert!(matches!(error, SettleError::NotAllTried { not_tried: 2, orders: 3 }), "{error}");
    settle_all(&mut store, Vec::new()).await.unwrap();
}
