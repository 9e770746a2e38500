//! The services loop: reads a service and its tasks, asks the planner, commits the plan. It keeps nothing that a restart
//! would lose.

pub(crate) mod daemon;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::capacity_provider::StrategyItem;
use berth_model::ids::{ContainerInstanceId, DeploymentId, ServiceName, uuid};
use berth_model::lifecycle;
use berth_model::record::{Key, Record};
use berth_model::service::{DeploymentController, DeploymentStatus, MAX_EVENTS, Service, ServiceEvent, ServiceStatus};
use berth_model::service_deployment::{ServiceDeployment, ServiceRevision};
use berth_model::task::{DesiredStatus, ServiceMembership, Task};
use berth_model::task_definition::TaskDefinition;
use berth_model::task_set::{StabilityStatus, TaskSet, TaskSetStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::capacity::{self, CapacityPlacement};
use berth_scheduler::placement::{Index, SpreadField, Strategy};
use berth_scheduler::service::{AbsenceRules, Machine, ServicePlan, ServiceView, TaskView, plan, task_set};
use berth_store::{CommitError, State, Transaction};

use crate::alarms;
use crate::constraints::Constraints;
use crate::launch::{Place, TaskTemplate, task_ids};
use crate::meter::Wanted;
use crate::owner::Owner;
use crate::placing::{expect_active, expect_instances};
use crate::service_history;
use crate::shifts;
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
            // What its current deployment becomes, if that has stages to go through.
            let (mut wake_at, mut rollback, mut staged) = (None, None, None);
            for part in parts(&service.value, tasks) {
                writer.task_set = part.task_set.map(|set| set.id);
                let step_part = if service.is_daemon() { daemon::step_part } else { step_part };
                let mut step = step_part(owner, &state, &part, now, writer.transaction);
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
    /// How many tasks it wanted to start.
    tried: usize,
    started: Vec<Arc<Task>>,
    placement: CapacityPlacement,
    /// What `desiredCount` becomes, where the plan says that.
    desired_count: Option<u32>,
    /// What the current deployment becomes, if that has stages to go through.
    staged: Option<ServiceDeployment>,
}

/// Plans a part and places what it starts.
fn step_part(owner: &mut Owner, state: &State, part: &Part<'_>, now: UnixMillis, transaction: &mut Transaction) -> Step {
    let (strategies, alarms) = (strategies(&part.service), alarms::watched(state, &part.service));
    let stages = shifts::ongoing(state, &part.service);
    let (environment, rules) = (owner.environment.clone(), owner.rules);
    let bits = || environment.entropy.bits();
    let plan_now = |index: &Index, blocked: bool| {
        let machine = |id| machine(index, id);
        let (service, tasks) = (&*part.service, part.tasks.as_slice());
        let view = ServiceView { alarms: &alarms, ..rules.view(service, tasks, blocked, &strategies, &machine) };
        match stages {
            Some(record) => shifts::planned(view, record, &bits, now),
            None => (plan(&view, now), None),
        }
    };
    let (mut steps, staged) = plan_now(&owner.index, false);
    let most = most_at_once(owner.store.max_changes()) / part.divisor;
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
        let found = capacity::place(&mut owner.index, &request, strategy, &by_provider(state, &part.service, deployment, strategy));
        for (id, instance, provider) in &found.placed {
            let zone = state.instance(*instance).and_then(|i| i.availability_zone().map(Arc::from));
            let gpus = owner.index.gpus_of(*id).to_vec();
            let place = Place { instance: *instance, zone, capacity_provider: provider.clone(), gpus };
            started.push(Arc::new(template.task(*id, place, &owner.environment)));
        }
        owner.meter.refused(ids.len().saturating_sub(found.placed.len()), found.refusals.iter());
        placement.absorb(found);
        tried += ids.len();
    }
    if tried > 0 && started.is_empty() {
        owner.waiting_for_room.insert(part.service.name.clone());
        let (start, restore) = (steps.start, std::mem::take(&mut steps.restore));
        // Of a deployment with stages what was found first stands: its hooks have their ids.
        steps = ServicePlan { start, restore, ..plan_now(&owner.index, true).0 };
        steps.stop.truncate(most);
        let retry = now.plus_millis(ROOM_RETRY_MILLIS);
        steps.wake_at = Some(steps.wake_at.map_or(retry, |at| at.min(retry)));
    }
    Step { steps, tried, started, placement, staged, desired_count: None }
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

/// How many tasks of a deployment each item of its strategy has: those that run or are on their way.
pub(crate) fn by_provider(state: &State, service: &Service, deployment: DeploymentId, strategy: &[StrategyItem]) -> Vec<u32> {
    let mut counts = vec![0; strategy.len()];
    if !strategy.is_empty() {
        let own = service.deployments.iter().find(|own| own.id == deployment);
        for task in state.tasks_of_service(&service.cluster, &service.name) {
            let counts_now = task.desired_status == DesiredStatus::Running
                && !task.is_stopped()
                && task.service.as_ref().is_some_and(|membership| own.is_some_and(|own| own.owns(membership.deployment)));
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

/// What a deployment's tasks are made of: the PRIMARY one's as the service is set now, an older one's as its revision was.
///
/// `None` also if a constraint cannot be read, which none is that a request brought: better no task than one in the wrong place.
pub(crate) fn template(state: &State, service: &Service, deployment: DeploymentId, known: &Constraints) -> Option<TaskTemplate> {
    let deployment = service.deployments.iter().find(|own| own.id == deployment)?;
    let definition = state.definition(&deployment.definition)?;
    let own = deployment.revision.and_then(|revision| state.service_revision(&service.cluster, &service.name, revision));
    let revision = own.filter(|_| deployment.status != DeploymentStatus::Primary);
    let settings = revision.map_or(&service.settings, |revision| &revision.settings);
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
    // Where tasks go is the service's, not a revision's.
    for constraint in &service.settings.placement_constraints {
        constraints.push(known.read(constraint).ok()?);
    }
    Some(TaskTemplate {
        cluster: service.cluster.clone(),
        definition: Arc::clone(&definition.value),
        demand: definition.needs.demand.clone(),
        group: format!("service:{}", service.name).into(),
        started_by: None,
        service: Some(ServiceMembership { service: service.name.clone(), deployment: deployment.id }),
        launch_type: revision.map_or(service.launch_type, |revision| revision.launch_type),
        capacity_provider_strategy: deployment.capacity_provider_strategy.clone(),
        overrides: None,
        tags,
        enable_execute_command: settings.enable_execute_command,
        client_token: None,
        constraints,
        strategies: strategies(service),
        digests: own.map_or_else(Default::default, |revision| digests(revision, &definition.document)),
    })
}

/// What the images of a revision's containers stand for, as far as tasks have told; of those that want it to stay the same.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html#deployment-container-image-stability>
fn digests(revision: &ServiceRevision, document: &berth_shapes::ecs::TaskDefinition) -> BTreeMap<String, Arc<str>> {
    let is_pinned = |container: &str| {
        let mut defined = document.container_definitions.iter().flatten().filter(|own| own.name.as_deref() == Some(container));
        defined.any(|own| own.version_consistency.as_ref().is_none_or(|consistency| consistency.as_str() != "disabled"))
    };
    let told = revision.images.iter().filter(|image| is_pinned(&image.container));
    told.filter_map(|image| Some((image.container.clone(), image.digest.as_deref()?.into()))).collect()
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

    /// The failure announced last was that nothing could be placed.
    fn says_no_room(&self) -> bool {
        self.service.announced_failure.as_ref().is_some_and(|(text, _)| text.starts_with("was unable to place"))
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

fn write_plan(state: &State, writer: &mut Writer<'_>, Step { steps, tried, started, placement, .. }: &Step) {
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
    } else if *tried > 0 && started.is_empty() {
        writer.announce_failure(
            "was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances \
             were found in your cluster. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
        );
    } else if writer.task_set.is_none() && (steps.steady || (*tried > 0 && writer.says_no_room())) {
        // Where one task set is steady, another may still fail. What found a place is news again when the next does not.
        writer.service.announced_failure = None;
    }
    for text in &steps.announcements {
        if text.starts_with("is unable") { writer.announce_failure(text) } else { writer.announce(text) }
    }
}

fn task_list(ids: impl Iterator<Item = berth_model::ids::TaskId>) -> String {
    ids.map(|id| format!("(task {id})")).collect::<Vec<_>>().join(" ")
}
