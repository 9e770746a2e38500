//! The loops that make what users asked for come true: placement's owners, services, dispatch to agents, agents' sessions,
//! forgetting. A loop reads the view, asks the planner, commits; it keeps nothing that a restart would lose.
//!
//! It never parses users' requests.

mod alarms;
mod awake;
mod constraints;
mod discovery;
mod dispatch;
mod editions;
mod environment;
mod fargate;
mod hooks;
mod ingress;
mod interfaces;
mod lag;
mod launch;
mod loops;
mod meter;
mod names;
mod observe;
mod owner;
mod payload;
mod peers;
mod placing;
mod plan;
mod roles;
mod service_history;
mod services;
mod session;
mod shifts;
mod sweep;
mod telemetry_session;
mod trace;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_acs::SessionOptions;
use berth_identity::RoleKeys;
use berth_model::cluster::ClusterStatus;
use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::ids::{ClusterName, TaskId};
use berth_model::lifecycle::{self, TaskObservation};
use berth_model::record::Record;
use berth_model::service::{Service, ServiceStatus};
use berth_model::service_deployment::ServiceDeployment;
use berth_model::task::{StopCode, Task};
use berth_store::{Change, CommitError, State, Store};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::Instrument;

pub use berth_scheduler::placement::Rule;
pub use constraints::{ConstraintError, Constraints};
pub use discovery::dns_table;
pub use environment::{Clock, Entropy, Environment};
pub use fargate::public_addresses;
pub use hooks::{HookTarget, Hooks, NamedHook, TargetError};
pub use ingress::settled;
pub use interfaces::zone_constraint;
pub use launch::{Place, TaskTemplate};
pub use meter::Meter;
pub use names::NameSource;
pub use payload::render as render_payload;
pub use placing::{LaunchError, Launched, Refused, Where};
pub use plan::{FleetChange, Forecast, InstanceForecast, MOST_INSTANCES, StageForecast, Step, Use};
pub use service_history::{forgettable_history, tally_revision};
pub use services::{parse_strategy, strategies};
pub use session::{AgentAway, Session};
pub use sweep::forgettable;
pub use telemetry_session::TelemetrySession;
pub use why::{LastWords, MOST_NAMED, Reason, Subject, Why};

use crate::awake::Awake;
use crate::dispatch::Dispatch;
use crate::loops::Loops;
use crate::names::Names;
use crate::owner::{OwnerHandle, Rules, Turn};
use crate::roles::Issuer;

/// Settings of the loops.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// How long a task without health checks must run to count as healthy in a deployment. ECS: 40 s.
    pub healthy_after: Duration,
    /// How long after an agent was noticed to be silent its service tasks are replaced on other machines. `None`: never, as on
    /// ECS, whose container instances Auto Scaling replaces.
    pub replace_after: Option<Duration>,
    /// How long a minute of bake times and hook timeouts takes: shorter ones are for trials.
    pub deployment_minute: Duration,
    /// What lifecycle hooks may call.
    pub hooks: Hooks,
    /// How names follow from the state; none: agents are told of no names.
    pub names: Option<NameSource>,
    /// How agents' connections are kept alive, and when what they do not take is sent again.
    pub sessions: SessionOptions,
    /// What the credentials of tasks' roles follow from; none: tasks get no credentials.
    pub roles: Option<RoleKeys>,
    /// How long the credentials of one issue are good. ECS: 6 hours.
    pub role_credentials_life: Duration,
    /// The runtime that loops and agents' sessions run on: one of their own spares those who call the API most of the wakes that a commit
    /// sets off. None: the one that they are started from.
    pub runtime: Option<Handle>,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            healthy_after: Duration::from_secs(40),
            replace_after: Some(Duration::from_secs(1)),
            deployment_minute: Duration::from_secs(60),
            hooks: Hooks::default(),
            names: Some(NameSource::default()),
            sessions: SessionOptions::default(),
            roles: None,
            role_credentials_life: Duration::from_secs(6 * 3600),
            runtime: None,
        }
    }
}

/// A handle on the loops; clones share them.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    environment: Environment,
    rules: Rules,
    constraints: Constraints,
    hooks: Hooks,
    sessions: SessionOptions,
    roles: Option<Issuer>,
    owners: Mutex<BTreeMap<ClusterName, OwnerHandle>>,
    turn: Turn,
    awake: Awake,
    dispatch: Dispatch,
    names: Names,
    interfaces: interfaces::Table,
    loops: Loops,
    meter: Meter,
    closing: AtomicBool,
}

impl Control {
    /// Starts the loops. Agents that this peer's last life left connected are not: they connect again. Where the store cannot write (a full
    /// disk) that is noted as soon as it can; until then reads are served, and writes refused.
    ///
    /// # Errors
    /// [`CommitError`] if the store is closed, or whether it has written is unknown.
    pub async fn start(store: Store, environment: Environment, config: ControlConfig) -> Result<Self, CommitError> {
        let membership = store.membership().borrow().clone();
        // This life's connections have larger numbers.
        let first = peers::connection_number(store.state().revision, 0);
        let is_gone = move |connection: u64| {
            let holder = peers::holder(connection);
            connection < first && (holder == membership.me || !membership.living.contains(&holder))
        };
        let loops = Loops::on(config.runtime.clone().unwrap_or_else(Handle::current));
        match peers::forget_connections(&store, &environment, &is_gone).await {
            Ok(()) => {}
            Err(CommitError::Backend(reason)) => {
                tracing::warn!(reason, "the store cannot write; this server serves what was written, until it can");
                loops.spawn(peers::forget_later(store.clone(), environment.clone(), is_gone));
            }
            Err(error) => return Err(error),
        }
        let meter = Meter::default();
        let dispatch = Dispatch::start(store.clone(), &loops, &meter);
        loops.spawn(sweep::run(store.clone(), environment.clone()));
        loops.spawn(peers::run(store.clone(), environment.clone()));
        loops.spawn(ingress::run(store.clone()));
        loops.spawn(interfaces::run(store.clone()));
        loops.spawn(discovery::run(store.clone(), environment.clone()));
        loops.spawn(hooks::run(store.clone(), environment.clone(), config.hooks.clone()));
        let names = Names::start(config.names.clone(), store.clone(), &loops, &meter);
        let interfaces = interfaces::Table::start(store.clone(), &loops, &meter);
        let rules = Rules::new(&config, environment.now());
        let roles = config.roles.map(|keys| Issuer::new(keys, config.role_credentials_life));
        let control = Self {
            shared: Arc::new(Shared {
                store,
                environment,
                rules,
                constraints: Constraints::default(),
                hooks: config.hooks,
                sessions: config.sessions,
                roles,
                owners: Mutex::default(),
                turn: Turn::default(),
                awake: Awake::new(config.runtime.is_some()),
                dispatch,
                names,
                interfaces,
                loops,
                meter,
                closing: AtomicBool::new(false),
            }),
        };
        // Clusters with services need their owner from the start; where there are machines the first task should not wait for it.
        let clusters: Vec<_> = {
            let state = control.shared.store.state();
            let has_services = |name: &ClusterName| state.services_of(name).any(|s| s.status != ServiceStatus::Inactive);
            let is_owned = |name: &ClusterName| has_services(name) || state.instances_of(name).any(|instance| is_active(instance));
            state.clusters().filter(|c| c.status == ClusterStatus::Active && is_owned(&c.name)).map(|c| c.name.clone()).collect()
        };
        for cluster in clusters {
            control.owner(&cluster);
        }
        control.shared.loops.spawn(appoint_owners(control.clone()));
        Ok(control)
    }

    /// The runtime that the loops run on: agents' sessions, which they talk to all the time, belong there too.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        self.shared.loops.runtime()
    }

    /// Ends every loop at once, wherever it waits: what a crash does. What was committed stands; nothing more is. Agents' sessions
    /// belong to whoever runs them; those that end later note nothing any more.
    pub fn stop(&self) {
        self.shared.loops.stop();
    }

    fn owner(&self, cluster: &ClusterName) -> OwnerHandle {
        let mut owners = self.shared.owners.lock();
        let start = || {
            OwnerHandle::start(
                cluster.clone(),
                self.shared.store.clone(),
                self.shared.environment.clone(),
                self.shared.rules,
                self.shared.constraints.clone(),
                Arc::clone(&self.shared.turn),
                (&self.shared.loops, &self.shared.meter),
            )
        };
        owners.entry(cluster.clone()).or_insert_with(start).clone()
    }

    /// Places tasks and commits them.
    ///
    /// # Errors
    /// [`LaunchError`]; then no task was made.
    pub async fn launch(&self, template: TaskTemplate, place: Where) -> Result<Launched, LaunchError> {
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(LaunchError::Store(CommitError::Closed));
        }
        let owner = self.owner(&template.cluster);
        let since = self.shared.environment.now();
        let launched = owner.launch(template, place, &self.shared.awake).await?;
        let scope = &self.shared.environment.scope;
        for task in launched.made_since(since) {
            let container_instance = || scope.container_instance(&task.cluster, task.container_instance);
            tracing::debug!(task = scope.task(&task.cluster, task.id), container_instance = container_instance(), "a task is placed");
        }
        trace::requested(scope, launched.made_since(since));
        Ok(launched)
    }

    /// Folds an agent's report in. `false`: there is no such task.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn observe_task(&self, cluster: &ClusterName, task: TaskId, seen: &TaskObservation) -> Result<bool, CommitError> {
        let Shared { store, environment, meter, .. } = &*self.shared;
        let span = trace::reported(&environment.scope, cluster, task, seen);
        observe::task_state(store, environment, meter, cluster, task, seen).instrument(span).await
    }

    /// Why something is as it is; `None` if it is not there. Reads only.
    #[must_use]
    pub fn why(&self, subject: &Subject) -> Option<Why> {
        let Shared { store, environment, rules, constraints, .. } = &*self.shared;
        let sight = why::Sight { state: &store.state(), scope: &environment.scope, rules: *rules, constraints, now: environment.now() };
        sight.why(subject)
    }

    /// What would come of a RunTask; reads only.
    ///
    /// # Errors
    /// [`LaunchError`], where it would fail as a whole.
    pub fn plan_launch(&self, template: &TaskTemplate, count: u32, change: &FleetChange) -> Result<Forecast, LaunchError> {
        plan::launch(&self.shared.store, &self.shared.environment, template, count, change)
    }

    /// How a service would go on that is set as this one; reads only. Its definition must be there, its controller ECS. `begun`: its current
    /// deployment, if that is not in the state.
    #[must_use]
    pub fn plan_service(&self, service: &Service, begun: Option<&ServiceDeployment>, change: &FleetChange) -> Forecast {
        let Shared { store, environment, rules, constraints, .. } = &*self.shared;
        let rehearsal = {
            let sight = why::Sight { state: &store.state(), scope: &environment.scope, rules: *rules, constraints, now: environment.now() };
            plan::Rehearsal::new(&sight, (service, begun), change, services::most_at_once(store.max_changes()))
        };
        plan::service(rehearsal)
    }

    /// How many tasks a DAEMON service is to have as the state is: one for each container instance that meets its constraints.
    #[must_use]
    pub fn daemon_desired_count(&self, state: &State, service: &Service) -> u32 {
        let Shared { environment, rules, constraints, .. } = &*self.shared;
        services::daemon::desired_count(state, service, rules, constraints, environment.now())
    }

    /// The placement constraints in use, compiled.
    #[must_use]
    pub fn constraints(&self) -> &Constraints {
        &self.shared.constraints
    }

    /// What lifecycle hooks may call.
    #[must_use]
    pub fn hooks(&self) -> &Hooks {
        &self.shared.hooks
    }

    /// What the loops count of themselves.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    /// Requests that wait now to be placed, in all clusters.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.shared.owners.lock().values().map(OwnerHandle::queue).sum()
    }

    /// Stops all tasks of all clusters and starts none any more: what `berth down` asks for. Services keep their desired count;
    /// the next life of the server starts their tasks again. Returns when every task of a connected machine is STOPPED
    /// or the time is over.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn stop_everything(&self, patience: Duration) -> Result<usize, CommitError> {
        const REASON: &str = "Berth was told to go down";
        self.shared.closing.store(true, Ordering::Release);
        for owner in std::mem::take(&mut *self.shared.owners.lock()).values() {
            owner.stop();
        }
        let deadline = tokio::time::Instant::now() + patience;
        let mut watcher = self.shared.store.watch(self.shared.store.state().revision);
        loop {
            // Tasks of machines that are away learn of it when they come back; nobody can wait for those.
            let live: Vec<_> = {
                let state = self.shared.store.state();
                watcher.resume_from(state.revision);
                let reachable = |task: &Task| state.instance(task.container_instance).is_some_and(|instance| instance.agent_connected);
                let live = state.tasks().filter(|task| !task.is_stopped() && reachable(task));
                live.map(|task| (task.cluster.clone(), task.id)).collect()
            };
            if live.is_empty() || tokio::time::Instant::now() >= deadline {
                return Ok(live.len());
            }
            let now = self.shared.environment.now();
            for (cluster, id) in live {
                observe::change_task(&self.shared.store, &cluster, id, |task, _| {
                    lifecycle::ask_to_stop(task, StopCode::UserInitiated, REASON, now)
                })
                .await?;
            }
            // Woken by the agents' reports; the deadline ends the wait for those that never come.
            let _ = tokio::time::timeout_at(deadline, watcher.next()).await;
        }
    }
}

fn is_active(instance: &ContainerInstance) -> bool {
    instance.status == ContainerInstanceStatus::Active
}

/// A cluster gets its owner when its first machine comes, or its first service is made. What it begins with is made from all that the
/// cluster has, which the first task would otherwise wait for.
async fn appoint_owners(control: Control) {
    let store = control.shared.store.clone();
    let from = store.state().revision;
    let mut watcher = store.watch(from);
    loop {
        let clusters: BTreeSet<_> = match watcher.next().await {
            Ok(commits) => commits
                .iter()
                .flat_map(|commit| &commit.changes)
                .filter_map(|change| match change {
                    Change::Put(Record::Service(service)) => Some(service.cluster.clone()),
                    Change::Put(Record::ContainerInstance(instance)) => is_active(instance).then(|| instance.cluster.clone()),
                    _ => None,
                })
                .collect(),
            Err(_) => {
                let state = store.state();
                watcher.resume_from(state.revision);
                let of_machines = state.instances().filter(|instance| is_active(instance)).map(|instance| instance.cluster.clone());
                state.services().map(|service| service.cluster.clone()).chain(of_machines).collect()
            }
        };
        if control.shared.closing.load(Ordering::Acquire) {
            return;
        }
        for cluster in clusters {
            control.owner(&cluster);
        }
    }
}
