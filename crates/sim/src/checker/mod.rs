//! The judge outside: builds its own picture of the state from the watch, from what callers were answered and from what machines
//! started, and says which promise was broken. It uses none of the product's indexes and never helps it.

mod booking;
mod deployments;
mod peers;
mod services;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_model::cluster::Cluster;
use berth_model::container_instance::ContainerInstance;
use berth_model::ids::{ClusterName, ContainerInstanceId, DefinitionId, ServiceName, TaskId};
use berth_model::needs::Demand;
use berth_model::record::{Key, Record};
use berth_model::service::Service;
use berth_model::service_deployment::{ServiceDeployment, ServiceDeploymentId};
use berth_model::task::Task;
use berth_model::task_definition::TaskDefinition;
use berth_store::{Change, Commit, Revision, State, Store, Watcher};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::trace::Trace;

pub use deployments::Tally;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub property: &'static str,
    /// How.
    pub what: String,
}

/// The judge.
pub struct Checker {
    trace: Trace,
    model: Mutex<Model>,
    verdict: watch::Sender<Option<Violation>>,
}

/// The judge's own picture.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    /// Several servers may share the state: not every revision is a commit of records, and a plan may be older.
    pub(crate) is_shared: bool,
    /// Services replace tasks of machines that are not heard of.
    pub(crate) replaces: bool,
    /// When an instance was last seen away that is back.
    pub(crate) back_at: BTreeMap<ContainerInstanceId, Instant>,
    /// Which records each commit named, for comparison with what servers' watches show. Kept where the state is shared.
    pub(crate) commits: BTreeMap<u64, Vec<Key>>,
    pub(crate) clusters: BTreeMap<ClusterName, Arc<Cluster>>,
    pub(crate) definitions: BTreeMap<DefinitionId, Arc<TaskDefinition>>,
    pub(crate) tasks: BTreeMap<TaskId, Arc<Task>>,
    pub(crate) services: BTreeMap<(ClusterName, ServiceName), Arc<Service>>,
    pub(crate) instances: BTreeMap<ContainerInstanceId, Arc<ContainerInstance>>,
    /// Service deployments that were seen.
    pub(crate) rollouts: BTreeMap<ServiceDeploymentId, Arc<ServiceDeployment>>,
    pub(crate) tally: Tally,
    /// What is booked on each instance, by task.
    pub(crate) booked: BTreeMap<ContainerInstanceId, BTreeMap<TaskId, Demand>>,
    /// The tasks of each service that have not stopped: what has judges nothing any more, and there is far more of it.
    pub(crate) by_service: BTreeMap<ServiceKey, BTreeMap<TaskId, Arc<Task>>>,
    /// Services that are in the steady state now.
    pub(crate) steady_now: BTreeSet<ServiceKey>,
    /// When each service that is not was last seen in it.
    pub(crate) steady: BTreeMap<ServiceKey, Instant>,
    /// With which desired counts each DAEMON service would lately have been steady.
    pub(crate) settled_at: BTreeMap<ServiceKey, Vec<services::Settled>>,
    /// Services that are looked at again after that time, since what is believed of their tasks then changes with time alone.
    pub(crate) unsure: BTreeMap<ServiceKey, Instant>,
    /// When each task that ended was seen to.
    ended_at: BTreeMap<TaskId, Instant>,
    /// Tasks there ever were.
    tasks_seen: usize,
    /// Which tasks a client token gave, as the state has it.
    pub(crate) by_token: BTreeMap<String, (u64, BTreeSet<TaskId>)>,
    /// Tasks whose making was acknowledged.
    acknowledged: BTreeSet<TaskId>,
    /// Tasks whose stop was acknowledged.
    stops: BTreeSet<TaskId>,
    answered: BTreeMap<String, BTreeSet<TaskId>>,
    started: BTreeMap<String, Vec<(usize, u64)>>,
}

pub(crate) type ServiceKey = (ClusterName, ServiceName);

/// ECS's promise: a stopped task is shown for an hour.
const SHOWN_FOR: Duration = Duration::from_secs(60 * 60);

pub(crate) type Verdict = Result<(), (&'static str, String)>;

pub(crate) fn broken(property: &'static str, what: impl Into<String>) -> Verdict {
    Err((property, what.into()))
}

impl Checker {
    /// A judge who has seen nothing. `is_shared`: several servers may share the state; `replaces`: services replace tasks of machines that
    /// are not heard of.
    #[must_use]
    pub fn new(trace: Trace, is_shared: bool, replaces: bool) -> Arc<Self> {
        let model = Mutex::new(Model { is_shared, replaces, ..Default::default() });
        Arc::new(Self { trace, model, verdict: watch::Sender::new(None) })
    }

    /// Notes a broken promise; the first one counts.
    pub fn violated(&self, property: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.trace.line(format_args!("VIOLATED {property}: {what}"));
        self.verdict.send_if_modified(|verdict| {
            let is_first = verdict.is_none();
            if is_first {
                *verdict = Some(Violation { property, what });
            }
            is_first
        });
    }

    /// The first broken promise.
    #[must_use]
    pub fn verdict(&self) -> Option<Violation> {
        self.verdict.borrow().clone()
    }

    /// Waits for a broken promise.
    pub async fn until_violated(&self) {
        let mut verdict = self.verdict.subscribe();
        // The sender lives in `self`.
        let _ = verdict.wait_for(Option::is_some).await;
    }

    fn judge(&self, verdict: Verdict) {
        if let Err((property, what)) = verdict {
            self.violated(property, what);
        }
    }

    /// Looks at every commit of a life of the server.
    pub async fn follow(self: Arc<Self>, mut watcher: Watcher) {
        while let Ok(commits) = watcher.next().await {
            for commit in commits {
                self.commit(&commit);
            }
        }
        self.violated("watch", "a watcher that always reads fell behind");
    }

    /// Looks at what was committed and not yet seen.
    pub fn catch_up(&self, store: &Store) {
        let mut watcher = store.watch(Revision(self.model.lock().revision));
        while let Ok(commits) = watcher.poll() {
            if commits.is_empty() {
                return;
            }
            for commit in commits {
                self.commit(&commit);
            }
        }
    }

    /// A server has read its disk, or etcd, or has followed etcd for a while: is it all there? `false` if it does not know all yet.
    pub fn compare(&self, state: &State) -> bool {
        let model = self.model.lock();
        if state.revision.0 == 0 {
            return true;
        }
        if model.is_shared && state.revision.0 < model.revision {
            return false;
        }
        let lost = |what: String| {
            if model.is_shared {
                broken("peers agree", format!("at a server {what}"))
            } else {
                broken("durable", format!("after a restart {what}"))
            }
        };
        let verdict = if !model.is_shared && state.revision.0 != model.revision {
            lost(format!("the revision is {}, {} was shown", state.revision, model.revision))
        } else if let Some(task) = model.tasks.values().find(|task| state.task(task.id).is_none_or(|found| *found.value != ***task)) {
            lost(format!("task {} is not what it was", task.id))
        } else if let Some(service) = model
            .services
            .values()
            .find(|service| state.service(&service.cluster, &service.name).is_none_or(|found| *found.value != ***service))
        {
            lost(format!("service {} is not what it was", service.name))
        } else if let Some(instance) =
            model.instances.values().find(|instance| state.instance(instance.id).is_none_or(|found| *found.value != ***instance))
        {
            lost(format!("container instance {} is not what it was", instance.id))
        } else if let Some(id) = model.definitions.keys().find(|id| state.definition(id).is_none()) {
            lost(format!("task definition {id} is gone"))
        } else if state.tasks().count() != model.tasks.len() || state.services().count() != model.services.len() {
            lost("there is more than was ever shown".to_owned())
        } else {
            Ok(())
        };
        drop(model);
        self.judge(verdict);
        true
    }

    /// Looks at a commit.
    pub fn commit(&self, commit: &Commit) {
        self.describe(commit);
        let verdict = self.model.lock().commit(commit);
        self.judge(verdict);
    }

    fn describe(&self, commit: &Commit) {
        self.trace.detail(commit);
        let words: Vec<_> = commit.changes.iter().map(describe).collect();
        self.trace.line(format_args!("r{} {}", commit.revision, words.join("; ")));
    }

    /// A caller was told that these tasks were made, perhaps under a client token.
    pub fn acknowledged(&self, tasks: &[TaskId], token: Option<&str>) {
        let mut model = self.model.lock();
        model.acknowledged.extend(tasks);
        let verdict = match token {
            Some(token) if !tasks.is_empty() => {
                let fresh: BTreeSet<_> = tasks.iter().copied().collect();
                let known = model.answered.entry(token.to_owned()).or_insert_with(|| fresh.clone());
                if *known == fresh {
                    Ok(())
                } else {
                    broken("client token", format!("token {token} gave two sets of tasks: {known:?} and {fresh:?}"))
                }
            }
            _ => Ok(()),
        };
        drop(model);
        self.judge(verdict);
    }

    /// A caller was told that this task will stop.
    pub fn acknowledged_stop(&self, task: TaskId) {
        self.model.lock().stops.insert(task);
    }

    /// A machine starts a container.
    pub fn started(&self, host: usize, boot: u64, container: &str) {
        let mut model = self.model.lock();
        let has_run = container
            .rsplit_once('-')
            .and_then(|(task, _)| task.parse::<TaskId>().ok())
            .and_then(|task| model.tasks.get(&task))
            .is_some_and(|task| task.has_run());
        let starts = model.started.entry(container.to_owned()).or_default();
        let verdict = if starts.contains(&(host, boot)) {
            broken("no task doubled", format!("container {container} is started twice on host {host}"))
        } else if starts.iter().any(|(other, _)| *other != host) {
            broken("no task doubled", format!("container {container} is started on host {host}, and was on {starts:?}"))
        } else if !starts.is_empty() && has_run {
            broken("no task doubled", format!("container {container} is started again on host {host} although its task had run"))
        } else {
            Ok(())
        };
        starts.push((host, boot));
        drop(model);
        self.judge(verdict);
    }

    /// Looks whether all that was acknowledged is there.
    pub fn audit(&self) {
        let model = self.model.lock();
        let verdict = if let Some(id) = model.acknowledged.iter().find(|id| !model.tasks.contains_key(id)) {
            broken("acknowledged", format!("task {id} was acknowledged and is not in the state"))
        } else if let Some(id) = model
            .stops
            .iter()
            .find(|id| model.tasks.get(id).is_some_and(|task| task.desired_status == berth_model::task::DesiredStatus::Running))
        {
            broken("acknowledged", format!("the stop of task {id} was acknowledged and is not in the state"))
        } else {
            Ok(())
        };
        drop(model);
        self.judge(verdict);
    }

    /// Tasks as the judge knows them.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.model.lock().tasks.values().cloned().collect()
    }

    /// How many tasks there ever were.
    #[must_use]
    pub fn tasks_seen(&self) -> usize {
        self.model.lock().tasks_seen
    }

    /// Services as the judge knows them.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<Service>> {
        self.model.lock().services.values().cloned().collect()
    }

    /// Those that have to come to rest. Where a circuit breaker ended a deployment, and there was nothing to go back to or nobody wanted
    /// that, nothing more happens.
    #[must_use]
    pub fn services_to_settle(&self) -> Vec<Arc<Service>> {
        let model = self.model.lock();
        model.services.values().filter(|service| !model.has_ended_badly(service)).cloned().collect()
    }

    /// Container instances as the judge knows them.
    #[must_use]
    pub fn instances(&self) -> Vec<Arc<ContainerInstance>> {
        self.model.lock().instances.values().cloned().collect()
    }

    /// The last commit that was seen.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.model.lock().revision
    }
}

impl Model {
    fn commit(&mut self, commit: &Commit) -> Verdict {
        let is_next = if self.is_shared { commit.revision.0 > self.revision } else { commit.revision.0 == self.revision + 1 };
        if !is_next {
            return broken("gapless watch", format!("revision {} comes after {}", commit.revision, self.revision));
        }
        self.revision = commit.revision.0;
        if self.is_shared {
            self.commits.insert(self.revision, peers::keys(commit));
        }
        let before = self.tasks_before(commit);
        let mut touched = BTreeSet::new();
        let mut events = Vec::new();
        for change in &commit.changes {
            match change {
                Change::Put(Record::Cluster(cluster)) => drop(self.clusters.insert(cluster.name.clone(), Arc::clone(cluster))),
                Change::Put(Record::TaskDefinition(definition)) => {
                    drop(self.definitions.insert(definition.id.clone(), Arc::clone(definition)));
                }
                Change::Put(Record::Service(service)) => {
                    touched.insert((service.cluster.clone(), service.name.clone()));
                    drop(self.services.insert((service.cluster.clone(), service.name.clone()), Arc::clone(service)));
                }
                Change::Put(Record::ServiceEvent(event)) => events.push(Arc::clone(event)),
                Change::Put(Record::ContainerInstance(instance)) => {
                    let before = self.instances.insert(instance.id, Arc::clone(instance));
                    let is_back = instance.agent_connected && before.is_some_and(|before| !before.agent_connected);
                    if is_back {
                        self.back_at.insert(instance.id, Instant::now());
                    }
                    touched.extend(self.note_instance(instance.id, is_back));
                }
                Change::Put(Record::Task(task)) => {
                    self.check_task(task, commit.revision.0)?;
                    touched.extend(self.keep_task(task));
                    self.book(task)?;
                }
                Change::Put(Record::Family(_) | Record::AccountSetting(_)) | Change::Touch(_) => {}
                // No rule of placement or of services reads them.
                Change::Put(
                    Record::CapacityProvider(_) | Record::Daemon(_) | Record::DaemonFamily(_) | Record::DaemonTaskDefinition(_),
                ) => {}
                Change::Put(Record::Gateway(_) | Record::ExpressService(_) | Record::Alarm(_) | Record::VpcResource(_)) => {}
                Change::Put(
                    Record::Namespace(_) | Record::DiscoveryService(_) | Record::DiscoveryInstance(_) | Record::DiscoveryOperation(_),
                ) => {}
                Change::Put(Record::ServiceDeployment(one)) => self.follow_deployment(one)?,
                Change::Put(Record::ServiceRevision(_)) => {}
                Change::Delete(key) => self.forget(key)?,
            }
        }
        self.check_services(&before, &events)?;
        self.note_steady(&touched);
        Ok(())
    }

    /// Keeps a task; its service, if it has one.
    fn keep_task(&mut self, task: &Arc<Task>) -> Option<ServiceKey> {
        if task.is_stopped() {
            self.ended_at.entry(task.id).or_insert_with(Instant::now);
        }
        self.tasks_seen += usize::from(self.tasks.insert(task.id, Arc::clone(task)).is_none());
        let key = (task.cluster.clone(), task.service.as_ref()?.service.clone());
        let own = self.by_service.entry(key.clone()).or_default();
        if task.is_stopped() {
            own.remove(&task.id);
        } else {
            own.insert(task.id, Arc::clone(task));
        }
        Some(key)
    }

    fn forget_task(&mut self, id: TaskId) {
        self.ended_at.remove(&id);
        self.acknowledged.remove(&id);
        self.stops.remove(&id);
        let Some(task) = self.tasks.remove(&id) else { return };
        for container in 0..task.containers.len() {
            self.started.remove(&format!("{id}-{container}"));
        }
        if let Some(member) = &task.service
            && let Some(own) = self.by_service.get_mut(&(task.cluster.clone(), member.service.clone()))
        {
            own.remove(&id);
        }
    }

    /// Tasks of the commit as they were before it; `None` for those that it makes.
    fn tasks_before(&self, commit: &Commit) -> BTreeMap<TaskId, Option<Arc<Task>>> {
        let put = commit.changes.iter().filter_map(|change| match change {
            Change::Put(Record::Task(task)) => Some(task.id),
            _ => None,
        });
        put.map(|id| (id, self.tasks.get(&id).cloned())).collect()
    }

    fn forget(&mut self, key: &Key) -> Verdict {
        match key {
            Key::Task(id) => {
                if self.ended_at.get(id).is_none_or(|at| at.elapsed() < SHOWN_FOR) {
                    return broken("acknowledged", format!("task {id} is forgotten before its time"));
                }
                self.forget_task(*id);
            }
            Key::Service(cluster, name) => drop(self.services.remove(&(cluster.clone(), name.clone()))),
            Key::ContainerInstance(id) => drop(self.instances.remove(id)),
            Key::TaskDefinition(id) => drop(self.definitions.remove(id)),
            Key::Cluster(name) => drop(self.clusters.remove(name)),
            Key::Family(_) | Key::ServiceEvent(..) | Key::AccountSetting(..) | Key::Gateway(_) | Key::ExpressService(..) => {}
            Key::CapacityProvider(_) | Key::Daemon(..) | Key::DaemonFamily(_) | Key::DaemonTaskDefinition(_) => {}
            Key::ServiceRevision(..) | Key::ServiceDeployment(..) | Key::Alarm(_) | Key::VpcResource(_) => {}
            Key::Namespace(_) | Key::DiscoveryService(_) | Key::DiscoveryInstance(..) | Key::DiscoveryOperation(_) => {}
        }
        Ok(())
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Put(Record::Task(task)) => format!(
            "task {} {}->{} on {} of {}{}",
            task.id,
            task.last_status,
            task.desired_status,
            short(task.container_instance.0),
            task.definition,
            task.stopped_reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default(),
        ),
        Change::Put(Record::Service(service)) => format!(
            "service {} {} desired {} of {} in {} deployments{}",
            service.name,
            service.status,
            service.desired_count,
            service.definition().map(ToString::to_string).unwrap_or_default(),
            service.deployments.len(),
            if service.announced_steady { ", steady" } else { "" },
        ),
        Change::Put(Record::ServiceEvent(event)) => format!("event {}", event.message),
        Change::Put(Record::ContainerInstance(instance)) => {
            format!("instance {} {} connected {}", instance.id, instance.status, instance.agent_connected)
        }
        Change::Put(other) => format!("put {}", other.key()),
        Change::Touch(key) => format!("touch {key}"),
        Change::Delete(key) => format!("delete {key}"),
    }
}

fn short(id: u128) -> String {
    format!("{id:032x}").chars().take(8).collect()
}

impl Checker {
    /// Whether the service is in the steady state now.
    #[must_use]
    pub fn is_steady(&self, service: &Service) -> bool {
        self.model.lock().is_steady(service)
    }

    /// Whether the service ever was in the steady state.
    #[must_use]
    pub fn was_steady(&self, service: &Service) -> bool {
        let (model, key) = (self.model.lock(), (service.cluster.clone(), service.name.clone()));
        model.steady_now.contains(&key) || model.steady.contains_key(&key)
    }

    /// The tasks whose making was acknowledged.
    #[must_use]
    pub fn acknowledged_tasks(&self) -> Vec<TaskId> {
        self.model.lock().acknowledged.iter().copied().collect()
    }
}
