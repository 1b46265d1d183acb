//! Typed bytes, and the fingerprint that tells whether two requests are the same.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A typed message as bytes: what `google.protobuf.Any` carries on the wire.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload {
    /// What the bytes are (`type.googleapis.com/inventory.v1.ReserveStock`).
    pub type_url: String,
    /// The encoded message.
    pub value: Bytes,
}

impl Payload {
    /// Type URL and bytes together, as limits count them.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.type_url.len() + self.value.len()
    }

    /// The identity of the request that it carries: its type and its exact bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        FingerprintBuilder::new("payload").text(&self.type_url).bytes(&self.value).finish()
    }
}

// Payloads are business data: they never reach a log through a derived `Debug`.
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({}, {} bytes)", self.type_url, self.value.len())
    }
}

/// A SHA-256 over the parts of a request that make it the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// From its stored bytes; `None` unless they are 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// For storing.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Gathers parts, each with its length, so that no two different requests gather to the same bytes.
pub struct FingerprintBuilder(Sha256);

impl FingerprintBuilder {
    /// Starts one; `kind` keeps different kinds of requests apart.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).text(kind)
    }

    /// Adds text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// The fingerprint of all that was added.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let one = FingerprintBuilder::new("t").text("ab").text("c").finish();
        let other = FingerprintBuilder::new("t").text("a").text("bc").finish();
        assert_ne!(one, other);
        assert_eq!(one, FingerprintBuilder::new("t").text("ab").text("c").finish());
    }

    #[test]
    fn debug_shows_no_payload_bytes() {
        let payload = Payload { type_url: "t".to_owned(), value: Bytes::from_static(b"secret") };
        assert_eq!(format!("{payload:?}"), "Payload(t, 6 bytes)");
    }
}
