//! Turns `tracing` spans of target [`TARGET`] into OpenTelemetry's and hands the ended ones on. A span about a task belongs to the trace
//! whose id is the task's, so that all processes' spans about it meet in one trace without anything that travels between them.
//!
//! It never waits and never fails: whoever takes the spans drops what is too much. docs/decisions/0015 has the reasons.

use std::borrow::Cow;
use std::fmt::{Debug, Write};
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The target of spans that are for traces; everything else is for the log. With a dot, so that it is no prefix of any module's.
pub(crate) const TARGET: &str = "berth.span";
/// Most attributes of a span.
const MOST_ATTRIBUTES: usize = 32;
/// Most links of a span; a RunTask makes ten tasks.
const MOST_LINKS: usize = 32;
/// Longest text of an attribute, in bytes: an image's name, an error.
const LONGEST_TEXT: usize = 1_024;

/// Which traces are kept: the same in every process, since it is decided by the trace's id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio(u64);

impl Default for Ratio {
    /// All of them.
    fn default() -> Self {
        Self(1 << 63)
    }
}

impl Ratio {
    /// Of all traces, this part: from 0 to 1.
    pub(crate) fn new(part: f64) -> Self {
        const ALL: u64 = 1 << 63;
        // Up to the last bit of a float, which no operator can tell.
        Self(if part >= 1.0 { ALL } else { (part.max(0.0) * ALL as f64) as u64 })
    }

    /// As OpenTelemetry's `traceidratio` sampler decides: by the lower half of the id.
    fn keeps(self, trace: TraceId) -> bool {
        (u128::from_be_bytes(trace.to_bytes()) as u64 >> 1) < self.0
    }
}

/// Takes ended spans.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Takes one, at once.
    fn take(&self, span: SpanData);
}

/// The layer.
pub(crate) struct SpanLayer<K> {
    sink: K,
    ratio: Ratio,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
}

impl<K: Sink> SpanLayer<K> {
    /// Hands spans of the traces that `ratio` keeps to `sink`.
    pub(crate) fn new(sink: K, ratio: Ratio) -> Self {
        let scope = InstrumentationScope::builder("berth").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { sink, ratio, ids: RandomIdGenerator::default(), scope }
    }

    /// Finds a new span's trace and its place therein.
    fn open(&self, metadata: &Metadata<'_>, fields: Fields, parent: Option<&mut Open>) -> Open {
        let Fields { attributes, task, begins, remote, name, kind, status } = fields;
        let name = name.map_or(Cow::Borrowed(metadata.name()), Cow::Owned);
        let (start, begun) = (SystemTime::now(), Instant::now());
        let mut open = Open {
            context: SpanContext::NONE,
            parent: SpanId::INVALID,
            parent_is_remote: false,
            name,
            kind,
            start,
            begun,
            attributes,
            links: Vec::new(),
            status,
        };
        let context = |trace: TraceId, span: SpanId, sampled: bool| {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
            SpanContext::new(trace, span, flags, false, TraceState::NONE)
        };
        match (task, parent) {
            // A part of what surrounds it.
            (task, Some(parent)) if task.is_none_or(|task| task == parent.context.trace_id()) => {
                open.context = context(parent.context.trace_id(), self.ids.new_span_id(), parent.context.is_sampled());
                open.parent = parent.context.span_id();
            }
            (Some(task), around) => {
                let root = root_of(task);
                let own = if begins { root } else { self.ids.new_span_id() };
                open.context = context(task, own, self.ratio.keeps(task));
                if !begins {
                    open.parent = root;
                    // Many of a task's spans are made where its first one was not.
                    open.parent_is_remote = true;
                }
                if let Some(around) = around {
                    open.depict(around);
                }
            }
            (None, None) => match remote {
                Some(remote) => {
                    open.context = context(remote.trace_id(), self.ids.new_span_id(), remote.is_sampled());
                    (open.parent, open.parent_is_remote) = (remote.span_id(), true);
                }
                None => {
                    let trace = self.ids.new_trace_id();
                    open.context = context(trace, self.ids.new_span_id(), self.ratio.keeps(trace));
                }
            },
            (None, Some(_)) => unreachable!("a span without a task is a part of what surrounds it"),
        }
        open
    }
}

impl<S, K> Layer<S> for SpanLayer<K>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    K: Sink,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::new();
        attributes.record(&mut fields);
        let open = match span.parent() {
            Some(parent) => self.open(span.metadata(), fields, parent.extensions_mut().get_mut()),
            None => self.open(span.metadata(), fields, None),
        };
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::new();
        values.record(&mut fields);
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            let room = MOST_ATTRIBUTES.saturating_sub(open.attributes.len());
            open.attributes.extend(fields.attributes.into_iter().take(room));
            if fields.status != Status::Unset {
                open.status = fields.status;
            }
            if let Some(name) = fields.name {
                open.name = Cow::Owned(name);
            }
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(open) = context.span(&id).and_then(|span| span.extensions_mut().remove::<Open>()) else { return };
        if open.context.is_sampled() {
            self.sink.take(open.close(&self.scope));
        }
    }
}

/// A span that has not ended.
struct Open {
    context: SpanContext,
    parent: SpanId,
    parent_is_remote: bool,
    name: Cow<'static, str>,
    kind: SpanKind,
    start: SystemTime,
    begun: Instant,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
    status: Status,
}

impl Open {
    /// Becomes the picture, in a task's trace, of what surrounds it in another: a call that makes ten tasks, or a report of one, is one
    /// request with a trace of its own, and each task's trace shows it too. So it has the other's name, time and attributes.
    fn depict(&mut self, around: &mut Self) {
        self.name.clone_from(&around.name);
        self.kind.clone_from(&around.kind);
        (self.start, self.begun) = (around.start, around.begun);
        let room = MOST_ATTRIBUTES.saturating_sub(self.attributes.len());
        self.attributes.extend(around.attributes.iter().take(room).cloned());
        self.links.push(Link::with_context(around.context.clone()));
        if around.links.len() < MOST_LINKS {
            around.links.push(Link::with_context(self.context.clone()));
        }
    }

    fn close(self, scope: &InstrumentationScope) -> SpanData {
        let mut links = SpanLinks::default();
        links.links = self.links;
        SpanData {
            span_context: self.context,
            parent_span_id: self.parent,
            parent_span_is_remote: self.parent_is_remote,
            span_kind: self.kind,
            name: self.name,
            start_time: self.start,
            // Not from the system's clock, which may be set meanwhile.
            end_time: self.start + self.begun.elapsed(),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: self.status,
            instrumentation_scope: scope.clone(),
        }
    }
}

/// What a span's fields say.
struct Fields {
    attributes: Vec<KeyValue>,
    /// `task`: the ARN or the id of a task.
    task: Option<TraceId>,
    /// `begins`: the first span of its task's trace, under which all others stand.
    begins: bool,
    /// `traceparent`: whoever asks has a trace of his own. <https://www.w3.org/TR/trace-context/#traceparent-header>
    remote: Option<SpanContext>,
    /// `otel.name`.
    name: Option<String>,
    /// `otel.kind`.
    kind: SpanKind,
    /// `error` makes it one.
    status: Status,
}

impl Fields {
    const fn new() -> Self {
        Self {
            attributes: Vec::new(),
            task: None,
            begins: false,
            remote: None,
            name: None,
            kind: SpanKind::Internal,
            status: Status::Unset,
        }
    }

    fn keep(&mut self, field: &Field, value: impl Into<Value>) {
        if self.attributes.len() < MOST_ATTRIBUTES {
            self.attributes.push(KeyValue::new(field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, text: &str) {
        match field.name() {
            "otel.name" => self.name = Some(clip(text)),
            "otel.kind" if text == "server" => self.kind = SpanKind::Server,
            "traceparent" => self.remote = parse_traceparent(text),
            name => {
                if name == "task" {
                    self.task = trace_of(text);
                }
                if name == "error" {
                    self.status = Status::error(clip(text));
                }
                self.keep(field, clip(text));
            }
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "begins" { self.begins = value } else { self.keep(field, value) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

fn clip(text: &str) -> String {
    let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

/// The trace of a task, by its id or its ARN.
fn trace_of(task: &str) -> Option<TraceId> {
    let id = task.rsplit('/').next().filter(|id| id.len() == 32)?;
    TraceId::from_hex(id).ok().filter(|trace| *trace != TraceId::INVALID)
}

/// The id of the first span of a task's trace: every process knows it.
fn root_of(trace: TraceId) -> SpanId {
    let bits = u128::from_be_bytes(trace.to_bytes());
    // Zero is no span's id; both halves cannot be zero.
    let half = if bits as u64 == 0 { (bits >> 64) as u64 } else { bits as u64 };
    SpanId::from_bytes(half.to_be_bytes())
}

fn parse_traceparent(text: &str) -> Option<SpanContext> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let shaped = version.len() == 2 && version != "ff" && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let context = SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, TraceState::NONE);
    (shaped && context.is_valid()).then_some(context)
}

#[cfg(test)]
mod tests;
