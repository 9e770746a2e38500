//! Spans about what is done for a task, for whoever collects spans; without a collector they are off. docs/decisions/0015 says what they
//! mean: a span with the field `task` stands in the trace that has the task's id.

use std::fmt::Display;
use std::future::Future;

use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use crate::plan::ContainerPlan;

/// The target of spans, apart from log lines.
const TARGET: &str = "berth.span";

/// One step of a container's life.
pub(crate) fn step(name: &'static str, container: &ContainerPlan) -> Span {
    tracing::info_span!(
        target: TARGET,
        "step",
        otel.name = name,
        task = container.task,
        container_name = container.name,
        image = container.image,
        error = Empty
    )
}

/// A report on its way to the control plane, until it is accepted or never will be.
pub(crate) fn report(task: &str, status: Option<&str>) -> Span {
    tracing::info_span!(target: TARGET, "report", task, status, error = Empty)
}

/// Does something within a span, which keeps the error.
pub(crate) async fn within<T, E: Display>(span: Span, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let outcome = work.instrument(span.clone()).await;
    if let Err(error) = &outcome {
        span.record("error", display(error));
    }
    outcome
}
