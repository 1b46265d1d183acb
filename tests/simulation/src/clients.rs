//! Those who order: over the order API, and as initiators of their own over the coordinator's. They repeat what is not answered, at any
//! gateway, walk away, change their minds, and ask twice at the same time. What they were told goes to the history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tcc_client::{Begin, Branch, Client, Enlisted, Retries, Submit, Transaction, TryOrder, Wait};
use tcc_proto::{
    coupon::v1::LockCoupon,
    inventory::v1::{ReserveStock, StockLine},
    order::v1::{
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, Order, OrderLine, OrderStatus,
        order_service_client::OrderServiceClient,
    },
};
use tcc_types::{Gid, Initiator, TxStatus};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    deliveries::UNKNOWN_FIELD,
    dice::Dice,
    history::Told,
    net::gateways,
    place::{Db, Host},
    settings::Settings,
    world::World,
};

/// How long a client waits for one answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_200);
/// How often it asks before it gives up.
const ATTEMPTS_MAX: u32 = 12;

/// One who orders.
struct Shopper {
    world: Arc<World>,
    settings: Arc<Settings>,
    dice: Dice,
    name: String,
    gateways: Vec<Channel>,
}

/// The same branch with another payload: one more field, which no message has.
fn with_another_payload(mut branch: Branch) -> Branch {
    branch.payload.value.extend(UNKNOWN_FIELD);
    branch
}

/// Everything but what would be answered in the same way again.
fn may_be_repeated(status: &Status) -> bool {
    let code = status.code();
    !matches!(code, Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists)
}

/// Runs all clients of one machine, and ends when they have done all that they wanted.
pub(crate) async fn run(world: Arc<World>, host: Host, settings: Arc<Settings>) -> turmoil::Result {
    let gateways = gateways(&world, host, settings.gateways)?;
    let mut shoppers = JoinSet::new();
    for number in 0..settings.shoppers_per_client {
        let name = format!("{host}.{number}");
        let (world, settings, gateways) = (Arc::clone(&world), Arc::clone(&settings), gateways.clone());
        shoppers.spawn_local(Shopper { dice: world.dice(&name), world, settings, name, gateways }.shop());
    }
    while let Some(ended) = shoppers.join_next().await {
        ended?;
    }
    world.tell(host, format_args!("is done"));
    world.history().at_work -= 1;
    Ok(())
}

impl Shopper {
    async fn shop(self) {
        for number in 0..self.settings.orders_per_shopper {
            sleep(self.dice.millis(0..=1_600)).await;
            let key = format!("{}.{number}", self.name);
            match self.dice.number(0..=9) {
                0..=6 => self.order(key).await,
                7 => self.submit(key).await,
                8 => self.enlist(key).await,
                _ => self.cancel_first(key).await,
            }
        }
    }

    // The order API.

    async fn order(&self, order_key: String) {
        let hold = self.dice.happens(250);
        let request = CreateOrderRequest {
            order_key: order_key.clone(),
            user_id: "user".to_owned(),
            lines: self.lines().into_iter().map(|(sku, quantity)| OrderLine { sku, quantity }).collect(),
            coupon_id: if self.dice.happens(300) { self.coupon() } else { String::new() },
            hold,
            pay_by: None,
        };
        if self.dice.happens(80) {
            // It walks away: the order may or may not be placed.
            let patience = self.dice.millis(0..=120);
            if timeout(patience, self.client().create_order(request.clone())).await.is_ok() && self.dice.happens(500) {
                return;
            }
        }
        let create = async || {
            let answer = self.client().create_order(request.clone()).await?;
            answer.into_inner().order.ok_or_else(|| Status::internal("no order"))
        };
        let mut more = request.clone();
        more.lines.iter_mut().for_each(|line| line.quantity += 1);
        let create_more = async || {
            let answer = self.client().create_order(more.clone()).await?;
            answer.into_inner().order.ok_or_else(|| Status::internal("no order"))
        };
        let placed = match self.dice.number(0..=19) {
            0..=1 => {
                let (one, other) = futures::join!(self.ask(&order_key, &create), self.ask(&order_key, &create));
                one.or(other)
            }
            way @ 2..=3 => {
                let (one, other) = if way == 2 {
                    futures::join!(self.ask(&order_key, &create), self.ask(&order_key, &create_more))
                } else {
                    (self.ask(&order_key, &create).await, self.ask(&order_key, &create_more).await)
                };
                self.is_of(&request, one.as_ref());
                self.is_of(&more, other.as_ref());
                self.never_both(&order_key, one, other)
            }
            _ => self.ask(&order_key, &create).await,
        };
        let Some(placed) = placed else { return };
        let id = placed.order_id.clone();
        if placed.status() == OrderStatus::Held {
            self.decide(&order_key, &id).await;
        }
        if self.dice.happens(200) {
            let get = async || {
                let answer = self.client().get_order(GetOrderRequest { order_id: id.clone() }).await?;
                answer.into_inner().order.ok_or_else(|| Status::internal("no order"))
            };
            self.ask(&order_key, &get).await;
        }
    }

    /// An order that was answered is the one that was asked for. Before its row is there, its lines are not.
    fn is_of(&self, request: &CreateOrderRequest, order: Option<&Order>) {
        let Some(order) = order.filter(|order| !order.lines.is_empty()) else { return };
        let sorted = |lines: &[OrderLine]| {
            let lines = lines.iter().map(|line| (line.sku.clone(), line.quantity));
            lines.collect::<BTreeSet<_>>()
        };
        if sorted(&order.lines) != sorted(&request.lines) {
            self.world.violation("answers", format_args!("{request:?} was answered with {:?}", order.lines));
        }
    }

    /// Pays, changes its mind, both at once, or forgets.
    async fn decide(&self, order_key: &str, id: &str) {
        let confirm = async || {
            let answer = self.client().confirm_order(ConfirmOrderRequest { order_id: id.to_owned() }).await?;
            answer.into_inner().order.ok_or_else(|| Status::internal("no order"))
        };
        let cancel = async || {
            let answer = self.client().cancel_order(CancelOrderRequest { order_id: id.to_owned() }).await?;
            answer.into_inner().order.ok_or_else(|| Status::internal("no order"))
        };
        sleep(self.dice.millis(0..=1_000)).await;
        match self.dice.number(0..=9) {
            0..=4 => drop(self.ask(order_key, &confirm).await),
            5..=6 => drop(self.ask(order_key, &cancel).await),
            7 => drop(futures::join!(self.ask(order_key, &confirm), self.ask(order_key, &cancel))),
            _ => {}
        }
    }

    /// Asks until there is an answer, and writes down what it says.
    async fn ask(&self, key: &str, send: &impl AsyncFn() -> Result<Order, Status>) -> Option<Order> {
        let order = self.repeat(key, send, may_be_repeated);
        let order = order.await?;
        let told = match order.status() {
            OrderStatus::Confirmed => Some(Told::Confirmed),
            OrderStatus::Cancelled => Some(Told::Cancelled),
            OrderStatus::Held | OrderStatus::Pending | OrderStatus::Unspecified => None,
        };
        self.told(key, order.order_id.parse().ok(), told, &format!("order {:?}", order.status()));
        Some(order)
    }

    fn client(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.gateway())
    }

    // The coordinator's API.

    /// Submits with a gid of its own, perhaps in order, perhaps as a hold that it then decides.
    async fn submit(&self, key: String) {
        let (gid, hold) = (self.mint(), self.dice.happens(400));
        let mut submit = Submit { gid: Some(gid), hold, wait: self.wait(), ..Submit::of(self.branches(1)) };
        if self.dice.happens(300) {
            submit.try_order = TryOrder::Sequential;
        }
        if self.dice.happens(500) && self.takes_no_for_an_answer(&key, gid, &submit).await {
            return;
        }
        let send = async |client: Client| client.submit(submit.clone()).await;
        let answer = if self.dice.happens(100) {
            let others = submit.branches.iter().cloned().map(with_another_payload).collect();
            let other_submit = Submit { branches: others, ..submit.clone() };
            let send_other = async |client: Client| client.submit(other_submit.clone()).await;
            let (one, other) = futures::join!(self.transact(&key, &send), self.transact(&key, &send_other));
            one.iter().for_each(|_| self.is_stored(gid, &submit));
            other.iter().for_each(|_| self.is_stored(gid, &other_submit));
            self.never_both(&key, one, other)
        } else {
            self.transact(&key, &send).await
        };
        if hold && answer.is_some_and(|it| it.decision().is_none()) {
            self.settle(&key, gid).await;
        }
    }

    /// A request that was answered with a transaction is what the log has of it.
    fn is_stored(&self, gid: Gid, answered: &Submit) {
        let log = self.world.log.visible();
        let Some(record) = log.transaction(gid) else { return };
        let stored: BTreeMap<_, _> = record.branches.iter().map(|it| (&it.branch, &it.payload.value[..])).collect();
        let asked: BTreeMap<_, _> = answered.branches.iter().map(|it| (&it.id, &it.payload.value[..])).collect();
        if stored != asked {
            self.world.violation("answers", format_args!("{gid} was answered to a request with other branches than it has"));
        }
    }

    /// Sends it once, and goes away if it is told that nothing was started: then nothing may ever be.
    async fn takes_no_for_an_answer(&self, key: &str, gid: Gid, submit: &Submit) -> bool {
        let Ok(client) = self.initiator() else { return false };
        let client = client.with_retries(Retries { attempts_max: 1, ..Retries::default() });
        let is_refused = match timeout(ANSWER_WITHIN, client.submit(submit.clone())).await {
            Ok(Err(error)) => error.nothing_started(),
            Ok(Ok(_)) | Err(_) => false,
        };
        if is_refused {
            self.note(key, "nothing started");
            self.world.history().never.insert(gid);
        }
        is_refused
    }

    /// Opens a transaction, adds branches one by one, perhaps by several gateways at once, and decides.
    async fn enlist(&self, key: String) {
        let gid = self.mint();
        let begin = Begin { gid: Some(gid), ..Begin::default() };
        if self.transact(&key, &async |client: Client| client.begin(begin.clone()).await).await.is_none() {
            return;
        }
        let branches = self.branches(2);
        let reserved = Mutex::new(Vec::new());
        let enlist = async |branch: &Branch| {
            let enlist = async |client: Client| {
                let (enlisted, transaction) = client.enlist(gid, branch).await?;
                if matches!(enlisted, Enlisted::Reserved(_)) {
                    reserved.lock().unwrap_or_else(PoisonError::into_inner).push(branch.clone());
                }
                Ok(transaction)
            };
            self.transact(&key, &enlist).await
        };
        if self.dice.happens(100) {
            let others: Vec<_> = branches.iter().cloned().map(with_another_payload).collect();
            futures::future::join_all(branches.iter().chain(&others).map(&enlist)).await;
        } else if self.dice.happens(500) {
            futures::future::join_all(branches.iter().map(&enlist)).await;
        } else {
            for branch in &branches {
                enlist(branch).await;
            }
        }
        let reserved = reserved.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (number, one) in reserved.iter().enumerate() {
            let other = reserved[..number].iter().find(|other| other.id == one.id && other.payload != one.payload);
            self.never_both(&key, Some(one), other);
        }
        self.settle(&key, gid).await;
    }

    /// Cancels a transaction that nobody has begun, and begins it, in any order.
    async fn cancel_first(&self, key: String) {
        let gid = self.mint();
        let submit = Submit { gid: Some(gid), wait: self.wait(), ..Submit::of(self.branches(1)) };
        let cancel = async {
            sleep(self.dice.millis(0..=60)).await;
            self.transact(&key, &async |client: Client| client.cancel(gid, Wait::Decision).await).await
        };
        let begin = async {
            sleep(self.dice.millis(0..=200)).await;
            self.transact(&key, &async |client: Client| client.submit(submit.clone()).await).await
        };
        futures::join!(cancel, begin);
    }

    /// Decides, one way or the other, or both, or not at all.
    async fn settle(&self, key: &str, gid: Gid) {
        sleep(self.dice.millis(0..=800)).await;
        let wait = self.wait();
        let confirm = async |client: Client| client.confirm(gid, wait).await;
        let cancel = async |client: Client| client.cancel(gid, wait).await;
        match self.dice.number(0..=9) {
            0..=5 => drop(self.transact(key, &confirm).await),
            6..=7 => drop(self.transact(key, &cancel).await),
            8 => drop(futures::join!(self.transact(key, &confirm), self.transact(key, &cancel))),
            _ => {}
        }
    }

    async fn transact(
        &self,
        key: &str,
        send: &impl AsyncFn(Client) -> Result<Transaction, tcc_client::Error>,
    ) -> Option<Transaction> {
        let once = async || {
            let client = self.initiator()?;
            let client = client.with_retries(Retries { attempts_max: 2, delay_base_ms: 20, delay_max_ms: 100 });
            send(client).await.map_err(|error| match error {
                tcc_client::Error::Status { status, .. } => *status,
                other => Status::unknown(other.to_string()),
            })
        };
        let answer = self.repeat(key, &once, may_be_repeated);
        let transaction = answer.await?;
        let told = transaction.decision().map(Told::of);
        self.told(key, Some(transaction.gid), told, &format!("transaction {:?}", transaction.status));
        if transaction.status == TxStatus::Trying && self.dice.happens(100) {
            sleep(self.dice.millis(0..=500)).await;
        }
        Some(transaction)
    }

    fn initiator(&self) -> Result<Client, Status> {
        let initiator = Initiator::new("shop").map_err(|_| Status::internal("initiator"))?;
        Client::new(self.gateway(), &initiator).map_err(|_| Status::internal("client"))
    }

    fn branches(&self, most: usize) -> Vec<Branch> {
        let lines = self.lines().into_iter().map(|(sku, quantity)| StockLine { sku, quantity }).collect();
        let stock = Branch::new("stock", "inventory", &ReserveStock { lines });
        let coupon = LockCoupon { coupon_id: self.coupon(), user_id: "user".to_owned() };
        let coupon = Branch::new("coupon", "coupon", &coupon);
        let both = most > 1 || self.dice.happens(300);
        stock.into_iter().chain(coupon.into_iter().filter(|_| both)).collect()
    }

    fn wait(&self) -> Wait {
        if self.dice.happens(200) { Wait::End } else { Wait::Decision }
    }

    // Both.

    /// Two different requests under one key, gid or branch: one of them at most is answered with a transaction.
    fn never_both<T>(&self, key: &str, one: Option<T>, other: Option<T>) -> Option<T> {
        if one.is_some() && other.is_some() {
            self.world.violation("answers", format_args!("{key} was answered to two different requests"));
        }
        one.or(other)
    }

    async fn repeat<T>(
        &self,
        key: &str,
        send: &impl AsyncFn() -> Result<T, Status>,
        repeats: impl Fn(&Status) -> bool,
    ) -> Option<T> {
        for attempt in 1..=ATTEMPTS_MAX {
            match timeout(ANSWER_WITHIN, send()).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(status)) if !repeats(&status) => {
                    self.note(key, &format!("{:?}: {}", status.code(), status.message()));
                    return None;
                }
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(self.dice.millis(10..=100 * u64::from(attempt))).await;
        }
        self.world.history().unknown += 1;
        self.note(key, "no answer");
        None
    }

    fn told(&self, key: &str, gid: Option<Gid>, told: Option<Told>, what: &str) {
        self.note(key, what);
        match gid {
            Some(gid) => self.world.history().tell(key, gid, told),
            None => self.world.violation("answers", format_args!("{key} was answered without an id")),
        }
    }

    fn note(&self, key: &str, what: &str) {
        self.world.tell(&self.name, format_args!("{key}: {what}"));
        let word = what.split(':').next().unwrap_or(what);
        self.world.coverage().tell(word);
    }

    fn gateway(&self) -> Channel {
        self.gateways[self.dice.index(self.gateways.len())].clone()
    }

    fn lines(&self) -> Vec<(String, i64)> {
        let first = self.dice.number(0..=u64::from(self.settings.skus) - 1);
        let second = self.dice.number(0..=u64::from(self.settings.skus) - 1);
        let quantity = i64::try_from(self.dice.number(1..=3)).unwrap_or(1);
        let mut lines = vec![(format!("sku-{first}"), quantity)];
        if second != first && self.dice.happens(300) {
            lines.push((format!("sku-{second}"), 1));
        }
        lines
    }

    fn coupon(&self) -> String {
        format!("coupon-{}", self.dice.number(0..=u64::from(self.settings.coupons) - 1))
    }

    fn mint(&self) -> Gid {
        Gid::mint(self.world.clock(Db::Log).now(), &self.dice)
    }
}
