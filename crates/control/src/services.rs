//! The services loop: reads a service and its tasks, asks the planner, commits the plan. It keeps nothing that a restart
//! would lose.

pub(crate) mod daemon;
mod template;
mod writer;
pub(crate) mod zones;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::ids::{CapacityProviderName, ContainerInstanceId, DefinitionId, DeploymentId, ServiceName, TaskId};
use berth_model::lifecycle;
use berth_model::record::Key;
use berth_model::service::{DeploymentController, Service, ServiceStatus};
use berth_model::service_deployment::ServiceDeployment;
use berth_model::task::{HealthStatus, LaunchType, Task};
use berth_model::task_definition::TaskDefinition;
use berth_model::task_set::TaskSet;
use berth_model::time::UnixMillis;
use berth_scheduler::capacity::{self, CapacityPlacement};
use berth_scheduler::placement::{Index, Refusal};
use berth_scheduler::service::{AbsenceRules, Machine, ServicePlan, ServiceView, TaskView, Zones, plan, task_set};
use berth_store::{CommitError, State, Transaction};

pub(crate) use template::{by_provider, template};
pub use template::{parse_strategy, strategies};

use crate::alarms;
use crate::fargate::ZoneChoice;
use crate::interfaces::Interfaces;
use crate::launch::{Place, TaskTemplate, task_ids};
use crate::meter::Wanted;
use crate::owner::Owner;
use crate::placing::{expect_active, expect_instances, zone_of};
use crate::service_history;
use crate::shifts;
use crate::trace;
use writer::{Writer, write_plan};

/// How long a service that found no room waits before it tries again, even if nothing changed.
const ROOM_RETRY_MILLIS: i64 = 15_000;

/// Plans one service that wants to be planned; `false` if there is none.
pub(crate) async fn step(owner: &mut Owner) -> bool {
    let now = owner.environment.now();
    let due: Vec<_> = owner.wake_at.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
    for name in due {
        owner.wake_at.remove(&name);
        owner.dirty.insert(name);
    }
    let Some(name) = owner.dirty.first().cloned() else { return false };
    plan_one(owner, name, now).await;
    true
}

/// Plans a service.
async fn plan_one(owner: &mut Owner, name: ServiceName, now: UnixMillis) {
    owner.dirty.remove(&name);
    owner.wake_at.remove(&name);
    owner.meter.planned_service();
    if let Err(error) = step_service(owner, &name, now).await {
        match error {
            // Somebody changed it meanwhile: what is now there is planned at once.
            CommitError::Conflict(_) => {
                owner.dirty.insert(name);
            }
            error => {
                tracing::warn!(%error, service = %name, cluster = %owner.cluster, "cannot commit the service's plan");
                owner.wake_at.insert(name, now.plus_millis(1_000));
            }
        }
    }
}

async fn step_service(owner: &mut Owner, name: &ServiceName, now: UnixMillis) -> Result<(), CommitError> {
    let launch_type = owner.store.state().service(&owner.cluster, name).map(|service| service.launch_type);
    let turn = Arc::clone(&owner.turn);
    let mut held = None;
    if launch_type == Some(LaunchType::Fargate) {
        held = Some(turn.lock().await);
        // Whoever had the turn before has placed something.
        owner.catch_up();
    }
    let outcome = step_now(owner, name, now).await;
    drop(held);
    outcome
}

async fn step_now(owner: &mut Owner, name: &ServiceName, now: UnixMillis) -> Result<(), CommitError> {
    let (mut transaction, mut interfaces) = (Transaction::new(), Interfaces::default());
    let mut started = Vec::new();
    let mut spans = Vec::new();
    {
        let store = owner.store.clone();
        let state = store.state();
        let Some(service) = state.service(&owner.cluster, name) else { return Ok(()) };
        if service.status == ServiceStatus::Inactive {
            return Ok(());
        }
        let entropy = owner.environment.clone();
        let bits = || entropy.entropy.bits();
        let fresh = DeploymentId::from_random(owner.environment.bits64());
        let mut writer =
            Writer { service: (*service.value).clone(), transaction: &mut transaction, now, owner_bits: &bits, task_set: None };
        if let Some(back) = service_history::begin_rollback(&state, service, fresh, now, writer.transaction) {
            // The new PRIMARY deployment is planned when it is there.
            writer.service = back.service;
            writer.announce(&back.announcement);
        } else {
            let tasks = views(&state, service, &owner.rules.absence);
            let mut task_sets = Vec::new();
            // What its current deployment becomes, if that has stages to go through.
            let (mut wake_at, mut rollback, mut staged) = (None, None, None);
            for part in parts(&service.value, tasks) {
                writer.task_set = part.task_set.map(|set| set.id);
                let step_part = if service.is_daemon() { daemon::step_part } else { step_part };
                let mut step = step_part(owner, &state, &part, now, writer.transaction, &mut interfaces);
                writer.service.desired_count = step.desired_count.unwrap_or(writer.service.desired_count);
                staged = staged.or(step.staged.take());
                if let Some(set) = part.task_set {
                    task_sets.extend(task_set::after(set, &mut step.steps, &part.tasks, now));
                } else {
                    writer.service.deployments.clone_from(&step.steps.deployments);
                    writer.service.status = step.steps.status;
                    writer.service.announced_steady = step.steps.steady;
                }
                spans.extend(trace::started_by(&owner.environment.scope, &service.value, &step.started));
                write_plan(&state, &mut writer, &step);
                wake_at = [wake_at, step.steps.wake_at].into_iter().flatten().min();
                rollback = rollback.or(step.steps.rollback);
                started.extend(step.started);
            }
            // Once for all of them: two parts may have placed tasks on one instance.
            expect_instances(&state, owner.seen(), writer.transaction, started.iter());
            interfaces.write(&state, writer.transaction);
            writer.task_set = None;
            if service.controller == DeploymentController::External {
                writer.replace_task_sets(task_sets);
            }
            if writer.service.status == ServiceStatus::Inactive {
                let most = most_at_once(owner.store.max_changes());
                if !service_history::forget(&state, service, most, writer.transaction) {
                    // It ends with the last of its history, or that would be the next service's of this name.
                    writer.service.status = ServiceStatus::Draining;
                    wake_at = Some(now);
                }
            } else {
                service_history::follow(&state, service, &mut writer.service, rollback, staged.as_ref(), now, writer.transaction);
            }
            if let Some(at) = wake_at {
                owner.wake_at.insert(name.clone(), at);
            }
        }
        let after = writer.service;
        if after != *service.value || !transaction.is_empty() {
            transaction.expect(Key::Service(owner.cluster.clone(), name.clone()), service.modified);
        }
        if after != *service.value {
            transaction.put(after);
        }
    }
    if transaction.is_empty() {
        return Ok(());
    }
    spans.splice(0..0, trace::committed(&owner.environment.scope, started.iter()));
    let outcome = owner.store.commit(transaction).await;
    drop(spans);
    if outcome.is_err() {
        // What the state shows all the same was committed, although no answer came.
        let state = owner.store.state();
        let gone: Vec<_> = started.iter().map(|task| task.id).filter(|id| state.task(*id).is_none()).collect();
        drop(state);
        gone.into_iter().for_each(|id| owner.release(id));
    } else {
        owner.meter.placed(Wanted::Service, started.len());
    }
    outcome.map(drop)
}

/// What is planned by itself: the service, or each of its task sets.
pub(crate) struct Part<'a> {
    /// The service, or what stands for one.
    pub(crate) service: Cow<'a, Service>,
    /// Its tasks, ended ones too.
    pub(crate) tasks: Vec<TaskView>,
    /// The task set that it is, of a service with an EXTERNAL controller.
    pub(crate) task_set: Option<&'a TaskSet>,
    /// By how much less it may start and stop at once, since others share the commit.
    divisor: usize,
}

pub(crate) fn parts(service: &Service, tasks: Vec<TaskView>) -> Vec<Part<'_>> {
    match service.controller {
        DeploymentController::Ecs => vec![Part { service: Cow::Borrowed(service), tasks, task_set: None, divisor: 1 }],
        DeploymentController::External => service
            .task_sets
            .iter()
            .map(|set| Part {
                service: Cow::Owned(task_set::as_service(service, set)),
                tasks: tasks.iter().filter(|task| task.deployment == set.id).cloned().collect(),
                task_set: Some(set),
                // One more, for what each says of itself.
                divisor: service.task_sets.len() + 1,
            })
            .collect(),
    }
}

/// A part's plan, and where its new tasks found a place.
struct Step {
    steps: ServicePlan,
    /// Where its tasks are placed now.
    launch_type: LaunchType,
    /// How many tasks it wanted to start.
    tried: usize,
    started: Vec<Arc<Task>>,
    /// Which of them were started to balance availability zones, by zone.
    spread: Vec<(String, Vec<TaskId>)>,
    placement: CapacityPlacement,
    /// What `desiredCount` becomes, where the plan says that.
    desired_count: Option<u32>,
    /// What the current deployment becomes, if that has stages to go through.
    staged: Option<ServiceDeployment>,
}

/// Plans a part and places what it starts.
fn step_part(
    owner: &mut Owner,
    state: &State,
    part: &Part<'_>,
    now: UnixMillis,
    transaction: &mut Transaction,
    interfaces: &mut Interfaces,
) -> Step {
    let (strategies, alarms) = (strategies(&part.service), alarms::watched(state, &part.service));
    let stages = shifts::ongoing(state, &part.service);
    let (environment, rules, launch_type) = (owner.environment.clone(), owner.rules, part.service.launch_type);
    let bits = || environment.entropy.bits();
    let open = zones::open(state, &mut owner.index, &part.service, &strategies, &owner.constraints);
    if launch_type == LaunchType::Fargate {
        owner.fargate();
    }
    let plan_now = |index: &Index, blocked: bool, full: &[String]| {
        let machine = |id| machine(index, launch_type, id);
        let (service, tasks) = (&*part.service, part.tasks.as_slice());
        let zones = Zones { open: &open, full };
        let view = ServiceView { alarms: &alarms, zones, ..rules.view(service, tasks, blocked, &strategies, &machine) };
        match stages {
            Some(record) => shifts::planned(view, record, &bits, now),
            None => (plan(&view, now), None),
        }
    };
    let (mut steps, staged) = plan_now(&owner.index, false, &[]);
    let most = most_of(owner.store.max_changes(), part);
    steps.limit(most);
    let mut started = Vec::new();
    let mut placement = CapacityPlacement::default();
    let mut tried = 0;
    for (deployment, count) in steps.starts(&part.service) {
        let Some(template) = template(state, &part.service, deployment, &owner.constraints) else { continue };
        if expect_active(state, transaction, &template).is_err() {
            continue;
        }
        let ids = task_ids(count, &owner.environment);
        let request = template.place_request(&ids, owner.environment.bits64());
        let strategy = &template.capacity_provider_strategy;
        let current = by_provider(state, &part.service, deployment, strategy);
        let mut found = capacity::place(index_of(owner, template.launch_type), &request, strategy, &current);
        let zones = ZoneChoice::of_service(state, &part.service, template.launch_type);
        started.extend(placed(owner, state, &template, &mut found, zones, interfaces));
        owner.meter.refused(ids.len().saturating_sub(found.placed.len()), found.refusals.iter());
        placement.absorb(found);
        tried += ids.len();
    }
    if tried > 0 && started.is_empty() {
        owner.waiting_for_room.insert(part.service.name.clone());
        // Of a deployment with stages what was found first stands: its hooks have their ids.
        steps = steps.without_room(most, || plan_now(&owner.index, true, &[]).0);
        let retry = now.plus_millis(ROOM_RETRY_MILLIS);
        steps.wake_at = Some(steps.wake_at.map_or(retry, |at| at.min(retry)));
    }
    let (mut spread, mut full) = (Vec::new(), Vec::new());
    // Each round finds another zone full, or none.
    while spread.is_empty() && !steps.spread.is_empty() {
        spread = start_in_zones(owner, state, part, &steps.spread, (transaction, interfaces), &mut started);
        if spread.is_empty() {
            full.extend(steps.spread.into_iter().map(|(zone, _)| zone));
            steps = plan_now(&owner.index, false, &full).0;
            steps.limit(most);
        }
    }
    if !full.is_empty() {
        owner.waiting_for_room.insert(part.service.name.clone());
        let retry = now.plus_millis(ROOM_RETRY_MILLIS);
        steps.wake_at = Some(steps.wake_at.map_or(retry, |at| at.min(retry)));
    }
    Step { steps, launch_type, tried, started, spread, placement, staged, desired_count: None }
}

/// Starts tasks in availability zones, as far as there is room. Which ones, by zone.
fn start_in_zones(
    owner: &mut Owner,
    state: &State,
    part: &Part<'_>,
    wanted: &[(String, u32)],
    (transaction, interfaces): (&mut Transaction, &mut Interfaces),
    started: &mut Vec<Arc<Task>>,
) -> Vec<(String, Vec<TaskId>)> {
    let made = part.service.primary().and_then(|primary| template(state, &part.service, primary.id, &owner.constraints));
    let Some(template) = made.filter(|template| expect_active(state, transaction, template).is_ok()) else { return Vec::new() };
    let mut spread = Vec::new();
    for (zone, count) in wanted {
        let ids = task_ids(*count, &owner.environment);
        let seed = owner.environment.bits64();
        let index = index_of(owner, template.launch_type);
        let mut found = zones::place(state, index, (&part.service, &template), zone, (&ids, seed));
        let is_fargate = template.launch_type == LaunchType::Fargate;
        let choice = if is_fargate { ZoneChoice::Only(zone.clone()) } else { ZoneChoice::OfMachine };
        started.extend(placed(owner, state, &template, &mut found, choice, interfaces));
        let ids: Vec<_> = found.placed.iter().map(|(id, ..)| *id).collect();
        if !ids.is_empty() {
            spread.push((zone.clone(), ids));
        }
    }
    spread
}

/// The records of tasks that found a place. Those for which no subnet has an address have found none after all.
fn placed(
    owner: &mut Owner,
    state: &State,
    template: &TaskTemplate,
    found: &mut CapacityPlacement,
    mut zones: ZoneChoice,
    interfaces: &mut Interfaces,
) -> Vec<Arc<Task>> {
    let mut tasks = Vec::new();
    let wanted: Vec<(TaskId, ContainerInstanceId, Option<CapacityProviderName>)> = std::mem::take(&mut found.placed);
    for (id, instance, provider) in wanted {
        let holder = state.instance(instance).map(|instance| &*instance.value);
        let mut interface = None;
        if let Some(network) = &template.network {
            let wants_public = template.demand.public_addresses > 0;
            match interfaces.give(state, network, (id, wants_public), holder, &mut zones, &owner.environment) {
                Ok(given) => interface = Some(given),
                Err(rule) => {
                    owner.release(id);
                    found.refusals.push(Refusal { instance, rule });
                    continue;
                }
            }
        }
        let zone = zone_of(state, template.launch_type == LaunchType::Fargate, holder, interface.as_ref());
        let gpus = owner.index.gpus_of(id).to_vec();
        let place = Place { instance, zone, capacity_provider: provider.clone(), gpus, interface };
        tasks.push(Arc::new(template.task(id, place, &owner.environment)));
        found.placed.push((id, instance, provider));
    }
    tasks
}

/// The index that tasks of a launch type are placed by.
fn index_of(owner: &mut Owner, launch_type: LaunchType) -> &mut Index {
    if launch_type == LaunchType::Fargate { owner.fargate() } else { &mut owner.index }
}

/// Most tasks that a part starts, and most that it stops, in one commit. Those with interfaces bring these, and their subnets.
fn most_of(max_changes: usize, part: &Part<'_>) -> usize {
    let share = if part.service.settings.network_configuration.is_some() { 2 } else { 1 };
    (most_at_once(max_changes) / part.divisor / share).max(1)
}

/// Most tasks started, and most stopped, in one commit, so that it holds them, the instances they are placed on, the service
/// and its events. The commit wakes the planner again, and what is left comes next.
pub(crate) fn most_at_once(max_changes: usize) -> usize {
    max_changes / 4
}

/// What a scale-in must know of an instance.
pub(crate) fn machine(index: &Index, launch_type: LaunchType, id: ContainerInstanceId) -> Machine<'_> {
    if launch_type == LaunchType::Fargate {
        // Which machine a Fargate task is on means nothing to its service; its zone the task knows itself.
        return Machine::default();
    }
    let (free_cpu, free_memory) = index.room(id).unwrap_or_default();
    Machine { attributes: index.attributes(id), free_cpu, free_memory }
}

/// What the planner sees of the service's tasks.
pub(crate) fn views(state: &State, service: &Service, absence: &AbsenceRules) -> Vec<TaskView> {
    // Tasks of one definition follow each other, mostly, and most definitions check nothing.
    let mut last: Option<(&DefinitionId, Option<&TaskDefinition>)> = None;
    let ids = state.index(&service.cluster).and_then(|index| index.by_service.get(&service.name));
    let mut views = Vec::with_capacity(ids.map_or(0, BTreeSet::len));
    for task in state.tasks_of_service(&service.cluster, &service.name) {
        let checking = match last {
            Some((id, checking)) if *id == task.definition => checking,
            _ => state.definition(&task.definition).map(|entry| &*entry.value).filter(|definition| has_checks(definition)),
        };
        last = Some((&task.definition, checking));
        let checked = |name: &str| checking.is_some_and(|definition| is_checked_essential(definition, name));
        let has_check = checking.is_some() && task.containers.iter().any(|c| checked(&c.name));
        let health = if has_check { lifecycle::health(task, checked) } else { HealthStatus::Unknown };
        // Its machine says what may become of it. Of what has stopped nothing does, and most tasks have.
        let instance = state.instance(task.container_instance).filter(|_| !task.is_stopped()).map(|entry| &*entry.value);
        views.extend(TaskView::of(task, task.created.0, has_check, health, instance, absence));
    }
    views
}

/// Has any of its containers a health check?
fn has_checks(definition: &TaskDefinition) -> bool {
    definition.document.container_definitions.iter().flatten().any(|container| container.health_check.is_some())
}

/// Is the container of this name essential, and has it a health check?
pub(crate) fn is_checked_essential(definition: &TaskDefinition, name: &str) -> bool {
    definition
        .document
        .container_definitions
        .iter()
        .flatten()
        .any(|c| c.name.as_deref() == Some(name) && c.essential != Some(false) && c.health_check.is_some())
}
