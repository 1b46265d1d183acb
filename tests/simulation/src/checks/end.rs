//! What must hold once all faults are healed: everything has ended, as it was decided, and as the clients were told.

use tcc_coupon::CouponState;
use tcc_gateway::{COUPON, INVENTORY, ORDER};
use tcc_log::TxRecord;
use tcc_participant::memory::{BranchTable, HasBranches};
use tcc_types::{BranchKey, BranchRowStatus, Decision};

use super::books;
use crate::{history::Told, place::Db, world::World};

/// The status of a branch's row.
pub(super) fn row(world: &World, participant: &str, key: &BranchKey) -> Option<BranchRowStatus> {
    let status = |table: &BranchTable| table.get(key).map(|stored| stored.row.status);
    match participant {
        ORDER => status(world.orders.visible().branches()),
        INVENTORY => status(world.inventory.visible().branches()),
        COUPON => status(world.coupon.visible().branches()),
        _ => None,
    }
}

/// What has not ended yet, in a few words; `None`: everything has.
pub(crate) fn open(world: &World) -> Option<String> {
    let log = world.log.visible();
    if let Some(open) = log.transactions().find(|record| !record.status.has_ended()) {
        let stuck = open.branches.iter().map(|branch| format!("{}: {:?}", branch.branch, branch.progress));
        return Some(format!("transaction {} is {:?}; {}", open.gid, open.status, stuck.collect::<Vec<_>>().join("; ")));
    }
    let tried = |db: Db, table: &BranchTable| {
        let first = table.tried().next()?;
        Some(format!("a branch of {} is still tried in {db}: {}", first.row.key.gid, first.row.key.branch))
    };
    tried(Db::Orders, world.orders.visible().branches())
        .or_else(|| tried(Db::Inventory, world.inventory.visible().branches()))
        .or_else(|| tried(Db::Coupon, world.coupon.visible().branches()))
}

/// Everything, once nothing is open any more.
pub(crate) fn at_the_end(world: &World) {
    for record in world.log.visible().transactions() {
        one_outcome(world, record);
    }
    every_row_has_its_transaction(world);
    what_was_told_holds(world);
    the_books_balance(world);
}

/// Each branch of a transaction is as it was decided.
fn one_outcome(world: &World, record: &TxRecord) {
    for branch in &record.branches {
        let key = BranchKey { gid: record.gid, branch: branch.branch.clone() };
        if world.is_lost(&key) {
            continue;
        }
        let row = row(world, branch.participant.as_str(), &key);
        let fits = match record.status.decision() {
            Some(Decision::Confirm) => row == Some(BranchRowStatus::Confirmed),
            Some(Decision::Cancel) => matches!(row, None | Some(BranchRowStatus::Cancelled | BranchRowStatus::Refused)),
            None => false,
        };
        if !fits {
            world.violation("S1", format_args!("{:?} is {:?}, and the row of {key:?} {row:?}", record.gid, record.status));
        }
    }
}

/// No row is there without a decision that fits it.
fn every_row_has_its_transaction(world: &World) {
    let log = world.log.visible();
    let check = |db: Db, table: &BranchTable| {
        for stored in table.rows() {
            let key = &stored.row.key;
            if world.is_lost(key) && stored.row.status != BranchRowStatus::Tried {
                continue;
            }
            let Some(record) = log.transaction(key.gid) else {
                world.violation(
                    "S1",
                    format_args!("{key:?} is {:?} in {db}; the log has no such transaction", stored.row.status),
                );
                continue;
            };
            let has_it = record.branches.iter().any(|branch| branch.branch == key.branch);
            let fits = match stored.row.status {
                BranchRowStatus::Confirmed => has_it && record.status.decision() == Some(Decision::Confirm),
                BranchRowStatus::Cancelled | BranchRowStatus::Refused => record.status.decision() == Some(Decision::Cancel),
                BranchRowStatus::Tried => false,
            };
            if !fits {
                let (is, decided) = (stored.row.status, record.status);
                world.violation("S1", format_args!("{key:?} is {is:?} in {db}, its transaction {decided:?}"));
            }
        }
    };
    check(Db::Orders, world.orders.visible().branches());
    check(Db::Inventory, world.inventory.visible().branches());
    check(Db::Coupon, world.coupon.visible().branches());
}

/// Acknowledged means confirmed, exactly once.
fn what_was_told_holds(world: &World) {
    let (history, log) = (world.history(), world.log.visible());
    for contradiction in history.contradictions() {
        world.violation("answers", contradiction);
    }
    for gid in history.never.iter().filter(|gid| log.transaction(**gid).is_some()) {
        world.violation("answers", format_args!("a client was told that nothing was started of {gid}, which is there"));
    }
    for (key, action, reason) in &history.warrants {
        if !log.audit().any(|it| it.entry.key == *key && it.entry.action == *action && it.entry.reason == *reason) {
            world.violation("operators", format_args!("{action:?} of {key}, {reason}, is not on the audit record"));
        }
    }
    for (gid, fates) in &history.fates {
        let decision = log.transaction(*gid).and_then(|record| record.status.decision());
        for told in fates {
            if decision.map(Told::of) != Some(*told) {
                world.violation("answers", format_args!("a client was told {told:?} of {gid}; it is {decision:?}"));
            }
        }
    }
}

fn the_books_balance(world: &World) {
    let inventory = world.inventory.visible();
    let mut held = books::held(world, &inventory);
    for (sku, rows) in inventory.stock.skus() {
        let (wanted, is) = (held.remove(sku).unwrap_or_default(), rows.sums());
        if !books::balances(rows) || (is.frozen, is.sold) != wanted {
            world.violation("S4", format_args!("{sku}: {is:?}; its branches hold {wanted:?} (frozen, sold)"));
        }
    }
    let coupon = world.coupon.visible();
    let rows = coupon.branches();
    let used = rows.rows().filter(|stored| stored.row.status == BranchRowStatus::Confirmed).count();
    let states = |state| coupon.coupons.coupons().filter(|coupon| coupon.state == state).count();
    if states(CouponState::Used) != used || states(CouponState::Locked) != 0 {
        let (is, locked) = (states(CouponState::Used), states(CouponState::Locked));
        world.violation("S4", format_args!("{is} coupons are used and {locked} locked; {used} branches are confirmed"));
    }
    for order in world.orders.visible().branches().rows() {
        let id = order.row.key.gid;
        let is = world.orders.visible().orders.order(id).map(|row| format!("{:?}", row.status));
        let wanted = match order.row.status {
            BranchRowStatus::Confirmed => Some("Confirmed".to_owned()),
            BranchRowStatus::Cancelled if !order.row.empty => Some("Cancelled".to_owned()),
            BranchRowStatus::Cancelled | BranchRowStatus::Refused | BranchRowStatus::Tried => continue,
        };
        if is != wanted {
            world.violation("S4", format_args!("order {id} is {is:?}, its branch {:?}", order.row.status));
        }
    }
}
