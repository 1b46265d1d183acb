//! What the service targets share: a runtime, participants that answer at once, and what must hold of every refusal.

use std::sync::Arc;

use async_trait::async_trait;
use tcc_coordinator::{Endpoint, Registry, Unknown};
use tcc_database::memory::{Calm, Memory};
use tcc_fuzz::Outcome;
use tcc_log::{DatabaseLog, LogOptions, LogTables, TxLog};
use tcc_types::{CancelCall, ConfirmCall, LogName, ParticipantName, Refusal, SettleAnswer, TryAnswer, TryCall};
use tokio::runtime::{Builder, Runtime};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::samples::{SECRET, Still, plain};

/// The participants of the coordinators here.
pub(crate) const PARTICIPANTS: [&str; 2] = ["inventory", "coupon"];

/// With time that runs only as far as it is waited for.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Says yes, or no with whatever the payload says.
struct Ready;

#[async_trait]
impl Endpoint for Ready {
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        if call.payload.type_url.ends_with("Refuse") {
            let said = String::from_utf8_lossy(&call.payload.value).replace(SECRET, "");
            return Ok(TryAnswer::Refused(Refusal::business(said.clone(), said)));
        }
        Ok(TryAnswer::Reserved(None))
    }

    async fn confirm(&self, _: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        Ok(SettleAnswer::Done)
    }

    async fn cancel(&self, _: CancelCall) -> Result<SettleAnswer, Unknown> {
        Ok(SettleAnswer::Done)
    }
}

pub(crate) fn registry() -> Registry {
    let with = |registry: Registry, name| registry.with(ParticipantName::new(name).unwrap(), Arc::new(Ready));
    PARTICIPANTS.into_iter().fold(Registry::default(), with)
}

/// A log in memory.
pub(crate) fn log() -> Arc<dyn TxLog> {
    let tables = LogTables::new(LogName::new("main").unwrap());
    let options = LogOptions { finish_delay_ms: 0, ..LogOptions::default() };
    Arc::new(DatabaseLog::in_memory(options, Memory::new(tables), Arc::new(Calm), Arc::new(Still), true).unwrap())
}

/// Checks a refusal: its code is one that a caller can cause, it names the domain, a reason, and each bad field; it tells nothing that it
/// must not, and it is small enough to arrive. What was named, for counting.
pub(crate) fn refusal(what: &str, status: &Status, domain: &str, fields: &[&str]) -> Outcome {
    let text = format!("{status:?}");
    assert!(!text.contains(SECRET), "{text}");
    let details = status.check_error_details().expect("details that can be read");
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!(info.domain, domain, "{text}");
    let upper = !info.reason.is_empty() && info.reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    assert!(upper, "{text}");
    let response = status.clone().into_http::<()>();
    let bytes: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(bytes < 16 * 1_024, "{bytes} bytes: {text}");
    match status.code() {
        Code::InvalidArgument => {
            let bad = &details.bad_request().expect("the bad fields").field_violations;
            assert!((1..=16).contains(&bad.len()), "{text}");
            for one in bad {
                let root = one.field.split(['.', '[']).next().unwrap_or_default();
                assert!(fields.contains(&root) && !one.description.is_empty(), "{} is no field of {what}: {text}", one.field);
            }
            let named = plain(&bad[0].field);
            format!("{what}: refused {named}").into()
        }
        Code::NotFound | Code::AlreadyExists => {
            assert!(details.resource_info().is_some(), "{text}");
            format!("{what}: refused as {:?}", status.code()).into()
        }
        Code::FailedPrecondition => {
            assert!(details.precondition_failure().is_some(), "{text}");
            format!("{what}: refused as {}", info.reason).into()
        }
        _ => panic!("{what}: no caller can cause {text}"),
    }
}

/// Lets the types of a check be known.
pub(crate) fn beside<Q, A>(request: &Q, answer: A, check: impl FnOnce(&Q, A)) {
    check(request, answer);
}

/// One call: decode, send, check the answer beside the request; `accepted`, or the refusal that was checked.
macro_rules! ask {
    ($runtime:ident, $input:ident, $client:ident.$method:ident($request:ty), $domain:expr, $fields:expr, $check:expr) => {
        match <$request as prost::Message>::decode($input) {
            Err(_) => "no message".into(),
            Ok(request) => match $runtime.block_on($client.$method(tonic::Request::new(request.clone()))) {
                Ok(answer) => {
                    crate::services::beside(&request, answer.into_inner(), $check);
                    concat!(stringify!($method), ": accepted").into()
                }
                Err(status) => crate::services::refusal(stringify!($method), &status, $domain, $fields),
            },
        }
    };
}
pub(crate) use ask;
