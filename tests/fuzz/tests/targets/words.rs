//! Ids, keys and instants: what is accepted is what the contract says, no more and no less, and it reads back as it was written.

use std::time::Duration;

use prost::Message;
use prost_types::Timestamp as ProtoTimestamp;
use tcc_fuzz::{Outcome, Shape, Target};
use tcc_types::{BranchId, Gid, IdempotencyKey, Initiator, Invalid, LogName, ParticipantName, Timestamp, check_name};
use tcc_wire::{timestamp_from_proto, timestamp_to_proto};

use super::samples::{ACCEPTED, NOW, at, gid, is_gid, is_instant, is_key, is_name, micros, refused};

#[test]
fn gids() {
    let words = ["urn:uuid:", "{", "}", "-", "7", "4", "ffffffff-ffff-7fff-bfff-ffffffffffff"];
    let seeds = vec![gid(1).to_string().into_bytes(), b"00000000-0000-7000-8000-000000000000".to_vec()];
    let meets = ["accepted", "refused gid"];
    Target { name: "gids", shape: Shape::Text, words: &words, seeds, rounds: 60_000, meets: &meets }.run(|input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(of_bytes) = Gid::from_bytes(input) {
            assert_eq!(of_bytes.as_bytes().as_slice(), input);
            assert_eq!(of_bytes.to_string().parse::<Gid>(), Ok(of_bytes));
        }
        let parsed = text.parse::<Gid>();
        assert_eq!(parsed.is_ok(), is_gid(&text), "{text}");
        match parsed {
            Ok(gid) => {
                assert_eq!(gid.to_string(), text);
                assert_eq!(Gid::from_bytes(gid.as_bytes()), Ok(gid));
                assert_eq!(serde_json::from_str::<Gid>(&serde_json::to_string(&gid).unwrap()).unwrap(), gid);
                assert!(Gid::first_of(gid.minted_at()) <= gid, "{gid}");
                ACCEPTED
            }
            Err(bad) => refused(&bad, &["gid"]),
        }
    });
}

fn named<T: std::fmt::Display>(text: &str, parsed: Result<T, Invalid>, right: bool, field: &str) -> Outcome {
    assert_eq!(parsed.is_ok(), right, "{field} {text:?}");
    match parsed {
        Ok(name) => {
            assert_eq!(name.to_string(), text);
            ACCEPTED
        }
        Err(bad) => refused(&bad, &[field]),
    }
}

#[test]
fn names() {
    let seeds = vec![b"stock".to_vec(), b"a.B_c-9".to_vec(), vec![b'x'; 64]];
    let (shape, words) = (Shape::Text, ["x", ".", "~", "@"]);
    let meets = ["accepted", "refused branch_id"];
    Target { name: "names", shape, words: &words, seeds, rounds: 60_000, meets: &meets }.run(|input| {
        let text = String::from_utf8_lossy(input);
        let right = is_name(&text);
        named(&text, LogName::new(&text), right, "coordinator");
        named(&text, Initiator::new(&text), right, "initiator");
        named(&text, ParticipantName::new(&text), right, "participant");
        assert_eq!(
            check_name("lines[0].sku", &text).map_err(|bad| bad.field),
            if right { Ok(()) } else { Err("lines[0].sku".into()) }
        );
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(serde_json::from_str::<BranchId>(&json).is_ok(), right, "{json}");
        named(&text, BranchId::new(&text), right, "branch_id")
    });
}

#[test]
fn idempotency_keys() {
    let seeds = vec![b"order:42/a".to_vec(), vec![b'~'; 128], b"!".to_vec()];
    let (shape, words) = (Shape::Text, ["\u{a0}", "~", "!", "order:"]);
    let meets = ["accepted", "refused idempotency_key"];
    Target { name: "idempotency_keys", shape, words: &words, seeds, rounds: 60_000, meets: &meets }.run(|input| {
        let text = String::from_utf8_lossy(input);
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(serde_json::from_str::<IdempotencyKey>(&json).is_ok(), is_key(&text), "{json}");
        named(&text, IdempotencyKey::new(&text), is_key(&text), "idempotency_key")
    });
}

#[test]
fn instants() {
    let seeds = [at(0), Some(ProtoTimestamp { seconds: 253_402_300_799, nanos: 999_999_999 }), Some(ProtoTimestamp::default())];
    let seeds = seeds.into_iter().flatten().map(|instant| instant.encode_to_vec()).collect();
    let meets = ["accepted", "refused not_after", "no message"];
    Target { name: "instants", shape: Shape::Message, words: &[], seeds, rounds: 60_000, meets: &meets }.run(|input| {
        let Ok(sent) = ProtoTimestamp::decode(input) else { return "no message".into() };
        arithmetic(Timestamp::from_micros(sent.seconds), Duration::from_millis(sent.seconds.unsigned_abs()));
        let parsed = timestamp_from_proto("not_after", Some(&sent));
        assert_eq!(parsed.is_ok(), is_instant(&sent), "{sent:?}");
        match parsed {
            Ok(instant) => {
                assert_eq!(instant.as_micros(), micros(&sent));
                assert!((Timestamp::EPOCH..=Timestamp::MAX).contains(&instant));
                let again = timestamp_to_proto(instant);
                assert_eq!(timestamp_from_proto("not_after", Some(&again)), Ok(instant));
                assert_eq!((again.seconds, again.nanos), (sent.seconds, sent.nanos / 1_000 * 1_000));
                // As text, instants sort as they follow each other.
                assert_eq!(instant.to_string().cmp(&NOW.to_string()), instant.cmp(&NOW));
                ACCEPTED
            }
            Err(bad) => refused(&bad, &["not_after"]),
        }
    });
}

/// Any instant that a database may hold can be told, and counted with.
fn arithmetic(instant: Timestamp, duration: Duration) {
    assert!(instant.to_string().ends_with('Z'));
    let later = instant.plus(duration);
    assert!(later <= Timestamp::MAX && (later >= instant || later == Timestamp::MAX));
    assert!(instant.minus(duration) <= instant);
    assert_eq!(instant.until(instant), Duration::ZERO);
    assert!(timestamp_to_proto(instant).nanos >= 0);
    assert!(Gid::first_of(instant).minted_at() <= instant.max(Timestamp::EPOCH));
}
