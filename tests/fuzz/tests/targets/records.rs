//! What is stored in the transaction log, read back: a damaged column is an error of the log, never a transaction that says something
//! else, and a cause of cancellation reads back as it was written.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tcc_coordinator::CancelCause;
use tcc_fuzz::{Outcome, Shape, Target};
use tcc_log::{Decides, Error, LogOptions, NewBranch, NewTransaction, Owner, TryOrder, TxLog, TxRecord};
use tcc_types::{
    BranchId, BranchRowStatus, FingerprintBuilder, IdempotencyKey, Initiator, ParticipantName, Payload, Refusal, Violation,
    ViolationKind,
};
use tempfile::TempDir;

use super::{
    samples::{ACCEPTED, NOW, Still, gid, is_key, is_name},
    services::runtime,
};

fn causes() -> Vec<CancelCause> {
    let (branch, participant) = (BranchId::new("stock").unwrap(), ParticipantName::new("inventory").unwrap());
    let violation = Violation { kind: ViolationKind::OtherOutcome, row_status: Some(BranchRowStatus::Cancelled) };
    vec![
        CancelCause::Refused {
            branch: branch.clone(),
            participant: participant.clone(),
            refusal: Refusal::business("SOLD_OUT", "no \u{0}\"ü"),
        },
        CancelCause::Violated { branch, participant, violation },
        CancelCause::TimedOut,
        CancelCause::Requested { by: Initiator::new("shop").unwrap() },
    ]
}

#[test]
fn causes_of_cancellation() {
    let seeds = causes().iter().map(|cause| serde_json::to_vec(cause).unwrap()).collect();
    let words =
        ["\"refused\"", "\"timed_out\"", "null", "{}", "[]", "\\u0000", "\\ud800", "\"Late\"", "\"branch\"", ":", ",", "1e999"];
    let meets = ["accepted", "refused"];
    Target { name: "causes_of_cancellation", shape: Shape::Text, words: &words, seeds, rounds: 60_000, meets: &meets }.run(
        |input| {
            let Ok(cause) = serde_json::from_slice::<CancelCause>(input) else { return "refused".into() };
            match &cause {
                CancelCause::Refused { branch, participant, .. } | CancelCause::Violated { branch, participant, .. } => {
                    assert!(is_name(branch.as_str()) && is_name(participant.as_str()));
                }
                CancelCause::Requested { by } => assert!(is_name(by.as_str())),
                _ => {}
            }
            let again = serde_json::to_vec(&cause).unwrap();
            assert_eq!(serde_json::from_slice::<CancelCause>(&again).unwrap(), cause);
            // Every database keeps it: JSON escapes what some of them cannot store.
            assert!(!again.contains(&0));
            ACCEPTED
        },
    );
}

/// The columns that are damaged, and in which table.
const COLUMNS: [(&str, &str); 24] = [
    ("transactions", "status"),
    ("transactions", "initiator"),
    ("transactions", "idempotency_key"),
    ("transactions", "fingerprint"),
    ("transactions", "try_order"),
    ("transactions", "decides"),
    ("transactions", "branch_count"),
    ("transactions", "try_until"),
    ("transactions", "decide_by"),
    ("transactions", "created_at"),
    ("transactions", "decided_at"),
    ("transactions", "finished_at"),
    ("transactions", "next_attempt_at"),
    ("transactions", "cause"),
    ("transactions", "owner"),
    ("branches", "branch_id"),
    ("branches", "participant"),
    ("branches", "type_url"),
    ("branches", "payload"),
    ("branches", "settled"),
    ("branches", "attempts"),
    ("branches", "stuck_kind"),
    ("branches", "stuck_since"),
    ("branches", "stuck_detail"),
];

/// A log's file, and a way around the log.
struct Damage {
    log: Arc<dyn TxLog>,
    around: SqliteConnection,
    _folder: TempDir,
}

impl Damage {
    async fn open() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("log.db");
        let options = LogOptions { database_url: format!("sqlite://{}", path.display()), ..LogOptions::default() };
        let log = tcc_log::open(options, Arc::new(Still)).await.unwrap();
        let branch = |id: &str| NewBranch {
            branch: BranchId::new(id).unwrap(),
            participant: ParticipantName::new("inventory").unwrap(),
            payload: Payload { type_url: "t".to_owned(), value: vec![1].into() },
        };
        let transaction = NewTransaction {
            gid: gid(1),
            initiator: Initiator::new("shop").unwrap(),
            key: Some(IdempotencyKey::new("k-1").unwrap()),
            fingerprint: FingerprintBuilder::new("t").finish(),
            try_order: TryOrder::Parallel,
            decides: Decides::AtVotes,
            try_until: NOW,
            decide_by: NOW,
            owner: Owner(1),
            next_attempt_at: NOW,
            branches: vec![branch("stock"), branch("coupon")],
        };
        log.begin(transaction).await.unwrap();
        let connect =
            SqliteConnectOptions::new().filename(&path).pragma("ignore_check_constraints", "ON").pragma("synchronous", "OFF");
        let mut around = SqliteConnection::connect_with(&connect).await.unwrap();
        for table in ["transactions", "branches"] {
            let copy = format!("CREATE TABLE sound_{table} AS SELECT * FROM tcc_log_{table}");
            sqlx::query(AssertSqlSafe(copy)).execute(&mut around).await.unwrap();
        }
        Self { log, around, _folder: folder }
    }

    /// Writes a value, reads by the log, and puts the sound one back. The first byte says the column, the second one the kind of value.
    async fn read(&mut self, input: &[u8]) -> Outcome {
        let [column, kind, value @ ..] = input else { return "no value".into() };
        let (table, column) = COLUMNS[usize::from(*column) % COLUMNS.len()];
        let update = format!("UPDATE tcc_log_{table} SET {column} = ? WHERE gid = ? AND {}", first_of(table));
        let update = sqlx::query(AssertSqlSafe(update));
        let update = match kind % 4 {
            0 => update.bind(value.iter().take(8).fold(0_i64, |number, byte| number << 8 | i64::from(*byte))),
            1 => update.bind(String::from_utf8_lossy(value).into_owned()),
            2 => update.bind(value.to_vec()),
            _ => update.bind(None::<i64>),
        };
        if update.bind(&gid(1).as_bytes()[..]).execute(&mut self.around).await.is_err() {
            return "the table forbids it".into();
        }
        let read = self.log.load(gid(1)).await;
        let sound = format!("DELETE FROM tcc_log_{table}; INSERT INTO tcc_log_{table} SELECT * FROM sound_{table}",);
        sqlx::raw_sql(AssertSqlSafe(sound)).execute(&mut self.around).await.unwrap();
        match read {
            Ok(record) => well_formed(&record.expect("it is there")),
            Err(Error::Unusable(what)) => {
                assert!(what.ends_with("that this program cannot read"), "{what}");
                format!("refused {table}.{column}").into()
            }
            Err(error) => panic!("{table}.{column} {kind} {value:?}: {error}"),
        }
    }
}

/// One of the branches.
fn first_of(table: &str) -> &'static str {
    if table == "branches" { "branch_id = 'stock'" } else { "TRUE" }
}

fn well_formed(record: &TxRecord) -> Outcome {
    assert_eq!(record.gid, gid(1));
    assert!(is_name(record.initiator.as_str()) && record.key.as_ref().is_none_or(|key| is_key(key.as_str())));
    assert!(record.branches.iter().all(|branch| is_name(branch.branch.as_str()) && is_name(branch.participant.as_str())));
    ACCEPTED
}

#[test]
fn stored_transactions() {
    let runtime = runtime();
    let mut damage = runtime.block_on(Damage::open());
    let columns = || 0..u8::try_from(COLUMNS.len()).unwrap();
    let number = columns()
        .flat_map(|column| [vec![column, 0, 0, 0, 0, 0, 0, 0, 0, 9], vec![column, 0, 255, 255, 255, 255, 255, 255, 255, 255]]);
    let others =
        columns().flat_map(|column| [vec![column, 1, b'a', b' '], vec![column, 2, 7], vec![column, 3], vec![column, 0, 1]]);
    let seeds = number.chain(others).collect();
    let (shape, meets) = (Shape::Text, ["accepted", "refused transactions.", "refused branches.", "the table forbids it"]);
    let words = ["{\"timed_out\":null}", "\"timed_out\"", "shop", "stock"];
    Target { name: "stored_transactions", shape, words: &words, seeds, rounds: 4_000, meets: &meets }
        .run(|input| runtime.block_on(damage.read(input)));
}
