//! The inventory participant behind its gRPC adapter: every operation of a batch gets one answer, whatever its payload says; and what is
//! stored of a reservation is spent only if it is whole. The books balance after each.

use std::sync::Arc;

use prost::Message;
use tcc_fuzz::{Outcome, Shape, Target};
use tcc_inventory::{Inventory, Line, Receipt, Spread, StockBooks, StockDatabase, memory::StockTables};
use tcc_participant::{
    Engine, Options, Store, Unknown,
    memory::{Calm, Memory, MemoryDatabase},
};
use tcc_proto::{
    inventory::v1::{ReserveStock, ReservedShare, ReservedStock, StockLine},
    tcc::v1::{self as proto, batch_operation::Operation as Sent, participant_client::ParticipantClient},
};
use tcc_types::{BranchKey, CancelCall, ConfirmCall, LogName, Payload, SettleAnswer, TryAnswer, TryCall};
use tcc_wire::{Answer, operation_from_proto, operation_name, result_from_proto, timestamp_from_proto};
use tokio::runtime::Runtime;
use tonic::Code;

use super::{
    samples::{SECRET, Still, any, at, gid, key, plain},
    services::{refusal, runtime},
};

type Stock = MemoryDatabase<StockTables>;

const RESERVE: &str = "type.googleapis.com/inventory.v1.ReserveStock";
const WORDS: [&str; 7] = ["apple", "bread", "pear", RESERVE, "stock", "main", "019ca4c3-7400-7000-8000-000000000000"];

struct Shop {
    memory: Memory<StockTables>,
    engine: Engine<Inventory<Stock>>,
    store: Store<Stock>,
}

impl Shop {
    async fn open() -> Self {
        let memory = Memory::new(StockTables::default());
        let store = Store::<Stock>::in_memory(memory.clone(), Arc::new(Calm), Arc::new(Still), &Options::default()).unwrap();
        let books = Stock::books(store.clone());
        for (sku, buckets) in [("apple", 1), ("bread", 3)] {
            let receipt = Receipt { id: sku.to_owned(), line: Line::new(sku, 1_000_000_000).unwrap() };
            books.receive(&receipt).await.unwrap();
            books.spread(&Spread::new(sku, buckets).unwrap()).await.unwrap();
        }
        Self { memory, engine: Engine::batched(Inventory::new(), store.clone()), store }
    }

    fn check(&self) {
        self.memory.visible().check().unwrap();
    }
}

fn reserve(lines: &[(&str, i64)]) -> ReserveStock {
    ReserveStock {
        lines: lines.iter().map(|(sku, quantity)| StockLine { sku: (*sku).to_owned(), quantity: *quantity }).collect(),
    }
}

fn operation(call: Sent) -> proto::BatchOperation {
    proto::BatchOperation { operation: Some(call), traceparent: String::new() }
}

fn batches() -> Vec<Vec<u8>> {
    let try_of = |number, lines: &[(&str, i64)], after| {
        operation(Sent::TryRequest(proto::TryRequest {
            gid: gid(number).to_string(),
            branch_id: "stock".to_owned(),
            payload: any(RESERVE, &reserve(lines)),
            not_after: at(after),
            ask_after: at(after + 60),
            coordinator: "main".to_owned(),
        }))
    };
    let confirm = |number| {
        operation(Sent::ConfirmRequest(proto::ConfirmRequest { gid: gid(number).to_string(), branch_id: "stock".to_owned() }))
    };
    let cancel = |number| {
        let (gid, branch_id) = (gid(number).to_string(), "stock".to_owned());
        operation(Sent::CancelRequest(proto::CancelRequest { gid, branch_id, not_after: at(60) }))
    };
    let whole = [("apple", 3), ("bread", 2)];
    let batches = [
        vec![try_of(1, &whole, 60), try_of(2, &[("pear", 1)], 60), try_of(3, &whole, -60)],
        vec![confirm(1), cancel(2), confirm(4), try_of(5, &[("bread", 1)], 60)],
        vec![cancel(5), try_of(6, &[("apple", 1_000_000_000)], 60)],
        vec![try_of(7, &[("no good", 0), ("bread", 1), ("bread", 1)], 60)],
    ];
    batches.into_iter().map(|operations| proto::BatchRequest { operations }.encode_to_vec()).collect()
}

/// All answers to a batch.
async fn send<C>(
    client: &mut ParticipantClient<C>,
    request: proto::BatchRequest,
) -> Result<Vec<proto::BatchResult>, tonic::Status>
where
    C: tonic::client::GrpcService<tonic::body::Body>,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    C::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as tonic::codegen::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut stream = client.batch(request).await?.into_inner();
    let mut results = Vec::new();
    while let Some(response) = stream.message().await? {
        results.extend(response.results);
    }
    Ok(results)
}

#[test]
fn participant_batches() {
    let runtime = runtime();
    let shop = runtime.block_on(Shop::open());
    let mut client = ParticipantClient::new(shop.engine.service());
    let meets = [
        "reserved",
        "refused OUT_OF_STOCK",
        "refused LATE",
        "refused BAD_REQUEST",
        "done",
        "violation DifferentPayload",
        "violation NoReservation",
        "violation OtherOutcome",
        "refused SUSPENDED",
        "unknown",
        "batch: refused operations",
        "no message",
        "nothing",
    ];
    let target = Target {
        name: "participant_batches",
        shape: Shape::Message,
        words: &WORDS,
        seeds: batches(),
        rounds: 8_000,
        meets: &meets,
    };
    target.run(|input| {
        let Ok(request) = proto::BatchRequest::decode(input) else { return "no message".into() };
        let asked: Vec<_> = request.operations.iter().filter_map(|one| one.operation.clone()).collect();
        match runtime.block_on(send(&mut client, request)) {
            Err(status) => {
                assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
                refusal("batch", &status, "tcc.v1", &["operations"])
            }
            Ok(results) => {
                shop.check();
                answered(asked, results)
            }
        }
    });
}

/// Each operation has one result, under its own name; a well-formed one an outcome, another one the field that is wrong.
fn answered(asked: Vec<Sent>, mut results: Vec<proto::BatchResult>) -> Outcome {
    assert_eq!(results.len(), asked.len());
    let mut last: Outcome = "nothing".into();
    for sent in asked {
        let (gid, branch_id, op) = operation_name(&sent);
        let place = results.iter().position(|one| one.gid == gid && one.branch_id == branch_id).expect("its result");
        let result = results.swap_remove(place);
        last = match operation_from_proto(sent.clone()) {
            Err(bad) => {
                let Some(proto::batch_result::Outcome::Unknown(text)) = result.outcome else { panic!("{bad}: {result:?}") };
                assert!(text.starts_with(&bad.field), "{bad}: {text}");
                "unknown".into()
            }
            Ok(operation) => {
                let read = result_from_proto(result).unwrap();
                assert_eq!((&read.key, read.op), (operation.key(), op));
                match read.outcome.unwrap() {
                    Answer::Tried(TryAnswer::Reserved(_)) => "reserved".into(),
                    Answer::Tried(TryAnswer::Refused(refusal)) => {
                        assert!(!refusal.message.is_empty() && !refusal.message.contains(SECRET));
                        format!("refused {}", plain(&refusal.code)).into()
                    }
                    Answer::Settled(SettleAnswer::Done) => "done".into(),
                    Answer::Tried(TryAnswer::Violation(violation)) | Answer::Settled(SettleAnswer::Violation(violation)) => {
                        format!("violation {:?}", violation.kind).into()
                    }
                }
            }
        };
    }
    last
}

/// Tries three apples and two loaves, and puts these bytes in the place of what is stored of them.
async fn damaged(shop: &Shop, number: u64, stored: &[u8]) -> BranchKey {
    let key = key(number, "stock");
    let payload =
        Payload { type_url: RESERVE.to_owned(), value: reserve(&[("apple", 3), ("bread", 2)]).encode_to_vec().into() };
    let instant = |seconds| timestamp_from_proto("at", at(seconds).as_ref()).unwrap();
    let coordinator = LogName::new("main").unwrap();
    let call = TryCall { key: key.clone(), payload, not_after: instant(60), ask_after: instant(90), coordinator };
    assert!(matches!(shop.engine.try_branch(call).await.unwrap(), TryAnswer::Reserved(_)));
    let mut transaction = shop.store.begin().await.unwrap();
    let bytes = bytes::Bytes::copy_from_slice(stored);
    transaction
        .write(|tables, _| {
            tables.branches.tamper(&key, |branch| branch.reserved = Some(bytes));
            Ok(())
        })
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    key
}

/// What is frozen for that branch, as far as the bytes say it rightly: the same lines, and shares that are all of them.
fn is_whole(stored: &ReservedStock) -> bool {
    let lines: Vec<_> = stored.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
    lines == [("apple", 3), ("bread", 2)]
}

fn settle(runtime: &Runtime, number: u64, input: &[u8]) -> Outcome {
    // Which of the two, by the first byte.
    let (tag, stored) = input.split_first().map_or((0, input), |(tag, rest)| (*tag, rest));
    runtime.block_on(async {
        let shop = Shop::open().await;
        let key = damaged(&shop, number, stored).await;
        let before = shop.memory.visible();
        let not_after = timestamp_from_proto("at", at(60).as_ref()).unwrap();
        let settled = match tag % 2 {
            0 => shop.engine.confirm(ConfirmCall { key }).await,
            _ => shop.engine.cancel(CancelCall { key, not_after }).await,
        };
        let after = shop.memory.visible();
        match settled {
            Ok(SettleAnswer::Done) => {
                // All that the rows say now is still possible: nothing became more or less.
                for (sku, stock) in after.stock.skus() {
                    let (sums, were) = (stock.sums(), before.stock.sku(sku).unwrap().sums());
                    assert_eq!(sums.available + sums.frozen + sums.sold, were.initial, "{sku}");
                    assert!(sums.frozen >= 0 && sums.frozen <= were.frozen, "{sku}");
                }
                let stored = ReservedStock::decode(stored).unwrap();
                if is_whole(&stored) {
                    shop.check()
                }
                if is_whole(&stored) { "accepted".into() } else { "accepted other lines".into() }
            }
            Ok(SettleAnswer::Violation(violation)) => panic!("{violation}"),
            Err(unknown) => {
                assert_eq!(unknown, Unknown::Failed);
                // Nothing was changed, and the operator still finds the row as it is.
                let same = after.stock.skus().eq(before.stock.skus());
                assert!(same && after.branches.tried().count() == 1);
                "refused".into()
            }
        }
    })
}

#[test]
fn stored_reservations() {
    let runtime = runtime();
    let lines = || reserve(&[("apple", 3), ("bread", 2)]).lines;
    let shares = |shares: &[(u32, u32, i64)]| {
        let share =
            |(line, bucket, quantity): &(u32, u32, i64)| ReservedShare { line: *line, bucket: *bucket, quantity: *quantity };
        ReservedStock { lines: lines(), shares: shares.iter().map(share).collect() }
    };
    let seeds =
        [&[][..], &[(1, 1, 2)], &[(0, 0, 3), (1, 0, 1), (1, 2, 1)], &[(0, 0, 2)], &[(1, 0, i64::MAX), (1, 1, i64::MAX)]];
    let seeds: Vec<_> = seeds.iter().flat_map(|of| [0, 1].map(|tag| super::samples::tagged(tag, &shares(of)))).collect();
    let mut number = 0;
    let target = Target {
        name: "stored_reservations",
        shape: Shape::Tagged,
        words: &WORDS,
        seeds,
        rounds: 1_500,
        meets: &["accepted", "accepted other lines", "refused"],
    };
    target.run(|input| {
        number += 1;
        settle(&runtime, number, input)
    });
}
