//! Whatever is asked of it, a log in memory answers and keeps what one on SQLite answers and keeps.

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use tcc_database::memory::Calm;
use tcc_log::{
    BranchProgress, Choice, DatabaseLog, Decide, Due, ListFilter, LogOptions, NewTransaction, Owner, Park, Settled, TxLog,
    conformance::samples,
};
use tcc_types::{Clock, Gid, Timestamp, TxStatus};
use tempfile::TempDir;

use super::{START, Still};

/// Numbers from a seed (splitmix64), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn few(&mut self, limit: u32) -> u32 {
        u32::try_from(self.below(u64::from(limit))).unwrap()
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }

    fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    /// One of a few instants around now, so that some transactions are due and others are not.
    fn instant(&mut self, now: Timestamp) -> Timestamp {
        now.minus(Duration::from_micros(30)).plus(Duration::from_micros(self.below(60)))
    }

    fn owner(&mut self) -> Owner {
        self.one_of(&[samples::OWNER, samples::OTHER])
    }

    fn branch(&mut self) -> String {
        format!("b{}", self.below(4))
    }

    fn begin(&mut self, now: Timestamp, gid: Gid) -> NewTransaction {
        let count = usize::try_from(self.below(3)).unwrap();
        let new = if self.chance() { samples::open(now, count) } else { samples::transaction(now, count) };
        NewTransaction {
            gid,
            initiator: samples::initiator(self.one_of(&["shop", "market"])),
            key: self.chance().then(|| samples::key(self.one_of(&["k0", "k1", "k2"]))),
            decide_by: self.instant(now),
            next_attempt_at: self.instant(now),
            owner: self.owner(),
            ..new
        }
    }

    fn park(&mut self, now: Timestamp, gid: Gid) -> Park {
        let progress = |numbers: &mut Self| match numbers.below(3) {
            0 => samples::stuck(numbers.instant(now)),
            1 => {
                let mut long = samples::stuck(numbers.instant(now));
                if let Some(stuck) = &mut long.stuck {
                    stuck.detail = "ä".repeat(400);
                }
                long
            }
            _ => BranchProgress { settled: Some(Settled::Acknowledged), attempts: 1, stuck: None },
        };
        let branches = (0..self.below(4)).map(|_| (samples::branch_id(&self.branch()), progress(self))).collect();
        Park { gid, owner: self.owner(), next_attempt_at: self.instant(now), branches }
    }
}

/// Both logs, with one clock.
struct Both {
    clock: Arc<Still>,
    sqlite: DatabaseLog,
    memory: DatabaseLog,
    _folder: TempDir,
}

impl Both {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Still(AtomicI64::new(START.as_micros())));
        let database_url = format!("sqlite://{}", folder.path().join("log.db").display());
        let options = LogOptions { database_url, finish_delay_ms: 0, ..LogOptions::default() };
        let sqlite = DatabaseLog::open(options.clone(), Arc::<Still>::clone(&clock)).await.unwrap();
        let of_memory = Arc::<Still>::clone(&clock);
        let memory = DatabaseLog::in_memory(options, crate::database(), Arc::new(Calm), of_memory, false).unwrap();
        Self { clock, sqlite, memory, _folder: folder }
    }

    /// Asks both the same, and expects the same answer.
    async fn ask(&self, what: &str, question: impl AsyncFn(&DatabaseLog) -> String) {
        let (sqlite, memory) = (question(&self.sqlite).await, question(&self.memory).await);
        assert_eq!(sqlite, memory, "{what}");
    }

    async fn write(&self, numbers: &mut Numbers, gids: &[Gid]) {
        let (now, gid, branch) = (self.clock.now(), numbers.one_of(gids), numbers.branch());
        let (instant, owner) = (numbers.instant(now), numbers.owner());
        match numbers.below(24) {
            0..6 => {
                let new = numbers.begin(now, gid);
                self.ask(&format!("{new:?}"), async |log| format!("{:?}", log.begin(new.clone()).await)).await;
            }
            6 => {
                let by = samples::initiator("market");
                self.ask("begin_cancelled", async |log| format!("{:?}", log.begin_cancelled(gid, by.clone()).await)).await;
            }
            7..10 => {
                let new = samples::branch(&branch);
                self.ask("enlist", async |log| format!("{:?}", log.enlist(gid, new.clone(), 3).await)).await;
            }
            number @ 10..14 => {
                let choice =
                    if number == 13 { samples::cancel(now, gid).choice } else { Choice::Confirm { votes: numbers.few(4) } };
                let decide = Decide { gid, choice, owner, next_attempt_at: instant };
                self.ask(&format!("{decide:?}"), async |log| format!("{:?}", log.decide(decide.clone()).await)).await;
            }
            14..17 => {
                let park = numbers.park(now, gid);
                self.ask(&format!("{park:?}"), async |log| format!("{:?}", log.park(park.clone()).await)).await;
            }
            17 => self.ask("finish", async |log| format!("{:?}", log.finish(gid).await)).await,
            18 => {
                let (due, limit) = (numbers.one_of(&[Due::Fresh, Due::Stuck]), numbers.few(4));
                let lease = Duration::from_micros(numbers.below(20));
                self.ask("claim", async |log| format!("{:?}", log.claim(owner, due, limit, lease).await)).await;
            }
            19 => {
                let lease = Duration::from_micros(numbers.below(20));
                let renew = async |log: &DatabaseLog| {
                    let mut renewed = log.renew(owner, gids, lease).await.unwrap();
                    renewed.sort();
                    format!("{renewed:?}")
                };
                self.ask("renew", renew).await;
            }
            20 => {
                let (after, limit) = (numbers.chance().then_some(gid), numbers.few(5));
                // The gids are of the first instant.
                let before = if numbers.chance() { instant } else { now.plus(Duration::from_secs(1)) };
                self.ask("delete", async |log| format!("{:?}", log.delete_ended(after, before, limit).await)).await;
            }
            21 => self.ask("take_owner", async |log| format!("{:?}", log.take_owner().await)).await,
            22 if numbers.below(4) == 0 => {
                self.ask("release_leases", async |log| format!("{:?}", log.release_leases().await)).await;
            }
            _ => {
                let entry = samples::audit(gid, &branch);
                self.ask("mark_settled", async |log| format!("{:?}", log.mark_settled(entry.clone()).await)).await;
                if numbers.below(4) == 0 {
                    self.ask("audit", async |log| format!("{:?}", log.audit(entry.clone()).await)).await;
                }
            }
        }
    }

    /// Everything that can be read, in pages.
    async fn compare(&self, numbers: &mut Numbers, gids: &[Gid]) {
        for gid in gids {
            self.ask("load", async |log| format!("{:?}", log.load(*gid).await)).await;
        }
        for key in ["k0", "k1", "k2"].map(samples::key) {
            let of = samples::initiator("shop");
            self.ask("find", async |log| format!("{:?}", log.find(&of, &key).await)).await;
        }
        let (gid, limit) = (numbers.one_of(gids), 1 + numbers.few(6));
        let keys: Vec<_> = gids.iter().map(|gid| samples::branch_key(*gid, &numbers.branch())).collect();
        self.ask("statuses", async |log| format!("{:?}", log.statuses(&keys).await)).await;
        self.ask("counts", async |log| format!("{:?}", log.count_by_status().await)).await;
        let statuses = TxStatus::ALL.into_iter().filter(|_| numbers.chance()).collect();
        let filter = ListFilter { statuses, initiator: numbers.chance().then(|| samples::initiator("market")) };
        let before = numbers.chance().then_some(gid);
        self.ask("list", async |log| format!("{:?}", log.list(&filter, before, limit).await)).await;
        let participant = samples::participant(numbers.one_of(&["inventory", "nobody"]));
        let of = numbers.chance().then_some(&participant);
        let after = (self.clock.now().minus(Duration::from_micros(numbers.below(200))), samples::branch_key(gid, "b1"));
        let after = numbers.chance().then_some(after);
        self.ask("stuck", async |log| format!("{:?}", log.list_stuck(of, after.clone(), limit).await)).await;
        let (of, before) = (numbers.chance().then_some(gid), numbers.chance().then(|| 1 + numbers.below(20)));
        self.ask("lines", async |log| format!("{:?}", log.list_audit(of, before, limit).await)).await;
    }
}

#[tokio::test]
async fn it_answers_and_keeps_what_a_log_on_sqlite_does() {
    for seed in 0..40 {
        let mut numbers = Numbers(seed);
        let both = Both::open().await;
        let gids: Vec<Gid> = (0..8).map(|_| samples::gid(START)).collect();
        for _ in 0..15 {
            for _ in 0..12 {
                both.clock.pass(i64::try_from(numbers.below(10)).unwrap());
                both.write(&mut numbers, &gids).await;
            }
            both.compare(&mut numbers, &gids).await;
        }
        for log in [&both.sqlite, &both.memory] {
            log.close().await;
        }
    }
}
