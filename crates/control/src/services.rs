//! The services loop: reads a service and its tasks, asks the planner, commits the plan. It keeps nothing that a restart
//! would lose.

pub(crate) mod daemon;

use std::borrow::Cow;
use std::sync::Arc;

use berth_model::capacity_provider::StrategyItem;
use berth_model::ids::{ContainerInstanceId, DeploymentId, ServiceName, uuid};
use berth_model::lifecycle;
use berth_model::record::{Key, Record};
use berth_model::service::{DeploymentController, MAX_EVENTS, Service, ServiceEvent, ServiceStatus};
use berth_model::task::{DesiredStatus, ServiceMembership, Task};
use berth_model::task_definition::TaskDefinition;
use berth_model::task_set::{StabilityStatus, TaskSet, TaskSetStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::capacity::{self, CapacityPlacement};
use berth_scheduler::placement::{Index, SpreadField, Strategy};
use berth_scheduler::service::{AbsenceRules, Machine, ServicePlan, ServiceView, TaskView, plan, task_set};
use berth_store::{CommitError, State, Transaction};

use crate::constraints::Constraints;
use crate::launch::{Place, TaskTemplate, task_ids};
use crate::meter::Wanted;
use crate::owner::Owner;
use crate::placing::{expect_active, expect_instances};
use crate::service_history;
use crate::trace;

/// ECS suppresses a repeated event for six hours.
const REPEAT_AFTER_MILLIS: i64 = 6 * 60 * 60 * 1000;
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
    let mut transaction = Transaction::new();
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
            let mut wake_at = None;
            for part in parts(&service.value, tasks) {
                writer.task_set = part.task_set.map(|set| set.id);
                let step_part = if service.is_daemon() { daemon::step_part } else { step_part };
                let mut step = step_part(owner, &state, &part, now, writer.transaction);
                writer.service.desired_count = step.desired_count.unwrap_or(writer.service.desired_count);
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
                started.extend(step.started);
            }
            // Once for all of them: two parts may have placed tasks on one instance.
            expect_instances(&state, writer.transaction, started.iter());
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
                service_history::follow(&state, service, &mut writer.service, now, writer.transaction);
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
        started.iter().filter(|task| state.task(task.id).is_none()).for_each(|task| owner.index.release(task.id));
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
    started: Vec<Arc<Task>>,
    placement: CapacityPlacement,
    /// What `desiredCount` becomes, where the plan says that.
    desired_count: Option<u32>,
}

/// Plans a part and places what it starts.
fn step_part(owner: &mut Owner, state: &State, part: &Part<'_>, now: UnixMillis, transaction: &mut Transaction) -> Step {
    let healthy_after_millis = owner.rules.healthy_after;
    let strategies = strategies(&part.service);
    let plan_now = |index: &Index, blocked: bool| {
        let machine = |id| machine(index, id);
        let (service, tasks) = (&*part.service, part.tasks.as_slice());
        plan(&ServiceView { service, tasks, healthy_after_millis, blocked, strategies: &strategies, machine: &machine }, now)
    };
    let mut steps = plan_now(&owner.index, false);
    let most = most_at_once(owner.store.max_changes()) / part.divisor;
    steps.stop.truncate(most);
    steps.start = steps.start.min(u32::try_from(most).unwrap_or(u32::MAX));
    let mut started = Vec::new();
    let mut placement = CapacityPlacement::default();
    if steps.start > 0
        && let Some(template) = template(state, &part.service, &owner.constraints)
        && expect_active(state, transaction, &template).is_ok()
    {
        let ids = task_ids(steps.start, &owner.environment);
        let request = template.place_request(&ids, owner.environment.bits64());
        let strategy = &template.capacity_provider_strategy;
        placement = capacity::place(&mut owner.index, &request, strategy, &by_provider(state, &part.service, strategy));
        if placement.placed.is_empty() {
            owner.waiting_for_room.insert(part.service.name.clone());
            steps = ServicePlan { start: steps.start, ..plan_now(&owner.index, true) };
            steps.stop.truncate(most);
            let retry = now.plus_millis(ROOM_RETRY_MILLIS);
            steps.wake_at = Some(steps.wake_at.map_or(retry, |at| at.min(retry)));
        }
        for (id, instance, provider) in &placement.placed {
            let zone = state.instance(*instance).and_then(|i| i.availability_zone().map(Arc::from));
            let gpus = owner.index.gpus_of(*id).to_vec();
            let place = Place { instance: *instance, zone, capacity_provider: provider.clone(), gpus };
            started.push(Arc::new(template.task(*id, place, &owner.environment)));
        }
        let homeless = ids.len().saturating_sub(started.len());
        owner.meter.refused(homeless, placement.refusals.iter());
    }
    Step { steps, started, placement, desired_count: None }
}

/// Most tasks started, and most stopped, in one commit, so that it holds them, the instances they are placed on, the service
/// and its events. The commit wakes the planner again, and what is left comes next.
pub(crate) fn most_at_once(max_changes: usize) -> usize {
    max_changes / 4
}

/// What a scale-in must know of an instance.
pub(crate) fn machine(index: &Index, id: ContainerInstanceId) -> Machine<'_> {
    let (free_cpu, free_memory) = index.room(id).unwrap_or_default();
    Machine { attributes: index.attributes(id), free_cpu, free_memory }
}

/// How a service's tasks are placed.
pub(crate) fn strategies(service: &Service) -> Vec<Strategy> {
    let own: Vec<_> = service.settings.placement_strategy.iter().filter_map(parse_strategy).collect();
    if own.is_empty() { Strategy::service_default() } else { own }
}

/// How many tasks of the PRIMARY deployment each item of its strategy has: those that run or are on their way.
pub(crate) fn by_provider(state: &State, service: &Service, strategy: &[StrategyItem]) -> Vec<u32> {
    let mut counts = vec![0; strategy.len()];
    if !strategy.is_empty() {
        let primary = service.primary().map(|primary| primary.id);
        for task in state.tasks_of_service(&service.cluster, &service.name) {
            let counts_now = task.desired_status == DesiredStatus::Running
                && !task.is_stopped()
                && task.service.as_ref().is_some_and(|membership| Some(membership.deployment) == primary);
            if let Some(at) = strategy.iter().position(|item| counts_now && Some(&item.provider) == task.capacity_provider.as_ref()) {
                counts[at] += 1;
            }
        }
    }
    counts
}

/// What the planner sees of the service's tasks.
pub(crate) fn views(state: &State, service: &Service, absence: &AbsenceRules) -> Vec<TaskView> {
    state
        .tasks_of_service(&service.cluster, &service.name)
        .filter_map(|task| {
            let definition = state.definition(&task.definition);
            let checked = |name: &str| definition.is_some_and(|d| is_checked_essential(d, name));
            let has_check = task.containers.iter().any(|c| checked(&c.name));
            let instance = state.instance(task.container_instance).map(|entry| &*entry.value);
            TaskView::of(task, has_check, lifecycle::health(task, checked), instance, absence)
        })
        .collect()
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

/// What the PRIMARY deployment's tasks are made of.
///
/// `None` also if a constraint cannot be read, which none is that a request brought: better no task than one in the wrong place.
pub(crate) fn template(state: &State, service: &Service, known: &Constraints) -> Option<TaskTemplate> {
    let primary = service.primary()?;
    let definition = state.definition(&primary.definition)?;
    let settings = &service.settings;
    let tags = match settings.propagate_tags.as_deref() {
        Some("SERVICE") => service.tags.clone(),
        Some("TASK_DEFINITION") => definition.tags.clone(),
        _ => Default::default(),
    };
    let mut tags: berth_model::tags::Tags = tags;
    if settings.enable_ecs_managed_tags {
        tags.insert("aws:ecs:clusterName".to_owned(), service.cluster.to_string());
        tags.insert("aws:ecs:serviceName".to_owned(), service.name.to_string());
    }
    let mut constraints = known.of_definition(&definition.document).ok()?;
    for constraint in &settings.placement_constraints {
        constraints.push(known.read(constraint).ok()?);
    }
    Some(TaskTemplate {
        cluster: service.cluster.clone(),
        definition: Arc::clone(&definition.value),
        demand: definition.needs.demand.clone(),
        group: format!("service:{}", service.name).into(),
        started_by: None,
        service: Some(ServiceMembership { service: service.name.clone(), deployment: primary.id }),
        launch_type: service.launch_type,
        capacity_provider_strategy: primary.capacity_provider_strategy.clone(),
        overrides: None,
        tags,
        enable_execute_command: settings.enable_execute_command,
        client_token: None,
        constraints,
        strategies: strategies(service),
    })
}

/// Reads a placement strategy; `None` if it is none of ECS's.
#[must_use]
pub fn parse_strategy(strategy: &berth_shapes::ecs::PlacementStrategy) -> Option<Strategy> {
    let field = strategy.field.as_deref().unwrap_or_default();
    match strategy.r#type.as_ref()?.as_str() {
        "random" => Some(Strategy::Random),
        "binpack" if field.eq_ignore_ascii_case("cpu") => Some(Strategy::BinpackCpu),
        "binpack" if field.eq_ignore_ascii_case("memory") => Some(Strategy::BinpackMemory),
        "spread" if field.eq_ignore_ascii_case("instanceId") || field.eq_ignore_ascii_case("host") => {
            Some(Strategy::Spread(SpreadField::Instance))
        }
        "spread" => {
            let name = field.strip_prefix("attribute:").filter(|name| (1..=128).contains(&name.len()))?;
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./\\".contains(&byte));
            is_name.then(|| Strategy::Spread(SpreadField::Attribute(name.to_owned())))
        }
        _ => None,
    }
}

/// Collects what a plan changes.
struct Writer<'a> {
    service: Service,
    transaction: &'a mut Transaction,
    now: UnixMillis,
    owner_bits: &'a dyn Fn() -> u128,
    /// The task set that events are about.
    task_set: Option<DeploymentId>,
}

impl Writer<'_> {
    /// Appends an event; the oldest beyond a hundred goes.
    fn announce(&mut self, text: &str) {
        let number = self.service.next_event;
        let (cluster, service) = (self.service.cluster.clone(), self.service.name.clone());
        if number >= MAX_EVENTS {
            self.transaction.delete(Key::ServiceEvent(cluster.clone(), service.clone(), number - MAX_EVENTS));
        }
        self.transaction.put(ServiceEvent {
            message: match self.task_set {
                Some(set) => format!("(service {service}, taskSet {set}) {text}"),
                None => format!("(service {service}) {text}"),
            },
            id: uuid((self.owner_bits)()),
            created_at: self.now,
            number,
            cluster,
            service,
        });
        self.service.next_event += 1;
    }

    /// What the task sets become. A deleted service ends with the last of them.
    fn replace_task_sets(&mut self, task_sets: Vec<TaskSet>) {
        let waits = |set: &TaskSet| set.status != TaskSetStatus::Draining && set.stability != StabilityStatus::SteadyState;
        self.service.announced_steady = !task_sets.iter().any(waits);
        if self.service.status == ServiceStatus::Draining && task_sets.is_empty() {
            self.service.status = ServiceStatus::Inactive;
        }
        self.service.task_sets = task_sets;
    }

    /// Appends an event that repeats itself while its cause lasts: only when the text changes or after six hours.
    fn announce_failure(&mut self, text: &str) {
        let known = self.service.announced_failure.as_ref();
        if known.is_some_and(|(last, at)| **last == *text && self.now.since(*at) < REPEAT_AFTER_MILLIS) {
            return;
        }
        self.service.announced_failure = Some((text.into(), self.now));
        self.announce(text);
    }
}

fn write_plan(state: &State, writer: &mut Writer<'_>, Step { steps, started, placement, .. }: &Step) {
    for task in started {
        writer.transaction.put(Record::Task(Arc::clone(task)));
    }
    if !started.is_empty() {
        writer.announce(&format!("has started {} tasks: {}.", started.len(), task_list(started.iter().map(|task| task.id))));
    }
    let mut stopped = Vec::new();
    for stop in &steps.stop {
        let Some(entry) = state.task(stop.task) else { continue };
        let mut task = (*entry.value).clone();
        if lifecycle::ask_to_stop(&mut task, stop.code, &stop.reason, writer.now) {
            writer.transaction.expect(Key::Task(task.id), entry.modified);
            stopped.push(task.id);
            writer.transaction.put(task);
        }
    }
    if !stopped.is_empty() {
        writer.announce(&format!("has stopped {} running tasks: {}.", stopped.len(), task_list(stopped.iter().copied())));
    }
    if let Some(closest) = placement.refusals.iter().max_by_key(|refusal| refusal.closeness()) {
        let text = format!(
            "was unable to place a task because no container instance met all of its requirements. The closest matching \
             (container-instance {}) {}. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
            closest.instance,
            closest.rule.in_words(),
        );
        writer.announce_failure(&text);
    } else if let Some(provider) = placement.empty.first() {
        writer.announce_failure(&format!(
            "was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances \
             were found in your capacity provider ({provider}). For more information, see the Troubleshooting section of the Amazon \
             ECS Developer Guide.",
        ));
    } else if steps.start > 0 && started.is_empty() {
        writer.announce_failure(
            "was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances \
             were found in your cluster. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
        );
    } else if steps.steady && writer.task_set.is_none() {
        // Where one task set is steady, another may still fail.
        writer.service.announced_failure = None;
    }
    for text in &steps.announcements {
        if text.starts_with("is unable") { writer.announce_failure(text) } else { writer.announce(text) }
    }
}

fn task_list(ids: impl Iterator<Item = berth_model::ids::TaskId>) -> String {
    ids.map(|id| format!("(task {id})")).collect::<Vec<_>>().join(" ")
}
