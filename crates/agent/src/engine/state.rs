//! All that is known of a task: what is wanted, where its containers are, what was reported. A plain value that facts are
//! folded into.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Ended, ExitRecord, Health, Millis, Phase, Prepared, Reached, Report, Run, Step, Told};
use crate::plan::TaskPlan;

/// What the control plane wants of a task. Once stopped, it never wants otherwise again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Desired {
    /// To run.
    Running,
    /// To be stopped.
    Stopped,
}

/// All that is known of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    /// What is wanted.
    pub desired: Desired,
    /// Its containers, in the plan's order.
    pub containers: Vec<Phase>,
    /// When its first pull began.
    pub pull_started_at: Option<Millis>,
    /// When its last pull ended.
    pub pull_stopped_at: Option<Millis>,
    /// When its first essential container ended.
    pub execution_stopped_at: Option<Millis>,
    /// What the control plane has accepted.
    pub told: Told,
    /// Whether something of it ran when the machine went down.
    #[serde(default)]
    pub ended_with_host: bool,
}

/// A container's life after its restart policy started it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextLife {
    /// When.
    pub started_at: Millis,
    /// Its address now, if the runtime's own bridge gave it one.
    pub address: Option<Ipv4Addr>,
}

/// Something that was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The control plane wants the task stopped.
    StopWanted,
    /// Preparations ended; the text is a reason with its class.
    Prepared(usize, Result<Prepared, String>),
    /// Preparations were taken back.
    Abandoned(usize),
    /// The launch ended.
    Launched(usize, Result<Run, LaunchFailure>),
    /// The container ended; the text says why nobody knows how.
    Exited(usize, Result<ExitRecord, String>),
    /// A probe of the container's health ended, well or not.
    Probed(usize, bool),
    /// The container was started again; or not, with a reason with its class.
    Restarted(usize, Result<NextLife, String>),
    /// The network of a container that has ended was taken back.
    Released(usize),
    /// The control plane accepted a report, or will never take it.
    Reported(Report),
}

/// Why a container is not running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFailure {
    /// A reason with its class, such as `CannotStartContainerError: ..`.
    pub reason: String,
    /// Whether it had been made.
    pub created: bool,
}

impl TaskState {
    /// A task that has just been heard of.
    #[must_use]
    pub fn new(containers: usize) -> Self {
        Self {
            desired: Desired::Running,
            containers: vec![Phase::Waiting; containers],
            pull_started_at: None,
            pull_stopped_at: None,
            execution_stopped_at: None,
            told: Told::Nothing,
            ended_with_host: false,
        }
    }

    /// The task is to end: it is wanted so, or an essential container has ended.
    #[must_use]
    pub fn is_ending(&self, plan: &TaskPlan) -> bool {
        let essential_ended =
            || plan.containers.iter().zip(&self.containers).any(|(container, phase)| container.essential && phase.ended().is_some());
        self.desired == Desired::Stopped || essential_ended()
    }

    /// All containers have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.containers.iter().all(Phase::is_stopped)
    }

    /// Somebody has set the clock, by so many milliseconds (negative: back). Moves what is still waited for along: a container that was asked
    /// to stop before is killed when its time is over, not a day later, and no health check is left out. What has ended keeps its times.
    pub fn clock_was_set(&mut self, by: Millis) {
        let shift = |at: &mut Millis| *at = at.saturating_add(by);
        self.pull_started_at.iter_mut().chain(&mut self.pull_stopped_at).for_each(shift);
        for phase in &mut self.containers {
            if let Phase::Stopping { asked_at, .. } = phase {
                shift(asked_at);
            }
            if let Phase::Running(run) | Phase::Stopping { run, .. } = phase {
                shift(&mut run.started_at);
                Some(&mut run.created_at).filter(|at| **at != 0).into_iter().for_each(shift);
                run.health.clock_was_set(by);
            }
        }
    }

    /// Notes that a step is being taken.
    pub fn begin(&mut self, step: &Step, now: Millis) {
        match step {
            Step::Prepare(index) => {
                self.pull_started_at.get_or_insert(now);
                self.containers[*index] = Phase::Preparing;
            }
            Step::Launch(index) => {
                if let Phase::Prepared(prepared) = &self.containers[*index] {
                    self.containers[*index] = Phase::Launching { image_digest: prepared.image_digest.clone() };
                }
            }
            Step::Abandon(index, reason) => {
                let reason = reason.clone();
                self.containers[*index] = match &self.containers[*index] {
                    Phase::Waiting => Phase::Stopped(Ended::NeverStarted { reached: Reached::Nothing, reason }),
                    Phase::Prepared(prepared) => Phase::Cancelling { reached: Reached::Image(prepared.image_digest.clone()), reason },
                    _ => Phase::Cancelling { reached: Reached::Nothing, reason },
                };
            }
            Step::Stop(index) => {
                if let Phase::Running(run) = &self.containers[*index] {
                    self.containers[*index] = Phase::Stopping { run: run.clone(), asked_at: now, kills: 0 };
                }
            }
            Step::Kill(index) => {
                if let Phase::Stopping { kills, .. } = &mut self.containers[*index] {
                    *kills = kills.saturating_add(1);
                }
            }
            Step::Probe(index) => {
                if let Phase::Running(run) = &mut self.containers[*index] {
                    run.health.begin(now);
                }
            }
            Step::Restart(index) => {
                if let Phase::Exited(Ended::Exited { run, exit }) = &self.containers[*index] {
                    self.containers[*index] = Phase::Restarting { run: run.clone(), exit: *exit };
                }
            }
            Step::Release(index) => {
                if let Phase::Exited(ended) = &self.containers[*index] {
                    self.containers[*index] = Phase::Releasing(ended.clone());
                }
            }
            Step::GiveUp(index) => {
                if let Phase::Stopping { run, .. } = &self.containers[*index] {
                    let reason = "CannotStopContainerError: the container did not end after it was killed".to_owned();
                    self.containers[*index] = Phase::Stopped(Ended::Lost { run: run.clone(), reason });
                }
            }
        }
    }

    /// Folds a fact in. What comes too late changes nothing.
    pub fn apply(&mut self, plan: &TaskPlan, fact: Fact, now: Millis) {
        match fact {
            Fact::StopWanted => self.desired = Desired::Stopped,
            Fact::Reported(report) => self.told = self.told.clone().after(&report),
            Fact::Prepared(index, outcome) => {
                self.pull_stopped_at = Some(now);
                if self.containers[index] == Phase::Preparing {
                    self.containers[index] = match outcome {
                        Ok(prepared) => Phase::Prepared(prepared),
                        Err(reason) => Phase::Stopped(Ended::NeverStarted { reached: Reached::Nothing, reason: Some(reason) }),
                    };
                }
            }
            Fact::Abandoned(index) => {
                if let Phase::Cancelling { reached, reason } = &self.containers[index] {
                    self.containers[index] = Phase::Stopped(Ended::NeverStarted { reached: reached.clone(), reason: reason.clone() });
                }
            }
            Fact::Launched(index, outcome) => {
                if let Phase::Launching { image_digest } = &self.containers[index] {
                    self.containers[index] = match outcome {
                        Ok(run) => Phase::Running(run),
                        Err(LaunchFailure { reason, created }) => {
                            let reached = if created { Reached::Created } else { Reached::Image };
                            Phase::Stopped(Ended::NeverStarted { reached: reached(image_digest.clone()), reason: Some(reason) })
                        }
                    };
                }
            }
            Fact::Exited(index, outcome) => self.exited(index, outcome),
            Fact::Probed(index, succeeded) => {
                if let (Phase::Running(run), Some(check)) = (&mut self.containers[index], &plan.containers[index].health_check) {
                    run.health.probed(check, run.started_at, succeeded, now);
                }
            }
            Fact::Restarted(index, outcome) => self.restarted(index, outcome),
            Fact::Released(index) => {
                if let Phase::Releasing(ended) = &self.containers[index] {
                    self.containers[index] = Phase::Stopped(ended.clone());
                }
            }
        }
        self.note_execution_stop(plan, now);
    }

    fn exited(&mut self, index: usize, outcome: Result<ExitRecord, String>) {
        if let Phase::Running(run) | Phase::Stopping { run, .. } = &self.containers[index] {
            let run = run.clone();
            self.containers[index] = Phase::Exited(match outcome {
                Ok(exit) => Ended::Exited { run, exit },
                Err(reason) => Ended::Lost { run, reason },
            });
        }
    }

    fn restarted(&mut self, index: usize, outcome: Result<NextLife, String>) {
        if let Phase::Restarting { run, .. } = &self.containers[index] {
            let run = run.clone();
            self.containers[index] = match outcome {
                Ok(NextLife { started_at, address }) => Phase::Running(Run {
                    started_at,
                    address: address.or(run.address),
                    restarts: run.restarts.saturating_add(1),
                    health: Health::default(),
                    ..run
                }),
                Err(reason) => Phase::Exited(Ended::Lost { run, reason }),
            };
        }
    }

    /// `executionStoppedAt` is the first end of an essential container that had run.
    fn note_execution_stop(&mut self, plan: &TaskPlan, now: Millis) {
        if self.execution_stopped_at.is_some() {
            return;
        }
        let ends = plan.containers.iter().zip(&self.containers).filter(|(container, _)| container.essential);
        self.execution_stopped_at = ends
            .filter_map(|(_, phase)| match phase.ended()? {
                Ended::Exited { exit, .. } => Some(exit.at),
                Ended::Lost { .. } => Some(now),
                Ended::NeverStarted { .. } => None,
            })
            .min();
    }
}
