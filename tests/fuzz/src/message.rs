//! Protobuf messages as trees of fields, whatever their type: so that changes hit fields, not only bytes, and deep ones as likely as
//! others. What is no message is left to changes of its bytes.

use crate::{Program, text};

/// No message is looked into any deeper.
const DEPTH_MAX: u8 = 8;

/// Numbers at the edges of what fields may be.
const NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    63,
    64,
    65,
    500,
    501,
    999_999_999,
    1_000_000_000,
    1_000_000_001,
    253_402_300_799,
    253_402_300_800,
    i32::MAX as u64,
    u32::MAX as u64,
    1_000_000_000_000_000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Lengths at the edges of what texts may have.
const LENGTHS: [usize; 10] = [1, 63, 64, 65, 128, 129, 512, 513, 1_025, 16_384];

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

#[derive(Clone, Debug, PartialEq)]
struct Field {
    number: u64,
    value: Value,
}

/// One to three changes of fields, and now and then of bytes.
pub(crate) fn mutate(bytes: &mut Vec<u8>, words: &[&str], others: &[Vec<u8>], program: &mut Program<'_>) {
    let Some(mut fields) = parse(bytes, DEPTH_MAX) else { return text::mutate(bytes, words, others, program) };
    let other = program.one_of(others).and_then(|other| parse(other, DEPTH_MAX)).unwrap_or_default();
    let mut tree = Tree { words, program, multiplied: false };
    for _ in 0..=tree.program.below(3) {
        tree.change(&mut fields, &other);
    }
    bytes.clear();
    encode(&fields, bytes);
    if program.once_in(16) {
        text::mutate(bytes, words, others, program);
    }
    if bytes.len() > 16 * text::BYTES_MAX {
        bytes.truncate(text::BYTES_MAX);
    }
}

struct Tree<'t, 'p> {
    words: &'t [&'t str],
    program: &'t mut Program<'p>,
    /// Once for each input: what is multiplied again, and again within itself, would not end.
    multiplied: bool,
}

impl Tree<'_, '_> {
    /// Somewhere below. `other` is the same place of another message.
    fn change(&mut self, fields: &mut Vec<Field>, other: &[Field]) {
        let place = self.program.below(fields.len());
        let action = self.program.byte() % 16;
        let Some(field) = fields.get_mut(place) else {
            let number = self.program.below(9) as u64;
            let value = self.value(None);
            return fields.push(Field { number, value });
        };
        if let Value::Message(inner) = &mut field.value
            && action < 11
        {
            let same = other.iter().find(|one| one.number == field.number);
            let there = same.map_or(&[][..], |one| if let Value::Message(inner) = &one.value { inner } else { &[] });
            return self.change(inner, there);
        }
        match action {
            11 => drop(fields.remove(place)),
            12 => {
                let again = field.clone();
                // Mostly one more; sometimes more than any list may have.
                let multiply = self.program.once_in(4) && !self.multiplied;
                self.multiplied |= multiply;
                let many = if multiply { 1_100 } else { 1 + self.program.below(3) };
                let at = self.program.below(fields.len() + 1);
                fields.splice(at..at, std::iter::repeat_n(again, many));
            }
            13 => {
                let with = self.program.below(fields.len());
                fields.swap(place, with);
            }
            14 => field.number = 1 + self.program.below(10) as u64,
            15 => fields.extend(self.program.one_of(other).cloned()),
            _ => field.value = self.value(Some(&field.value.clone())),
        }
    }

    fn value(&mut self, before: Option<&Value>) -> Value {
        match before {
            Some(Value::Bytes(bytes)) => Value::Bytes(self.text(bytes)),
            Some(Value::Message(_)) | None if self.program.once_in(2) => {
                Value::Bytes(text::word(self.words, self.program).to_vec())
            }
            Some(Value::Message(_)) => Value::Message(Vec::new()),
            Some(Value::Fixed64(_)) => Value::Fixed64(self.program.number().to_le_bytes()),
            Some(Value::Fixed32(_)) => Value::Fixed32([0; 4].map(|_| self.program.byte())),
            Some(Value::Varint(before)) => match self.program.byte() % 8 {
                0 => Value::Varint(before.wrapping_add(1)),
                1 => Value::Varint(before.wrapping_sub(1)),
                2 => Value::Varint(self.program.number()),
                3 => Value::Varint(u64::from(self.program.byte())),
                _ => Value::Varint(self.program.one_of(&NUMBERS).copied().unwrap_or_default()),
            },
            None => Value::Varint(self.program.number()),
        }
    }

    fn text(&mut self, before: &[u8]) -> Vec<u8> {
        match self.program.byte() % 8 {
            0..4 => text::word(self.words, self.program).to_vec(),
            4 => vec![b'x'; self.program.one_of(&LENGTHS).copied().unwrap_or_default()],
            5 => before.iter().map(u8::to_ascii_uppercase).collect(),
            _ => {
                let mut bytes = before.to_vec();
                text::mutate(&mut bytes, self.words, &[], self.program);
                bytes
            }
        }
    }
}

/// `None`: these are no fields.
fn parse(mut bytes: &[u8], depth: u8) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = tag >> 3;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(take(&mut bytes, 8)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let content = take(&mut bytes, length)?;
                match parse(content, depth.checked_sub(1)?) {
                    // What can be read as text is a text.
                    Some(inner) if !content.iter().all(|byte| (0x20..0x7f).contains(byte)) => Value::Message(inner),
                    _ => Value::Bytes(content.to_vec()),
                }
            }
            5 => Value::Fixed32(take(&mut bytes, 4)?.try_into().ok()?),
            _ => return None,
        };
        // Far more than any message here has.
        if !(1..=64).contains(&number) {
            return None;
        }
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn encode(fields: &[Field], out: &mut Vec<u8>) {
    for Field { number, value } in fields {
        match value {
            Value::Varint(value) => {
                put(number << 3, out);
                put(*value, out);
            }
            Value::Fixed64(value) => {
                put(number << 3 | 1, out);
                out.extend(value);
            }
            Value::Fixed32(value) => {
                put(number << 3 | 5, out);
                out.extend(value);
            }
            Value::Bytes(content) => {
                put(number << 3 | 2, out);
                put(content.len() as u64, out);
                out.extend(content);
            }
            Value::Message(inner) => {
                let mut content = Vec::new();
                encode(inner, &mut content);
                put(number << 3 | 2, out);
                put(content.len() as u64, out);
                out.extend(content);
            }
        }
    }
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_field_by_field() {
        // Field 1: "ab", field 2: 300, field 3: {field 1: 5}.
        let bytes = [0x0a, 2, b'a', b'b', 0x10, 0xac, 2, 0x1a, 2, 8, 5];
        let fields = parse(&bytes, DEPTH_MAX).unwrap();
        let inner = Field { number: 1, value: Value::Varint(5) };
        assert_eq!(fields[0], Field { number: 1, value: Value::Bytes(b"ab".to_vec()) });
        assert_eq!(fields[1], Field { number: 2, value: Value::Varint(300) });
        assert_eq!(fields[2], Field { number: 3, value: Value::Message(vec![inner]) });
        let mut again = Vec::new();
        encode(&fields, &mut again);
        assert_eq!(again, bytes);
    }

    #[test]
    fn any_program_changes_a_message_into_something() {
        let base = vec![0x0a, 2, b'a', b'b', 0x10, 0xac, 2, 0x1a, 2, 8, 5];
        let others = [base.clone()];
        let mut made = std::collections::HashSet::new();
        for seed in 0..2_000_u32 {
            let program: Vec<u8> =
                (0..8_u32).flat_map(|at| (seed ^ at << 16).wrapping_mul(0x9e37_79b9).to_be_bytes()).collect();
            let mut bytes = base.clone();
            mutate(&mut bytes, &["word"], &others, &mut Program::new(&program));
            made.insert(bytes);
        }
        assert!(made.len() > 200, "{}", made.len());
    }
}
