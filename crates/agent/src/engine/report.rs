//! What to tell the control plane next of a task, from what is known and what it has accepted. Reports of one task follow each
//! other; a task that ended at once is still reported RUNNING before STOPPED.

use std::collections::BTreeSet;

use berth_network::port::PortBinding;
use serde::{Deserialize, Serialize};

use super::{Desired, Ended, Millis, Phase, Reached, TaskState};
use crate::plan::TaskPlan;

/// A task's status in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskWord {
    /// `PENDING`
    Pending,
    /// `RUNNING`
    Running,
    /// `STOPPED`
    Stopped,
}

/// A container's status in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerWord {
    /// `PENDING`
    Pending,
    /// `RUNNING`
    Running,
    /// `STOPPED`
    Stopped,
}

/// One container in a report.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerReport {
    /// Its place in the task.
    pub index: usize,
    /// Its status.
    pub status: ContainerWord,
    /// Whether it was made, and so has a `runtimeId`.
    pub has_runtime_id: bool,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Why it ended or never ran.
    pub reason: Option<String>,
    /// Digest of its image.
    pub image_digest: Option<String>,
    /// Its published ports.
    pub bindings: Vec<PortBinding>,
}

/// One `SubmitTaskStateChange`.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The task's status.
    pub status: TaskWord,
    /// Why it is over, where that is not what its containers say.
    pub reason: Option<&'static str>,
    /// Its containers, in the order to apply them; one may occur twice.
    pub containers: Vec<ContainerReport>,
    /// When its first pull began.
    pub pull_started_at: Option<Millis>,
    /// When its last pull ended.
    pub pull_stopped_at: Option<Millis>,
    /// When its first essential container ended.
    pub execution_stopped_at: Option<Millis>,
}

/// Why a task is over that ran when its machine went down.
pub const ENDED_WITH_HOST: &str = "the host was restarted while the task ran";

/// What the control plane has accepted of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Nothing.
    Nothing,
    /// That it is PENDING.
    Pending,
    /// That it is RUNNING, and that these containers have ended.
    Running {
        /// Places in the task.
        stopped: BTreeSet<usize>,
    },
    /// That it is STOPPED.
    Stopped,
}

impl Told {
    /// What is accepted after one more report. Never goes back.
    #[must_use]
    pub fn after(self, report: &Report) -> Self {
        match (self, report.status) {
            (Self::Stopped, _) | (_, TaskWord::Stopped) => Self::Stopped,
            (Self::Nothing | Self::Pending, TaskWord::Pending) => Self::Pending,
            (running @ Self::Running { .. }, TaskWord::Pending) => running,
            (before, TaskWord::Running) => {
                let mut stopped = if let Self::Running { stopped } = before { stopped } else { BTreeSet::new() };
                stopped.extend(report.containers.iter().filter(|c| c.status == ContainerWord::Stopped).map(|c| c.index));
                Self::Running { stopped }
            }
        }
    }
}

/// The next report, if there is something to tell.
#[must_use]
pub fn next_report(plan: &TaskPlan, state: &TaskState) -> Option<Report> {
    let status = match &state.told {
        Told::Stopped => return None,
        Told::Nothing | Told::Pending if has_reached_running(plan, state) => TaskWord::Running,
        _ if state.is_over() => TaskWord::Stopped,
        // A stop that takes its time, of a task that never was RUNNING: the control plane must not think that nothing began.
        Told::Nothing if state.desired == Desired::Stopped && state.pull_started_at.is_some() => TaskWord::Pending,
        Told::Running { stopped } if !state.is_ending(plan) && has_more_ends(state, stopped) => TaskWord::Running,
        _ => return None,
    };
    let containers = match status {
        TaskWord::Running => running_containers(plan, state),
        _ => (0..state.containers.len()).map(|index| container(state, index)).collect(),
    };
    Some(Report {
        status,
        reason: (status == TaskWord::Stopped && state.ended_with_host).then_some(ENDED_WITH_HOST),
        containers,
        pull_started_at: state.pull_started_at,
        pull_stopped_at: state.pull_stopped_at,
        execution_stopped_at: state.execution_stopped_at.filter(|_| status == TaskWord::Stopped),
    })
}

/// All containers were started, or are not essential and never will be.
fn has_reached_running(plan: &TaskPlan, state: &TaskState) -> bool {
    let started = |(container, phase): (&crate::plan::ContainerPlan, &Phase)| {
        phase.is_past_start() && (!container.essential || phase.run().is_some())
    };
    plan.containers.iter().zip(&state.containers).all(started) && state.containers.iter().any(|phase| phase.run().is_some())
}

fn has_more_ends(state: &TaskState, told: &BTreeSet<usize>) -> bool {
    state.containers.iter().enumerate().any(|(index, phase)| phase.is_stopped() && !told.contains(&index))
}

/// Every container that was started is first reported RUNNING; those that have ended follow as STOPPED, unless the whole task
/// ends, which the next report tells.
fn running_containers(plan: &TaskPlan, state: &TaskState) -> Vec<ContainerReport> {
    let all = || (0..state.containers.len()).map(|index| container(state, index));
    let running = all().filter(|report| state.containers[report.index].run().is_some());
    let mut list: Vec<_> =
        running.map(|report| ContainerReport { status: ContainerWord::Running, exit_code: None, reason: None, ..report }).collect();
    if !state.is_ending(plan) {
        list.extend(all().filter(|report| report.status == ContainerWord::Stopped));
    }
    list
}

fn container(state: &TaskState, index: usize) -> ContainerReport {
    let phase = &state.containers[index];
    let run = phase.run();
    let mut report = ContainerReport {
        index,
        status: match phase {
            Phase::Stopped(_) => ContainerWord::Stopped,
            phase if phase.is_up() => ContainerWord::Running,
            Phase::Releasing(_) => ContainerWord::Running,
            _ => ContainerWord::Pending,
        },
        has_runtime_id: run.is_some(),
        exit_code: None,
        reason: None,
        image_digest: run.and_then(|run| run.image_digest.clone()),
        bindings: run.map(|run| run.bindings.clone()).unwrap_or_default(),
    };
    match phase {
        Phase::Stopped(Ended::Exited { exit, .. }) => {
            report.exit_code = Some(exit.code);
            report.reason = exit.oom_killed.then(|| "OutOfMemoryError: Container killed due to memory usage".to_owned());
        }
        Phase::Stopped(Ended::Lost { reason, .. }) => report.reason = Some(reason.clone()),
        Phase::Stopped(Ended::NeverStarted { reached, reason }) => {
            report.reason.clone_from(reason);
            report.has_runtime_id = matches!(reached, Reached::Created(_));
            report.image_digest = match reached {
                Reached::Nothing => None,
                Reached::Image(digest) | Reached::Created(digest) => Some(digest.clone()),
            };
        }
        Phase::Prepared(prepared) => report.image_digest = Some(prepared.image_digest.clone()),
        Phase::Launching { image_digest } => report.image_digest = Some(image_digest.clone()),
        _ => {}
    }
    report
}
