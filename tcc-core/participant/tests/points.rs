//! The README's participant as a process of its own, spoken to over gRPC.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use prost::Message;
use sqlx::Connection;
use tcc_proto::tcc::v1::{confirm_response, participant_client::ParticipantClient, try_response};
use tcc_types::{BranchId, BranchKey, Clock, ConfirmCall, Gid, LogName, Payload, SystemClock, SystemEntropy, TryCall};
use tempfile::TempDir;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Cargo builds examples beside the tests, but tells tests nothing about it.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("it lies in target/<profile>/deps");
    let example = profile.join("examples").join(format!("points{}", std::env::consts::EXE_SUFFIX));
    assert!(example.exists(), "{} is not built: run `cargo test` without `--test`", example.display());
    example
}

/// The example's payload, written down again as a caller in another program would.
#[derive(Clone, PartialEq, Message)]
struct SpendPoints {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(int64, tag = "2")]
    points: i64,
}

fn spend(user: &str, points: i64) -> TryCall {
    let now = SystemClock.now();
    let value = SpendPoints { user: user.to_owned(), points }.encode_to_vec().into();
    TryCall {
        key: BranchKey { gid: Gid::mint(now, &SystemEntropy), branch: BranchId::new("points").expect("it is well-formed") },
        payload: Payload { type_url: "type.googleapis.com/points.v1.SpendPoints".to_owned(), value },
        not_after: now.plus(std::time::Duration::from_secs(60)),
        ask_after: now.plus(std::time::Duration::from_secs(90)),
        coordinator: LogName::new("main").expect("it is well-formed"),
    }
}

#[tokio::test]
async fn the_points_example_serves_and_keeps_its_books() {
    let folder = TempDir::new().expect("a folder is made");
    let mut process = Process(
        Command::new(example())
            .arg("127.0.0.1:0")
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts"),
    );
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says where it listens");
    let address = line.trim().rsplit(' ').next().expect("an address").to_owned();
    let url = format!("sqlite://{}", folder.path().join("data/points.db").display());
    let mut database = sqlx::SqliteConnection::connect(&url).await.expect("its database opens");
    sqlx::query("INSERT INTO points VALUES ('ada', 100, 0, 0)").execute(&mut database).await.expect("ada gets points");

    let mut client = ParticipantClient::connect(format!("http://{address}")).await.expect("it connects");
    let (yes, no) = (spend("ada", 70), spend("ada", 31));
    let answer = client.r#try(tcc_wire::try_to_proto(&yes)).await.expect("OK").into_inner().outcome;
    assert!(matches!(answer, Some(try_response::Outcome::Reserved(_))), "{answer:?}");
    let answer = client.r#try(tcc_wire::try_to_proto(&no)).await.expect("OK").into_inner().outcome;
    assert!(matches!(&answer, Some(try_response::Outcome::Refused(no)) if no.code == "NOT_ENOUGH_POINTS"), "{answer:?}");
    let confirm = tcc_wire::confirm_to_proto(&ConfirmCall { key: yes.key });
    let answer = client.confirm(confirm).await.expect("OK").into_inner().outcome;
    assert!(matches!(answer, Some(confirm_response::Outcome::Done(_))), "{answer:?}");
    let other = spend("ada", 30);
    client.r#try(tcc_wire::try_to_proto(&other)).await.expect("OK");
    let cancel = tcc_types::CancelCall { key: other.key, not_after: other.not_after };
    client.cancel(tcc_wire::cancel_to_proto(&cancel)).await.expect("OK");

    let books: (i64, i64, i64) =
        sqlx::query_as("SELECT available, frozen, spent FROM points").fetch_one(&mut database).await.expect("books are read");
    assert_eq!(books, (30, 0, 70));

    let lost = spend("ada", 30);
    client.r#try(tcc_wire::try_to_proto(&lost)).await.expect("OK");
    sqlx::query("DELETE FROM points").execute(&mut database).await.expect("ada's row is lost");
    let confirm = tcc_wire::confirm_to_proto(&ConfirmCall { key: lost.key.clone() });
    let unknown = client.confirm(confirm).await.expect_err("nothing was spent");
    assert_eq!(unknown.code(), tonic::Code::Unavailable);
    let cancel = tcc_types::CancelCall { key: lost.key, not_after: lost.not_after };
    let unknown = client.cancel(tcc_wire::cancel_to_proto(&cancel)).await.expect_err("nothing was released");
    assert_eq!(unknown.code(), tonic::Code::Unavailable);
}
