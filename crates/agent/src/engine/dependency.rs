//! `dependsOn`: whether a container may start yet. Follows
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDependency.html>.

use super::{Ended, Millis, Phase, TaskState};
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
    match (condition, phase) {
        (_, Phase::Stopped(Ended::NeverStarted { .. }) | Phase::Cancelling { .. }) => impossible("never started"),
        (Condition::Start, Phase::Running(_) | Phase::Stopping { .. } | Phase::Stopped(_))
        | (Condition::Complete, Phase::Stopped(Ended::Exited { .. })) => Gate::Open,
        (Condition::Success, Phase::Stopped(Ended::Exited { exit, .. })) => {
            if exit.code == 0 {
                Gate::Open
            } else {
                impossible(&format!("ended with exit code {}, and SUCCESS was required", exit.code))
            }
        }
        (Condition::Complete | Condition::Success, Phase::Stopped(Ended::Lost { .. })) => impossible("was lost"),
        (Condition::Complete | Condition::Success, Phase::Running(run)) => match dependency.start_timeout {
            Some(limit) if now >= run.started_at + limit => impossible("did not end within its startTimeout"),
            limit => Gate::Closed { until: limit.map(|limit| run.started_at + limit) },
        },
        _ => Gate::Closed { until: None },
    }
}

/// Whether all containers that depend on `index` have ended: the order of stopping is that of starting, backwards.
pub fn is_free_to_stop(plan: &TaskPlan, state: &TaskState, index: usize) -> bool {
    let depends = |container: &crate::plan::ContainerPlan| container.depends_on.iter().any(|dependency| dependency.on == index);
    plan.containers.iter().zip(&state.containers).all(|(container, phase)| !depends(container) || phase.is_stopped())
}
