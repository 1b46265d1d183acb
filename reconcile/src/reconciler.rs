//! One run: walks over the log and all participants' rows side by side, compares the columns, and looks again at what disagreed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tcc_types::{Gid, LogName, ParticipantName, Timestamp};
use tokio::time::sleep;

use crate::{
    Candidates, Case, Config, Database, Error, Finding, Report, Side, Terms,
    books::{Books, Checked},
    compare,
    config::Url,
    sides::{Log, LogWalk, Rows, RowsWalk},
};

/// How many times as many looks as configured there may be, for what is new at a later look.
const LOOKS_FACTOR: u32 = 3;
/// A walk tells how far it is every so many transactions.
const TELL_EVERY: u64 = 256;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// It walks over the transactions.
    Walking {
        /// Transactions so far, those that only participants know included.
        seen: u64,
        /// When the oldest of them was begun.
        first: Timestamp,
        /// When the one was begun that it is at.
        at: Timestamp,
        /// When the last was begun that it will look at.
        last: Timestamp,
    },
    /// It compares the columns of a database.
    Columns,
    /// It looks again at so many transactions.
    LookingAgain {
        /// How many.
        left: usize,
    },
}

/// The databases of one system.
#[derive(Debug)]
pub struct Reconciler {
    config: Config,
    log: Log,
    sides: Vec<Rows>,
}

impl Reconciler {
    /// Connects to all databases. One that several participants share is read once.
    ///
    /// # Errors
    /// The configuration does not fit, or a database does not answer.
    pub async fn open(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let timeout = config.statement_timeout();
        let log = Log::of(Database::open("the log", &config.log.0, timeout).await?, config.log_name.as_ref()).await?;
        let mut sides = Vec::new();
        for (url, participants) in by_url(&config)? {
            let whose = participants.keys().map(ParticipantName::as_str).collect::<Vec<_>>().join("+");
            let database = Database::open(&whose, &url.0, timeout).await?;
            let names = participants.keys().cloned().collect();
            let books = participants.into_iter().filter_map(|(name, books)| Some((name, books?))).collect();
            sides.push(Rows { names, books, database });
        }
        Ok(Self { config, log, sides })
    }

    /// Whose transactions it compares.
    #[must_use]
    pub const fn log_name(&self) -> &LogName {
        &self.log.name
    }

    /// Looks at everything that was begun before now, and again at what disagreed until it stands or is gone.
    ///
    /// Not cancel-safe: a run that was dropped leaves the connections unusable; open anew.
    ///
    /// # Errors
    /// A database does not answer, or has what cannot be read.
    pub async fn run(&mut self, tell: &(dyn Fn(Progress) + Sync)) -> Result<Report, Error> {
        let started = Instant::now();
        let mut report = Report { log: self.log.name.to_string(), ..Report::default() };
        let mut candidates = Candidates::new(self.config.grace(), self.config.candidates_max);
        self.walk(started, &mut candidates, &mut report, tell).await?;
        tell(Progress::Columns);
        self.columns(&mut report).await?;
        self.look_again(started, &mut candidates, &mut report, tell).await?;
        report.counts.left_out += candidates.left_out();
        report.counts.in_flight = candidates.end();
        let by_place = |finding: &Finding| (finding.rule, finding.gid, finding.branch.clone(), finding.resource.clone());
        for found in [&mut report.disagreements, &mut report.overdue, &mut report.noted] {
            found.sort_by_cached_key(by_place);
        }
        Ok(report)
    }

    /// The clocks, read before anything that is judged by them.
    async fn terms(&mut self) -> Result<Terms, Error> {
        let now = self.log.database.now().await?;
        let mut sides = Vec::with_capacity(self.sides.len());
        for side in &mut self.sides {
            sides.push(Side { names: side.names.clone(), now: side.database.now().await? });
        }
        Ok(Terms {
            log: self.log.name.clone(),
            now,
            sides,
            grace: self.config.grace(),
            log_retention: Duration::from_millis(self.config.log_retention_ms),
            participant_retention: Duration::from_millis(self.config.participant_retention_ms),
        })
    }

    /// The first look at everything: all databases side by side, in the order of the gids, a page of each in memory.
    async fn walk(
        &mut self,
        started: Instant,
        candidates: &mut Candidates,
        report: &mut Report,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), Error> {
        let terms = self.terms().await?;
        // What is begun from now on would be met half done, without end.
        let until = Gid::first_of(terms.now.plus(Duration::from_millis(1)));
        let limit = self.config.page_size;
        let mut log = LogWalk::new(until, limit);
        let mut walks: Vec<RowsWalk> = (0..self.sides.len()).map(|side| RowsWalk::new(side, until, limit)).collect();
        let (mut seen, mut first) = (0_u64, None);
        loop {
            let mut next = log.head(&mut self.log).await?;
            for (walk, side) in walks.iter_mut().zip(&mut self.sides) {
                let head = walk.head(side).await?;
                next = next.into_iter().chain(head).min();
            }
            let Some(gid) = next else { return Ok(()) };
            let mut case = Case { gid, transaction: log.take(gid), rows: Vec::new() };
            for (walk, side) in walks.iter_mut().zip(&mut self.sides) {
                walk.take(side, gid, &mut case.rows).await?;
            }
            count(&case, &terms, report);
            candidates.add(gid, started.elapsed(), compare(&case, &terms));
            let first = *first.get_or_insert_with(|| gid.minted_at());
            if seen % TELL_EVERY == 0 {
                tell(Progress::Walking { seen, first, at: gid.minted_at(), last: until.minted_at() });
            }
            seen += 1;
        }
    }

    async fn columns(&mut self, report: &mut Report) -> Result<(), Error> {
        for side in &mut self.sides {
            for (name, books) in &side.books {
                let Checked { found, left_out, resources } = books.check(name, &mut side.database, &self.config).await?;
                found.into_iter().for_each(|finding| report.add(finding));
                report.counts.left_out += left_out;
                report.counts.resources += resources;
            }
        }
        Ok(())
    }

    /// Until nothing is left, or what is left changes at every look.
    async fn look_again(
        &mut self,
        started: Instant,
        candidates: &mut Candidates,
        report: &mut Report,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), Error> {
        let pause = self.config.grace() / self.config.looks;
        for _ in 0..self.config.looks * LOOKS_FACTOR {
            if candidates.is_empty() {
                break;
            }
            let gids = candidates.gids();
            tell(Progress::LookingAgain { left: gids.len() });
            sleep(pause).await;
            let terms = self.terms().await?;
            for gid in gids {
                let case = self.case(gid).await?;
                let standing = candidates.look(gid, started.elapsed(), compare(&case, &terms));
                standing.into_iter().for_each(|finding| report.add(finding));
            }
        }
        Ok(())
    }

    async fn case(&mut self, gid: Gid) -> Result<Case, Error> {
        let transaction = self.log.get(gid).await?;
        let mut rows = Vec::new();
        for (index, side) in self.sides.iter_mut().enumerate() {
            rows.extend(side.get(index, gid).await?);
        }
        Ok(Case { gid, transaction, rows })
    }
}

fn count(case: &Case, terms: &Terms, report: &mut Report) {
    let rows = case.rows.len() as u64;
    let others = case.rows.iter().filter(|row| row.coordinator.as_ref().is_some_and(|log| *log != terms.log)).count() as u64;
    report.counts.rows += rows - others;
    report.counts.rows_of_other_logs += others;
    let Some(transaction) = &case.transaction else { return };
    report.counts.transactions += 1;
    for branch in &transaction.branches {
        if !terms.sides.iter().any(|side| side.names.contains(&branch.participant)) {
            *report.not_looked_at.entry(branch.participant.to_string()).or_default() += 1;
        }
    }
}

type Participants = BTreeMap<ParticipantName, Option<Books>>;

/// The participants, by the database that they are in.
fn by_url(config: &Config) -> Result<BTreeMap<Url, Participants>, Error> {
    let plain = config.participants.iter().map(|(name, url)| Ok((name.clone(), url.clone(), None)));
    let shipped = [
        ("orders", "order", &config.orders, Books::Orders),
        ("inventory", "inventory", &config.inventory, Books::Stock),
        ("coupon", "coupon", &config.coupon, Books::Coupons),
    ];
    let shipped = shipped.into_iter().filter_map(|(field, usual, named, books)| {
        let named = named.as_ref()?;
        let name = named.name.clone().map_or_else(|| ParticipantName::new(usual), Ok);
        Some(name.map(|name| (name, named.url.clone(), Some(books))).map_err(|bad| Error::config(field, bad.problem)))
    });
    let mut found: BTreeMap<Url, Participants> = BTreeMap::new();
    for participant in plain.chain(shipped) {
        let (name, url, books) = participant?;
        if found.values().any(|names| names.contains_key(&name)) {
            return Err(Error::config("participants", format!("{name} is there twice")));
        }
        found.entry(url).or_default().insert(name, books);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participants_that_share_a_database_are_one_side() {
        let config = Config {
            participants: BTreeMap::from([(ParticipantName::new("points").unwrap(), Url("sqlite://a".to_owned()))]),
            inventory: Some("warehouse=sqlite://a".parse().unwrap()),
            coupon: Some("sqlite://b".parse().unwrap()),
            ..Config::default()
        };
        let sides = by_url(&config).unwrap();
        let names: Vec<Vec<&str>> = sides.values().map(|names| names.keys().map(ParticipantName::as_str).collect()).collect();
        assert_eq!(names, [vec!["points", "warehouse"], vec!["coupon"]]);
        let twice = Config { orders: Some("coupon=sqlite://c".parse().unwrap()), ..config };
        assert!(by_url(&twice).unwrap_err().to_string().contains("coupon is there twice"));
    }
}
