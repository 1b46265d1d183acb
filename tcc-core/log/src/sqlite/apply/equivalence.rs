//! Grouping must not show: a batch gives the answers and leaves the rows that its writes give and leave one by one.

use std::{fmt::Debug, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use sqlx::SqliteConnection;
use tcc_machine::{BranchProgress, Choice, Settled};
use tcc_types::{Gid, Timestamp};

use super::{
    apply,
    tests::{NOW, database},
};
use crate::{
    Begun, Decide, Due, Enlisted, NewTransaction, Owner, Park,
    conformance::samples,
    rows::{self, audit_columns},
    sqlite::load::load,
    writer::{
        plan::{Run, plan},
        write::{Alone, Ask, BeginCancelled, Beginning, Claim, DeleteEnded, Enlist, Renew, Reply, Write},
    },
};

/// A write that can be made twice.
#[derive(Clone, Debug)]
enum Op {
    Begin(NewTransaction),
    BeginCancelled(Gid),
    Enlist(Enlist),
    Decide(Decide),
    Park(Park),
    Finish(Gid),
    Claim(Owner, Due, u32),
    Renew(Owner, Vec<Gid>),
    DeleteEnded(u32),
    ReleaseLeases,
    MarkSettled(crate::NewAudit),
}

/// Numbers from a seed (splitmix64), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit).unwrap()
    }

    fn branch(&mut self) -> String {
        format!("b{}", self.below(4))
    }

    /// One of a few instants around now, so that some transactions are due and others are not.
    fn instant(&mut self) -> Timestamp {
        Timestamp::from_micros(NOW.as_micros() - 3 + i64::try_from(self.below(6)).unwrap())
    }

    /// One of two, so that a park often meets what is another's.
    fn owner(&mut self) -> Owner {
        [samples::OWNER, samples::OTHER][self.below(2)]
    }

    /// Few gids, keys and branches, so that writes meet.
    fn op(&mut self, gids: &[Gid]) -> Op {
        let gid = gids[self.below(gids.len() as u64)];
        match self.below(20) {
            0..6 => {
                let mut new = samples::open(NOW, self.below(3));
                new.gid = gid;
                new.key = (self.below(2) == 0).then(|| samples::key(&format!("k{}", self.below(4))));
                new.next_attempt_at = self.instant();
                new.owner = self.owner();
                Op::Begin(new)
            }
            6 => Op::BeginCancelled(gid),
            7..10 => Op::Enlist(Enlist { gid, branch: samples::branch(&self.branch()), branches_max: 3 }),
            10..13 => {
                let choice = Choice::Confirm { votes: u32::try_from(self.below(4)).unwrap() };
                Op::Decide(Decide { gid, choice, owner: self.owner(), next_attempt_at: self.instant() })
            }
            13 => Op::Decide(Decide { owner: self.owner(), next_attempt_at: self.instant(), ..samples::cancel(NOW, gid) }),
            14..16 => {
                let progress = [
                    samples::stuck(self.instant()),
                    BranchProgress { settled: Some(Settled::Acknowledged), attempts: 1, stuck: None },
                ];
                let branches = vec![(samples::branch_id(&self.branch()), progress[self.below(2)].clone())];
                Op::Park(Park { gid, owner: self.owner(), next_attempt_at: self.instant(), branches })
            }
            16..18 => Op::Finish(gid),
            18 => match self.below(4) {
                0 => Op::ReleaseLeases,
                1 => Op::Renew(self.owner(), gids.to_vec()),
                2 => Op::DeleteEnded(u32::try_from(1 + self.below(8)).unwrap()),
                limit => {
                    let due = [Due::Fresh, Due::Stuck][self.below(2)];
                    Op::Claim(self.owner(), due, u32::try_from(limit).unwrap())
                }
            },
            _ => Op::MarkSettled(samples::audit(gid, &self.branch())),
        }
    }
}

fn told<A: Debug + Send + 'static>(reply: Reply<A>) -> BoxFuture<'static, String> {
    reply.map(|answer| format!("{answer:?}")).boxed()
}

/// The write, and its answer as far as it does not depend on what *other* transactions' writes in the batch came first.
fn made(op: Op) -> (Write, BoxFuture<'static, String>) {
    match op {
        Op::Begin(new) => {
            let gid = new.gid;
            let (ask, reply) = Ask::new(new);
            let told = reply.map(move |answer| match answer.unwrap().unwrap() {
                // By its key it met another transaction, whose state may be told as of any moment of the batch.
                Begun::Exists(record) if record.gid != gid => format!("exists as {}", record.gid),
                begun @ (Begun::Exists(_) | Begun::Inserted { .. }) => format!("{begun:?}"),
            });
            (Write::Begin(Beginning::New(ask)), told.boxed())
        }
        Op::BeginCancelled(gid) => {
            let (ask, reply) = Ask::new(BeginCancelled { gid, by: samples::initiator("market") });
            (Write::Begin(Beginning::Cancelled(ask)), told(reply))
        }
        Op::Enlist(enlist) => {
            let (ask, reply) = Ask::<_, Enlisted>::new(enlist);
            (Write::Enlist(ask), told(reply))
        }
        Op::Decide(decide) => {
            let (ask, reply) = Ask::new(decide);
            (Write::Decide(ask), told(reply))
        }
        Op::Park(park) => {
            let (ask, reply) = Ask::new(park);
            (Write::Park(ask), told(reply))
        }
        Op::Finish(gid) => {
            let (ask, reply) = Ask::new(gid);
            (Write::Finish(ask), told(reply))
        }
        Op::Claim(owner, due, limit) => {
            let (ask, reply) = Ask::new(Claim { owner, due, limit, lease: Duration::from_micros(1) });
            (Write::Alone(Alone::Claim(ask)), told(reply))
        }
        Op::Renew(owner, gids) => {
            let (ask, reply) = Ask::new(Renew { owner, gids, lease: Duration::from_micros(2) });
            (Write::Alone(Alone::Renew(ask)), told(reply))
        }
        Op::DeleteEnded(limit) => {
            // The gids are of this very instant, and so are the ends.
            let (ask, reply) = Ask::new(DeleteEnded { after: None, ended_before: NOW.plus(Duration::from_millis(1)), limit });
            (Write::Alone(Alone::DeleteEnded(ask)), told(reply))
        }
        Op::ReleaseLeases => {
            let (ask, reply) = Ask::new(());
            (Write::Alone(Alone::ReleaseLeases(ask)), told(reply))
        }
        Op::MarkSettled(entry) => {
            let (ask, reply) = Ask::new(entry);
            (Write::Alone(Alone::MarkSettled(ask)), told(reply))
        }
    }
}

/// Runs the operations in runs made by `runs_of`; returns the answers in the operations' order.
async fn run(connection: &mut SqliteConnection, ops: &[Op], runs_of: impl Fn(Vec<Write>) -> Vec<Run>) -> Vec<String> {
    let (writes, answers): (Vec<_>, Vec<_>) = ops.iter().cloned().map(made).unzip();
    for mut run in runs_of(writes) {
        apply(connection, &mut run, NOW).await.unwrap();
        run.into_writes().for_each(Write::deliver);
    }
    futures::future::join_all(answers).await
}

async fn state(connection: &mut SqliteConnection, gids: &[Gid]) -> String {
    let mut records: Vec<_> = load(connection, gids).await.unwrap().into_values().collect();
    records.sort_by_key(|record| record.gid);
    let text = concat!("SELECT ", audit_columns!(), " FROM tcc_log_audit ORDER BY sequence");
    let lines = sqlx::query(text).fetch_all(connection).await.unwrap();
    let audit: Vec<_> = lines.iter().map(|row| rows::audit(row).unwrap()).collect();
    format!("{records:#?}\n{audit:#?}")
}

#[tokio::test]
async fn a_batch_answers_and_leaves_what_its_writes_do_one_by_one() {
    let one_by_one = |writes: Vec<Write>| writes.into_iter().map(Run::from).collect::<Vec<_>>();
    let (mut writes, mut groups) = (0, 0);
    for seed in 0..150 {
        let mut numbers = Numbers(seed);
        let gids: Vec<Gid> = (0..8).map(|_| samples::gid(NOW)).collect();
        let (mut batched, mut single) = (database().await, database().await);
        for _ in 0..4 {
            let length = 1 + numbers.below(60);
            let ops: Vec<Op> = (0..length).map(|_| numbers.op(&gids)).collect();
            let runs = plan(ops.iter().cloned().map(|op| made(op).0).collect());
            (writes, groups) = (writes + length, groups + runs.len());
            let together = run(&mut batched, &ops, plan).await;
            let alone = run(&mut single, &ops, one_by_one).await;
            for (index, (together, alone)) in together.iter().zip(&alone).enumerate() {
                assert_eq!(together, alone, "seed {seed}, write {index}: {:?}", ops[index]);
            }
            assert_eq!(state(&mut batched, &gids).await, state(&mut single, &gids).await, "seed {seed}");
        }
    }
    // Otherwise it would compare a thing with itself.
    assert!(groups * 2 < writes, "{groups} groups of {writes} writes");
}
