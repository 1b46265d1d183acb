//! The handle that everything else talks to: takes requests, makes transactions durable, and waits for what stands.

use std::{fmt, sync::Arc, time::Duration};

use tcc_log::{Decides, ListFilter, NewBranch, NewTransaction, TxLog, TxRecord};
use tcc_types::{Entropy, Fingerprint, Gid, IdempotencyKey, Initiator, Invalid, Timestamp, TxStatus};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, info};

use crate::{
    Begin, Config, EnlistAnswer, Error, Page, Registry, Submit, TxView, Wait,
    admission::{Admission, Place},
    begun::{self, Joined, same_request},
    core::Core,
    driver::{self, Command, Order, Origin, Taken},
    leases,
    readiness::{self, Readiness},
    recovery, retention,
    table::Handle,
    validate::{self, Deadlines},
};

/// How far apart the looks of one who waits come to be, in `watch_interval_ms`.
const LOOKS_APART_MAX: u32 = 8;

/// Runs global transactions. Clones share the same coordinator.
///
/// Every call is cancel-safe: a dropped call never drops the transaction, which goes on without its caller.
#[derive(Clone)]
pub struct Coordinator(pub(crate) Arc<Core>);

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("log", self.0.log.name()).field("participants", &self.0.registry).finish()
    }
}

impl Coordinator {
    /// Starts on a log, and takes up whatever is unfinished there.
    ///
    /// # Errors
    /// The configuration does not fit, or the log does not answer.
    pub async fn start(
        log: Arc<dyn TxLog>,
        registry: Registry,
        config: Config,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        config.validate().map_err(Error::Invalid)?;
        let owner = log.take_owner().await?;
        let unfinished = log.release_leases().await?;
        info!(unfinished, log = %log.name(), owner = owner.0, participants = ?registry, "the coordinator starts");
        let core = Arc::new(Core {
            admission: Admission::new(&config),
            readiness: Readiness::default(),
            log,
            owner,
            registry,
            config,
            entropy,
            table: Arc::default(),
            tasks: TaskTracker::new(),
            background: TaskTracker::new(),
            draining: CancellationToken::new(),
            aborting: CancellationToken::new(),
        });
        core.tasks.spawn(recovery::run(Arc::clone(&core)));
        core.background.spawn(leases::run(Arc::clone(&core)));
        core.tasks.spawn(readiness::run(Arc::clone(&core)));
        core.tasks.spawn(retention::run(Arc::clone(&core)));
        Ok(Self(core))
    }

    /// The log's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.log.now()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The participants.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Whether the log can be written to: what begins a transaction is refused while it cannot.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.0.readiness.watch()
    }

    /// How many transactions have a driver here.
    #[must_use]
    pub fn in_memory(&self) -> usize {
        self.0.table.len()
    }

    /// Runs a whole transaction; see `tcc.v1.Coordinator.Submit`.
    ///
    /// # Errors
    /// Nothing was started, but for [`Error::Unavailable`], where nobody knows: repeat the request.
    pub async fn submit(&self, request: Submit) -> Result<TxView, Error> {
        let wait = request.wait;
        let now = self.0.log.now();
        let fingerprint = validate::submit_fingerprint(&request);
        let begun = match validate::submit(&request, &self.0.config, &self.0.registry, now) {
            Ok(deadlines) => {
                let decides = if request.hold { Decides::OnRequest } else { Decides::AtVotes };
                let transaction = NewTransaction {
                    gid: request.gid.unwrap_or_else(|| Gid::mint(now, self.0.entropy.as_ref())),
                    fingerprint,
                    initiator: request.initiator,
                    key: request.key,
                    try_order: request.try_order,
                    decides,
                    try_until: deadlines.try_until,
                    decide_by: deadlines.decide_by,
                    owner: self.0.owner,
                    next_attempt_at: self.first_claim_at(decides, deadlines, now),
                    branches: request.branches,
                };
                self.begin_durably(transaction).await?
            }
            Err(bad) => self.begun_before(request.gid, &request.initiator, request.key.as_ref(), fingerprint, bad).await?,
        };
        match wait {
            Wait::Decision => self.see(begun, Command::Ask, |view| view.held || view.status.decision().is_some()).await,
            Wait::End => self.see(begun, Command::Ask, |view| view.held || view.status.has_ended()).await,
        }
    }

    /// Opens a transaction; see `tcc.v1.Coordinator.Begin`.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn begin(&self, request: Begin) -> Result<TxView, Error> {
        let now = self.0.log.now();
        let fingerprint = validate::begin_fingerprint();
        let begun = match validate::begin(&request, &self.0.config, now) {
            Ok(deadlines) => {
                let decides = Decides::OnRequestOpen;
                let transaction = NewTransaction {
                    gid: request.gid.unwrap_or_else(|| Gid::mint(now, self.0.entropy.as_ref())),
                    fingerprint,
                    initiator: request.initiator,
                    key: request.key,
                    try_order: tcc_log::TryOrder::Parallel,
                    decides,
                    try_until: deadlines.try_until,
                    decide_by: deadlines.decide_by,
                    owner: self.0.owner,
                    next_attempt_at: self.first_claim_at(decides, deadlines, now),
                    branches: Vec::new(),
                };
                self.begin_durably(transaction).await?
            }
            Err(bad) => self.begun_before(request.gid, &request.initiator, request.key.as_ref(), fingerprint, bad).await?,
        };
        Ok(begun.view())
    }

    /// Adds a branch and tries it; see `tcc.v1.Coordinator.Enlist`.
    ///
    /// # Errors
    /// Nothing was started, but for [`Error::Unavailable`], where nobody knows: repeat the request.
    pub async fn enlist(&self, gid: Gid, branch: NewBranch) -> Result<(EnlistAnswer, TxView), Error> {
        let bad = validate::branch("branch", &branch, &self.0.config, &self.0.registry);
        if !bad.is_empty() {
            return Err(Error::Invalid(bad));
        }
        self.0.readiness.check()?;
        match self.command(gid, Command::Enlist { branch: branch.clone() }).await? {
            Reached::Driver(handle, Taken::Enlisted(answer)) => {
                let answer = answer?;
                let view = handle.view.borrow().clone();
                Ok((answer, view))
            }
            Reached::Driver(_, Taken::Accepted) | Reached::Elsewhere => Err(Error::Internal),
            Reached::Ended(record) => {
                let Some(there) = record.branches.iter().find(|there| there.branch == branch.branch) else {
                    return Err(driver::closed(gid, record.status));
                };
                if there.participant != branch.participant || there.payload != branch.payload {
                    return Err(Error::BranchReused { gid, branch: branch.branch });
                }
                let answer = EnlistAnswer::of_decided(&branch.branch, record.status, record.cause.as_ref());
                Ok((answer, TxView::of_record(&record)))
            }
        }
    }

    /// Asks for Confirm; see `tcc.v1.Coordinator.Confirm`. What stands is in the view's status.
    ///
    /// # Errors
    /// There is no such transaction, it has no branches, or nobody knows what stands.
    pub async fn confirm(&self, gid: Gid, wait: Wait) -> Result<TxView, Error> {
        let view = self.get(gid).await?;
        if view.status == TxStatus::Trying && view.branches.is_empty() {
            let message = format!("transaction {gid} has no branches: enlist one first, or cancel it");
            return Err(Error::Precondition { reason: "NO_BRANCHES", gid, status: view.status, message });
        }
        self.order(gid, Command::Confirm, wait).await
    }

    /// Asks for Cancel; see `tcc.v1.Coordinator.Cancel`. What stands is in the view's status.
    ///
    /// # Errors
    /// The gid is too old or from the future, or nobody knows what stands.
    pub async fn cancel(&self, gid: Gid, by: Initiator, wait: Wait) -> Result<TxView, Error> {
        let cancel = Command::Cancel { by: by.clone() };
        match self.order(gid, cancel.clone(), wait).await {
            Err(Error::NotFound(_)) => {
                validate::gid_age(gid, &self.0.config, self.0.log.now()).map_err(|bad| Error::Invalid(vec![bad]))?;
                // If somebody begins it just now, the loser of the insert obeys the winner: the record tells.
                self.0.log.begin_cancelled(gid, by).await?;
                self.order(gid, cancel, wait).await
            }
            stands => stands,
        }
    }

    /// Reads a transaction.
    ///
    /// # Errors
    /// There is none, or the log does not answer.
    pub async fn get(&self, gid: Gid) -> Result<TxView, Error> {
        if let Some(view) = self.0.table.get(gid).and_then(|driver| self.newest_here(&driver)) {
            return Ok(view);
        }
        self.told(self.0.log.load(gid).await?.ok_or(Error::NotFound(gid))?).await
    }

    /// What a caller is told of a transaction that was just read.
    pub(crate) async fn told(&self, mut record: TxRecord) -> Result<TxView, Error> {
        // What a driver here shows was durable before.
        if self.0.table.get(record.gid).is_none_or(|driver| driver.is_behind(&record)) {
            record = self.0.settled(record).await?;
        }
        Ok(self.newer(&record))
    }

    /// What a driver here shows, if nobody else can know more: another gateway may have decided or ended the transaction since.
    fn newest_here(&self, handle: &Handle) -> Option<TxView> {
        let view = handle.view.borrow();
        (!self.0.log.is_shared() || view.status.has_ended()).then(|| view.clone())
    }

    /// What is known of a transaction that was just read: by the log, or by a driver here that is as far and knows the votes.
    fn newer(&self, record: &TxRecord) -> TxView {
        let read = TxView::of_record(record);
        let Some(handle) = self.0.table.get(record.gid) else { return read };
        let driven = handle.view.borrow().clone();
        let behind = handle.is_behind(record);
        // Of a branch that was enlisted elsewhere the driver here learns at the decision.
        if !behind && driven.branches.len() >= record.branch_count as usize {
            return driven;
        }
        // Of its own decision the driver hears by itself.
        if behind && record.owner != self.0.owner {
            handle.look();
        }
        read
    }

    /// Lists transactions without branches, newest first, older than `before`. A listing may show a decision a moment before it
    /// is durable.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn list(&self, filter: ListFilter, before: Option<Gid>, limit: u32) -> Result<Page<TxView>, Error> {
        let page = page(self.0.log.list(&filter, before, limit.saturating_add(1)).await?, limit);
        Ok(Page { items: page.items.iter().map(TxView::of_record).collect(), more: page.more })
    }

    /// The end of the process: [`Self::drain`], then [`Self::close`].
    pub async fn shutdown(&self, grace: Duration) {
        self.drain(grace).await;
        self.close().await;
    }

    /// Begins nothing more, lets transactions end for at most `grace`, and hands the others to recovery. Reads still work.
    pub async fn drain(&self, grace: Duration) {
        self.0.draining.cancel();
        self.0.tasks.close();
        if timeout(grace, self.0.tasks.wait()).await.is_err() {
            info!(handed_over = self.0.table.len(), "handing unfinished transactions to recovery");
        }
        self.0.aborting.cancel();
        self.0.tasks.wait().await;
        self.0.background.close();
        self.0.background.wait().await;
    }

    /// Flushes and closes the log; nothing can be asked any more.
    pub async fn close(&self) {
        self.0.log.close().await;
    }

    /// When recovery may claim what is begun now: holds are left alone until they must be decided.
    fn first_claim_at(&self, decides: Decides, deadlines: Deadlines, now: Timestamp) -> Timestamp {
        match decides {
            Decides::AtVotes => now.plus(self.0.lease()),
            Decides::OnRequest | Decides::OnRequestOpen => deadlines.decide_by,
        }
    }

    /// Makes a transaction durable and drives it, or joins the one that is there.
    async fn begin_durably(&self, transaction: NewTransaction) -> Result<Joined, Error> {
        self.0.readiness.check()?;
        let place = tokio::select! {
            biased;
            // Also for those who wait.
            () = self.0.draining.cancelled() => return Err(Error::Draining),
            place = self.0.admission.admit() => place?,
        };
        let core = Arc::clone(&self.0);
        let (told, begun) = oneshot::channel();
        // In a task of its own: a caller that goes away must not leave behind what is durable and has no driver.
        self.0.tasks.spawn(begun::begin(core, transaction, place, told).in_current_span());
        begun.await.unwrap_or_else(|_| {
            error!("a Begun was not finished");
            Err(Error::Unavailable("the request may or may not have started".to_owned()))
        })
    }

    /// A repeated request comes with the deadlines and the gid of the first one, which time may have made invalid: it is the
    /// same request all the same, and joins. `bad` is what is wrong with it as a new one.
    async fn begun_before(
        &self,
        gid: Option<Gid>,
        initiator: &Initiator,
        key: Option<&IdempotencyKey>,
        fingerprint: Fingerprint,
        bad: Vec<Invalid>,
    ) -> Result<Joined, Error> {
        let only_late = bad.iter().all(|bad| matches!(bad.field.as_str(), "gid" | "try_until" | "decide_by"));
        let mut there = None;
        if let Some(gid) = gid.filter(|_| only_late) {
            there = self.0.log.load(gid).await?;
        }
        if let Some(key) = key.filter(|_| only_late && there.is_none()) {
            there = self.0.log.find(initiator, key).await?;
        }
        match there.filter(|there| same_request(there, initiator, key, fingerprint)) {
            Some(there) => Ok(Joined::There(Box::new(TxView::of_record(&self.0.settled(there).await?)))),
            None => Err(Error::Invalid(bad)),
        }
    }

    /// Gets a command to the transaction's driver, starting one if needed, until one has taken it. Nothing is asked again on
    /// behalf of another gateway that drives the transaction.
    pub(crate) async fn command(&self, gid: Gid, command: Command) -> Result<Reached, Error> {
        let mut given = 0_u32;
        loop {
            if self.0.aborting.is_cancelled() {
                return Err(Error::Draining);
            }
            let handle = match self.0.table.get(gid) {
                Some(handle) => handle,
                None => {
                    let record = self.0.log.load(gid).await?.ok_or(Error::NotFound(gid))?;
                    if record.status.has_ended() {
                        return Ok(Reached::Ended(Box::new(record)));
                    }
                    if matches!(command, Command::Ask) && self.0.is_driven_elsewhere(&record) {
                        return Ok(Reached::Elsewhere);
                    }
                    let record = self.0.settled(record).await?;
                    driver::start(&self.0, record, Origin::Loaded { ask: false }, Place::unbounded())
                }
            };
            let (taken, answered) = oneshot::channel();
            if handle.orders.send(Order { command: Box::new(command.clone()), taken }).await.is_ok()
                && let Ok(answer) = answered.await
            {
                return Ok(Reached::Driver(handle, answer));
            }
            // That driver left without it: on to the next. One may leave at any moment; whatever makes all of them leave is
            // not outrun.
            given += 1;
            if given > 1 {
                self.pause().await?;
            }
        }
    }

    /// Asks for a decision and waits for what stands.
    async fn order(&self, gid: Gid, command: Command, wait: Wait) -> Result<TxView, Error> {
        let joined = match self.command(gid, command.clone()).await? {
            Reached::Driver(handle, _) => Joined::Driven(gid, handle),
            Reached::Elsewhere => Joined::There(Box::new(self.get(gid).await?)),
            Reached::Ended(record) => return Ok(TxView::of_record(&record)),
        };
        match wait {
            Wait::Decision => self.see(joined, command, |view| view.status.decision().is_some()).await,
            Wait::End => self.see(joined, command, |view| view.status.has_ended()).await,
        }
    }

    /// Waits until the transaction is as wanted; gives the command again when an undecided transaction has lost its driver. The
    /// caller's patience bounds it, and the end of the process.
    async fn see(&self, joined: Joined, command: Command, wanted: impl Fn(&TxView) -> bool) -> Result<TxView, Error> {
        let gid = joined.gid();
        let mut driven = joined.driven();
        loop {
            if let Some(mut handle) = driven.take() {
                if let Some(view) = self.see_driven(gid, &mut handle, &wanted).await {
                    return Ok(view);
                }
                let last = handle.view.borrow().clone();
                if wanted(&last) {
                    return Ok(last);
                }
                if last.status.decision().is_none() {
                    // It left memory undecided (idle for too long, or the log failed): not at once again.
                    self.pause().await?;
                }
            }
            let view = self.get(gid).await.map_err(unknown_now)?;
            if wanted(&view) {
                return Ok(view);
            }
            if view.status.decision().is_some() {
                // Decided: recovery sees to the rest, at its own pace.
                self.pause().await?;
            } else {
                match self.command(gid, command.clone()).await.map_err(unknown_now)? {
                    Reached::Driver(handle, _) => driven = Some(handle),
                    Reached::Elsewhere => self.pause().await?,
                    Reached::Ended(_) => {}
                }
            }
        }
    }

    /// Waits until its driver here is gone, or the transaction is as wanted: by the driver, or by what another gateway did, of
    /// which the driver need not hear.
    async fn see_driven(&self, gid: Gid, handle: &mut Handle, wanted: &impl Fn(&TxView) -> bool) -> Option<TxView> {
        let mut interval = Duration::from_millis(self.0.config.watch_interval_ms);
        let longest = interval * LOOKS_APART_MAX;
        loop {
            let waited = async { handle.view.wait_for(|view| wanted(view)).await.ok().map(|view| view.clone()) };
            if !self.0.log.is_shared() {
                return waited.await;
            }
            if let Ok(view) = timeout(interval, waited).await {
                return view;
            }
            // A slow log is not made faster by asking it ever again.
            interval = (interval * 2).min(longest);
            // Of what does not answer, whoever waits next may learn more.
            if let Ok(view) = self.get(gid).await
                && wanted(&view)
            {
                return Some(view);
            }
        }
    }

    /// A moment before looking again, unless the process ends.
    async fn pause(&self) -> Result<(), Error> {
        tokio::select! {
            () = self.0.aborting.cancelled() => Err(unknown_now(Error::Draining)),
            () = sleep(Duration::from_millis(self.0.config.watch_interval_ms)) => Ok(()),
        }
    }
}

/// After Begun, whatever keeps the answer from the caller, the transaction goes on.
fn unknown_now(error: Error) -> Error {
    match error {
        Error::Draining | Error::Internal | Error::Exhausted { .. } => {
            Error::Unavailable("the transaction goes on, but its outcome is not known here: ask again".to_owned())
        }
        other => other,
    }
}

/// Where a command went.
pub(crate) enum Reached {
    Driver(Handle, Taken),
    /// Nowhere: another gateway drives the transaction, and it was nothing that must be done here.
    Elsewhere,
    Ended(Box<TxRecord>),
}

pub(crate) fn page<T>(mut items: Vec<T>, limit: u32) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    Page { items, more }
}
