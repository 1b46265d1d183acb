//! What all targets begin with: well-formed ids, instants and payloads that never change, and the rules of the contract once more, in the
//! simplest words, to compare the production code with.

use std::borrow::Cow;

use prost::Message;
use prost_types::{Any, Timestamp as ProtoTimestamp};
use tcc_fuzz::Outcome;
use tcc_types::{BranchId, BranchKey, Clock, Entropy, Gid, Invalid, Timestamp};

/// What every clock says.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// What must not be told to anybody.
pub(crate) const SECRET: &str = "s3cr3t";

/// A clock that stands still, so that a kept input always means the same.
pub(crate) struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// The same bits for ever.
pub(crate) struct Fixed(pub(crate) u64);

impl Entropy for Fixed {
    fn next_u64(&self) -> u64 {
        self.0
    }
}

/// One of some gids that were minted just now.
pub(crate) fn gid(number: u64) -> Gid {
    Gid::mint(NOW, &Fixed(number))
}

pub(crate) fn key(number: u64, branch: &str) -> BranchKey {
    BranchKey { gid: gid(number), branch: BranchId::new(branch).unwrap() }
}

/// So many seconds from now.
pub(crate) fn at(seconds: i64) -> Option<ProtoTimestamp> {
    Some(ProtoTimestamp { seconds: NOW.as_micros() / 1_000_000 + seconds, nanos: 1_000 })
}

pub(crate) fn any(type_url: &str, message: &impl Message) -> Option<Any> {
    Some(Any { type_url: type_url.to_owned(), value: message.encode_to_vec() })
}

/// An input that says which message it is.
pub(crate) fn tagged(tag: u8, message: &impl Message) -> Vec<u8> {
    let mut input = vec![tag];
    message.encode(&mut input).unwrap();
    input
}

/// `lines[12].sku` as `lines[].sku`, and no longer than names are.
pub(crate) fn plain(field: &str) -> String {
    let mut inside = false;
    let kept = |letter: char| {
        inside = match letter {
            '[' => true,
            ']' => false,
            _ if inside => return None,
            _ => false,
        };
        Some(letter)
    };
    field.chars().filter_map(kept).take(64).collect()
}

pub(crate) const ACCEPTED: Outcome = Cow::Borrowed("accepted");

/// What is refused for a field of these.
pub(crate) fn refused(bad: &Invalid, fields: &[&str]) -> Outcome {
    let field = plain(&bad.field);
    assert!(fields.contains(&field.as_str()), "{bad} is about no field of {fields:?}");
    assert!(!bad.problem.is_empty() && !bad.problem.contains(SECRET), "{bad}");
    format!("refused {field}").into()
}

/// A name of the framework: 1 to 64 of `[A-Za-z0-9._-]`.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
    (1..=64).contains(&text.chars().count()) && text.chars().all(allowed)
}

/// A key: 1 to 128 printable ASCII characters without spaces.
pub(crate) fn is_key(text: &str) -> bool {
    (1..=128).contains(&text.chars().count()) && text.chars().all(|letter| ('!'..='~').contains(&letter))
}

/// A gid: a UUIDv7 as 36 lowercase hyphenated characters.
pub(crate) fn is_gid(text: &str) -> bool {
    let right = |(place, letter): (usize, char)| match place {
        8 | 13 | 18 | 23 => letter == '-',
        14 => letter == '7',
        // The variant of RFC 9562.
        19 => "89ab".contains(letter),
        _ => letter.is_ascii_digit() || ('a'..='f').contains(&letter),
    };
    text.len() == 36 && text.chars().count() == 36 && text.chars().enumerate().all(right)
}

/// An instant from 1970 to 9999.
pub(crate) fn is_instant(instant: &ProtoTimestamp) -> bool {
    (0..=253_402_300_799).contains(&instant.seconds) && (0..=999_999_999).contains(&instant.nanos)
}

/// In whole microseconds.
pub(crate) fn micros(instant: &ProtoTimestamp) -> i64 {
    instant.seconds.saturating_mul(1_000_000).saturating_add(i64::from(instant.nanos / 1_000))
}

/// A payload that says what it is.
pub(crate) fn is_typed(payload: &Any) -> bool {
    (1..=512).contains(&payload.type_url.len()) && !payload.type_url.chars().any(char::is_control)
}
