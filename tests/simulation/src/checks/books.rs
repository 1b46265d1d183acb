//! S4: the books balance after every commit, and what a commit did to them is what its branches' rows say.

use std::collections::BTreeMap;

use prost::Message;
use tcc_coupon::{CouponState, memory::CouponTables};
use tcc_inventory::memory::{Sku, StockRow, StockTables};
use tcc_participant::memory::{HasBranches, StoredBranch};
use tcc_proto::{coupon::v1::LockedCoupon, inventory::v1::ReservedStock};
use tcc_types::BranchRowStatus;

use crate::world::World;

/// What is frozen and sold of a SKU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    frozen: i64,
    sold: i64,
}

/// Inventory's books.
pub(super) fn stock(world: &World, before: &StockTables, after: &StockTables) {
    let mut moved: BTreeMap<String, Held> = BTreeMap::new();
    for (old, new) in after.branches().changes_since(before.branches()) {
        add(world, &mut moved, old, -1);
        add(world, &mut moved, new, 1);
        // A row that is deleted takes nothing back.
        if let (Some(old), None) = (old, new) {
            add(world, &mut moved, Some(old), 1);
        }
    }
    for (sku, rows) in after.stock.skus() {
        if !balances(rows) {
            world.violation("S4", format_args!("{sku}: {rows:?}"));
        }
        let (was, now) = (before.stock.sku(sku).map_or_else(StockRow::default, Sku::sums), rows.sums());
        let is = Held { frozen: now.frozen - was.frozen, sold: now.sold - was.sold };
        let wanted = moved.remove(sku).unwrap_or_default();
        if is != wanted {
            world.violation("S4", format_args!("{sku}: a commit moved {is:?}, its branches {wanted:?}"));
        }
    }
    if let Some((sku, held)) = moved.iter().find(|(_, held)| **held != Held::default()) {
        world.violation("S4", format_args!("{sku} is not there, and branches moved {held:?} of it"));
    }
}

/// Nothing is negative in any of a SKU's rows, and nothing is missing.
pub(super) fn balances(sku: &Sku) -> bool {
    sku.rows.iter().all(|row| {
        let all = [row.available, row.frozen, row.sold];
        all.iter().all(|pieces| *pieces >= 0) && all.iter().sum::<i64>() == row.initial
    })
}

/// Adds what a branch's row holds, or takes it away.
fn add(world: &World, moved: &mut BTreeMap<String, Held>, row: Option<&StoredBranch>, sign: i64) {
    let Some(row) = row else { return };
    let (frozen, sold) = match row.row.status {
        BranchRowStatus::Tried => (sign, 0),
        BranchRowStatus::Confirmed => (0, sign),
        BranchRowStatus::Refused | BranchRowStatus::Cancelled => return,
    };
    for (sku, quantity) in pieces(world, row) {
        let held = moved.entry(sku).or_default();
        held.frozen += frozen * quantity;
        held.sold += sold * quantity;
    }
}

/// What a branch has reserved, or has spent.
fn pieces(world: &World, row: &StoredBranch) -> Vec<(String, i64)> {
    let reserved = row.reserved.clone().unwrap_or_default();
    match ReservedStock::decode(reserved) {
        Ok(reserved) => reserved.lines.into_iter().map(|line| (line.sku, line.quantity)).collect(),
        Err(error) => {
            world.violation("S4", format_args!("what branch {:?} has reserved cannot be read: {error}", row.row.key));
            Vec::new()
        }
    }
}

/// What each SKU's rows hold, all of them together: frozen by those that are tried, sold by those that are confirmed.
pub(super) fn held(world: &World, tables: &StockTables) -> BTreeMap<String, (i64, i64)> {
    let mut moved = BTreeMap::new();
    tables.branches().rows().for_each(|row| add(world, &mut moved, Some(row), 1));
    moved.into_iter().map(|(sku, held)| (sku, (held.frozen, held.sold))).collect()
}

/// The coupons' books: each coupon that a changed row is about is as the row says.
pub(super) fn coupons(world: &World, before: &CouponTables, after: &CouponTables) {
    for (old, new) in after.branches().changes_since(before.branches()) {
        let Some(new) = new else { continue };
        let wanted = match (old.map(|it| it.row.status), new.row.status) {
            (_, BranchRowStatus::Tried) => CouponState::Locked,
            (_, BranchRowStatus::Confirmed) => CouponState::Used,
            (Some(BranchRowStatus::Tried), BranchRowStatus::Cancelled) => CouponState::Issued,
            (_, BranchRowStatus::Refused | BranchRowStatus::Cancelled) => continue,
        };
        let Some(id) = coupon_of(world, new) else { continue };
        let gid = new.row.key.gid;
        let fits = after.coupons.coupon(&id).is_some_and(|coupon| {
            // Released, another branch of the same batch may have it by now.
            let is_anothers = wanted == CouponState::Issued && coupon.gid.is_some_and(|other| other != gid);
            is_anothers || coupon.state == wanted && (wanted == CouponState::Issued || coupon.gid == Some(gid))
        });
        if !fits {
            let is = after.coupons.coupon(&id);
            world.violation("S4", format_args!("branch {:?} is {:?}, coupon {id} is {is:?}", new.row.key, new.row.status));
        }
    }
}

pub(super) fn coupon_of(world: &World, row: &StoredBranch) -> Option<String> {
    match LockedCoupon::decode(row.reserved.clone().unwrap_or_default()) {
        Ok(locked) => Some(locked.coupon_id),
        Err(error) => {
            world.violation("S4", format_args!("what branch {:?} has locked cannot be read: {error}", row.row.key));
            None
        }
    }
}
