//! The span of a request, for whoever collects spans; without a collector it is off. docs/decisions/0015 says what spans mean.

use http::HeaderMap;
use tracing::Span;
use tracing::field::Empty;

use crate::failure::Failure;

/// The target of spans, apart from log lines.
const TARGET: &str = "berth.span";

/// A request from its head to its answer; in the caller's trace, if the caller names one.
pub(crate) fn request(action: &'static str, id: &str, headers: &HeaderMap) -> Span {
    tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = if action.is_empty() { "unknown" } else { action },
        otel.kind = "server",
        request_id = id,
        traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok()),
        code = Empty,
        error = Empty
    )
}

/// The request of the current span asks for this action, which its head did not say.
pub(crate) fn named(action: &'static str) {
    Span::current().record("otel.name", action);
}

/// A request failed; by its caller's fault or by ours, which alone is an error of the span.
pub(crate) fn failed(span: &Span, failure: &Failure) {
    span.record("code", failure.code);
    if failure.status >= 500 {
        span.record("error", failure.message.as_str());
    }
}
