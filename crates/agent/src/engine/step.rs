//! The next thing to do for a task. One step at most; doing it is the driver's work.

use super::dependency::{gate, is_free_to_stop};
use super::restart::is_restarted;
use super::{Gate, Millis, Phase, Run, TaskState};
use crate::plan::TaskPlan;

/// How long a kill may take before it is tried again; the kernel needs milliseconds.
pub const KILL_PATIENCE: Millis = 10_000;
/// How often a container is killed; the official agent tries to stop five times too.
pub const MOST_KILLS: u8 = 5;

/// Something to do for one container, by its place in the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Pull its image and make its network.
    Prepare(usize),
    /// Make it, publish its ports, start it.
    Launch(usize),
    /// Take back what was prepared; it will not be started.
    Abandon(usize, Option<String>),
    /// Find out whether it is well.
    Probe(usize),
    /// Start it again after its end.
    Restart(usize),
    /// Take its network back: it will not be started again.
    Release(usize),
    /// Ask it to end.
    Stop(usize),
    /// End it.
    Kill(usize),
    /// It cannot be ended: give it up.
    GiveUp(usize),
}

/// The next step, if there is one to be taken now.
#[must_use]
pub fn next_step(plan: &TaskPlan, state: &TaskState, now: Millis) -> Option<Step> {
    let ending = state.is_ending(plan);
    (0..plan.containers.len()).find_map(|index| step_of(plan, state, index, ending, now))
}

fn step_of(plan: &TaskPlan, state: &TaskState, index: usize, ending: bool, now: Millis) -> Option<Step> {
    match &state.containers[index] {
        Phase::Waiting | Phase::Preparing | Phase::Prepared(_) if ending => Some(Step::Abandon(index, None)),
        phase @ (Phase::Waiting | Phase::Preparing | Phase::Prepared(_)) => {
            if let Err(refusal) = &plan.containers[index].blueprint {
                return Some(Step::Abandon(index, Some(format!("CannotCreateContainerError: {refusal}"))));
            }
            match (gate(plan, state, index, now), phase) {
                (Gate::Impossible(why), _) => Some(Step::Abandon(index, Some(why))),
                // Images are pulled before dependencies allow a start, so that the start then takes milliseconds; unless the machine's
                // owner wants otherwise (ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT).
                (open, Phase::Waiting) if plan.pull_upfront || open == Gate::Open => Some(Step::Prepare(index)),
                (Gate::Open, Phase::Prepared(_)) => Some(Step::Launch(index)),
                _ => None,
            }
        }
        Phase::Running(_) if ending && is_free_to_stop(plan, state, index) => Some(Step::Stop(index)),
        // One that waits for others to stop before it is still looked after.
        Phase::Running(run) if now >= probe_due(plan, index, run)? => Some(Step::Probe(index)),
        Phase::Exited(ended) => Some(if is_restarted(plan, state, index, ended) { Step::Restart(index) } else { Step::Release(index) }),
        Phase::Stopping { kills, .. } if now >= deadline(plan, state, index)? => {
            Some(if *kills < MOST_KILLS { Step::Kill(index) } else { Step::GiveUp(index) })
        }
        _ => None,
    }
}

/// When a running container's health is to be looked at next.
fn probe_due(plan: &TaskPlan, index: usize, run: &Run) -> Option<Millis> {
    run.health.due(plan.containers[index].health_check.as_ref()?, run.started_at)
}

/// When a stopping container is to be killed, or killed again.
fn deadline(plan: &TaskPlan, state: &TaskState, index: usize) -> Option<Millis> {
    match &state.containers[index] {
        Phase::Stopping { asked_at, kills, .. } => {
            Some(asked_at + plan.containers[index].stop_timeout + Millis::from(*kills) * KILL_PATIENCE)
        }
        _ => None,
    }
}

/// When [`next_step`] may have something to say though nothing was seen.
#[must_use]
pub fn wake_at(plan: &TaskPlan, state: &TaskState, now: Millis) -> Option<Millis> {
    let of = |index: usize| match &state.containers[index] {
        Phase::Stopping { .. } => deadline(plan, state, index),
        Phase::Running(run) => probe_due(plan, index, run),
        Phase::Waiting | Phase::Preparing | Phase::Prepared(_) => match gate(plan, state, index, now) {
            Gate::Closed { until } => until,
            _ => None,
        },
        _ => None,
    };
    (0..plan.containers.len()).filter_map(of).min()
}
