//! Paging that all lists share: how large a page is, and tokens that say where the next one starts.
//!
//! A token is opaque to clients. It carries the fingerprint of the list and its filter, so that one from another list, or from
//! the same list with another filter, is told apart instead of giving a wrong page. It is no secret and grants nothing.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tcc_types::{Fingerprint, Invalid};

/// The only layout so far: this byte, [`FILTER_BYTES`] of the fingerprint, the last key.
const VERSION: u8 = 1;
/// As much of the fingerprint as tells filters apart.
const FILTER_BYTES: usize = 8;
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 1_024;

/// The token of the page after the one that ends with `last`.
///
/// `filter` gathers which list this is and everything that the caller filters by, but not the page's size.
#[must_use]
pub fn encode(filter: &Fingerprint, last: &str) -> String {
    let mut bytes = Vec::with_capacity(1 + FILTER_BYTES + last.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&filter.0[..FILTER_BYTES]);
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The last key of the page before; `None` for the empty token, which asks for the first page.
///
/// # Errors
/// The token is not one that [`encode`] made with the same filter. The field is `page_token`.
pub fn decode(filter: &Fingerprint, token: &str) -> Result<Option<String>, Invalid> {
    if token.is_empty() {
        return Ok(None);
    }
    let foreign = || Invalid::new("page_token", "is not a next_page_token of this list with the same filter");
    if token.len() > TOKEN_BYTES_MAX {
        return Err(foreign());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| foreign())?;
    let (head, last) = bytes.split_at_checked(1 + FILTER_BYTES).ok_or_else(foreign)?;
    if head[0] != VERSION || head[1..] != filter.0[..FILTER_BYTES] || last.is_empty() {
        return Err(foreign());
    }
    String::from_utf8(last.to_vec()).map(Some).map_err(|_| foreign())
}

/// How many entries a page has: `default` where the caller says 0.
///
/// # Errors
/// The caller asks for more than `max`. The field is `page_size`.
pub fn size(requested: u32, default: u32, max: u32) -> Result<u32, Invalid> {
    match requested {
        0 => Ok(default.min(max)),
        _ if requested <= max => Ok(requested),
        _ => Err(Invalid::new("page_size", format_args!("must be at most {max}"))),
    }
}

/// What a list's request asks for: the page's size by [`size`], and where it starts by [`decode`].
///
/// # Errors
/// Every field that is wrong: `page_size`, `page_token`.
pub fn from_proto(
    page_size: u32,
    page_token: &str,
    (default, max): (u32, u32),
    filter: &Fingerprint,
) -> Result<(u32, Option<String>), Vec<Invalid>> {
    match (size(page_size, default, max), decode(filter, page_token)) {
        (Ok(size), Ok(after)) => Ok((size, after)),
        (size, after) => Err(size.err().into_iter().chain(after.err()).collect()),
    }
}

/// Cuts `entries`, read with a limit of one more than `size`, to the page, and makes the token of the next one (empty: this is
/// the last one).
#[must_use]
pub fn finish<T>(entries: &mut Vec<T>, size: u32, filter: &Fingerprint, key: impl FnOnce(&T) -> String) -> String {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if entries.len() <= size {
        return String::new();
    }
    entries.truncate(size);
    entries.last().map(|last| encode(filter, &key(last))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tcc_types::FingerprintBuilder;

    use super::*;

    fn filter(user: &str) -> Fingerprint {
        FingerprintBuilder::new("list").text(user).finish()
    }

    #[test]
    fn a_token_reads_back_with_the_same_filter_only() {
        let token = encode(&filter("u1"), "key-1");
        assert_eq!(decode(&filter("u1"), &token), Ok(Some("key-1".to_owned())));
        assert_eq!(decode(&filter("u2"), &token).map_err(|bad| bad.field), Err("page_token".to_owned()));
        assert_eq!(decode(&filter("u1"), ""), Ok(None));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let own = filter("u1");
        let truncated = URL_SAFE_NO_PAD.encode([VERSION, 1, 2]);
        let no_key = encode(&own, "");
        let mut other_version = URL_SAFE_NO_PAD.decode(encode(&own, "k")).unwrap();
        other_version[0] = 9;
        let other_version = URL_SAFE_NO_PAD.encode(other_version);
        let too_long = encode(&own, &"k".repeat(TOKEN_BYTES_MAX));
        for token in ["x", "not base64!", "key-1", "====", &truncated, &no_key, &other_version, &too_long] {
            assert!(decode(&own, token).is_err(), "{token}");
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_limit() {
        assert_eq!(size(0, 100, 1_000), Ok(100));
        assert_eq!(size(1_000, 100, 1_000), Ok(1_000));
        assert_eq!(size(1_001, 100, 1_000).map_err(|bad| bad.field), Err("page_size".to_owned()));
    }

    #[test]
    fn everything_that_is_wrong_with_a_page_is_named() {
        let own = filter("u1");
        assert_eq!(from_proto(0, &encode(&own, "k"), (10, 100), &own), Ok((10, Some("k".to_owned()))));
        let bad: Vec<_> = from_proto(101, "x", (10, 100), &own).unwrap_err().into_iter().map(|bad| bad.field).collect();
        assert_eq!(bad, ["page_size", "page_token"]);
    }

    #[test]
    fn only_a_page_with_more_behind_it_has_a_token() {
        let own = filter("u1");
        let mut exact = vec![1, 2];
        assert_eq!(finish(&mut exact, 2, &own, i32::to_string), "");
        let mut more = vec![1, 2, 3];
        let token = finish(&mut more, 2, &own, i32::to_string);
        assert_eq!((more, decode(&own, &token)), (vec![1, 2], Ok(Some("2".to_owned()))));
    }
}
