//! DAEMON services in the services loop: which container instances are to have a task, and placing it on that very instance. It decides
//! nothing that its planner decides, and never looks for another instance.

use std::sync::Arc;

use berth_model::alarm::Alarm;
use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::service::{Service, ServiceStatus};
use berth_model::task::Task;
use berth_model::time::UnixMillis;
use berth_scheduler::capacity::CapacityPlacement;
use berth_scheduler::placement::{Constraint, Index, Refusal, Rule};
use berth_scheduler::query::{Expression, Subject};
use berth_scheduler::service::{
    AbsenceRules, DaemonInstance, DaemonPlan, DaemonView, Machine, ServicePlan, ServiceView, Standing, TaskView, plan_daemon,
};
use berth_store::{State, Transaction};

use super::{Part, ROOM_RETRY_MILLIS, Step, most_of, placed, views};
use crate::alarms;
use crate::constraints::Constraints;
use crate::fargate::ZoneChoice;
use crate::interfaces::Interfaces;
use crate::launch::{TaskTemplate, task_ids};
use crate::owner::{Owner, Rules};
use crate::placing::expect_active;

/// How many tasks a DAEMON service is to have as things stand: its `desiredCount`.
pub(crate) fn desired_count(state: &State, service: &Service, rules: &Rules, constraints: &Constraints, now: UnixMillis) -> u32 {
    let Some(template) = template(state, service, constraints) else { return service.desired_count };
    let instances = instances(state, service, &template, &rules.absence, records(state, service));
    plan(service, &views(state, service, &rules.absence), &instances, &[], rules, now).desired
}

/// What its tasks are made of.
pub(crate) fn template(state: &State, service: &Service, constraints: &Constraints) -> Option<TaskTemplate> {
    super::template(state, service, service.primary()?.id, constraints)
}

/// The container instances of a service's cluster that are registered.
pub(crate) fn records<'a>(state: &'a State, service: &Service) -> impl Iterator<Item = &'a ContainerInstance> {
    let all = state.instances_of(&service.cluster).map(|instance| &*instance.value);
    all.filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
}

/// What each of these container instances is to a DAEMON service.
pub(crate) fn instances<'a>(
    state: &State,
    service: &Service,
    template: &TaskTemplate,
    absence: &AbsenceRules,
    records: impl Iterator<Item = &'a ContainerInstance>,
) -> Vec<DaemonInstance> {
    let expressions: Vec<_> = template.constraints.iter().filter_map(expression).collect();
    let reads_tasks = reads_more_than_attributes(template);
    let is_daemon = |task: &Task| {
        let own = task.service.as_ref().and_then(|own| state.service(&service.cluster, &own.service));
        own.is_some_and(|own| own.is_daemon())
    };
    let standing = |instance: &ContainerInstance| {
        let tasks = || state.tasks_of_instance(&service.cluster, instance.id).filter(|task| !task.is_stopped());
        let own = |task: &Task| task.service.as_ref().is_some_and(|own| own.service == service.name);
        if let Some(missing) = template.definition.needs.attributes.iter().find(|name| !instance.attributes.contains_key(*name)) {
            return Standing::Unsuited(Rule::Attribute(missing.clone()));
        }
        // A condition on what runs there is asked as if the service's own task did not, or that would start and stop for ever. Whether the
        // agent is connected is another question.
        let groups: Vec<&str> = if reads_tasks { tasks().filter(|task| !own(task)).map(|task| &*task.group).collect() } else { Vec::new() };
        let subject = Subject {
            attributes: &instance.attributes,
            agent_connected: true,
            agent_version: instance.agent.agent_version.as_deref(),
            ec2_instance_id: instance.ec2_instance_id.as_deref(),
            registered_at: instance.registered_at,
            running_tasks: u32::try_from(groups.len()).unwrap_or(u32::MAX),
            any_group: &|accepts| groups.iter().any(|group| accepts(group)),
        };
        if let Some(violated) = expressions.iter().find(|expression| !expression.holds(&subject)) {
            return Standing::Unsuited(Rule::MemberOf(violated.to_string()));
        }
        if instance.status == ContainerInstanceStatus::Active {
            return Standing::Eligible;
        }
        let others = tasks().filter(|task| !is_daemon(task)).count();
        Standing::Draining { others: u32::try_from(others).unwrap_or(u32::MAX) }
    };
    let view = |instance: &ContainerInstance| DaemonInstance {
        id: instance.id,
        standing: standing(instance),
        connected: instance.agent_connected,
        lost_at: absence.lost_at(instance),
    };
    records.map(view).collect()
}

fn expression(constraint: &Constraint) -> Option<&Arc<Expression>> {
    match constraint {
        Constraint::MemberOf(expression) => Some(expression),
        // There is never a second one of it.
        Constraint::DistinctInstance => None,
    }
}

/// What else runs on an instance may change whether it meets the constraints.
fn reads_more_than_attributes(template: &TaskTemplate) -> bool {
    template.constraints.iter().filter_map(expression).any(|expression| !expression.reads_only_attributes())
}

/// What the service does next.
pub(crate) fn plan(
    service: &Service,
    tasks: &[TaskView],
    instances: &[DaemonInstance],
    alarms: &[Arc<Alarm>],
    rules: &Rules,
    now: UnixMillis,
) -> DaemonPlan {
    let machine = |_| Machine::default();
    let of = ServiceView { alarms, ..rules.view(service, tasks, false, &[], &machine) };
    plan_daemon(&DaemonView { of, instances }, now)
}

/// Places one task on each of these instances.
pub(crate) fn place(index: &mut Index, template: &TaskTemplate, on: &[ContainerInstanceId], ids: &[TaskId]) -> CapacityPlacement {
    let mut placement = CapacityPlacement::default();
    for (instance, id) in on.iter().zip(ids) {
        match index.place_on(*instance, &template.place_request(std::slice::from_ref(id), 0)) {
            Ok(()) => placement.placed.push((*id, *instance, None)),
            // The index is about to learn of it; then the service is planned again.
            Err(None | Some(Rule::Inactive | Rule::Agent)) => {}
            Err(Some(rule)) => placement.refusals.push(Refusal { instance: *instance, rule }),
        }
    }
    placement
}

/// Plans a DAEMON service and places what it starts.
pub(super) fn step_part(
    owner: &mut Owner,
    state: &State,
    part: &Part<'_>,
    now: UnixMillis,
    transaction: &mut Transaction,
    interfaces: &mut Interfaces,
) -> Step {
    let service = &*part.service;
    let template = template(state, service, &owner.constraints);
    let instances = match &template {
        Some(template) => instances(state, service, template, &owner.rules.absence, records(state, service)),
        // Better everything stays as it is than that it is judged by what cannot be read.
        None if service.status == ServiceStatus::Active => return idle(service),
        None => Vec::new(),
    };
    let DaemonPlan { mut steps, mut on, desired } =
        plan(service, &part.tasks, &instances, &alarms::watched(state, service), &owner.rules, now);
    // Not every task that comes or goes wakes the service.
    let changes = template.as_ref().is_some_and(reads_more_than_attributes);
    let most = most_of(owner.store.max_changes(), part);
    steps.stop.truncate(most);
    on.truncate(most);
    let mut started = Vec::new();
    let mut placement = CapacityPlacement::default();
    if let Some(template) = template.filter(|template| !on.is_empty() && expect_active(state, transaction, template).is_ok()) {
        let ids = task_ids(u32::try_from(on.len()).unwrap_or(u32::MAX), &owner.environment);
        placement = place(&mut owner.index, &template, &on, &ids);
        started = placed(owner, state, &template, &mut placement, ZoneChoice::OfMachine, interfaces);
        owner.meter.refused(placement.refusals.len(), placement.refusals.iter());
        if !placement.refusals.is_empty() {
            owner.waiting_for_room.insert(service.name.clone());
            // A service remembers one failure that it told of. Where one instance has no room and another fails, the two would take turns
            // as news for ever.
            steps.announcements.retain(|text| !text.starts_with("is unable"));
        }
    }
    if !placement.refusals.is_empty() || changes {
        let retry = now.plus_millis(ROOM_RETRY_MILLIS);
        steps.wake_at = Some(steps.wake_at.map_or(retry, |at| at.min(retry)));
    }
    steps.start = u32::try_from(started.len()).unwrap_or(u32::MAX);
    Step {
        staged: None,
        steps,
        launch_type: service.launch_type,
        tried: on.len(),
        started,
        spread: Vec::new(),
        placement,
        desired_count: (service.status == ServiceStatus::Active).then_some(desired),
    }
}

fn idle(service: &Service) -> Step {
    let steps = ServicePlan { steady: service.announced_steady, ..ServicePlan::nothing(service) };
    Step {
        staged: None,
        steps,
        launch_type: service.launch_type,
        tried: 0,
        started: Vec::new(),
        spread: Vec::new(),
        placement: CapacityPlacement::default(),
        desired_count: None,
    }
}

/// Plans the DAEMON services of the cluster that want to be planned, until none is left or nothing moves any more: what they need of an
/// instance that has just come is reserved before anything else is placed on it, since the index learns of instances in
/// [`Owner::catch_up`] alone, and this comes between that and every other placement. A server that does not lead does so too before it
/// places a request: of two that place the same task one commit conflicts.
pub(crate) async fn first_in(owner: &mut Owner) {
    /// Most plans in a row. Each changes a part of a large fleet; what is left then shares the room with others.
    const ROUNDS: usize = 64;
    for _ in 0..ROUNDS {
        let Some(name) = owner.dirty.iter().find(|name| owner.daemons.contains(*name)).cloned() else { return };
        super::plan_one(owner, name, owner.environment.now()).await;
        owner.catch_up();
    }
}
