//! Coupons against the branches that have them: one is locked exactly while a tried row of the transaction that it names has it, and
//! used if that row is confirmed. A used coupon may have no row any more: confirmed rows are deleted in the end.

use std::collections::HashMap;

use prost::{Message, Name};
use tcc_proto::coupon::v1::{CouponState, LockCoupon, LockedCoupon};
use tcc_types::{BranchRowStatus, ParticipantName};

use super::{Checked, Reserving, Spoken, is_of, key_of};
use crate::{AnyRow, Config, Database, Error, Finding, Rule, Value};

/// A coupon as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupon {
    /// Its id.
    pub coupon_id: String,
    /// Where it is.
    pub state: CouponState,
    /// Which transaction locked or used it.
    pub gid: Option<String>,
}

/// What is wrong between a branch that has a coupon (`reserved`), and the coupon as it is in the same snapshot.
#[must_use]
pub fn compare_branch(participant: &str, row: &Reserving<String>, coupon: Option<&Coupon>) -> Option<Finding> {
    let wanted = match row.status {
        BranchRowStatus::Tried => CouponState::Locked,
        BranchRowStatus::Confirmed => CouponState::Used,
        BranchRowStatus::Refused | BranchRowStatus::Cancelled => return None,
    };
    let gid = row.gid.to_string();
    let agrees = coupon.is_some_and(|coupon| coupon.state == wanted && coupon.gid.as_deref() == Some(&gid));
    (!agrees).then(|| differs(participant, &row.reserved, coupon, Some(row)))
}

/// What is wrong between a coupon and the branches of the transaction that it names (`rows`), in the same snapshot.
#[must_use]
pub fn compare_coupon(participant: &str, coupon: &Coupon, rows: &[Reserving<String>]) -> Option<Finding> {
    let of_it: Vec<_> = rows.iter().filter(|row| row.reserved == coupon.coupon_id).collect();
    let has = |status| of_it.iter().any(|row| row.status == status);
    let agrees = match coupon.state {
        CouponState::Unspecified => false,
        CouponState::Issued => coupon.gid.is_none(),
        CouponState::Locked => has(BranchRowStatus::Tried),
        CouponState::Used => of_it.is_empty() || has(BranchRowStatus::Confirmed),
    };
    (!agrees).then(|| differs(participant, &coupon.coupon_id, Some(coupon), of_it.first().copied()))
}

/// In the same words from both sides, so that it is told once.
fn differs(participant: &str, coupon_id: &str, coupon: Option<&Coupon>, row: Option<&Reserving<String>>) -> Finding {
    let says = match coupon {
        Some(Coupon { state, gid: Some(gid), .. }) => format!("the coupon is {state:?} by {gid}"),
        Some(Coupon { state, gid: None, .. }) => format!("the coupon is {state:?}"),
        None => "there is no such coupon".to_owned(),
    };
    let finding = Finding::new(Rule::CouponDiffers).at(participant).resource(coupon_id).says(says);
    match row {
        Some(row) => finding.of(row.gid).branch(&row.branch).says(format!("its branch is {:?}", row.status)),
        None => finding.says("no branch has it"),
    }
}

/// Reads and compares, each page in a snapshot of its own.
pub(super) async fn check(name: &ParticipantName, database: &mut Database, config: &Config) -> Result<Checked, Error> {
    let mut checked = Checked::default();
    branches(name, database, config, &mut checked).await?;
    coupons(name, database, config, &mut checked).await?;
    Ok(checked)
}

async fn branches(
    name: &ParticipantName,
    database: &mut Database,
    config: &Config,
    checked: &mut Checked,
) -> Result<(), Error> {
    let mut spoken = Spoken::default();
    loop {
        database.begin().await?;
        let page = spoken.page(database, config.page_size).await?;
        let mut rows = Vec::with_capacity(page.len());
        for row in &page {
            rows.extend(reserving(database, row, 0)?);
        }
        let coupons = these(database, &rows).await?;
        database.end().await?;
        checked.add(rows.iter().filter_map(|row| compare_branch(name.as_str(), row, coupons.get(&row.reserved))), config);
        if page.len() < config.page_size as usize {
            return Ok(());
        }
    }
}

/// The coupons that these rows have.
async fn these(database: &mut Database, rows: &[Reserving<String>]) -> Result<HashMap<String, Coupon>, Error> {
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let marks = vec!["?"; rows.len()].join(", ");
    let sql = format!("SELECT coupon_id, state, gid FROM coupons WHERE coupon_id IN ({marks})");
    let ids: Vec<_> = rows.iter().map(|row| Value::Text(&row.reserved)).collect();
    let found = database.all(&sql, &ids).await?;
    found.iter().map(|row| coupon_of(database, row).map(|coupon| (coupon.coupon_id.clone(), coupon))).collect()
}

async fn coupons(name: &ParticipantName, database: &mut Database, config: &Config, checked: &mut Checked) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        const SQL: &str = "SELECT c.coupon_id, c.state, c.gid, b.gid, b.branch_id, b.status, b.type_url, b.reserved \
             FROM (SELECT coupon_id, state, gid FROM coupons WHERE coupon_id > ? AND state <> 1 ORDER BY coupon_id LIMIT ?) c \
             LEFT JOIN tcc_branches b ON b.gid = c.gid ORDER BY c.coupon_id, b.branch_id";
        let found = database.all(SQL, &[Value::Text(&after), Value::Int(config.page_size.into())]).await?;
        let mut page: Vec<(Coupon, Vec<Reserving<String>>)> = Vec::new();
        for row in &found {
            let coupon = coupon_of(database, row)?;
            if page.last().is_none_or(|(last, _)| last.coupon_id != coupon.coupon_id) {
                page.push((coupon, Vec::new()));
            }
            if let (Some((_, rows)), true) = (page.last_mut(), database.maybe_text(row, 3)?.is_some()) {
                rows.extend(reserving(database, row, 3)?);
            }
        }
        checked.resources += page.len() as u64;
        checked.add(page.iter().filter_map(|(coupon, rows)| compare_coupon(name.as_str(), coupon, rows)), config);
        match page.pop() {
            Some((last, _)) if page.len() + 1 >= config.page_size as usize => after = last.coupon_id,
            _ => return Ok(()),
        }
    }
}

/// A branch that locks coupons; others may share the database.
fn reserving(database: &Database, row: &AnyRow, from: usize) -> Result<Option<Reserving<String>>, Error> {
    if !is_of(database, row, from + 3, &LockCoupon::full_name())? {
        return Ok(None);
    }
    let (gid, branch, status) = key_of(database, row, from)?;
    let reserved = LockedCoupon::decode(&database.bytes(row, from + 4)?[..]);
    let reserved = reserved.map_err(|_| database.damaged(format!("what {gid}/{branch} reserved")))?.coupon_id;
    Ok(Some(Reserving { gid, branch, status, reserved }))
}

fn coupon_of(database: &Database, row: &AnyRow) -> Result<Coupon, Error> {
    let state = i32::try_from(database.int(row, 1)?).ok().and_then(|state| CouponState::try_from(state).ok());
    let state = state.ok_or_else(|| database.damaged("a coupon's state"))?;
    Ok(Coupon { coupon_id: database.text(row, 0)?, state, gid: database.maybe_text(row, 2)? })
}

#[cfg(test)]
mod tests {
    use tcc_types::{BranchId, Gid, Timestamp};

    use super::*;

    fn gid() -> Gid {
        Gid::first_of(Timestamp::from_millis(1_790_000_000_000))
    }

    fn row(status: BranchRowStatus, coupon_id: &str) -> Reserving<String> {
        Reserving { gid: gid(), branch: BranchId::new("coupon").unwrap(), status, reserved: coupon_id.to_owned() }
    }

    fn coupon(state: CouponState, gid: Option<Gid>) -> Coupon {
        Coupon { coupon_id: "c-1".to_owned(), state, gid: gid.map(|gid| gid.to_string()) }
    }

    #[test]
    fn a_branch_wants_its_coupon_locked_or_used_by_it() {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        use CouponState::{Issued, Locked, Used};
        let other = Gid::first_of(Timestamp::from_millis(1_790_000_000_001));
        let cases = [
            (Tried, Some((Locked, Some(gid()))), true),
            (Tried, Some((Locked, Some(other))), false),
            (Tried, Some((Used, Some(gid()))), false),
            (Tried, Some((Issued, None)), false),
            (Tried, None, false),
            (Confirmed, Some((Used, Some(gid()))), true),
            (Confirmed, Some((Used, Some(other))), false),
            (Confirmed, Some((Locked, Some(gid()))), false),
            (Confirmed, Some((Issued, None)), false),
            (Cancelled, Some((Issued, None)), true),
            (Refused, Some((Used, Some(other))), true),
        ];
        for (status, stored, agrees) in cases {
            let stored = stored.map(|(state, gid)| coupon(state, gid));
            let found = compare_branch("coupon", &row(status, "c-1"), stored.as_ref());
            assert_eq!(found.is_none(), agrees, "{status:?}, {stored:?}: {found:?}");
        }
    }

    #[test]
    fn a_coupon_wants_the_branch_that_has_it() {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        use CouponState::{Issued, Locked, Used};
        let cases = [
            (Locked, vec![row(Tried, "c-1")], true),
            (Locked, vec![row(Refused, "c-1"), row(Tried, "c-1")], true),
            (Locked, vec![row(Tried, "c-2")], false),
            (Locked, vec![row(Cancelled, "c-1")], false),
            (Locked, Vec::new(), false),
            (Used, vec![row(Confirmed, "c-1")], true),
            (Used, Vec::new(), true),
            (Used, vec![row(Tried, "c-1")], false),
            (Used, vec![row(Cancelled, "c-1")], false),
        ];
        for (state, rows, agrees) in cases {
            let found = compare_coupon("coupon", &coupon(state, Some(gid())), &rows);
            assert_eq!(found.is_none(), agrees, "{state:?}, {rows:?}: {found:?}");
        }
        assert_eq!(compare_coupon("coupon", &coupon(Issued, None), &[]), None);
    }

    #[test]
    fn what_both_sides_see_is_told_in_the_same_words() {
        let (row, coupon) = (row(BranchRowStatus::Tried, "c-1"), coupon(CouponState::Used, Some(gid())));
        let found = compare_branch("coupon", &row, Some(&coupon));
        assert!(found.is_some());
        assert_eq!(found, compare_coupon("coupon", &coupon, &[row]));
    }
}
