//! Every field of a request against its limit.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tcc_types::{
    BranchId, CancelCall, ConfirmCall, Initiator, ParticipantName, Payload, SettleAnswer, SystemEntropy, TryAnswer, TryCall,
};

use super::*;
use crate::{Endpoint, Unknown, Wait};

struct Nobody;

#[async_trait]
impl Endpoint for Nobody {
    async fn try_branch(&self, _: TryCall) -> Result<TryAnswer, Unknown> {
        Err(Unknown("nobody".to_owned()))
    }

    async fn confirm(&self, _: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        Err(Unknown("nobody".to_owned()))
    }

    async fn cancel(&self, _: CancelCall) -> Result<SettleAnswer, Unknown> {
        Err(Unknown("nobody".to_owned()))
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn registry() -> Registry {
    Registry::default().with(ParticipantName::new("stock").unwrap(), Arc::new(Nobody))
}

fn branch_named(id: &str) -> NewBranch {
    NewBranch {
        branch: BranchId::new(id).unwrap(),
        participant: ParticipantName::new("stock").unwrap(),
        payload: Payload { type_url: "t/a.B".to_owned(), value: Bytes::from_static(b"xyz") },
    }
}

fn request() -> Submit {
    Submit {
        initiator: Initiator::new("shop").unwrap(),
        gid: None,
        key: None,
        branches: vec![branch_named("a"), branch_named("b")],
        try_order: TryOrder::Parallel,
        hold: false,
        try_until: None,
        decide_by: None,
        wait: Wait::Decision,
    }
}

fn after(ms: u64) -> Timestamp {
    NOW.plus(Duration::from_millis(ms))
}

fn fields_of(request: &Submit) -> Vec<String> {
    let bad = submit(request, &Config::default(), &registry(), NOW).unwrap_err();
    bad.into_iter().map(|bad| bad.field).collect()
}

#[test]
fn defaults_come_from_the_configuration() {
    let config = Config::default();
    let plain = submit(&request(), &config, &registry(), NOW).unwrap();
    assert_eq!(plain, Deadlines { try_until: after(config.try_for_ms), decide_by: after(config.try_for_ms) });
    let hold = submit(&Submit { hold: true, ..request() }, &config, &registry(), NOW).unwrap();
    assert_eq!(hold, Deadlines { try_until: after(config.try_for_ms), decide_by: after(config.hold_for_ms) });
}

#[test]
fn a_short_hold_shortens_the_default_try_until() {
    let short = Submit { hold: true, decide_by: Some(after(500)), ..request() };
    let deadlines = submit(&short, &Config::default(), &registry(), NOW).unwrap();
    assert_eq!(deadlines, Deadlines { try_until: after(500), decide_by: after(500) });
}

#[test]
fn branches_must_be_there_in_number_and_name_and_size() {
    assert_eq!(fields_of(&Submit { branches: vec![], ..request() }), ["branches"]);
    let many = (0..65).map(|index| branch_named(&format!("b{index}"))).collect();
    assert_eq!(fields_of(&Submit { branches: many, ..request() }), ["branches"]);
    let twice = vec![branch_named("a"), branch_named("a")];
    assert_eq!(fields_of(&Submit { branches: twice, ..request() }), ["branches[1].branch_id"]);

    let mut unknown = branch_named("a");
    unknown.participant = ParticipantName::new("nowhere").unwrap();
    let mut untyped = branch_named("b");
    untyped.payload.type_url = String::new();
    let mut large = branch_named("c");
    large.payload.value = Bytes::from(vec![0; 64 * 1024]);
    let bad = Submit { branches: vec![unknown, untyped, large], ..request() };
    assert_eq!(fields_of(&bad), ["branches[0].participant", "branches[1].payload.type_url", "branches[2].payload"]);
}

#[test]
fn the_payloads_of_a_request_are_limited_together() {
    let config = Config { request_bytes_max: 20, payload_bytes_max: 20, ..Config::default() };
    // Each has 8 bytes, 5 of them its type URL.
    let of = |count: usize| Submit { branches: (0..count).map(|it| branch_named(&format!("b{it}"))).collect(), ..request() };
    assert!(submit(&of(2), &config, &registry(), NOW).is_ok());
    let bad = submit(&of(3), &config, &registry(), NOW).unwrap_err();
    assert_eq!(bad, [Invalid::new("branches", "have 24 bytes of payloads; request_bytes_max is 20")]);
}

#[test]
fn deadlines_lie_ahead_but_not_too_far() {
    for at in [NOW, NOW.minus(Duration::from_secs(1)), after(60_001)] {
        assert_eq!(fields_of(&Submit { try_until: Some(at), ..request() }), ["try_until"], "{at}");
    }
    for at in [NOW, after(24 * 3_600_000 + 1)] {
        assert_eq!(fields_of(&Submit { hold: true, decide_by: Some(at), ..request() }), ["decide_by"], "{at}");
    }
    assert_eq!(fields_of(&Submit { decide_by: Some(after(1_000)), ..request() }), ["decide_by"]);
    let crossed = Submit { hold: true, try_until: Some(after(2_000)), decide_by: Some(after(1_000)), ..request() };
    assert_eq!(fields_of(&crossed), ["decide_by"]);
}

#[test]
fn gids_are_neither_old_nor_from_the_future() {
    let config = Config::default();
    let gid_at = |at| Some(Gid::mint(at, &SystemEntropy));
    for at in [NOW.minus(Duration::from_millis(config.retention_ms / 2 + 1)), after(config.clock_allowance_ms + 1)] {
        assert_eq!(fields_of(&Submit { gid: gid_at(at), ..request() }), ["gid"]);
    }
    assert!(submit(&Submit { gid: gid_at(NOW), ..request() }, &config, &registry(), NOW).is_ok());
}

#[test]
fn the_fingerprint_covers_what_is_asked_and_nothing_else() {
    let same = Submit { gid: Some(Gid::mint(NOW, &SystemEntropy)), try_until: Some(after(5)), wait: Wait::End, ..request() };
    assert_eq!(submit_fingerprint(&request()), submit_fingerprint(&same));
    let mut other_bytes = request();
    other_bytes.branches[1].payload.value = Bytes::from_static(b"xyy");
    let others = [
        other_bytes,
        Submit { hold: true, ..request() },
        Submit { try_order: TryOrder::Sequential, ..request() },
        Submit { branches: vec![branch_named("b"), branch_named("a")], ..request() },
    ];
    for other in others {
        assert_ne!(submit_fingerprint(&request()), submit_fingerprint(&other));
    }
}

#[test]
fn a_warrant_says_who_and_why() {
    let bad = warrant(&Warrant { actor: String::new(), reason: "x".repeat(513) }).unwrap_err();
    assert_eq!(bad.into_iter().map(|bad| bad.field).collect::<Vec<_>>(), ["warrant.actor", "warrant.reason"]);
}
