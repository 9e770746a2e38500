//! After a restart of the agent: what the ledger says of each container, and what runtime and network say, become one phase.
//! What nobody knows is removed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use berth_network::port::{Attachment, AttachmentId};
use berth_runtime::port::{ContainerId, ContainerObservation, ContainerState, RunError};
use parking_lot::Mutex;

use super::{TaskRecord, Tasks, volumes};
use crate::clock::unix_millis;
use crate::engine::{Desired, Ended, Health, Millis, Phase, Reached, Run, TaskState};
use crate::ledger::{Identity, LedgerError, TaskEntry};
use crate::plan::{self, Wiring};

/// Why a container is no more that ran when the machine went down. The class is the official agent's for a container that it does not find
/// again (`agent/engine/errors.go`); it does not say why.
pub const HOST_RESTARTED: &str = "ContainerVanishedError: the host was restarted while the container ran";

/// Why the agent cannot go on where it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The runtime does not say what is there.
    #[error("the runtime cannot list its containers: {0}")]
    Runtime(#[from] RunError),
    /// The network does not say what is there.
    #[error("the network cannot list its attachments: {0}")]
    Network(#[from] berth_network::port::NetworkError),
}

/// Where a container is, by what was written, what the runtime sees (`None`: no such container) and its network.
#[must_use]
pub fn recovered(written: &Phase, seen: Option<&ContainerState>, attachment: Option<&Attachment>) -> Phase {
    // What the runtime's own bridge gave it, which changes from start to start.
    let own_address = match seen {
        Some(ContainerState::Running(started)) => started.address,
        _ => None,
    };
    // Nobody saw the probes of the meantime, so health begins anew.
    let run = |started_at: i64| match written.run() {
        Some(run) => Run { health: Health::default(), address: own_address.or(run.address), ..run.clone() },
        None => Run {
            image_digest: digest(written),
            bindings: attachment.map(|attachment| attachment.bindings.clone()).unwrap_or_default(),
            address: attachment.and_then(|attachment| attachment.address).or(own_address),
            created_at: 0,
            started_at,
            restarts: 0,
            health: Health::default(),
        },
    };
    let lost = |reason: &str| Phase::Exited(Ended::Lost { run: run(0), reason: format!("ContainerVanishedError: {reason}") });
    match (written, seen) {
        (Phase::Stopped(_), _) => written.clone(),
        // It was decided; its network goes with those that have no container.
        (Phase::Releasing(ended), _) => Phase::Stopped(ended.clone()),
        // The start was under way. What is seen is the new life, or if it ended before that began, the old one.
        (Phase::Restarting { run: before, .. }, Some(ContainerState::Running(started))) => {
            let restarts = before.restarts.saturating_add(1);
            Phase::Running(Run { started_at: unix_millis(started.at), restarts, ..run(0) })
        }
        (Phase::Restarting { exit: before, run: ran }, Some(ContainerState::Exited(seen))) if unix_millis(seen.at) > before.at => {
            let run = Run { started_at: before.at, restarts: ran.restarts.saturating_add(1), ..run(0) };
            Phase::Exited(Ended::Exited { run, exit: seen.clone().into() })
        }
        // A stop that was asked for is asked for again: nobody knows whether the signal went out.
        (_, Some(ContainerState::Running(started))) => Phase::Running(run(unix_millis(started.at))),
        (_, Some(ContainerState::Exited(exit))) => {
            Phase::Exited(Ended::Exited { run: run(unix_millis(exit.at)), exit: exit.clone().into() })
        }
        (_, Some(ContainerState::Lost)) => lost("nobody can say how the container ended"),
        (
            Phase::Running(_) | Phase::Stopping { .. } | Phase::Exited(_) | Phase::Restarting { .. },
            Some(ContainerState::Created) | None,
        ) => lost("the container is gone"),
        (Phase::Cancelling { reached, reason }, _) => {
            Phase::Stopped(Ended::NeverStarted { reached: reached.clone(), reason: reason.clone() })
        }
        // Half-started: begun again from the start, which finds the image here.
        (Phase::Waiting | Phase::Preparing | Phase::Prepared(_) | Phase::Launching { .. }, Some(ContainerState::Created) | None) => {
            Phase::Waiting
        }
    }
}

/// Where a container is after the machine was started anew: nothing of before runs, whatever bears its name or its process's number now.
#[must_use]
pub fn recovered_after_boot(written: &Phase) -> Phase {
    match written {
        Phase::Stopped(_) => written.clone(),
        Phase::Exited(ended) | Phase::Releasing(ended) => Phase::Stopped(ended.clone()),
        Phase::Running(run) | Phase::Stopping { run, .. } | Phase::Restarting { run, .. } => {
            let run = Run { health: Health::default(), ..run.clone() };
            Phase::Stopped(Ended::Lost { run, reason: HOST_RESTARTED.to_owned() })
        }
        Phase::Cancelling { reached, reason } => Phase::Stopped(Ended::NeverStarted { reached: reached.clone(), reason: reason.clone() }),
        Phase::Waiting | Phase::Preparing | Phase::Prepared(_) | Phase::Launching { .. } => Phase::Waiting,
    }
}

/// A task of which something ran before the machine was started anew has ended with it: the control plane has others started.
fn end_after_boot(state: &mut TaskState, now: Millis) {
    let ran = |phase: &Phase| matches!(phase, Phase::Running(_) | Phase::Stopping { .. } | Phase::Restarting { .. });
    state.ended_with_host |= state.containers.iter().any(ran);
    state.containers = state.containers.iter().map(recovered_after_boot).collect();
    if state.containers.iter().any(|phase| phase.run().is_some()) {
        state.desired = Desired::Stopped;
        // When it really ended nobody saw.
        state.execution_stopped_at.get_or_insert(now);
    }
}

fn digest(phase: &Phase) -> Option<String> {
    match phase {
        Phase::Prepared(prepared) => Some(prepared.image_digest.clone()),
        Phase::Launching { image_digest } | Phase::Cancelling { reached: Reached::Image(image_digest), .. } => Some(image_digest.clone()),
        _ => None,
    }
}

impl Tasks {
    /// Finds the tasks of the agent's earlier life again and goes on with them; removes what belongs to none. `boot_id` is the machine's
    /// of now: if the ledger is of another one, nothing that it tells of runs any more, and nothing is looked for. Empty if unknown.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub async fn recover(self: &Arc<Self>, boot_id: &str) -> Result<(), RecoveryError> {
        let means = &self.means;
        let identity = means.ledger.identity()?;
        let is_restarted = identity.is_of_earlier_boot(boot_id);
        if is_restarted {
            tracing::warn!(boot_id, "the host was restarted; tasks that ran are reported as stopped");
        }
        let (entries, unreadable) = means.ledger.tasks()?;
        for error in unreadable {
            tracing::error!(%error, "a task's file cannot be read; its containers are removed");
        }
        let containers = means.runtime.list().await?;
        let containers: BTreeMap<ContainerId, ContainerObservation> = containers.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
        let attachments: BTreeMap<AttachmentId, Attachment> =
            means.network.list().await?.into_iter().map(|attachment| (attachment.id.clone(), attachment)).collect();
        let records: Vec<_> =
            entries.into_iter().filter_map(|entry| self.recover_entry(entry, is_restarted, &containers, &attachments)).collect();
        if is_restarted {
            self.keep_all(&records)?;
        }
        // Only now that their ends are on disk: a crash before would repeat all of this, one after it knows them.
        if identity.boot_id != boot_id {
            means.ledger.keep_identity(&Identity { boot_id: boot_id.to_owned(), ..identity })?;
        }
        self.remove_strays(&records, &containers, &attachments).await;
        let mut over = Vec::new();
        for (record, retired_at) in records {
            match retired_at {
                Some(at) => over.push((at, record)),
                None => self.drive(record),
            }
        }
        over.sort_by_key(|(at, _)| *at);
        for (at, record) in over {
            self.keep(Arc::new(record), at.saturating_add(self.cleanup_wait()));
        }
        Ok(())
    }

    fn recover_entry(
        &self,
        entry: TaskEntry,
        is_restarted: bool,
        containers: &BTreeMap<ContainerId, ContainerObservation>,
        attachments: &BTreeMap<AttachmentId, Attachment>,
    ) -> Option<(TaskRecord, Option<i64>)> {
        let TaskEntry { task, mut state, endpoint_ids, retired_at } = entry;
        let mut plan = match plan::plan(&task, &self.means.plan_context()) {
            Ok(plan) if plan.containers.len() == state.containers.len() => plan,
            Ok(_) => {
                tracing::error!(task = task.arn, "a task's file does not fit its task; its containers are removed");
                return None;
            }
            Err(error) => {
                tracing::error!(task = task.arn, %error, "a task cannot be gone on with; its containers are removed");
                return None;
            }
        };
        for (container, id) in plan.containers.iter_mut().zip(endpoint_ids) {
            container.endpoint_id = id;
        }
        if retired_at.is_none() && is_restarted {
            end_after_boot(&mut state, self.means.clock.now());
        } else if retired_at.is_none() {
            for (container, phase) in plan.containers.iter().zip(&mut state.containers) {
                let seen = containers.get(&container.runtime_id).map(|seen| &seen.state);
                *phase = recovered(phase, seen, attachments.get(&container.attachment_id));
            }
        }
        Some((TaskRecord { task, plan, state: Mutex::new(state), credentials: Mutex::default() }, retired_at))
    }

    fn keep_all(&self, records: &[(TaskRecord, Option<i64>)]) -> Result<(), LedgerError> {
        let entries: Vec<_> = records.iter().map(|(record, retired_at)| (record.plan.id.clone(), record.entry(*retired_at))).collect();
        self.means.ledger.keep_tasks(entries.iter().map(|(id, entry)| (id.as_str(), entry)))
    }

    /// Removes containers that no task knows or that will be made anew, networks without a container that runs, and volumes without
    /// their task.
    async fn remove_strays(
        &self,
        records: &[(TaskRecord, Option<i64>)],
        containers: &BTreeMap<ContainerId, ContainerObservation>,
        attachments: &BTreeMap<AttachmentId, Attachment>,
    ) {
        let (mut kept, mut connected) = (HashSet::new(), HashSet::new());
        for (record, _) in records {
            let state = record.state.lock();
            for (container, phase) in record.plan.containers.iter().zip(&state.containers) {
                if *phase != Phase::Waiting {
                    kept.insert(&container.runtime_id);
                }
                if phase.is_up() {
                    connected.insert(&container.attachment_id);
                    if container.wiring == Wiring::Interface {
                        self.means.shared.found(&container.attachment_id, &container.runtime_id);
                    }
                }
            }
        }
        for id in containers.keys().filter(|id| !kept.contains(id)) {
            tracing::warn!(container = %id, "a container that belongs to no task is removed");
            if let Err(error) = self.means.runtime.remove(id).await {
                tracing::error!(container = %id, %error, "it cannot be removed");
            }
        }
        for id in attachments.keys().filter(|id| !connected.contains(id)) {
            if let Err(error) = self.means.network.detach(id).await {
                tracing::error!(attachment = %id, %error, "a network without a container cannot be taken back");
            }
        }
        let tasks: HashSet<&str> = records.iter().map(|(record, _)| record.plan.id.as_str()).collect();
        if let Err(error) = volumes::sweep(&self.means.volumes_dir(), |id| tasks.contains(id), false) {
            tracing::error!(%error, "volumes without a task cannot be removed");
        }
    }
}
