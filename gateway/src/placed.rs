//! What was ordered, as a value that can only hold a well-formed order. Pure; the same checks for a caller's request and for the
//! payload of an order's branch.

use tcc_types::{IdempotencyKey, Initiator, Invalid, check_name};

/// Most lines of one order.
pub const LINES_MAX: usize = 100;
/// Most pieces of one line.
pub const QUANTITY_MAX: i64 = 1_000_000_000;

/// Some pieces of one SKU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Of which.
    pub sku: String,
    /// How many: 1 to [`QUANTITY_MAX`].
    pub quantity: i64,
}

/// An order's fields as they came, unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The caller's key.
    pub order_key: String,
    /// Who asks.
    pub initiator: String,
    /// Who orders.
    pub user_id: String,
    /// What.
    pub lines: Vec<Line>,
    /// Empty: none.
    pub coupon_id: String,
    /// Reserve now, decide later.
    pub hold: bool,
}

/// What was ordered: the facts that never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    order_key: IdempotencyKey,
    initiator: Initiator,
    user_id: String,
    lines: Vec<Line>,
    coupon_id: Option<String>,
    hold: bool,
}

impl Placed {
    /// Checks a draft, and sorts its lines: their order is no part of an order's identity.
    ///
    /// # Errors
    /// Every field that is wrong, by its place in the request: `order_key`, `lines[2].sku`, ...
    pub fn new(draft: Draft) -> Result<Self, Vec<Invalid>> {
        let mut bad = Vec::new();
        let order_key = IdempotencyKey::new(draft.order_key).map_err(|error| Invalid::new("order_key", error.problem));
        let order_key = order_key.map_err(|error| bad.push(error)).ok();
        bad.extend(check_name("user_id", &draft.user_id).err());
        let lines = checked_lines(draft.lines, &mut bad);
        let coupon_id = Some(draft.coupon_id).filter(|coupon_id| !coupon_id.is_empty());
        bad.extend(coupon_id.as_ref().and_then(|coupon_id| check_name("coupon_id", coupon_id).err()));
        let initiator = Initiator::new(draft.initiator).map_err(|error| bad.push(error)).ok();
        match (order_key, initiator) {
            (Some(order_key), Some(initiator)) if bad.is_empty() => {
                Ok(Self { order_key, initiator, user_id: draft.user_id, lines, coupon_id, hold: draft.hold })
            }
            _ => Err(bad),
        }
    }

    /// The caller's key.
    #[must_use]
    pub const fn order_key(&self) -> &IdempotencyKey {
        &self.order_key
    }

    /// Who asked, and whose key it is.
    #[must_use]
    pub const fn initiator(&self) -> &Initiator {
        &self.initiator
    }

    /// Who ordered.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// 1 to [`LINES_MAX`], each SKU once, in SKU order.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The coupon, if one is to be used.
    #[must_use]
    pub fn coupon_id(&self) -> Option<&str> {
        self.coupon_id.as_deref()
    }

    /// Whether it is reserved first and decided on request.
    #[must_use]
    pub const fn hold(&self) -> bool {
        self.hold
    }
}

/// In SKU order, if nothing is wrong with them.
fn checked_lines(lines: Vec<Line>, bad: &mut Vec<Invalid>) -> Vec<Line> {
    if lines.is_empty() || lines.len() > LINES_MAX {
        bad.push(Invalid::new("lines", format_args!("must be 1 to {LINES_MAX} lines")));
    }
    let mut indexed: Vec<(usize, Line)> = lines.into_iter().take(LINES_MAX).enumerate().collect();
    for (index, line) in &indexed {
        bad.extend(check_name("sku", &line.sku).err().map(|error| error.within(&format!("lines[{index}]"))));
        if !(1..=QUANTITY_MAX).contains(&line.quantity) {
            bad.push(Invalid::new(format!("lines[{index}].quantity"), format_args!("must be 1 to {QUANTITY_MAX}")));
        }
    }
    // Equal SKUs keep the request's order, so that the later one is named.
    indexed.sort_by(|(_, one), (_, other)| one.sku.cmp(&other.sku));
    for pair in indexed.windows(2) {
        let ((_, first), (index, second)) = (&pair[0], &pair[1]);
        if first.sku == second.sku {
            bad.push(Invalid::new(format!("lines[{index}].sku"), "is there already: each sku at most once"));
        }
    }
    indexed.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str, quantity: i64) -> Line {
        Line { sku: sku.to_owned(), quantity }
    }

    fn good() -> Draft {
        Draft {
            order_key: "order:1/a".to_owned(),
            initiator: "shop".to_owned(),
            user_id: "ann".to_owned(),
            lines: vec![line("pear", 2), line("apple", 1)],
            ..Draft::default()
        }
    }

    fn bad_fields(draft: Draft) -> Vec<String> {
        Placed::new(draft).map_or_else(|bad| bad.into_iter().map(|one| one.field).collect(), |_| Vec::new())
    }

    #[test]
    fn lines_are_kept_in_sku_order_whatever_order_they_came_in() {
        let placed = Placed::new(good()).unwrap();
        assert_eq!(placed.lines(), [line("apple", 1), line("pear", 2)]);
        let turned = Draft { lines: vec![line("apple", 1), line("pear", 2)], ..good() };
        assert_eq!(Placed::new(turned), Ok(placed));
    }

    #[test]
    fn an_empty_coupon_is_none() {
        assert_eq!(Placed::new(good()).unwrap().coupon_id(), None);
        let with = Placed::new(Draft { coupon_id: "c-1".to_owned(), ..good() }).unwrap();
        assert_eq!(with.coupon_id(), Some("c-1"));
    }

    #[test]
    fn each_bad_field_is_named() {
        let long = "x".repeat(65);
        let with_lines = |lines: Vec<Line>| Draft { lines, ..good() };
        let many = |count: usize| (0..count).map(|number| line(&format!("s{number}"), 1)).collect::<Vec<_>>();
        let cases: Vec<(Draft, &[&str])> = vec![
            (good(), &[]),
            (Draft { order_key: String::new(), ..good() }, &["order_key"]),
            (Draft { order_key: "a b".to_owned(), ..good() }, &["order_key"]),
            (Draft { order_key: "ä".to_owned(), ..good() }, &["order_key"]),
            (Draft { order_key: "x".repeat(128), ..good() }, &[]),
            (Draft { order_key: "x".repeat(129), ..good() }, &["order_key"]),
            (Draft { user_id: String::new(), ..good() }, &["user_id"]),
            (Draft { user_id: "a/b".to_owned(), ..good() }, &["user_id"]),
            (Draft { user_id: long.clone(), ..good() }, &["user_id"]),
            (Draft { coupon_id: "a b".to_owned(), ..good() }, &["coupon_id"]),
            (Draft { coupon_id: long.clone(), ..good() }, &["coupon_id"]),
            (Draft { initiator: String::new(), ..good() }, &["initiator"]),
            (Draft { initiator: "a b".to_owned(), ..good() }, &["initiator"]),
            (with_lines(vec![]), &["lines"]),
            (with_lines(many(100)), &[]),
            (with_lines(many(101)), &["lines"]),
            (with_lines(vec![line("", 1)]), &["lines[0].sku"]),
            (with_lines(vec![line("apple", 1), line("a b", 1)]), &["lines[1].sku"]),
            (with_lines(vec![line(&long, 1)]), &["lines[0].sku"]),
            (with_lines(vec![line("apple", 0)]), &["lines[0].quantity"]),
            (with_lines(vec![line("apple", -1)]), &["lines[0].quantity"]),
            (with_lines(vec![line("apple", i64::MIN)]), &["lines[0].quantity"]),
            (with_lines(vec![line("apple", QUANTITY_MAX)]), &[]),
            (with_lines(vec![line("apple", QUANTITY_MAX + 1)]), &["lines[0].quantity"]),
            (with_lines(vec![line("apple", i64::MAX)]), &["lines[0].quantity"]),
            (with_lines(vec![line("b", 1), line("a", 1), line("b", 2)]), &["lines[2].sku"]),
        ];
        for (draft, fields) in cases {
            assert_eq!(bad_fields(draft.clone()), fields, "{draft:?}");
        }
    }

    #[test]
    fn all_bad_fields_are_named_at_once() {
        let draft = Draft {
            order_key: "a b".to_owned(),
            initiator: "a b".to_owned(),
            user_id: String::new(),
            lines: vec![line("a b", 0), line("pear", 1), line("pear", 1)],
            coupon_id: "a b".to_owned(),
            hold: false,
        };
        let all = ["order_key", "user_id", "lines[0].sku", "lines[0].quantity", "lines[2].sku", "coupon_id", "initiator"];
        assert_eq!(bad_fields(draft), all);
    }
}
