//! Page tokens: only what a list made itself is taken, by the same list with the same filter; and errors that name what callers sent stay
//! small.

use tcc_fuzz::{Shape, Target};
use tcc_types::{Fingerprint, FingerprintBuilder, Invalid};
use tcc_wire::{page, status};
use tonic_types::StatusExt;

use super::samples::{gid, refused};

fn filter(user: &str) -> Fingerprint {
    FingerprintBuilder::new("order.v1.ListOrders").text(user).finish()
}

#[test]
fn page_tokens() {
    let (own, others) = (filter("ann"), [filter("bob"), filter(""), FingerprintBuilder::new("audit").text("ann").finish()]);
    let mut seeds: Vec<_> =
        ["k", &gid(1).to_string(), &"k".repeat(700)].map(|last| page::encode(&own, last).into_bytes()).to_vec();
    seeds.push(page::encode(&others[0], "k").into_bytes());
    let words = ["=", "==", "AQ", "_", "+", "%3D"];
    let meets = ["accepted", "first page", "refused page_token"];
    Target { name: "page_tokens", shape: Shape::Text, words: &words, seeds, rounds: 60_000, meets: &meets }.run(|input| {
        let token = String::from_utf8_lossy(input);
        match page::decode(&own, &token) {
            Ok(Some(last)) => {
                assert!(!last.is_empty() && token.len() <= 1_024);
                // One text for one place, and no other list takes it.
                assert_eq!(page::encode(&own, &last), token);
                for other in &others {
                    assert_eq!(page::decode(other, &token).map_err(|bad| bad.field), Err("page_token".to_owned()));
                }
                assert_eq!(page::from_proto(0, &token, (10, 100), &own), Ok((10, Some(last))));
                "accepted".into()
            }
            Ok(None) => {
                assert!(token.is_empty());
                "first page".into()
            }
            Err(bad) => {
                let both = page::from_proto(101, &token, (10, 100), &own).unwrap_err();
                assert_eq!(both.iter().map(|bad| bad.field.as_str()).collect::<Vec<_>>(), ["page_size", "page_token"]);
                refused(&bad, &["page_token"])
            }
        }
    });
}

/// Whatever was sent: an error that names it fits into what clients take, and says what it must.
#[test]
fn error_texts() {
    let seeds = ["lines[0].sku", "a\nb", "ü", &"branches[7].payload ".repeat(90)].map(|text| text.as_bytes().to_vec()).to_vec();
    let (shape, meets) = (Shape::Text, ["accepted whole", "accepted cut"]);
    Target { name: "error_texts", shape, words: &["\u{1f34e}", "\u{202e}"], seeds, rounds: 8_000, meets: &meets }.run(
        |input| {
            let text = String::from_utf8_lossy(input);
            let bad = vec![Invalid::new(&*text, &text); 1 + input.len() % 40];
            let status = status::invalid("order.v1", &bad);
            let details = status.get_error_details();
            let named = &details.bad_request().unwrap().field_violations;
            assert_eq!(named.len(), bad.len().min(16));
            assert!(named.iter().all(|one| text.starts_with(&one.field) && text.starts_with(&one.description)));
            assert_eq!(details.error_info().unwrap().reason, "INVALID_FIELDS");
            let response = status.into_http::<()>();
            let bytes: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            assert!(bytes < 16 * 1_024, "{bytes}");
            if named[0].description == text { "accepted whole".into() } else { "accepted cut".into() }
        },
    );
}
