//! Structured logs to standard error, and the trace context that crosses processes in gRPC metadata.
//!
//! Calls whose caller sent a trace context go through OpenTelemetry without an exporter, so that trace ids flow from the first
//! caller to the last participant; an exporter, when there is one, is plugged in here. Other calls are not traced: that is not free,
//! and nobody would read it. Their log lines are found by gid.

use std::time::Duration;

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tonic::{
    codegen::http,
    metadata::{KeyRef, MetadataKey, MetadataMap},
};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, dynamic_filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The target of spans with which a trace enters this process.
const TRACED: &str = "tcc_traced";

/// The `telemetry` section of every server's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// What is logged, in the language of `RUST_LOG`: `info`, or `info,tcc_coordinator=debug`.
    #[serde(deserialize_with = "filter_directives")]
    pub filter: String,
    /// How a line looks.
    pub format: Format,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: Format::Text }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

// A filter that does not parse would otherwise be noticed only when the log is needed.
fn filter_directives<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let directives = String::deserialize(deserializer)?;
    match EnvFilter::try_new(&directives) {
        Ok(_) => Ok(directives),
        Err(error) => Err(D::Error::custom(format!("filter: {directives:?} is no log filter: {error}"))),
    }
}

/// Starts logging for this process. A second call changes nothing.
pub fn init(config: &Telemetry, service: &'static str) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        Format::Text => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let tracer = SdkTracerProvider::builder().build().tracer(service);
    // Trace ids flow whatever is logged, so this layer has a filter of its own: what is below a span that has one.
    let traces = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(
            dynamic_filter_fn(|metadata, context| {
                let traced = metadata.is_span() && *metadata.level() <= Level::INFO;
                traced && (metadata.target() == TRACED || context.lookup_current().is_some())
            })
            .with_max_level_hint(LevelFilter::INFO),
        );
    let started = Registry::default().with(lines.with_filter(filter)).with(traces).try_init();
    if started.is_ok() {
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    }
}

/// Puts the current span's trace context (`traceparent`, `tracestate`) into the metadata of an outgoing call.
pub fn inject_trace(metadata: &mut MetadataMap) {
    // Not the current span's: that may be one for the log lines alone, which has none.
    let context = Context::current();
    if context.has_active_span() {
        TraceContextPropagator::new().inject_context(&context, &mut Outgoing(metadata));
    }
}

/// The current span's trace context as one W3C `traceparent`, for a message that speaks for several callers; empty unless the
/// trace is sampled.
#[must_use]
pub fn traceparent() -> String {
    let context = Context::current();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() || !span.is_sampled() {
        return String::new();
    }
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags())
}

/// The span of one operation within a call that carries several: a child of the span that `traceparent` names. None if that is
/// empty, so that the operation stays in the call's own span.
#[must_use]
pub fn operation_span(traceparent: &str) -> Span {
    if traceparent.is_empty() {
        return Span::none();
    }
    let span = tracing::info_span!(target: TRACED, "operation", trace_id = tracing::field::Empty);
    if !span.is_disabled() {
        adopt(&span, &Named(traceparent));
    }
    span
}

/// A trace context that is no more than its `traceparent`.
struct Named<'a>(&'a str);

impl Extractor for Named<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

struct Incoming<'a>(&'a MetadataMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        let text_key = |key| match key {
            KeyRef::Ascii(key) => Some(key.as_str()),
            KeyRef::Binary(_) => None,
        };
        self.0.keys().filter_map(text_key).collect()
    }
}

/// The span of one call: a child of the caller's, if it sent a trace context.
pub(crate) fn call_span<B>(request: &http::Request<B>) -> Span {
    let method = request.uri().path().trim_start_matches('/');
    if !request.headers().contains_key("traceparent") {
        return tracing::debug_span!("call", rpc = method);
    }
    let span = tracing::info_span!(target: TRACED, "call", rpc = method, trace_id = tracing::field::Empty);
    if span.is_disabled() {
        return span;
    }
    let metadata = MetadataMap::from_headers(request.headers().clone());
    adopt(&span, &Incoming(&metadata));
    span
}

/// Makes `span` a child of what the caller's trace context names, and tells its log lines which trace that is.
fn adopt(span: &Span, caller: &dyn Extractor) {
    // It fails only where nothing is traced in this process.
    let _ = span.set_parent(TraceContextPropagator::new().extract(caller));
    let context = span.context();
    let trace = context.span().span_context().trace_id();
    if trace != opentelemetry::TraceId::INVALID {
        span.record("trace_id", tracing::field::display(trace));
    }
}

pub(crate) fn log_answer<B>(_response: &http::Response<B>, latency: Duration, _span: &Span) {
    tracing::debug!(latency_us = latency.as_micros(), "answered");
}
