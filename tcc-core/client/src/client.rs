//! The client: one method for each call, and one loop that repeats.

use std::time::Duration;

use tcc_proto::tcc::v1::{self as proto, coordinator_client::CoordinatorClient};
use tcc_types::{Entropy, Gid, Initiator, SystemEntropy};
use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    Begin, Branch, Enlisted, Error, List, Page, Submit, Transaction, Wait,
    error::{asked_delay, says_nothing_started},
    is_repeatable,
};

/// The largest answer that is taken: as many branches as a transaction may have, each with as large an output as participants give, by
/// default.
const ANSWER_BYTES_MAX: usize = 66 * 1024 * 1024;

/// A connection on which nothing has come for so long is asked whether it still stands, and given up when as long again nothing comes.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// The metadata that names who asks.
const INITIATOR_KEY: &str = "tcc-initiator";

/// How a call that may be repeated is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often it is sent at most; 1 repeats nothing.
    pub attempts_max: u32,
    /// Longest own delay before the first repetition; it doubles, with full jitter, and is added to what the server asks for.
    pub delay_base_ms: u64,
    /// Longest own delay. A server that asks for more is not waited for: its error is returned.
    pub delay_max_ms: u64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts_max: 5, delay_base_ms: 50, delay_max_ms: 5_000 }
    }
}

impl Retries {
    /// What to wait after `attempt` (from 1) has failed; `None`: give up.
    fn delay(self, attempt: u32, status: &Status, entropy: &dyn Entropy) -> Option<Duration> {
        let asked = asked_delay(status);
        let delay_max = Duration::from_millis(self.delay_max_ms);
        if attempt >= self.attempts_max || !is_repeatable(status) || asked > delay_max {
            return None;
        }
        let doubled = 1_u64.checked_shl(attempt - 1).unwrap_or(u64::MAX).saturating_mul(self.delay_base_ms);
        Some(asked + entropy.jitter(Duration::from_millis(doubled).min(delay_max)))
    }
}

/// An initiator's way to a coordinator. Clones share the connection.
///
/// Every call is cancel-safe: a dropped one may or may not have had its effect, and can be sent again.
#[derive(Clone, Debug)]
pub struct Client {
    calls: CoordinatorClient<Channel>,
    initiator: MetadataValue<Ascii>,
    retries: Retries,
}

impl Client {
    /// Connects; `endpoint` is a URL such as `http://127.0.0.1:50051`. A connection whose other end is gone without a word is given up after
    /// six seconds, and made anew.
    ///
    /// # Errors
    /// [`Error::Connect`]: it is none, or nobody answers there.
    pub async fn connect(endpoint: impl Into<String>, initiator: Initiator) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(endpoint.into())?
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        Self::new(endpoint.connect().await?, &initiator)
    }

    /// On a channel that is there already. It should have an HTTP/2 keepalive: without one, calls on a connection whose other end is gone
    /// wait for as long as the operating system does.
    ///
    /// # Errors
    /// Never for an [`Initiator`] as it is today: its characters are allowed in metadata.
    pub fn new(channel: Channel, initiator: &Initiator) -> Result<Self, Error> {
        let initiator = initiator.as_str().parse().map_err(|_| Error::Malformed("initiator".to_owned()))?;
        let calls = CoordinatorClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self { calls, initiator, retries: Retries::default() })
    }

    /// Repeats in another way.
    #[must_use]
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Takes answers of so many bytes, where transactions may have more branches, or branches larger outputs, than by default. By default
    /// 66 MiB.
    #[must_use]
    pub fn with_answer_bytes_max(mut self, answer_bytes_max: usize) -> Self {
        self.calls = self.calls.max_decoding_message_size(answer_bytes_max);
        self
    }

    /// Runs a whole transaction. A refusal is no error: see [`Transaction::decision`] and [`Transaction::refusal`].
    ///
    /// # Errors
    /// [`Error`]. Only [`Error::nothing_started`] tells that nothing was started; otherwise that is unknown, and a clone of this
    /// request, sent later, is the same transaction.
    pub async fn submit(&self, submit: Submit) -> Result<Transaction, Error> {
        let message = submit.to_proto();
        let answer = self.repeat(message, async |mut calls, request| calls.submit(request).await).await?;
        Transaction::from_proto(answer.transaction)
    }

    /// Opens a transaction to which branches are enlisted.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn begin(&self, begin: Begin) -> Result<Transaction, Error> {
        let message = begin.to_proto();
        let answer = self.repeat(message, async |mut calls, request| calls.begin(request).await).await?;
        Transaction::from_proto(answer.transaction)
    }

    /// Adds a branch and tries it.
    ///
    /// # Errors
    /// [`Error`]; whether it had an effect is unknown unless [`Error::nothing_started`].
    pub async fn enlist(&self, gid: Gid, branch: &Branch) -> Result<(Enlisted, Transaction), Error> {
        let message = proto::EnlistRequest { gid: gid.to_string(), branch: Some(branch.to_proto()) };
        let answer = self.repeat(message, async |mut calls, request| calls.enlist(request).await).await?;
        Ok((Enlisted::from_proto(answer.outcome)?, Transaction::from_proto(answer.transaction)?))
    }

    /// Asks for Confirm. What stands is in the answer's decision: it may be Cancel.
    ///
    /// # Errors
    /// As [`Self::enlist`].
    pub async fn confirm(&self, gid: Gid, wait: Wait) -> Result<Transaction, Error> {
        let message = proto::ConfirmTransactionRequest { gid: gid.to_string(), wait: wait.code() };
        let answer = self.repeat(message, async |mut calls, request| calls.confirm(request).await).await?;
        Transaction::from_proto(answer.transaction)
    }

    /// Asks for Cancel. What stands is in the answer's decision: it may be Confirm.
    ///
    /// # Errors
    /// As [`Self::enlist`].
    pub async fn cancel(&self, gid: Gid, wait: Wait) -> Result<Transaction, Error> {
        let message = proto::CancelTransactionRequest { gid: gid.to_string(), wait: wait.code() };
        let answer = self.repeat(message, async |mut calls, request| calls.cancel(request).await).await?;
        Transaction::from_proto(answer.transaction)
    }

    /// Reads a transaction.
    ///
    /// # Errors
    /// As [`Self::enlist`]; NOT_FOUND if there is none.
    pub async fn get(&self, gid: Gid) -> Result<Transaction, Error> {
        let message = proto::GetTransactionRequest { gid: gid.to_string() };
        let answer = self.repeat(message, async |mut calls, request| calls.get(request).await).await?;
        Transaction::from_proto(answer.transaction)
    }

    /// Lists transactions, newest first.
    ///
    /// # Errors
    /// As [`Self::enlist`].
    pub async fn list(&self, list: &List) -> Result<Page, Error> {
        let answer = self.repeat(list.to_proto(), async |mut calls, request| calls.list(request).await).await?;
        let transactions = answer.transactions.into_iter().map(|one| Transaction::from_proto(Some(one)));
        Ok(Page { transactions: transactions.collect::<Result<_, _>>()?, next_page_token: answer.next_page_token })
    }

    /// Streams a transaction: as it is now, then after each change, until it has ended. A stream that breaks is not repeated.
    ///
    /// # Errors
    /// As [`Self::get`]; each item may be an error, and is then the last.
    pub async fn watch(
        &self,
        gid: Gid,
    ) -> Result<impl Stream<Item = Result<Transaction, Error>> + Send + Unpin + use<>, Error> {
        let message = proto::WatchTransactionRequest { gid: gid.to_string() };
        let stream = self.repeat(message, async |mut calls, request| calls.watch(request).await).await?;
        Ok(stream.map(|item| Transaction::from_proto(item?.transaction)))
    }

    /// Sends the same message until it is answered, or until it may or need not be sent again.
    async fn repeat<M: Clone, A>(
        &self,
        message: M,
        send: impl AsyncFn(CoordinatorClient<Channel>, Request<M>) -> Result<Response<A>, Status>,
    ) -> Result<A, Error> {
        let (mut attempt, mut earlier_unknown) = (1, false);
        loop {
            let mut request = Request::new(message.clone());
            request.metadata_mut().insert(INITIATOR_KEY, self.initiator.clone());
            let status = match send(self.calls.clone(), request).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let Some(delay) = self.retries.delay(attempt, &status, &SystemEntropy) else {
                return Err(Error::Status { status: Box::new(status), earlier_unknown });
            };
            earlier_unknown |= !says_nothing_started(&status);
            sleep(delay).await;
            attempt += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tcc_types::Invalid;
    use tcc_wire::status;

    use super::*;

    struct Longest;

    impl Entropy for Longest {
        fn next_u64(&self) -> u64 {
            u64::MAX
        }
    }

    const RETRIES: Retries = Retries { attempts_max: 4, delay_base_ms: 10, delay_max_ms: 30 };

    fn delay_ms(attempt: u32, status: &Status) -> Option<u128> {
        RETRIES.delay(attempt, status, &Longest).map(|delay| delay.as_millis())
    }

    #[test]
    fn delays_double_up_to_their_cap_and_attempts_end() {
        let status = Status::unavailable("down");
        let delays = [1, 2, 3, 4].map(|attempt| delay_ms(attempt, &status));
        assert_eq!(delays, [Some(10), Some(20), Some(30), None]);
    }

    #[test]
    fn what_the_server_asks_for_is_waited_in_full_or_not_at_all() {
        let asking = |ms| status::exhausted("tcc.v1", "transactions_in_flight_max", 1, Duration::from_millis(ms));
        assert_eq!(delay_ms(1, &asking(25)), Some(35));
        assert_eq!(delay_ms(1, &asking(31)), None);
    }

    #[test]
    fn only_what_may_be_repeated_is_repeated() {
        let bad = status::invalid("tcc.v1", &[Invalid::new("gid", "is bad")]);
        for status in [bad, Status::unknown("no transport behind it"), Status::already_exists("x"), Status::internal("x")] {
            assert_eq!(delay_ms(1, &status), None, "{status:?}");
        }
    }
}
