//! All tasks of this machine: taking them on, ending them, keeping those that are over for a while. Places nothing; what runs
//! here was placed here.

mod actor;
mod attachments;
pub mod effects;
mod metadata_file;
mod port_ranges;
mod pull_gate;
mod recovery;
mod shared_networks;
pub mod volumes;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use berth_acs::messages as acs;
use berth_acs::messages::{DesiredStatus, RoleType, TaskIdentifier};
use berth_network::port::Network;
use berth_runtime::port::Runtime;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actor::{Actor, Outcome};
pub use self::actor::{TaskCredentials, TaskRecord};
pub use self::attachments::TableFailure;
pub use self::port_ranges::PortRanges;
pub use self::pull_gate::PullGate;
pub use self::recovery::RecoveryError;
pub use self::shared_networks::SharedNetworks;
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::engine::{Desired, Fact, Millis, TaskState};
use crate::images::Images;
use crate::ledger::{Ledger, LedgerError};
use crate::metadata::Endpoint;
use crate::names::Names;
use crate::plan::{self, PlanContext, PlanError};
use crate::reports::{self, Submission};
use crate::sources::Sources;

/// When something of a task that is over cannot be removed, it is tried again after this long.
const REMOVE_AGAIN: Millis = 60_000;

/// What tasks are driven with.
pub struct Means {
    /// Settings.
    pub config: AgentConfig,
    /// Runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Connects them.
    pub network: Arc<dyn Network>,
    /// Keeps what their definitions only name.
    pub sources: Arc<dyn Sources>,
    /// Keeps what must survive.
    pub ledger: Ledger,
    /// Tells the time.
    pub clock: Clock,
    /// Bounds pulls.
    pub pulls: PullGate,
    /// Has images here, and removes them.
    pub images: Arc<Images>,
    /// Takes reports.
    pub submissions: mpsc::Sender<Submission>,
    /// What containers can ask for by name.
    pub names: Arc<Names>,
    /// Who makes volumes now.
    pub volumes: Arc<volumes::Turns>,
    /// Which containers have a network in common.
    pub shared: SharedNetworks,
    /// Chooses ports for ranges of ports.
    pub port_ranges: PortRanges,
    /// Where containers are told to ask for metadata.
    pub endpoint: Endpoint,
}

impl Means {
    /// Where task-scoped volumes are.
    #[must_use]
    pub fn volumes_dir(&self) -> PathBuf {
        self.config.data_dir.join("volumes")
    }

    fn plan_context(&self) -> PlanContext {
        PlanContext {
            region: self.config.region.clone(),
            volumes_dir: self.volumes_dir(),
            efs: self.config.efs.clone(),
            stop_timeout: i64::try_from(self.config.container_stop_timeout.as_millis()).unwrap_or(i64::MAX / 2),
            log_limit: self.config.container_log_limit,
            pull_upfront: self.config.pull_dependent_upfront,
            task_pids_limit: self.config.task_pids_limit,
        }
    }
}

/// Why a task was not taken on, and no acknowledgement is due.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

#[derive(Debug)]
enum Known {
    Live { record: Arc<TaskRecord>, tell: mpsc::UnboundedSender<Fact> },
    Over(Arc<TaskRecord>),
}

impl Known {
    fn record(&self) -> &Arc<TaskRecord> {
        match self {
            Self::Live { record, .. } | Self::Over(record) => record,
        }
    }
}

struct Kept {
    record: Arc<TaskRecord>,
    remove_at: Millis,
}

/// All tasks of this machine.
pub struct Tasks {
    means: Arc<Means>,
    known: Mutex<HashMap<String, Known>>,
    network_table: tokio::sync::Mutex<attachments::ToldTable>,
    kept: Mutex<VecDeque<Kept>>,
    kept_more: Notify,
    health_changed: Arc<Notify>,
    actors: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks.
    #[must_use]
    pub fn new(means: Arc<Means>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            means,
            known: Mutex::default(),
            network_table: Default::default(),
            kept: Mutex::default(),
            kept_more: Notify::new(),
            health_changed: Arc::default(),
            actors: TaskTracker::new(),
            stop,
        })
    }

    /// What containers can ask for by name.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.means.names
    }

    /// Takes a task as it was sent: starts it, stops it, or does nothing because it is known. Whatever it asks for is kept when
    /// this returns.
    ///
    /// # Errors
    /// [`TakeError`]; the message that brought the task is not to be acknowledged.
    pub async fn take(self: &Arc<Self>, task: acs::Task) -> Result<(), TakeError> {
        let arn = task.arn.clone();
        match (self.is_known(&arn), task.desired_status) {
            (true, DesiredStatus::Stopped) => self.stop(&arn),
            (true, _) | (false, DesiredStatus::Unspecified) => {}
            // Nothing of it is here, so it is stopped; whoever asks waits for that word.
            (false, DesiredStatus::Stopped) => self.refuse(&arn, "").await,
            (false, DesiredStatus::Running) => match self.start(task) {
                Ok(()) => {}
                Err(StartError::Crowded) => {
                    let most = self.means.config.most_tasks;
                    self.refuse(&arn, &format!("ResourceInitializationError: this container instance already has {most} tasks")).await;
                }
                Err(StartError::Plan(error)) => {
                    self.refuse(&arn, &error.to_string()).await;
                    if matches!(error, PlanError::Unreadable(_)) {
                        return Err(error.into());
                    }
                }
                // A disk that is full now may be so for long: whoever wants the task is told, and may place it elsewhere.
                Err(StartError::Ledger(error)) => self.refuse(&arn, &format!("ResourceInitializationError: {error}")).await,
            },
        }
        Ok(())
    }

    fn is_known(&self, arn: &str) -> bool {
        self.known.lock().contains_key(arn)
    }

    fn start(self: &Arc<Self>, mut task: acs::Task) -> Result<(), StartError> {
        let over = self.kept.lock().len();
        if self.known.lock().len().saturating_sub(over) >= self.means.config.most_tasks {
            return Err(StartError::Crowded);
        }
        // Secrets stay in memory; by what name containers ask for them they were told, so that is kept.
        let credentials = TaskCredentials { application: task.role_credentials.take(), execution: task.execution_role_credentials.take() };
        task.role_credentials = credentials.application.as_ref().map(acs::RoleCredentials::without_secrets);
        let mut plan = plan::plan(&task, &self.means.plan_context())?;
        for container in &mut plan.containers {
            container.endpoint_id = self.means.endpoint.draw();
        }
        let state = Mutex::new(TaskState::new(plan.containers.len()));
        let record = TaskRecord { task, plan, state, credentials: Mutex::new(credentials) };
        self.means.ledger.keep_task(&record.plan.id, &record.entry(None))?;
        self.drive(record);
        Ok(())
    }

    /// Makes a task known and begins to drive it.
    fn drive(self: &Arc<Self>, record: TaskRecord) {
        let record = Arc::new(record);
        let (tell, facts) = mpsc::unbounded_channel();
        self.known.lock().insert(record.plan.arn.clone(), Known::Live { record: record.clone(), tell: tell.clone() });
        let (tasks, actor) = (self.clone(), Actor::new(self.means.clone(), record.clone(), tell, facts, self.health_changed.clone()));
        self.actors.spawn(async move {
            if actor.run(tasks.stop.clone()).await == Outcome::Over {
                *record.credentials.lock() = TaskCredentials::default();
                let remove_at = tasks.means.clock.now().saturating_add(tasks.cleanup_wait());
                tasks.keep(record, remove_at);
            }
        });
    }

    fn cleanup_wait(&self) -> Millis {
        i64::try_from(self.means.config.cleanup_wait.as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Asks for a task's stop; unknown ones and those that are over are left alone.
    pub fn stop(&self, arn: &str) {
        if let Some(Known::Live { record, tell }) = self.known.lock().get(arn)
            && record.state.lock().desired == Desired::Running
        {
            // The actor may have ended this moment, for good.
            let _ = tell.send(Fact::StopWanted);
        }
    }

    /// Keeps fresh credentials of a task. `false` if there is no such task.
    pub fn keep_credentials(&self, arn: &str, role: RoleType, credentials: acs::RoleCredentials) -> bool {
        let known = self.known.lock();
        let Some(Known::Live { record, .. }) = known.get(arn) else { return false };
        let mut kept = record.credentials.lock();
        match role {
            RoleType::TaskApplication => kept.application = Some(credentials),
            RoleType::TaskExecution => kept.execution = Some(credentials),
        }
        true
    }

    /// Tells that a task is STOPPED which was never here.
    async fn refuse(&self, arn: &str, reason: &str) {
        if !reason.is_empty() {
            tracing::warn!(task = arn, reason, "a task is not taken on");
        }
        let request = reports::render_refusal(&self.means.config.cluster, arn, reason);
        // The other end closes only when the agent ends.
        let _ = self.means.submissions.send(Submission { request, done: None }).await;
    }

    /// Waits until the health of a container is another than before; for one listener.
    pub async fn health_changed(&self) {
        self.health_changed.notified().await;
    }

    /// Tasks that run although a manifest does not list them as running.
    #[must_use]
    pub fn unlisted(&self, manifest: &[TaskIdentifier]) -> Vec<TaskIdentifier> {
        let listed: std::collections::HashSet<&str> =
            manifest.iter().filter(|task| task.desired_status == DesiredStatus::Running).map(|task| task.task_arn.as_str()).collect();
        let known = self.known.lock();
        let candidates = known.values().filter_map(|known| match known {
            Known::Live { record, .. } => Some(record),
            Known::Over(_) => None,
        });
        let candidates =
            candidates.filter(|record| record.state.lock().desired == Desired::Running && !listed.contains(record.plan.arn.as_str()));
        let mut candidates: Vec<_> = candidates
            .map(|record| TaskIdentifier {
                task_arn: record.plan.arn.clone(),
                task_cluster_arn: record.task.task_cluster_arn.clone(),
                desired_status: DesiredStatus::Stopped,
            })
            .collect();
        candidates.sort_unstable_by(|a, b| a.task_arn.cmp(&b.task_arn));
        candidates
    }

    /// All tasks that are known, also those that are over; in order of their ARNs.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<TaskRecord>> {
        let known = self.known.lock();
        let mut records: Vec<_> = known.values().map(Known::record).cloned().collect();
        drop(known);
        records.sort_unstable_by(|a, b| a.plan.arn.cmp(&b.plan.arn));
        records
    }

    /// The task and the place in it of the container that the task metadata endpoint knows by a name.
    #[must_use]
    pub fn of_endpoint(&self, id: &str) -> Option<(Arc<TaskRecord>, usize)> {
        let known = self.known.lock();
        known.values().map(Known::record).find_map(|record| {
            let index = record.plan.containers.iter().position(|container| !id.is_empty() && container.endpoint_id == id)?;
            Some((record.clone(), index))
        })
    }

    /// The task whose containers ask for their role's credentials by this name, while it lives.
    #[must_use]
    pub fn of_credentials(&self, id: &str) -> Option<Arc<TaskRecord>> {
        let known = self.known.lock();
        known.values().find_map(|known| match known {
            Known::Live { record, .. } if !id.is_empty() && record.credentials_id() == Some(id) => Some(record.clone()),
            _ => None,
        })
    }

    fn keep(&self, record: Arc<TaskRecord>, remove_at: Millis) {
        self.known.lock().insert(record.plan.arn.clone(), Known::Over(record.clone()));
        self.kept.lock().push_back(Kept { record, remove_at });
        self.kept_more.notify_one();
    }

    /// Removes what is left of tasks that are over, when their time has come. Runs until the agent ends.
    pub async fn sweep(self: Arc<Self>) {
        loop {
            let (due, next) = self.next_due();
            if let Some(kept) = due {
                self.remove(kept).await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.kept_more.notified() => {}
                () = self.means.clock.sleep_until(next) => {}
            }
        }
    }

    fn next_due(&self) -> (Option<Kept>, Option<Millis>) {
        let mut kept = self.kept.lock();
        let too_many = kept.len() > self.means.config.most_kept_tasks;
        match kept.front().map(|oldest| oldest.remove_at) {
            Some(at) if too_many || at <= self.means.clock.now() => (kept.pop_front(), None),
            next => (None, next),
        }
    }

    async fn remove(&self, kept: Kept) {
        let plan = &kept.record.plan;
        let removed = effects::remove(&self.means, &plan.containers, &plan.id).await;
        let removed = removed.and_then(|()| self.means.ledger.forget_task(&plan.id).map_err(|error| error.to_string()));
        match removed {
            Ok(()) => {
                self.known.lock().remove(&plan.arn);
            }
            Err(problem) => {
                tracing::warn!(task = plan.arn, error = problem, "a task that is over cannot be removed yet");
                let remove_at = self.means.clock.now() + REMOVE_AGAIN;
                // It goes to the end, so that it cannot keep others from being removed.
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => {}
                    () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                }
                self.kept.lock().push_back(Kept { record: kept.record, remove_at });
            }
        }
    }

    /// Waits for all actors to let go; `stop` must have been given.
    pub async fn ended(&self) {
        self.actors.close();
        self.actors.wait().await;
    }

    /// Removes every container, network, volume of a task and record; volumes that are found by name stay, with nothing mounted in them.
    /// Actors must have ended.
    ///
    /// # Errors
    /// The text says what resists; the rest is removed all the same.
    pub async fn purge(&self) -> Result<(), String> {
        let mut problems = Vec::new();
        for container in self.means.runtime.list().await.map_err(|error| error.to_string())? {
            if let Err(error) = self.means.runtime.remove(&container.id).await {
                problems.push(format!("container {}: {error}", container.id));
            }
        }
        for attachment in self.means.network.list().await.map_err(|error| error.to_string())? {
            if let Err(error) = self.means.network.detach(&attachment.id).await {
                problems.push(format!("network {}: {error}", attachment.id));
            }
        }
        for record in self.records() {
            if let Err(error) = self.means.ledger.forget_task(&record.plan.id) {
                problems.push(error.to_string());
            }
        }
        if let Err(error) = volumes::sweep(&self.means.volumes_dir(), |_| false, true) {
            problems.push(format!("volumes {}: {error}", self.means.volumes_dir().display()));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("there are too many tasks")]
    Crowded,
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
