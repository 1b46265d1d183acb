//! The ids of the framework, each a type of its own that can only hold a well-formed value.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::{Builder, Uuid, Variant, Version};

use crate::{Entropy, Invalid, Timestamp};

/// A global transaction's id: a UUIDv7, written as 36 lowercase hyphenated characters.
#[doc(alias = "xid")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gid(Uuid);

impl Gid {
    /// Makes a new one from the caller's clock and randomness.
    #[must_use]
    pub fn mint(now: Timestamp, entropy: &dyn Entropy) -> Self {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let high = entropy.next_u64().to_be_bytes();
        let low = entropy.next_u64().to_be_bytes();
        let random = [high[0], high[1], low[0], low[1], low[2], low[3], low[4], low[5], low[6], low[7]];
        Self(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The smallest that can be minted in this instant's millisecond: all gids below it are older. For bounds, never for a
    /// transaction.
    #[must_use]
    pub fn first_of(minted_at: Timestamp) -> Self {
        const MILLIS_MAX: u64 = (1 << 48) - 1;
        let millis = u64::try_from(minted_at.as_millis()).unwrap_or(0).min(MILLIS_MAX);
        Self(Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid())
    }

    /// When it was minted, by its minter's clock; to the millisecond.
    #[must_use]
    pub fn minted_at(self) -> Timestamp {
        let bytes = self.0.as_bytes();
        let millis = bytes[..6].iter().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
        Timestamp::from_millis(millis)
    }

    /// The sixteen bytes; their order is the order of minting.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From its sixteen bytes.
    ///
    /// # Errors
    /// They are no UUIDv7.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        match Uuid::from_slice(bytes) {
            Ok(uuid) if is_version_7(uuid) => Ok(Self(uuid)),
            _ => Err(Invalid::new("gid", "must be the 16 bytes of a UUIDv7")),
        }
    }
}

/// The version alone is not enough: only with the variant of RFC 9562 do those digits mean a version, and only then does no gid sort
/// before the first one of its millisecond.
fn is_version_7(uuid: Uuid) -> bool {
    uuid.get_variant() == Variant::RFC4122 && uuid.get_version() == Some(Version::SortRand)
}

impl FromStr for Gid {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let problem = "must be a UUIDv7 as 36 lowercase hyphenated characters";
        let canonical = text.len() == 36 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match Uuid::try_parse(text) {
            Ok(uuid) if canonical && is_version_7(uuid) => Ok(Self(uuid)),
            _ => Err(Invalid::new("gid", problem)),
        }
    }
}

impl TryFrom<String> for Gid {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Gid> for String {
    fn from(gid: Gid) -> Self {
        gid.to_string()
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a name may consist of.
#[derive(Clone, Copy)]
struct Alphabet {
    field: &'static str,
    length_max: usize,
    allowed: fn(u8) -> bool,
    problem: &'static str,
}

impl Alphabet {
    fn check(self, text: &str) -> Result<(), Invalid> {
        let fits = !text.is_empty() && text.len() <= self.length_max && text.bytes().all(self.allowed);
        if fits { Ok(()) } else { Err(Invalid::new(self.field, self.problem)) }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

// Short ones are kept in place and long ones are shared: they are cloned for every message and every view.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $alphabet:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks and wraps it.
            ///
            /// # Errors
            /// It is empty, too long, or has a character that is not allowed.
            pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
                let text = text.as_ref();
                $alphabet.check(text)?;
                Ok(Self(text.into()))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

const fn name_of(field: &'static str) -> Alphabet {
    Alphabet { field, length_max: 64, allowed: is_name_byte, problem: "must be 1 to 64 of [A-Za-z0-9._-]" }
}

/// Checks a name that is the business's own (a SKU, a user) by the rule that the framework's names follow: 1 to 64 of
/// `[A-Za-z0-9._-]`.
///
/// # Errors
/// It is empty, too long, or has a character that is not allowed; `field` is named.
pub fn check_name(field: &str, text: &str) -> Result<(), Invalid> {
    name_of("name").check(text).map_err(|bad| Invalid::new(field, bad.problem))
}

text_id!(
    /// A branch's id, unique within its transaction and chosen by the initiator: 1 to 64 of `[A-Za-z0-9._-]`.
    BranchId,
    name_of("branch_id")
);
text_id!(
    /// A participant's name in the coordinator's configuration: 1 to 64 of `[A-Za-z0-9._-]`.
    ParticipantName,
    name_of("participant")
);
text_id!(
    /// Who asks for a transaction: 1 to 64 of `[A-Za-z0-9._-]`.
    Initiator,
    name_of("initiator")
);
text_id!(
    /// The configured name of a transaction log, which participants keep to know whom to ask: 1 to 64 of `[A-Za-z0-9._-]`.
    LogName,
    name_of("coordinator")
);
text_id!(
    /// What makes a repeated request the same request: 1 to 128 printable ASCII characters without spaces.
    IdempotencyKey,
    Alphabet {
        field: "idempotency_key",
        length_max: 128,
        allowed: |byte| byte.is_ascii_graphic(),
        problem: "must be 1 to 128 printable ASCII characters without spaces",
    }
);

/// What names one branch everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchKey {
    /// Its transaction.
    pub gid: Gid,
    /// Its id within the transaction.
    pub branch: BranchId,
}

impl fmt::Display for BranchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gid, self.branch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn a_minted_gid_reads_back_and_knows_its_time() {
        let now = Timestamp::from_millis(1_790_000_000_123);
        let gid = Gid::mint(now, &SystemEntropy);
        assert_eq!(gid.to_string().parse::<Gid>(), Ok(gid));
        assert_eq!(Gid::from_bytes(gid.as_bytes()), Ok(gid));
        assert_eq!(gid.minted_at(), now);
    }

    #[test]
    fn the_first_gid_of_a_millisecond_bounds_what_is_older() {
        let at = Timestamp::from_millis(1_790_000_000_123);
        let first = Gid::first_of(at);
        assert_eq!((first.minted_at(), first.to_string().parse::<Gid>()), (at, Ok(first)));
        for _ in 0..100 {
            assert!(first <= Gid::mint(at, &SystemEntropy));
            assert!(first > Gid::mint(Timestamp::from_millis(1_790_000_000_122), &SystemEntropy));
        }
        assert_eq!(Gid::first_of(Timestamp::from_micros(-1)), Gid::first_of(Timestamp::EPOCH));
        assert!(Gid::first_of(Timestamp::MAX) < Gid::first_of(Timestamp::from_micros(i64::MAX)));
    }

    #[test]
    fn a_gid_in_any_other_form_is_refused() {
        let gid = Gid::mint(Timestamp::from_millis(1_790_000_000_123), &SystemEntropy).to_string();
        let bad = [
            String::new(),
            gid.to_uppercase(),
            gid.replace('-', ""),
            format!("{{{gid}}}"),
            format!("urn:uuid:{gid}"),
            "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned(), // version 4
            "00000000-0000-7000-0000-000000000000".to_owned(), // another variant
            "00000000-0000-7000-c000-000000000000".to_owned(),
        ];
        for text in bad {
            assert!(text.parse::<Gid>().is_err(), "{text}");
            let bytes = Uuid::try_parse(&text).ok().filter(|_| text != text.to_uppercase() && text.len() == 36);
            assert!(bytes.is_none_or(|uuid| Gid::from_bytes(uuid.as_bytes()).is_err()), "{text}");
        }
    }

    #[test]
    fn names_are_bounded_in_length_and_alphabet() {
        assert!(BranchId::new("stock-1.a_B").is_ok());
        for bad in ["", "a b", "ü", "a/b", &"x".repeat(65)] {
            assert_eq!(BranchId::new(bad).map_err(|error| error.field), Err("branch_id".to_owned()), "{bad}");
        }
        assert!(IdempotencyKey::new("order:42/a").is_ok());
        assert!(IdempotencyKey::new("with space").is_err());
        assert!(IdempotencyKey::new("x".repeat(129)).is_err());
    }
}
