//! One task, driven: takes the steps that the engine names, folds in what comes of them, reports. It decides nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;

use berth_acs::messages as acs;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Means, effects};
use crate::engine::{Fact, Millis, Phase, Prepared, Step, TaskState, Told, Verdict, next_report, next_step, wake_at};
use crate::ledger::TaskEntry;
use crate::plan::{ContainerPlan, TaskPlan};
use crate::reports::{self, Submission};

/// A clock that is steered a little, as time servers do, is not set.
const LEAST_JUMP: Millis = 1_000;

/// A task that is known here: what it is, and where it is.
#[derive(Debug)]
pub struct TaskRecord {
    /// As it was sent, with no more of its roles' credentials than the task role's name and by which they are asked for.
    pub task: acs::Task,
    /// The same, parsed.
    pub plan: TaskPlan,
    /// Where it is.
    pub state: Mutex<TaskState>,
    /// Its roles' credentials: in memory alone.
    pub credentials: Mutex<TaskCredentials>,
}

impl TaskRecord {
    /// The addresses that its containers have now, as far as they are known.
    #[must_use]
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        let state = self.state.lock();
        let of = |(container, phase): (&ContainerPlan, &Phase)| match &container.interface {
            Some(interface) => Some(interface.address),
            None => phase.run().filter(|_| phase.is_up())?.address,
        };
        self.plan.containers.iter().zip(&state.containers).filter_map(of).collect()
    }

    /// By what name its containers ask for their role's credentials. The first that it was sent with: that is what they were told, and
    /// whatever comes later is the same role's.
    #[must_use]
    pub fn credentials_id(&self) -> Option<&str> {
        self.task.role_credentials.as_ref().map(|credentials| credentials.credentials_id.as_str())
    }

    /// As it is kept.
    #[must_use]
    pub fn entry(&self, retired_at: Option<Millis>) -> TaskEntry {
        let ids = self.plan.containers.iter().map(|container| container.endpoint_id.clone());
        let endpoint_ids = ids.filter(|id| !id.is_empty()).collect();
        TaskEntry { task: self.task.clone(), state: self.state.lock().clone(), endpoint_ids, retired_at }
    }
}

/// The credentials of a task's two roles, as they were last sent.
#[derive(Debug, Default)]
pub struct TaskCredentials {
    /// Of the task role: what its containers are given.
    pub application: Option<acs::RoleCredentials>,
    /// Of the execution role: no container ever has them.
    pub execution: Option<acs::RoleCredentials>,
}

/// How an actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The task is STOPPED and accepted as such.
    Over,
    /// The agent ends; the task goes on.
    LeftAlone,
}

/// Two ends of a container's preparation.
#[derive(Debug, Clone, Default)]
struct Preparation {
    cancel: CancellationToken,
    ended: CancellationToken,
}

pub struct Actor {
    means: Arc<Means>,
    record: Arc<TaskRecord>,
    facts: mpsc::UnboundedReceiver<Fact>,
    tell: mpsc::UnboundedSender<Fact>,
    preparations: Vec<Preparation>,
    /// Of each container, what ends the probe that is under way.
    probes: Vec<CancellationToken>,
    /// Told when a container's health is another than before.
    health_changed: Arc<Notify>,
    effects: JoinSet<()>,
    reporting: bool,
    unsaved: bool,
    /// The clock's lead when it was last looked at.
    lead: Millis,
}

impl Actor {
    /// An actor for a task; what runs already is watched.
    pub fn new(
        means: Arc<Means>,
        record: Arc<TaskRecord>,
        tell: mpsc::UnboundedSender<Fact>,
        facts: mpsc::UnboundedReceiver<Fact>,
        health_changed: Arc<Notify>,
    ) -> Self {
        let preparations = record.plan.containers.iter().map(|_| Preparation::default()).collect();
        let probes = record.plan.containers.iter().map(|_| CancellationToken::new()).collect();
        let effects = JoinSet::new();
        let lead = means.clock.lead();
        let mut actor =
            Self { means, record, facts, tell, preparations, probes, health_changed, effects, reporting: false, unsaved: false, lead };
        let running: Vec<usize> = {
            let state = actor.record.state.lock();
            let runs = |phase: &Phase| matches!(phase, Phase::Running(_) | Phase::Stopping { .. });
            (0..state.containers.len()).filter(|index| runs(&state.containers[*index])).collect()
        };
        running.into_iter().for_each(|index| actor.watch(index));
        actor
    }

    /// Drives the task until it is over and accepted as such, or `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Outcome {
        loop {
            self.follow_clock();
            while self.take_step() {}
            self.report();
            // After the report has gone out: nobody waits for this write.
            self.save();
            let wake = {
                let state = self.record.state.lock();
                if state.told == Told::Stopped {
                    return Outcome::Over;
                }
                wake_at(&self.record.plan, &state, self.means.clock.now())
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Outcome::LeftAlone,
                fact = self.facts.recv() => {
                    // Before the fact: its time is the new clock's.
                    self.follow_clock();
                    self.apply(fact.expect("the actor holds a sender itself"));
                    while let Ok(fact) = self.facts.try_recv() {
                        self.apply(fact);
                    }
                }
                () = self.means.clock.sleep_until(wake) => {}
            }
            while let Some(ended) = self.effects.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(task = self.record.plan.arn, %error, "work on a task broke off");
                }
            }
        }
    }

    /// Notices that somebody has set the clock since the last look.
    fn follow_clock(&mut self) {
        let lead = self.means.clock.lead();
        let by = lead.saturating_sub(std::mem::replace(&mut self.lead, lead));
        if by.saturating_abs() >= LEAST_JUMP {
            tracing::debug!(task = self.record.plan.arn, by, "the clock was set");
            self.record.state.lock().clock_was_set(by);
            self.unsaved = true;
        }
    }

    fn apply(&mut self, fact: Fact) {
        let watched = match &fact {
            Fact::Launched(index, Ok(_)) | Fact::Restarted(index, Ok(_)) => Some(*index),
            _ => None,
        };
        // Preparations are made again after a restart, and health is found out again, so they need not be kept.
        self.unsaved |= !matches!(fact, Fact::Prepared(_, Ok(_)) | Fact::Probed(..));
        if let Fact::Exited(index, _) = &fact {
            self.probes[*index].cancel();
        }
        if matches!(fact, Fact::Reported(_)) {
            self.reporting = false;
        }
        let health_before = self.health();
        self.record.state.lock().apply(&self.record.plan, fact, self.means.clock.now());
        if self.health() != health_before {
            self.health_changed.notify_one();
        }
        if let Some(index) = watched {
            self.watch(index);
        }
    }

    /// What is said of each container that has a health check.
    fn health(&self) -> Vec<Verdict> {
        if self.record.plan.containers.iter().all(|container| container.health_check.is_none()) {
            return Vec::new();
        }
        self.record.state.lock().containers.iter().map(|phase| phase.run().map(|run| run.health.verdict).unwrap_or_default()).collect()
    }

    fn take_step(&mut self) -> bool {
        let now = self.means.clock.now();
        let (step, before) = {
            let mut state = self.record.state.lock();
            let Some(step) = next_step(&self.record.plan, &state, now) else { return false };
            let before = state.containers[index_of(&step)].clone();
            state.begin(&step, now);
            (step, before)
        };
        tracing::debug!(task = self.record.plan.arn, ?step, "a step");
        match (step, before) {
            (Step::Prepare(index), _) => self.prepare(index),
            (Step::Launch(index), Phase::Prepared(prepared)) => self.launch(index, prepared),
            (Step::Abandon(index, _), before @ (Phase::Preparing | Phase::Prepared(_))) => self.abandon(index, before == Phase::Preparing),
            (Step::Abandon(..), _) => self.unsaved = true,
            (Step::Stop(index), _) => {
                self.probes[index].cancel();
                self.spawn(index, |means, record, index| async move {
                    effects::stop(&means, &record.plan.containers[index]).await;
                    None
                });
            }
            (Step::Probe(index), _) => self.probe(index),
            (Step::Restart(index), _) => self.spawn(index, |means, record, index| async move {
                Some(Fact::Restarted(index, effects::restart(&means, &record.plan.containers[index]).await))
            }),
            (Step::Release(index), _) => self.spawn(index, |means, record, index| async move {
                effects::release(&means, &record.plan.containers[index]).await;
                Some(Fact::Released(index))
            }),
            (Step::Kill(index), _) => self.spawn(index, |means, record, index| async move {
                effects::kill(&means, &record.plan.containers[index]).await;
                None
            }),
            (Step::GiveUp(index), _) => {
                self.unsaved = true;
                self.spawn(index, |means, record, index| async move {
                    effects::release(&means, &record.plan.containers[index]).await;
                    None
                });
            }
            (Step::Launch(index), phase) => unreachable!("container {index} is launched from {phase:?}"),
        }
        true
    }

    /// Runs an effect of a container beside the actor; the fact that it ends with, if any, comes back.
    fn spawn<F: Future<Output = Option<Fact>> + Send + 'static>(
        &mut self,
        index: usize,
        effect: impl FnOnce(Arc<Means>, Arc<TaskRecord>, usize) -> F,
    ) {
        let (tell, work) = (self.tell.clone(), effect(self.means.clone(), self.record.clone(), index));
        self.effects.spawn(async move {
            if let Some(fact) = work.await {
                // Nobody listens any more: the agent is ending.
                let _ = tell.send(fact);
            }
        });
    }

    fn prepare(&mut self, index: usize) {
        let Preparation { cancel, ended } = self.preparations[index].clone();
        self.spawn(index, |means, record, index| async move {
            let _ended = ended.drop_guard();
            Some(Fact::Prepared(index, effects::prepare(&means, &record.plan.containers[index], &cancel).await))
        });
    }

    fn abandon(&mut self, index: usize, is_preparing: bool) {
        let Preparation { cancel, ended } = self.preparations[index].clone();
        cancel.cancel();
        self.spawn(index, move |means, record, index| async move {
            if is_preparing {
                ended.cancelled().await;
            }
            effects::release(&means, &record.plan.containers[index]).await;
            Some(Fact::Abandoned(index))
        });
    }

    fn launch(&mut self, index: usize, prepared: Prepared) {
        self.spawn(index, |means, record, index| async move {
            let container = &record.plan.containers[index];
            let blueprint = container.blueprint.as_ref().expect("only a container with a blueprint is prepared");
            let linked: Vec<_> = {
                let state = record.state.lock();
                let linked = container.links.iter().map(|link| effects::Linked {
                    link,
                    to: &record.plan.containers[link.to],
                    run: Some(&state.containers[link.to]).filter(|phase| phase.is_up()).and_then(Phase::run).cloned(),
                });
                linked.collect()
            };
            Some(Fact::Launched(index, effects::launch(&means, container, blueprint, &prepared, &linked).await))
        });
    }

    fn probe(&mut self, index: usize) {
        let cancel = CancellationToken::new();
        self.probes[index] = cancel.clone();
        self.spawn(index, |means, record, index| async move {
            let container = &record.plan.containers[index];
            let check = container.health_check.as_ref()?;
            tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                succeeded = effects::probe(&means, container, check) => Some(Fact::Probed(index, succeeded)),
            }
        });
    }

    fn watch(&mut self, index: usize) {
        self.spawn(index, |means, record, index| async move {
            Some(Fact::Exited(index, effects::watch(&means, &record.plan.containers[index]).await))
        });
    }

    /// Sends the next report, unless one is on its way: a task's reports follow each other.
    fn report(&mut self) {
        if self.reporting {
            return;
        }
        let Some(report) = next_report(&self.record.plan, &self.record.state.lock()) else { return };
        self.reporting = true;
        let request = reports::render(&self.means.config.cluster, &self.record.plan, &report);
        let (submissions, tell) = (self.means.submissions.clone(), self.tell.clone());
        self.effects.spawn(async move {
            let (done, accepted) = oneshot::channel();
            // Both ends close only when the agent ends.
            if submissions.send(Submission { request, done: Some(done) }).await.is_ok() && accepted.await.is_ok() {
                let _ = tell.send(Fact::Reported(report));
            }
        });
    }

    fn save(&mut self) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        let is_over = self.record.state.lock().told == Told::Stopped;
        let entry = self.record.entry(is_over.then(|| self.means.clock.now()));
        if let Err(error) = self.means.ledger.keep_task(&self.record.plan.id, &entry) {
            tracing::error!(task = self.record.plan.arn, %error, "a task's progress cannot be kept");
        }
    }
}

const fn index_of(step: &Step) -> usize {
    match step {
        Step::Prepare(index)
        | Step::Launch(index)
        | Step::Abandon(index, _)
        | Step::Probe(index)
        | Step::Restart(index)
        | Step::Release(index)
        | Step::Stop(index)
        | Step::Kill(index)
        | Step::GiveUp(index) => *index,
    }
}
