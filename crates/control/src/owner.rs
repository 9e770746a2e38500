//! The owner of a cluster's placement index: the one place where this peer's tasks are placed.
//!
//! It takes requests from a bounded queue, places a batch, commits it as one transaction conditional on the instances it
//! touched, and answers each caller. So there are no locks around the index, group commit comes by itself, and peers that
//! collide simply try again on fresh state. It also steps the cluster's services, whose starts need the same index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::ids::{ClusterName, ContainerInstanceId, ServiceName, TaskId};
use berth_model::record::{Key, Record};
use berth_model::task::{Task, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::placement::{Index, Refusal};
use berth_scheduler::service::AbsenceRules;
use berth_store::{Change, Commit, CommitError, Compacted, Membership, State, Store, Transaction, Watcher};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::ControlConfig;
use crate::environment::Environment;
use crate::lag::Lag;
use crate::launch::{TaskTemplate, task_ids};
use crate::loops::Loops;
use crate::meter::Meter;
use crate::services;
use crate::trace;

/// Most requests that wait for a cluster's owner; beyond it callers are told at once.
const QUEUE: usize = 1_024;
/// Most requests placed and committed together.
const BATCH: usize = 128;
/// Most changes that one request makes: RunTask and StartTask take ten tasks, each of which may touch an instance; and the definition.
const LARGEST_REQUEST: usize = 21;
/// How often a batch is placed again after a conflict before its callers are told.
const TRIES: usize = 8;

/// How tasks are to be placed.
#[derive(Debug, Clone)]
pub enum Where {
    /// This many, where they fit (RunTask).
    Anywhere(u32),
    /// One on each of these (StartTask).
    On(Vec<ContainerInstanceId>),
}

/// Why an instance named by StartTask got no task, or where RunTask found no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// By a rule of placement.
    ByRule(Refusal),
    /// There is no such container instance.
    Missing(ContainerInstanceId),
}

impl Refused {
    /// The rule that refused, where there is one.
    pub(crate) const fn rule(&self) -> Option<&Refusal> {
        match self {
            Self::ByRule(refusal) => Some(refusal),
            Self::Missing(_) => None,
        }
    }
}

/// What came of a launch.
#[derive(Debug, Clone, Default)]
pub struct Launched {
    /// The tasks, durable.
    pub tasks: Vec<Arc<Task>>,
    /// Why the rest found no place.
    pub refused: Vec<Refused>,
}

impl Launched {
    /// Its tasks without those that an earlier request made under the same token.
    pub(crate) fn made_since(&self, since: UnixMillis) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(move |task| task.created_at >= since)
    }
}

/// Why a launch did not happen at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The cluster was deleted meanwhile.
    #[error("the cluster is not active")]
    ClusterInactive,
    /// The task definition was deregistered meanwhile.
    #[error("the task definition is not active")]
    DefinitionInactive,
    /// No container instance is registered in the cluster.
    #[error("No Container Instances were found in your cluster.")]
    NoInstances,
    /// The `clientToken` was used for something else; these are its tasks.
    #[error("the client token was used with other parameters")]
    TokenReused(Vec<TaskId>),
    /// The queue is full.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The store cannot commit.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// What services are planned by, beyond their own settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Milliseconds.
    pub(crate) healthy_after: i64,
    /// When the machines of agents that are away count as lost.
    pub(crate) absence: AbsenceRules,
}

impl Rules {
    pub(crate) fn new(config: &ControlConfig, now: UnixMillis) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self {
            healthy_after: millis(config.healthy_after),
            absence: AbsenceRules { replace_after: config.replace_after.map(millis), listening_since: now },
        }
    }
}

/// What ends the owner's wait.
enum Wake {
    Requests(Option<Vec<Request>>),
    Commits(Result<Vec<Arc<Commit>>, Compacted>),
    /// Who leads may have changed.
    Peers,
    /// A service wants to be planned.
    Due,
}

struct Request {
    template: TaskTemplate,
    place: Where,
    reply: oneshot::Sender<Result<Launched, LaunchError>>,
}

impl Request {
    /// How many records it may change: each task, and the instance it is placed on; and the definition.
    fn most_changes(&self) -> usize {
        1 + 2 * match &self.place {
            Where::Anywhere(count) => usize::try_from(*count).unwrap_or(usize::MAX / 4),
            Where::On(instances) => instances.len(),
        }
    }
}

/// A handle on a cluster's owner.
#[derive(Clone)]
pub(crate) struct OwnerHandle {
    requests: mpsc::Sender<Request>,
    run: tokio::task::AbortHandle,
}

impl OwnerHandle {
    /// Starts the owner's task.
    pub(crate) fn start(cluster: ClusterName, store: Store, environment: Environment, rules: Rules, loops: &Loops, meter: &Meter) -> Self {
        let meter = meter.clone();
        let (requests, inbox) = mpsc::channel(QUEUE);
        let run = loops.spawn(async move {
            let mut owner = Owner::new(cluster, store, environment, rules, meter);
            owner.run(inbox).await;
        });
        Self { requests, run }
    }

    /// Ends it. What it had committed stands; callers that wait are told that the store is closed.
    pub(crate) fn stop(&self) {
        self.run.abort();
    }

    /// Requests that wait now.
    pub(crate) fn queue(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// Places tasks and commits them.
    pub(crate) async fn launch(&self, template: TaskTemplate, place: Where) -> Result<Launched, LaunchError> {
        let (reply, outcome) = oneshot::channel();
        self.requests.try_send(Request { template, place, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LaunchError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => LaunchError::Store(CommitError::Closed),
        })?;
        outcome.await.map_err(|_| LaunchError::Store(CommitError::Closed))?
    }
}

/// The owner's own state: all of it can be made anew from the store.
pub(crate) struct Owner {
    pub(crate) cluster: ClusterName,
    pub(crate) store: Store,
    pub(crate) environment: Environment,
    pub(crate) rules: Rules,
    pub(crate) index: Index,
    pub(crate) meter: Meter,
    lag: Lag,
    watcher: Watcher,
    /// Services to plan now.
    pub(crate) dirty: BTreeSet<ServiceName>,
    /// Services that could not place a task: planned again when room may have come.
    pub(crate) waiting_for_room: BTreeSet<ServiceName>,
    /// Services that want to be planned at a time.
    pub(crate) wake_at: BTreeMap<ServiceName, UnixMillis>,
}

impl Owner {
    pub(crate) fn new(cluster: ClusterName, store: Store, environment: Environment, rules: Rules, meter: Meter) -> Self {
        let revision = store.state().revision;
        let watcher = store.watch(revision);
        let mut owner = Self {
            cluster,
            store,
            environment,
            rules,
            index: Index::default(),
            lag: Lag::new(meter.lag_of("owner")),
            meter,
            watcher,
            dirty: BTreeSet::new(),
            waiting_for_room: BTreeSet::new(),
            wake_at: BTreeMap::new(),
        };
        owner.reload();
        owner
    }

    async fn run(&mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut membership = self.store.membership();
        let mut led = false;
        loop {
            self.catch_up();
            let leads = membership.borrow_and_update().leads;
            if leads && !led {
                // What the last leader had planned to wake up for is nowhere but here, in the state.
                self.plan_all();
            }
            led = leads;
            let mut batch = Vec::new();
            let mut changes = 0;
            while batch.len() < BATCH
                && changes + LARGEST_REQUEST <= self.store.max_changes()
                && let Ok(request) = inbox.try_recv()
            {
                changes += request.most_changes();
                batch.push(request);
            }
            if !batch.is_empty() {
                self.launch_batch(batch).await;
                continue;
            }
            if leads && services::step(self).await {
                continue;
            }
            let sleep =
                self.wake_at.values().min().map(|at| Duration::from_millis(u64::try_from(at.since(self.environment.now())).unwrap_or(0)));
            let sleep = sleep.filter(|_| leads);
            let due = sleep.map(|sleep| Instant::now() + sleep);
            let watcher = &mut self.watcher;
            let wait = async {
                tokio::select! {
                    biased;
                    request = inbox.recv() => Wake::Requests(request.map(|request| vec![request])),
                    commits = watcher.next() => Wake::Commits(commits),
                    // Fails only without a store.
                    _ = membership.changed() => Wake::Peers,
                    () = sleep_for(sleep) => Wake::Due,
                }
            };
            match self.lag.during(wait).await {
                Wake::Requests(Some(batch)) => self.launch_batch(batch).await,
                Wake::Requests(None) => return,
                Wake::Commits(Ok(commits)) => {
                    self.lag.acts();
                    commits.iter().for_each(|commit| self.fold(&commit.changes));
                }
                Wake::Commits(Err(_)) => self.reload(),
                Wake::Peers => {}
                Wake::Due => due.into_iter().for_each(|due| self.lag.acts_on_due(due)),
            }
        }
    }

    /// Folds in all commits that are there now.
    pub(crate) fn catch_up(&mut self) {
        loop {
            match self.watcher.poll() {
                Ok(commits) if commits.is_empty() => return self.lag.idle(),
                Ok(commits) => {
                    self.lag.acts();
                    commits.iter().for_each(|commit| self.fold(&commit.changes));
                }
                Err(_) => return self.reload(),
            }
        }
    }

    /// Makes everything anew from the state.
    fn reload(&mut self) {
        let state = self.store.state();
        self.index = Index::default();
        for instance in state.instances_of(&self.cluster) {
            self.index.apply_instance(&instance.value);
        }
        if let Some(index) = state.index(&self.cluster) {
            for task in index.desired_running.iter().chain(&index.desired_stopped).filter_map(|id| state.task(*id)) {
                self.index.apply_task(&task.value);
            }
        }
        self.dirty = state.services_of(&self.cluster).map(|service| service.name.clone()).collect();
        self.watcher.resume_from(state.revision);
    }

    /// Every service is to be planned.
    fn plan_all(&mut self) {
        let state = self.store.state();
        self.dirty.extend(state.services_of(&self.cluster).map(|service| service.name.clone()));
    }

    fn fold(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(Record::ContainerInstance(instance)) if instance.cluster == self.cluster => {
                    self.index.apply_instance(instance);
                    self.dirty.append(&mut self.waiting_for_room);
                    if instance.away.is_some() || instance.status != ContainerInstanceStatus::Active {
                        // Its tasks may have to be replaced: if it stays away, because it is drained.
                        let state = self.store.state();
                        let tasks = state.tasks_of_instance(&self.cluster, instance.id);
                        self.dirty.extend(tasks.filter_map(|task| Some(task.service.as_ref()?.service.clone())));
                    }
                }
                Change::Put(Record::Task(task)) if task.cluster == self.cluster => {
                    self.index.apply_task(task);
                    if task.last_status == TaskStatus::Stopped {
                        self.dirty.append(&mut self.waiting_for_room);
                    }
                    if let Some(membership) = &task.service {
                        self.dirty.insert(membership.service.clone());
                    }
                }
                Change::Put(Record::Service(service)) if service.cluster == self.cluster => {
                    self.dirty.insert(service.name.clone());
                }
                Change::Delete(Key::ContainerInstance(id)) => self.index.remove_instance(*id),
                Change::Delete(Key::Task(id)) => self.index.release(*id),
                _ => {}
            }
        }
    }

    async fn launch_batch(&mut self, batch: Vec<Request>) {
        // Two requests under one client token must not meet in a batch: the second has to see the first's tasks.
        let mut tokens = BTreeSet::new();
        let (batch, again): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|request| request.template.client_token.as_ref().is_none_or(|token| tokens.insert(token.token.clone())));
        self.launch_distinct(batch).await;
        for request in again {
            self.launch_distinct(vec![request]).await;
        }
    }

    async fn launch_distinct(&mut self, batch: Vec<Request>) {
        let mut waiting = batch;
        let has_peers = *self.store.membership().borrow() != Membership::alone();
        for attempt in 0..TRIES {
            self.catch_up();
            let since = self.environment.now();
            let mut transaction = Transaction::new();
            let mut placed = Vec::new();
            {
                let state = self.store.state();
                for request in std::mem::take(&mut waiting) {
                    match prepare(&mut self.index, &state, &self.environment, has_peers, &request, &mut transaction) {
                        Ok(launched) => placed.push((request, launched)),
                        Err(error) => {
                            let _ = request.reply.send(Err(error));
                        }
                    }
                }
                expect_instances(&state, &mut transaction, placed.iter().flat_map(|(_, launched)| &launched.tasks));
            }
            let fresh = placed.iter().flat_map(|(_, launched)| launched.made_since(since));
            let spans = trace::committed(&self.environment.scope, fresh);
            let outcome = if transaction.is_empty() { Ok(()) } else { self.store.commit(transaction).await.map(drop) };
            drop(spans);
            let Err(error) = outcome else {
                for (request, launched) in placed {
                    self.meter.answered(&request.place, &launched, since);
                    let _ = request.reply.send(Ok(launched));
                }
                return;
            };
            {
                // A token's repetition is answered with tasks that there are: what they take stays taken.
                let state = self.store.state();
                let fresh = placed.iter().flat_map(|(_, launched)| &launched.tasks).filter(|task| state.task(task.id).is_none());
                fresh.for_each(|task| self.index.release(task.id));
            }
            if matches!(error, CommitError::Conflict(_)) && attempt + 1 < TRIES {
                waiting = placed.into_iter().map(|(request, _)| request).collect();
                continue;
            }
            for (request, _) in placed {
                let _ = request.reply.send(Err(LaunchError::Store(error.clone())));
            }
            return;
        }
    }
}

/// Places one request in the index and adds its tasks to the transaction.
fn prepare(
    index: &mut Index,
    state: &State,
    environment: &Environment,
    has_peers: bool,
    request: &Request,
    transaction: &mut Transaction,
) -> Result<Launched, LaunchError> {
    let template = &request.template;
    if let Some(token) = &template.client_token
        && let Some(known) = state.index(&template.cluster).and_then(|index| index.by_client_token.get(&token.token))
    {
        let tasks: Vec<_> = known.iter().filter_map(|id| state.task(*id)).collect();
        let same = tasks.iter().all(|task| task.client_token.as_ref() == Some(token));
        if !same {
            return Err(LaunchError::TokenReused(tasks.iter().map(|task| task.id).collect()));
        }
        return Ok(Launched { tasks: tasks.iter().map(|task| Arc::clone(&task.value)).collect(), refused: Vec::new() });
    }
    expect_active(state, transaction, template)?;
    let mut launched = Launched::default();
    let mut put = |id: TaskId, instance: ContainerInstanceId| {
        let zone = state.instance(instance).and_then(|i| i.availability_zone().map(Arc::from));
        let task = Arc::new(template.task(id, instance, zone, environment));
        transaction.put(Record::Task(Arc::clone(&task)));
        launched.tasks.push(task);
    };
    match &request.place {
        Where::Anywhere(count) => {
            if index.is_empty() {
                return Err(LaunchError::NoInstances);
            }
            let ids = task_ids(*count, environment);
            let placement = index.place(&template.place_request(&ids, environment.bits64()));
            for (id, instance) in placement.placed {
                put(id, instance);
            }
            launched.refused = placement.refusals.into_iter().map(Refused::ByRule).collect();
        }
        Where::On(instances) => {
            let mut refused = Vec::new();
            for instance in instances {
                let ids = task_ids(1, environment);
                match index.place_on(*instance, &template.place_request(&ids, 0)) {
                    Ok(()) => put(ids[0], *instance),
                    Err(Some(rule)) => refused.push(Refused::ByRule(Refusal { instance: *instance, rule })),
                    Err(None) => refused.push(Refused::Missing(*instance)),
                }
            }
            launched.refused = refused;
        }
    }
    if has_peers && template.client_token.is_some() && !launched.tasks.is_empty() {
        // Another peer may be asked for the same at this moment and places it elsewhere: of two that touch the definition, on which both
        // have their condition, one conflicts, and then sees the other's tasks.
        transaction.touch(Key::TaskDefinition(template.definition.id.clone()));
    }
    Ok(launched)
}

/// Cluster and definition must still be ACTIVE when the tasks are committed.
pub(crate) fn expect_active(state: &State, transaction: &mut Transaction, template: &TaskTemplate) -> Result<(), LaunchError> {
    let cluster = state.cluster(&template.cluster).filter(|c| c.status == berth_model::cluster::ClusterStatus::Active);
    let cluster = cluster.ok_or(LaunchError::ClusterInactive)?;
    transaction.expect(Key::Cluster(cluster.name.clone()), cluster.modified);
    let definition = state.definition(&template.definition.id).ok_or(LaunchError::DefinitionInactive)?;
    // A service goes on with a revision that was deregistered after it took it up; a new task of its own does not start.
    if template.service.is_none() && definition.status != berth_model::task_definition::TaskDefinitionStatus::Active {
        return Err(LaunchError::DefinitionInactive);
    }
    transaction.expect(Key::TaskDefinition(definition.id.clone()), definition.modified);
    Ok(())
}

/// Conditions on every instance that tasks go to: unchanged since the state that placement saw; and counts their versions up.
pub(crate) fn expect_instances<'a>(state: &State, transaction: &mut Transaction, tasks: impl Iterator<Item = &'a Arc<Task>>) {
    let fresh = tasks.filter(|task| state.task(task.id).is_none());
    let instances: BTreeSet<_> = fresh.map(|task| task.container_instance).collect();
    for id in instances {
        if let Some(instance) = state.instance(id) {
            transaction.expect(Key::ContainerInstance(id), instance.modified);
            transaction.touch(Key::ContainerInstance(id));
        }
    }
}

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
