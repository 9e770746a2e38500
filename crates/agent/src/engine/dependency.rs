//! `dependsOn`: whether a container may start yet. Follows
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDependency.html>.

use super::{Ended, Millis, Phase, TaskState, Verdict};
use crate::plan::{Condition, TaskPlan};

/// Whether a container may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    Open,
    /// Not yet; `until` is when it becomes impossible.
    Closed {
        /// When a dependency's `startTimeout` is over.
        until: Option<Millis>,
    },
    /// Never; the text says why.
    Impossible(String),
}

/// Whether container `index` may start.
pub fn gate(plan: &TaskPlan, state: &TaskState, index: usize, now: Millis) -> Gate {
    let mut until: Option<Millis> = None;
    let mut closed = false;
    for dependency in &plan.containers[index].depends_on {
        match one(plan, state, dependency.on, dependency.condition, now) {
            Gate::Open => {}
            Gate::Closed { until: deadline } => {
                closed = true;
                until = until.into_iter().chain(deadline).min();
            }
            impossible => return impossible,
        }
    }
    if closed { Gate::Closed { until } } else { Gate::Open }
}

fn one(plan: &TaskPlan, state: &TaskState, on: usize, condition: Condition, now: Millis) -> Gate {
    let dependency = &plan.containers[on];
    let name = &dependency.name;
    let phase = &state.containers[on];
    let impossible = |what: &str| Gate::Impossible(format!("dependency {name} {what}"));
    // Until when it may take to get there, or that it took too long.
    let within = |started_at: Millis, what: &str| match dependency.start_timeout {
        Some(limit) if now >= started_at + limit => impossible(&format!("{what} within its startTimeout")),
        limit => Gate::Closed { until: limit.map(|limit| started_at + limit) },
    };
    if let Some(ended) = phase.ended() {
        return match (condition, ended) {
            (_, Ended::NeverStarted { .. }) => impossible("never started"),
            (Condition::Start, _) | (Condition::Complete, Ended::Exited { .. }) => Gate::Open,
            (Condition::Success, Ended::Exited { exit, .. }) if exit.code == 0 => Gate::Open,
            (Condition::Success, Ended::Exited { exit, .. }) => {
                impossible(&format!("ended with exit code {}, and SUCCESS was required", exit.code))
            }
            (Condition::Complete | Condition::Success, Ended::Lost { .. }) => impossible("was lost"),
            (Condition::Healthy, _) => impossible("ended, and HEALTHY was required"),
        };
    }
    match (condition, phase) {
        (_, Phase::Cancelling { .. }) => impossible("never started"),
        (Condition::Start, phase) if phase.is_up() => Gate::Open,
        (Condition::Healthy, Phase::Running(run)) if run.health.verdict == Verdict::Healthy => Gate::Open,
        (Condition::Healthy, Phase::Running(run)) => within(run.started_at, "did not become HEALTHY"),
        (Condition::Complete | Condition::Success, Phase::Running(run)) => within(run.started_at, "did not end"),
        _ => Gate::Closed { until: None },
    }
}

/// Whether all containers that depend on `index` have ended: the order of stopping is that of starting, backwards.
pub fn is_free_to_stop(plan: &TaskPlan, state: &TaskState, index: usize) -> bool {
    let depends = |container: &crate::plan::ContainerPlan| container.depends_on.iter().any(|dependency| dependency.on == index);
    plan.containers.iter().zip(&state.containers).all(|(container, phase)| !depends(container) || phase.ended().is_some())
}
