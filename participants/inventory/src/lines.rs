//! What an order asks for: lines that can only hold a well-formed request. Pure.

use tcc_types::{Invalid, check_name};

/// Most lines of one order.
pub const LINES_MAX: usize = 100;
/// Most pieces of one line or of one delivery.
pub const QUANTITY_MAX: i64 = 1_000_000_000;
/// Most pieces of one SKU ever. Far below what 64 bits hold, so that no sum of them overflows. The database checks it too.
pub const STOCK_MAX: i64 = 1_000_000_000_000_000;

/// Some pieces of one SKU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    sku: String,
    quantity: i64,
}

impl Line {
    /// Checks and makes one.
    ///
    /// # Errors
    /// Every field that is wrong: `sku`, `quantity`.
    pub fn new(sku: impl Into<String>, quantity: i64) -> Result<Self, Vec<Invalid>> {
        let sku = sku.into();
        let mut bad: Vec<Invalid> = check_name("sku", &sku).err().into_iter().collect();
        if !(1..=QUANTITY_MAX).contains(&quantity) {
            bad.push(Invalid::new("quantity", format_args!("must be 1 to {QUANTITY_MAX}")));
        }
        if bad.is_empty() { Ok(Self { sku, quantity }) } else { Err(bad) }
    }

    /// Of which.
    #[must_use]
    pub fn sku(&self) -> &str {
        &self.sku
    }

    /// How many: 1 to [`QUANTITY_MAX`].
    #[must_use]
    pub fn quantity(&self) -> i64 {
        self.quantity
    }
}

/// The lines of one order: 1 to [`LINES_MAX`], each SKU once, in SKU order.
///
/// The order is a promise to the database: whoever takes several rows takes them in this order, so that no two orders wait for
/// each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

impl Lines {
    /// Checks and sorts them.
    ///
    /// # Errors
    /// Every field that is wrong, by its place in the request: `lines`, `lines[2].sku`, `lines[2].quantity`.
    pub fn new(lines: impl IntoIterator<Item = (String, i64)>) -> Result<Self, Vec<Invalid>> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        let mut count = 0;
        for (index, (sku, quantity)) in lines.into_iter().enumerate() {
            count = index + 1;
            if count > LINES_MAX {
                break;
            }
            let place = format!("lines[{index}]");
            match Line::new(sku, quantity) {
                Ok(line) => good.push((index, line)),
                Err(fields) => bad.extend(fields.into_iter().map(|field| field.within(&place))),
            }
        }
        if count == 0 || count > LINES_MAX {
            bad.push(Invalid::new("lines", format_args!("must be 1 to {LINES_MAX} lines")));
        }
        good.sort_by(|(one_index, one), (other_index, other)| (&one.sku, one_index).cmp(&(&other.sku, other_index)));
        for pair in good.windows(2) {
            let ((_, first), (index, second)) = (&pair[0], &pair[1]);
            if first.sku == second.sku {
                bad.push(Invalid::new(format!("lines[{index}].sku"), "is there already: each sku at most once"));
            }
        }
        if bad.is_empty() { Ok(Self(good.into_iter().map(|(_, line)| line).collect())) } else { Err(bad) }
    }

    /// In SKU order.
    pub fn iter(&self) -> std::slice::Iter<'_, Line> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Lines {
    type Item = &'a Line;
    type IntoIter = std::slice::Iter<'a, Line>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(wanted: &[(&str, i64)]) -> Result<Lines, Vec<String>> {
        let wanted = wanted.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity));
        Lines::new(wanted).map_err(|bad| bad.into_iter().map(|bad| bad.field).collect())
    }

    #[test]
    fn lines_come_out_in_sku_order() {
        let skus: Vec<_> = lines(&[("b", 1), ("a", 2), ("B", 3)]).unwrap().iter().map(|line| line.sku().to_owned()).collect();
        assert_eq!(skus, ["B", "a", "b"]);
    }

    #[test]
    fn every_bad_field_is_named_by_its_place() {
        assert_eq!(lines(&[]), Err(vec!["lines".to_owned()]));
        assert_eq!(
            lines(&[("a", 1), ("no good", 0), ("b", QUANTITY_MAX + 1), ("c", -1), ("d", i64::MIN)]).unwrap_err(),
            ["lines[1].sku", "lines[1].quantity", "lines[2].quantity", "lines[3].quantity", "lines[4].quantity"]
        );
        assert_eq!(lines(&[("b", 1), ("a", 1), ("b", 1), ("b", 2)]).unwrap_err(), ["lines[2].sku", "lines[3].sku"]);
    }

    #[test]
    fn the_number_of_lines_has_a_limit() {
        let many = |count: usize| Lines::new((0..count).map(|index| (format!("s{index}"), 1)));
        assert_eq!(many(LINES_MAX).unwrap().iter().count(), LINES_MAX);
        assert_eq!(many(LINES_MAX + 1).unwrap_err()[0].field, "lines");
    }
}
