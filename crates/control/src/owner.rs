//! The owner of a cluster's placement index: the one place where this peer's tasks are placed.
//!
//! It takes requests from a bounded queue, places a batch, commits it as one transaction conditional on the instances it
//! touched, and answers each caller. So there are no locks around the index, group commit comes by itself, and peers that
//! collide simply try again on fresh state. It also steps the cluster's services, whose starts need the same index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::ids::{ClusterName, ContainerInstanceId, ServiceName};
use berth_model::record::{Key, Record};
use berth_model::service::Service;
use berth_model::task::LaunchType;
use berth_model::time::UnixMillis;
use berth_scheduler::placement::{Index, Strategy};
use berth_scheduler::service::rebalance::is_wanted;
use berth_scheduler::service::{AbsenceRules, Machine, ServiceView, TaskView, Zones};
use berth_store::{Change, Commit, CommitError, Compacted, Membership, Revision, Store, Transaction, Watcher};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::ControlConfig;
use crate::alarms;
use crate::awake::Awake;
use crate::constraints::Constraints;
use crate::environment::Environment;
use crate::fargate;
use crate::interfaces::Interfaces;
use crate::lag::Lag;
use crate::launch::TaskTemplate;
use crate::loops::Loops;
use crate::meter::Meter;
use crate::placing::{LaunchError, Launched, Means, Where, expect_instances, prepare};
use crate::services;
use crate::trace;

/// Most requests that wait for a cluster's owner; beyond it callers are told at once.
const QUEUE: usize = 1_024;
/// Most requests placed and committed together.
const BATCH: usize = 128;
/// Most changes that one request makes: RunTask and StartTask take ten tasks, each of which may touch an instance and have an interface of
/// a subnet; and the definition.
const LARGEST_REQUEST: usize = 41;
/// How often a batch is placed again after a conflict before its callers are told.
const TRIES: usize = 8;

/// What services are planned by, beyond their own settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Milliseconds.
    pub(crate) healthy_after: i64,
    /// How long a minute of a deployment takes; milliseconds.
    pub(crate) minute: i64,
    /// When the machines of agents that are away count as lost.
    pub(crate) absence: AbsenceRules,
}

impl Rules {
    /// A service as its planner sees it that knows neither of alarms nor of availability zones.
    pub(crate) fn view<'a>(
        &self,
        service: &'a Service,
        tasks: &'a [TaskView],
        blocked: bool,
        strategies: &'a [Strategy],
        machine: &'a dyn Fn(ContainerInstanceId) -> Machine<'a>,
    ) -> ServiceView<'a> {
        let (healthy_after_millis, minute_millis) = (self.healthy_after, self.minute);
        let (alarms, zones): (&[_], _) = (&[], Zones::default());
        ServiceView { service, tasks, healthy_after_millis, minute_millis, blocked, strategies, alarms, zones, machine }
    }

    pub(crate) fn new(config: &ControlConfig, now: UnixMillis) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self {
            healthy_after: millis(config.healthy_after),
            minute: millis(config.deployment_minute),
            absence: AbsenceRules { replace_after: config.replace_after.map(millis), listening_since: now },
        }
    }
}

/// Held while tasks are placed on machines that several clusters share, until they are committed.
pub(crate) type Turn = Arc<tokio::sync::Mutex<()>>;

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
    /// How many records it may change: each task, and the instance it is placed on, its interface and the subnet of that; and the
    /// definition.
    fn most_changes(&self) -> usize {
        let of_task = if self.template.network.is_some() { 4 } else { 2 };
        1 + of_task
            * match &self.place {
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
    pub(crate) fn start(
        cluster: ClusterName,
        store: Store,
        environment: Environment,
        rules: Rules,
        constraints: Constraints,
        turn: Turn,
        (loops, meter): (&Loops, &Meter),
    ) -> Self {
        let meter = meter.clone();
        let (requests, inbox) = mpsc::channel(QUEUE);
        let run = loops.spawn(async move {
            let mut owner = Owner::new(cluster, store, environment, rules, constraints, turn, meter);
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

    /// Places tasks and commits them; how their caller waits for that is `awake`'s.
    pub(crate) async fn launch(&self, template: TaskTemplate, place: Where, awake: &Awake) -> Result<Launched, LaunchError> {
        let (reply, outcome) = oneshot::channel();
        self.requests.try_send(Request { template, place, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LaunchError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => LaunchError::Store(CommitError::Closed),
        })?;
        awake.outcome(outcome).await.ok_or(LaunchError::Store(CommitError::Closed))?
    }
}

/// The owner's own state: all of it can be made anew from the store.
pub(crate) struct Owner {
    pub(crate) cluster: ClusterName,
    pub(crate) store: Store,
    pub(crate) environment: Environment,
    pub(crate) rules: Rules,
    pub(crate) constraints: Constraints,
    pub(crate) index: Index,
    /// All machines that offer Fargate capacity, once the cluster has asked for it.
    pub(crate) fargate: Option<Index>,
    /// Whoever places on machines that other clusters place on waits for it: within a server they need not collide.
    pub(crate) turn: Turn,
    pub(crate) meter: Meter,
    lag: Lag,
    watcher: Watcher,
    /// Services to plan now.
    pub(crate) dirty: BTreeSet<ServiceName>,
    /// The cluster's DAEMON services: those of them that are dirty are planned before anything else is placed.
    pub(crate) daemons: BTreeSet<ServiceName>,
    /// Services that could not place a task: planned again when room may have come.
    pub(crate) waiting_for_room: BTreeSet<ServiceName>,
    /// Services that want to be planned at a time.
    pub(crate) wake_at: BTreeMap<ServiceName, UnixMillis>,
}

impl Owner {
    pub(crate) fn new(
        cluster: ClusterName,
        store: Store,
        environment: Environment,
        rules: Rules,
        constraints: Constraints,
        turn: Turn,
        meter: Meter,
    ) -> Self {
        let revision = store.state().revision;
        let watcher = store.watch(revision);
        let mut owner = Self {
            cluster,
            store,
            environment,
            rules,
            constraints,
            index: Index::default(),
            fargate: None,
            turn,
            lag: Lag::new(meter.lag_of("owner")),
            meter,
            watcher,
            dirty: BTreeSet::new(),
            daemons: BTreeSet::new(),
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
            if leads {
                services::daemon::first_in(self).await;
            }
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

    /// The last commit that the indexes have folded in.
    pub(crate) const fn seen(&self) -> Revision {
        self.watcher.position()
    }

    /// Makes everything anew from the state.
    fn reload(&mut self) {
        let state = self.store.state();
        self.index = Index::default();
        for instance in state.instances_of(&self.cluster) {
            self.index.apply_instance(&instance.value);
        }
        if let Some(index) = state.index(&self.cluster) {
            let tasks = index.desired_running.iter().chain(&index.desired_stopped).filter_map(|id| state.task(*id));
            let tasks = tasks.filter(|task| task.launch_type != LaunchType::Fargate);
            let expected = index.desired_running.len() + index.desired_stopped.len();
            self.index.apply_tasks(expected, tasks.map(|task| &*task.value));
        }
        state.instances_of(&self.cluster).for_each(|instance| fargate::take_guests(&state, &mut self.index, instance.id));
        self.fargate = self.fargate.take().map(|_| fargate::index_of(&state));
        self.dirty = state.services_of(&self.cluster).map(|service| service.name.clone()).collect();
        self.daemons = state.services_of(&self.cluster).filter(|service| service.is_daemon()).map(|service| service.name.clone()).collect();
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
                Change::Put(Record::ContainerInstance(instance)) if instance.cluster != self.cluster => self.fold_machine(instance),
                Change::Put(Record::ContainerInstance(instance)) => {
                    self.fold_machine(instance);
                    let was_alone = self.index.is_alone(instance.id);
                    self.index.apply_instance(instance);
                    if !was_alone && self.index.is_alone(instance.id) {
                        self.look_at_zones();
                    }
                    self.dirty.append(&mut self.waiting_for_room);
                    // It may have come, gone, or become one that meets their constraints, or does not.
                    self.dirty.extend(self.daemons.iter().cloned());
                    if instance.away.is_some() || instance.status != ContainerInstanceStatus::Active {
                        // Its tasks may have to be replaced: if it stays away, because it is drained.
                        let state = self.store.state();
                        let tasks = state.tasks_of_instance(&self.cluster, instance.id);
                        self.dirty.extend(tasks.filter_map(|task| Some(task.service.as_ref()?.service.clone())));
                    }
                }
                Change::Put(Record::Task(task)) => self.fold_task(task),
                Change::Put(Record::Service(service)) if service.cluster == self.cluster => {
                    if service.is_daemon() {
                        self.daemons.insert(service.name.clone());
                    } else {
                        self.daemons.remove(&service.name);
                    }
                    self.dirty.insert(service.name.clone());
                }
                Change::Put(Record::ServiceDeployment(one)) if one.cluster == self.cluster => {
                    // It may be told to go back.
                    self.dirty.insert(one.service.clone());
                }
                Change::Put(Record::Alarm(alarm)) => {
                    let state = self.store.state();
                    self.dirty.extend(alarms::watchers(&state, &self.cluster, &alarm.name));
                }
                Change::Delete(Key::ContainerInstance(id)) => {
                    self.index.remove_instance(*id);
                    if let Some(fargate) = &mut self.fargate {
                        fargate.remove_instance(*id);
                    }
                    self.dirty.extend(self.daemons.iter().cloned());
                }
                Change::Delete(Key::Service(cluster, name)) if *cluster == self.cluster => drop(self.daemons.remove(name)),
                Change::Delete(Key::Task(id)) => self.release(*id),
                // An address is free again.
                Change::Delete(Key::VpcResource(_)) => self.dirty.append(&mut self.waiting_for_room),
                _ => {}
            }
        }
    }

    /// There may be an availability zone that was not there before: services that are balanced over zones are to be planned.
    fn look_at_zones(&mut self) {
        let state = self.store.state();
        let wanted = state.services_of(&self.cluster).filter(|service| is_wanted(service, &services::strategies(service)));
        self.dirty.extend(wanted.map(|service| service.name.clone()));
    }

    /// A task ended on an instance: if that is DRAINING, it may be the last that the tasks of DAEMON services waited for.
    pub(crate) fn last_out(&mut self, instance: ContainerInstanceId) {
        if self.daemons.is_empty() {
            return;
        }
        let state = self.store.state();
        if state.instance(instance).is_some_and(|instance| instance.status == ContainerInstanceStatus::Draining) {
            self.dirty.extend(self.daemons.iter().cloned());
        }
    }

    async fn launch_batch(&mut self, batch: Vec<Request>) {
        if batch.len() == 1 {
            return self.launch_distinct(batch).await;
        }
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
        let is_fargate = |request: &Request| request.template.launch_type == LaunchType::Fargate;
        let turn = Arc::clone(&self.turn);
        for attempt in 0..TRIES {
            // Who has met somebody once may have met another cluster, on a machine that both place on.
            let _turn = if attempt > 0 || waiting.iter().any(is_fargate) { Some(turn.lock().await) } else { None };
            self.catch_up();
            services::daemon::first_in(self).await;
            let since = self.environment.now();
            let (mut transaction, mut interfaces) = (Transaction::new(), Interfaces::default());
            let mut placed = Vec::new();
            if waiting.iter().any(is_fargate) {
                self.fargate();
            }
            {
                let state = self.store.state();
                for request in std::mem::take(&mut waiting) {
                    let fargate = self.fargate.as_mut().filter(|_| is_fargate(&request));
                    let (index, interfaces, environment) = (fargate.unwrap_or(&mut self.index), &mut interfaces, &self.environment);
                    let means = Means { index, state: &state, interfaces, environment, has_peers };
                    match prepare(means, &request.template, &request.place, &mut transaction) {
                        Ok(launched) => placed.push((request, launched)),
                        Err(error) => {
                            let _ = request.reply.send(Err(error));
                        }
                    }
                }
                expect_instances(&state, self.seen(), &mut transaction, placed.iter().flat_map(|(_, launched)| &launched.tasks));
                interfaces.write(&state, &mut transaction);
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
                let fresh: Vec<_> = fresh.map(|task| task.id).collect();
                drop(state);
                fresh.into_iter().for_each(|task| self.release(task));
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

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
