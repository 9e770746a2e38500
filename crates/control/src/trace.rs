//! Spans about tasks, for whoever collects them; without a collector they are off, and cost a look at a flag. What they mean is in
//! docs/decisions/0015: a span with the field `task` stands in the trace that has the task's id.

use std::sync::Arc;

use berth_acs::messages::DesiredStatus;
use berth_model::arn::Scope;
use berth_model::ids::{ClusterName, TaskId};
use berth_model::lifecycle::TaskObservation;
use berth_model::service::Service;
use berth_model::task::Task;
use tracing::{Level, Span, info_span};

/// The target of spans, apart from log lines.
const TARGET: &str = "berth.span";

fn is_on() -> bool {
    tracing::span_enabled!(target: TARGET, Level::INFO)
}

/// A call made these tasks: the first span of each one's trace, a picture of the call's own.
pub(crate) fn requested<'a>(scope: &Scope, tasks: impl Iterator<Item = &'a Arc<Task>>) {
    if is_on() {
        for task in tasks {
            drop(info_span!(target: TARGET, "request", task = scope.task(&task.cluster, task.id), begins = true));
        }
    }
}

/// A service makes these tasks: the first span of each one's trace. They end when they are dropped.
pub(crate) fn started_by(scope: &Scope, service: &Service, tasks: &[Arc<Task>]) -> Vec<Span> {
    if !is_on() {
        return Vec::new();
    }
    let span = |task: &Arc<Task>| info_span!(target: TARGET, "service", task = scope.task(&task.cluster, task.id), begins = true, service = %service.name);
    tasks.iter().map(span).collect()
}

/// The commit of these tasks. They end when they are dropped.
pub(crate) fn committed<'a>(scope: &Scope, tasks: impl Iterator<Item = &'a Arc<Task>>) -> Vec<Span> {
    if !is_on() {
        return Vec::new();
    }
    tasks.map(|task| info_span!(target: TARGET, "commit", task = scope.task(&task.cluster, task.id))).collect()
}

/// An agent's report on a task, from its arrival until it is folded in.
pub(crate) fn reported(scope: &Scope, cluster: &ClusterName, task: TaskId, seen: &TaskObservation) -> Span {
    info_span!(
        target: TARGET,
        "request",
        task = scope.task(cluster, task),
        status = seen.status.map(|status| status.as_str()),
        reason = seen.reason.as_deref().filter(|reason| !reason.is_empty())
    )
}

/// Tasks on their way to their agent. They end when they are dropped.
pub(crate) fn dispatched<'a>(tasks: impl Iterator<Item = (&'a str, DesiredStatus)>, container_instance: &str) -> Vec<Span> {
    if !is_on() {
        return Vec::new();
    }
    let span = |(task, desired): (&str, DesiredStatus)| {
        let desired_status: &str = desired.into();
        info_span!(target: TARGET, "dispatch", task, desired_status, container_instance)
    };
    tasks.map(span).collect()
}
