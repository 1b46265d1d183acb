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
