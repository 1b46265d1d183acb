//! Orders against their own branches: they have the same status. An order's row stays when its branch's row has been deleted.

use prost::Name;
use tcc_proto::order::v1::PlaceOrder;
use tcc_types::{BranchId, BranchRowStatus, Gid, ParticipantName};

use super::{Checked, is_of};
use crate::{Config, Database, Error, Finding, Rule, Value};

/// An order's branch as its transaction calls it.
const BRANCH: &str = "order";

/// What is wrong between an order's status and its branch's, in the same snapshot. `None`: there is no such row.
#[must_use]
pub fn compare(
    participant: &str,
    gid: Gid,
    order: Option<BranchRowStatus>,
    branch: Option<BranchRowStatus>,
) -> Option<Finding> {
    use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
    let agrees = match (order, branch) {
        (Some(order), Some(branch)) => order == branch,
        // A terminal branch row is deleted in the end.
        (Some(order), None) => order != Tried,
        // A refused order has no row, nor one that was cancelled before its Try.
        (None, Some(Refused | Cancelled) | None) => true,
        (None, Some(Tried | Confirmed)) => false,
    };
    if agrees {
        return None;
    }
    let words = |status: Option<BranchRowStatus>| status.map_or_else(|| "not there".to_owned(), |status| format!("{status:?}"));
    let finding = Finding::new(Rule::OrderDiffers).of(gid).at(participant).resource(gid.to_string());
    let finding = BranchId::new(BRANCH).map(|branch| finding.clone().branch(&branch)).unwrap_or(finding);
    Some(finding.says(format!("the order is {}", words(order))).says(format!("its branch is {}", words(branch))))
}

/// Reads and compares, each page in one statement.
pub(super) async fn check(name: &ParticipantName, database: &mut Database, config: &Config) -> Result<Checked, Error> {
    /// From the orders to their branches.
    const ORDERS: &str = "SELECT o.order_id, o.status, b.status, b.type_url \
         FROM (SELECT order_id, status FROM orders WHERE order_id > ? ORDER BY order_id LIMIT ?) o \
         LEFT JOIN tcc_branches b ON b.gid = o.order_id AND b.branch_id = ? ORDER BY o.order_id";
    /// From the branches to their orders.
    const BRANCHES: &str = "SELECT b.gid, o.status, b.status, b.type_url \
         FROM (SELECT gid, status, type_url FROM tcc_branches WHERE gid > ? AND branch_id = ? ORDER BY gid LIMIT ?) b \
         LEFT JOIN orders o ON o.order_id = b.gid ORDER BY b.gid";
    let mut checked = Checked::default();
    let limit = Value::Int(config.page_size.into());
    for (sql, counts) in [(ORDERS, true), (BRANCHES, false)] {
        let mut after = String::new();
        loop {
            let (text, branch) = (Value::Text(&after), Value::Text(BRANCH));
            let values = if counts { [text, limit, branch] } else { [text, branch, limit] };
            let rows = database.all(sql, &values).await?;
            let mut last = None;
            for row in &rows {
                let id = database.text(row, 0)?;
                let gid = id.parse().map_err(|_| database.damaged("an order's id"))?;
                last = Some(id);
                let order = status(database, database.maybe_int(row, 1)?)?;
                let branch = status(database, database.maybe_int(row, 2)?)?;
                // An empty rollback has no type.
                let of_order = branch == Some(BranchRowStatus::Cancelled) || is_of(database, row, 3, &PlaceOrder::full_name())?;
                checked.add(compare(name.as_str(), gid, order, branch.filter(|_| of_order)), config);
            }
            if counts {
                checked.resources += rows.len() as u64;
            }
            match last {
                Some(last) if rows.len() >= config.page_size as usize => after = last,
                _ => break,
            }
        }
    }
    Ok(checked)
}

fn status(database: &Database, code: Option<i64>) -> Result<Option<BranchRowStatus>, Error> {
    let of = |code| BranchRowStatus::from_code(code).ok_or_else(|| database.damaged("an order's status"));
    code.map(of).transpose()
}

#[cfg(test)]
mod tests {
    use tcc_types::Timestamp;

    use super::*;

    #[test]
    fn an_order_and_its_branch_have_one_status() {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        let gid = Gid::first_of(Timestamp::from_millis(1_790_000_000_000));
        let all = [None, Some(Tried), Some(Refused), Some(Confirmed), Some(Cancelled)];
        let agreeing = [
            (None, None),
            (None, Some(Refused)),
            (None, Some(Cancelled)),
            (Some(Tried), Some(Tried)),
            (Some(Confirmed), Some(Confirmed)),
            (Some(Confirmed), None),
            (Some(Cancelled), Some(Cancelled)),
            (Some(Cancelled), None),
        ];
        // An order is never stored as refused.
        for order in all.into_iter().filter(|order| *order != Some(Refused)) {
            for branch in all {
                let found = compare("order", gid, order, branch);
                assert_eq!(found.is_none(), agreeing.contains(&(order, branch)), "{order:?}, {branch:?}: {found:?}");
            }
        }
    }
}
