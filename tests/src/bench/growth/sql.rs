//! The few words in which the three databases differ, for statements that make rows in bulk. Pure.

use crate::harness::Store;

/// Rows of one statement: four digits.
pub(crate) const CHUNK: u64 = 10_000;

/// One database's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect(pub(crate) Store);

impl Dialect {
    /// A number as so many hexadecimal digits.
    pub(crate) fn hex(self, number: &str, digits: u32) -> String {
        match self.0 {
            Store::Sqlite => format!("printf('%0{digits}x', {number})"),
            Store::Postgres => format!("lpad(to_hex(({number})::bigint), {digits}, '0')"),
            Store::Mysql => format!("LPAD(LOWER(HEX({number})), {digits}, '0')"),
        }
    }

    /// A number as so many decimal digits.
    pub(crate) fn decimal(self, number: &str, digits: u32) -> String {
        match self.0 {
            Store::Sqlite => format!("printf('%0{digits}d', {number})"),
            Store::Postgres => format!("lpad(({number})::text, {digits}, '0')"),
            Store::Mysql => format!("LPAD({number}, {digits}, '0')"),
        }
    }

    /// The hexadecimal digits of a text's bytes.
    pub(crate) fn hex_of_text(self, text: &str) -> String {
        match self.0 {
            Store::Sqlite => format!("hex({text})"),
            Store::Postgres => format!("encode(convert_to({text}, 'UTF8'), 'hex')"),
            Store::Mysql => format!("HEX({text})"),
        }
    }

    /// Bytes of hexadecimal digits.
    pub(crate) fn bytes(self, hex: &str) -> String {
        match self.0 {
            Store::Sqlite | Store::Mysql => format!("unhex({hex})"),
            Store::Postgres => format!("decode({hex}, 'hex')"),
        }
    }

    /// Texts one after another.
    pub(crate) fn concat(self, parts: &[String]) -> String {
        match self.0 {
            Store::Sqlite | Store::Postgres => format!("({})", parts.join(" || ")),
            Store::Mysql => format!("CONCAT({})", parts.join(", ")),
        }
    }

    /// A column whose name is a word of some database's own.
    pub(crate) fn column(self, name: &str) -> String {
        match self.0 {
            Store::Sqlite | Store::Postgres => format!("\"{name}\""),
            Store::Mysql => format!("`{name}`"),
        }
    }

    /// Inserts a row for each `n` from `first` up to `last`, at most [`CHUNK`], in the order of `n`.
    pub(crate) fn insert(self, table: &str, columns: &[(&str, String)], first: u64, last: u64) -> String {
        let names: Vec<String> = columns.iter().map(|(name, _)| self.column(name)).collect();
        let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
        let digits = "(SELECT 0 AS i UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 \
                      UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
        format!(
            "INSERT INTO {table} ({}) SELECT {} FROM (SELECT {first} + a.i + 10 * b.i + 100 * c.i + 1000 * d.i AS n \
             FROM {digits} AS a CROSS JOIN {digits} AS b CROSS JOIN {digits} AS c CROSS JOIN {digits} AS d) AS s \
             WHERE n < {last} ORDER BY n",
            names.join(", "),
            values.join(", ")
        )
    }
}

/// A message's bytes in which some texts stand for others: what stands between them, and which of them comes next.
pub(crate) fn split<'a>(bytes: &[u8], marks: &[(&str, &'a str)]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut at = 0;
    while at < bytes.len() {
        let Some((mark, meant)) = marks.iter().find(|(mark, _)| bytes[at..].starts_with(mark.as_bytes())) else {
            at += 1;
            continue;
        };
        parts.push(Part::Bytes(bytes[from..at].to_vec()));
        parts.push(Part::Text(meant));
        at += mark.len();
        from = at;
    }
    parts.push(Part::Bytes(bytes[from..].to_vec()));
    parts
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Bytes(Vec<u8>),
    /// An SQL expression of a text.
    Text(&'a str),
}

impl Dialect {
    /// The bytes of a message that was [`split`].
    pub(crate) fn message(self, parts: &[Part<'_>]) -> String {
        let hex: Vec<String> = parts
            .iter()
            .map(|part| match part {
                Part::Bytes(bytes) => {
                    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("'{digits}'")
                }
                Part::Text(text) => self.hex_of_text(text),
            })
            .collect();
        self.bytes(&self.concat(&hex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_split_at_what_stands_for_something_else() {
        let parts = split(b"\x01KEY\x02SKU\x03KEY", &[("KEY", "k"), ("SKU", "s")]);
        let bytes = |byte: &[u8]| Part::Bytes(byte.to_vec());
        assert_eq!(
            parts,
            [bytes(b"\x01"), Part::Text("k"), bytes(b"\x02"), Part::Text("s"), bytes(b"\x03"), Part::Text("k"), bytes(b"")]
        );
        let sql = Dialect(Store::Postgres).message(&split(b"\xffKEY", &[("KEY", "k")]));
        assert_eq!(sql, "decode(('ff' || encode(convert_to(k, 'UTF8'), 'hex') || ''), 'hex')");
    }
}
