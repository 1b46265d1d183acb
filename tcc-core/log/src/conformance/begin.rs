//! Begun, idempotency keys and the cancelled record.

use std::sync::Arc;

use bytes::Bytes;
use tcc_machine::{BranchProgress, CancelCause, Decides, TryOrder};
use tcc_types::{BranchId, Gid, IdempotencyKey, TxStatus};

use super::{begin_new, loaded, samples};
use crate::{Begun, BranchRecord, Error, NewTransaction, Owner, TxLog, TxRecord};

async fn expect_exists(log: &dyn TxLog, transaction: NewTransaction, gid: Gid) -> TxRecord {
    match log.begin(transaction).await.expect("begin") {
        Begun::Exists(record) => {
            assert_eq!(record.gid, gid);
            *record
        }
        begun @ Begun::Inserted { .. } => panic!("{begun:?}"),
    }
}

/// Everything that was given reads back, and the rest has its beginning's values.
pub async fn a_begun_transaction_reads_back_whole(log: Arc<dyn TxLog>) {
    let before = log.now();
    let new = samples::keyed(before, "order:1");
    let created = match log.begin(new.clone()).await.expect("begin") {
        Begun::Inserted { created_at } => created_at,
        begun @ Begun::Exists(_) => panic!("{begun:?}"),
    };
    assert!(before <= created && created <= log.now(), "{before} {created}");
    let branches = new.branches.into_iter().map(|branch| BranchRecord {
        branch: branch.branch,
        participant: branch.participant,
        payload: branch.payload,
        progress: BranchProgress::default(),
    });
    let expected = TxRecord {
        gid: new.gid,
        status: TxStatus::Trying,
        initiator: new.initiator,
        key: new.key,
        fingerprint: Some(new.fingerprint),
        try_order: new.try_order,
        decides: new.decides,
        branch_count: 1,
        try_until: new.try_until,
        decide_by: new.decide_by,
        created_at: created,
        decided_at: None,
        finished_at: None,
        owner: new.owner,
        next_attempt_at: new.next_attempt_at,
        cause: None,
        branches: branches.collect(),
    };
    assert_eq!(loaded(&*log, new.gid).await, expected);
}

/// The gid is taken: nothing of the second request is written.
pub async fn a_repeated_begin_tells_what_stands_and_writes_nothing(log: Arc<dyn TxLog>) {
    let first = samples::transaction(log.now(), 2);
    begin_new(&*log, &first).await;
    let stored = loaded(&*log, first.gid).await;
    let mut second = samples::keyed(log.now(), "other");
    second.gid = first.gid;
    second.branches.push(samples::branch("x"));
    assert_eq!(expect_exists(&*log, first.clone(), first.gid).await, stored);
    assert_eq!(expect_exists(&*log, second.clone(), first.gid).await, stored);
    assert_eq!(loaded(&*log, first.gid).await, stored);
    // Its key is free, since it was not written.
    second.gid = samples::gid(log.now());
    begin_new(&*log, &second).await;
}

/// The key is taken by another gid: that one is told, with its branches, and the new one does not come to be.
pub async fn a_begin_under_a_used_key_tells_the_transaction_that_has_it(log: Arc<dyn TxLog>) {
    let first = samples::keyed(log.now(), "k");
    begin_new(&*log, &first).await;
    let second = samples::keyed(log.now(), "k");
    let record = expect_exists(&*log, second.clone(), first.gid).await;
    assert_eq!(record.fingerprint, Some(first.fingerprint));
    assert_eq!(record.branches.len(), 1);
    assert_eq!(log.load(second.gid).await.expect("load"), None);
}

/// Two initiators may use one key.
pub async fn keys_are_scoped_by_initiator(log: Arc<dyn TxLog>) {
    let first = samples::keyed(log.now(), "k");
    let second = NewTransaction { initiator: samples::initiator("market"), ..samples::keyed(log.now(), "k") };
    begin_new(&*log, &first).await;
    begin_new(&*log, &second).await;
    expect_exists(&*log, NewTransaction { gid: samples::gid(log.now()), ..second.clone() }, second.gid).await;
}

/// No key is not a key.
pub async fn transactions_without_a_key_never_collide(log: Arc<dyn TxLog>) {
    for _ in 0..3 {
        begin_new(&*log, &samples::transaction(log.now(), 1)).await;
    }
}

/// A request that meets one transaction by its gid and another by its key gets the one with the gid.
pub async fn the_gid_is_looked_at_before_the_key(log: Arc<dyn TxLog>) {
    let by_gid = samples::transaction(log.now(), 1);
    let by_key = samples::keyed(log.now(), "k");
    begin_new(&*log, &by_gid).await;
    begin_new(&*log, &by_key).await;
    expect_exists(&*log, NewTransaction { gid: by_gid.gid, ..by_key.clone() }, by_gid.gid).await;
}

/// Cancelled before it was begun: a delayed begin obeys.
pub async fn a_cancelled_record_stops_a_later_begin(log: Arc<dyn TxLog>) {
    let new = samples::keyed(log.now(), "k");
    let by = samples::initiator("market");
    let record = log.begin_cancelled(new.gid, by.clone()).await.expect("begin_cancelled");
    assert_eq!(record.status, TxStatus::Cancelled);
    assert_eq!(record.cause, Some(CancelCause::Requested { by: by.clone() }));
    assert_eq!((record.fingerprint, record.branch_count, record.branches.len()), (None, 0, 0));
    assert_eq!((&record.initiator, &record.key, record.owner), (&by, &None, Owner::NOBODY));
    assert!(record.decided_at.is_some() && record.finished_at.is_some());
    assert_eq!(loaded(&*log, new.gid).await, record);
    assert_eq!(expect_exists(&*log, new.clone(), new.gid).await, record);
    assert_eq!(loaded(&*log, new.gid).await.branches, []);
}

/// Begun first: the cancelled record is not written.
pub async fn a_cancelled_record_loses_to_a_transaction(log: Arc<dyn TxLog>) {
    let new = samples::transaction(log.now(), 2);
    begin_new(&*log, &new).await;
    let stored = loaded(&*log, new.gid).await;
    let record = log.begin_cancelled(new.gid, samples::initiator("market")).await.expect("begin_cancelled");
    assert_eq!(record, stored);
    assert_eq!(loaded(&*log, new.gid).await, stored);
}

/// The first one stays.
pub async fn a_repeated_cancelled_record_keeps_its_first_author(log: Arc<dyn TxLog>) {
    let gid = samples::gid(log.now());
    let first = log.begin_cancelled(gid, samples::initiator("one")).await.expect("first");
    let second = log.begin_cancelled(gid, samples::initiator("two")).await.expect("second");
    assert_eq!(first, second);
}

/// Neither sorted by id nor by participant.
pub async fn the_order_of_branches_is_kept(log: Arc<dyn TxLog>) {
    let mut new = samples::transaction(log.now(), 0);
    let ids = ["z", "a", "m", "B", "0", "y2", "y10"];
    new.branches = ids.map(samples::branch).to_vec();
    new.branches[2].participant = samples::participant("aaa");
    begin_new(&*log, &new).await;
    let branches = loaded(&*log, new.gid).await.branches;
    assert_eq!(branches.iter().map(|branch| branch.branch.as_str()).collect::<Vec<_>>(), ids);
    assert_eq!(branches[2].participant, samples::participant("aaa"));
}

/// Every byte value, none at all, and type URLs beyond ASCII.
pub async fn payload_bytes_are_kept_exactly(log: Arc<dyn TxLog>) {
    let mut new = samples::transaction(log.now(), 3);
    new.branches[0].payload.value = (0..=255_u8).collect::<Vec<_>>().into();
    new.branches[1].payload.value = Bytes::new();
    new.branches[2].payload.type_url = "type.googleapis.com/größe.v1.预订'\"--;".to_owned();
    new.branches[2].payload.value = Bytes::from_static(b"\0\0text that looks like text");
    begin_new(&*log, &new).await;
    let stored = loaded(&*log, new.gid).await.branches;
    let payloads = |index: usize| (&new.branches[index].payload, &stored[index].payload);
    for (given, kept) in [payloads(0), payloads(1), payloads(2)] {
        assert_eq!(given, kept);
    }
}

/// Far larger than a page of any database.
pub async fn a_large_payload_is_kept(log: Arc<dyn TxLog>) {
    let mut new = samples::transaction(log.now(), 2);
    let large: Bytes =
        (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into();
    new.branches[0].payload.value = large.clone();
    begin_new(&*log, &new).await;
    assert!(loaded(&*log, new.gid).await.branches[0].payload.value == large);
}

/// The longest names that the types allow fit into the columns.
pub async fn names_of_full_length_are_kept(log: Arc<dyn TxLog>) {
    let mut new = samples::transaction(log.now(), 1);
    new.initiator = samples::initiator(&"i".repeat(64));
    new.key = Some(IdempotencyKey::new("~".repeat(128)).expect("key"));
    new.branches[0].branch = BranchId::new("b".repeat(64)).expect("branch");
    new.branches[0].participant = samples::participant(&"p".repeat(64));
    begin_new(&*log, &new).await;
    let stored = loaded(&*log, new.gid).await;
    assert_eq!((stored.initiator, stored.key), (new.initiator, new.key));
    assert_eq!(stored.branches[0].branch, new.branches[0].branch);
    assert_eq!(stored.branches[0].participant, new.branches[0].participant);
}

/// The caller checks this too; the log must not store half of it.
pub async fn two_branches_with_one_id_are_refused_and_nothing_is_written(log: Arc<dyn TxLog>) {
    let mut new = samples::transaction(log.now(), 2);
    new.branches[1].branch = new.branches[0].branch.clone();
    let refused = log.begin(new.clone()).await;
    assert!(matches!(refused, Err(Error::Unusable(_))), "{refused:?}");
    assert_eq!(log.load(new.gid).await.expect("load"), None);
}

/// Every combination.
pub async fn the_way_to_try_and_decide_is_kept(log: Arc<dyn TxLog>) {
    for try_order in [TryOrder::Parallel, TryOrder::Sequential] {
        for decides in [Decides::AtVotes, Decides::OnRequest, Decides::OnRequestOpen] {
            let new = NewTransaction { try_order, decides, ..samples::transaction(log.now(), 0) };
            begin_new(&*log, &new).await;
            let stored = loaded(&*log, new.gid).await;
            assert_eq!((stored.try_order, stored.decides), (try_order, decides));
        }
    }
}
