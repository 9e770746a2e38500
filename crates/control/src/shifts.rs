//! Services whose current deployment goes through lifecycle stages: asks the planner of those, and places what it starts in whichever
//! deployment. It decides nothing, and keeps nothing.

use std::borrow::Cow;
use std::sync::Arc;

use berth_model::ids::DeploymentId;
use berth_model::service::{Service, ServiceStatus};
use berth_model::service_deployment::ServiceDeployment;
use berth_model::time::UnixMillis;
use berth_scheduler::capacity::{self, CapacityPlacement};
use berth_scheduler::placement::Index;
use berth_scheduler::service::shift::{ShiftPlan, ShiftView, Start, plan_shift};
use berth_scheduler::service::{ServicePlan, ServiceView, TaskView, history};
use berth_store::{Entry, State, Transaction};

use crate::launch::{Place, task_ids};
use crate::owner::{Owner, Rules};
use crate::placing::expect_active;
use crate::services::{ROOM_RETRY_MILLIS, Step, by_provider, machine, most_at_once, strategies, template};

/// The service's current deployment, if it goes through stages.
pub(crate) fn ongoing<'a>(state: &'a State, service: &Service) -> Option<&'a Entry<ServiceDeployment>> {
    let id = service.primary().filter(|_| service.status == ServiceStatus::Active)?.service_deployment?;
    let record = state.service_deployment(&service.cluster, &service.name, id)?;
    (record.rollout.is_some() && !record.status.is_finished()).then_some(record)
}

/// What is next, for a service that [`ongoing`] has a deployment of.
pub(crate) fn planned(
    service: &Service,
    tasks: &[TaskView],
    record: &ServiceDeployment,
    rules: &Rules,
    (index, blocked): (&Index, bool),
    bits: &dyn Fn() -> u128,
    now: UnixMillis,
) -> ShiftPlan {
    let strategies = strategies(service);
    let machine = |id| machine(index, id);
    let service =
        ServiceView { service, tasks, healthy_after_millis: rules.healthy_after, blocked, strategies: &strategies, machine: &machine };
    // No service has target groups yet.
    let view = ShiftView { service, record, target_healthy: None, minute_millis: rules.minute, bits };
    plan_shift(&view, now)
}

/// Plans the service's deployment and places what it starts; gives what the service deployment becomes, too.
pub(crate) fn step(
    owner: &mut Owner,
    state: &State,
    (service, tasks): (&Service, &[TaskView]),
    record: &ServiceDeployment,
    now: UnixMillis,
    transaction: &mut Transaction,
) -> (Step, ServiceDeployment) {
    let environment = owner.environment.clone();
    let bits = || environment.entropy.bits();
    let rules = owner.rules;
    let plan_now = |index: &Index, blocked| planned(service, tasks, record, &rules, (index, blocked), &bits, now);
    let most = most_at_once(owner.store.max_changes());
    let mut plan = plan_now(&owner.index, false);
    let mut placed = Placed::default();
    let mut left = u32::try_from(most).unwrap_or(u32::MAX);
    for start in &mut plan.starts {
        start.count = start.count.min(left);
        left -= start.count;
        place(owner, state, service, *start, transaction, &mut placed);
    }
    if placed.is_homeless {
        owner.waiting_for_room.insert(service.name.clone());
        if placed.started.is_empty() {
            // In a rolling update older tasks may have to make room.
            plan = ShiftPlan { steps: ServicePlan { start: plan.steps.start, ..plan_now(&owner.index, true).steps }, ..plan };
        }
        let retry = now.plus_millis(ROOM_RETRY_MILLIS);
        plan.steps.wake_at = Some(plan.steps.wake_at.map_or(retry, |at| at.min(retry)));
    }
    plan.steps.stop.truncate(most);
    (Step { steps: plan.steps, started: placed.started, placement: placed.placement }, plan.record)
}

/// What was placed, of all deployments.
#[derive(Default)]
struct Placed {
    started: Vec<Arc<berth_model::task::Task>>,
    /// Of those that found no place, if any did not.
    placement: CapacityPlacement,
    /// A deployment found no place for any of its tasks.
    is_homeless: bool,
}

fn place(owner: &mut Owner, state: &State, service: &Service, start: Start, transaction: &mut Transaction, placed: &mut Placed) {
    let service = as_of(state, service, start.deployment);
    let Some(template) = template(state, &service, &owner.constraints).filter(|_| start.count > 0) else { return };
    if expect_active(state, transaction, &template).is_err() {
        return;
    }
    let ids = task_ids(start.count, &owner.environment);
    let request = template.place_request(&ids, owner.environment.bits64());
    let strategy = &template.capacity_provider_strategy;
    let placement = capacity::place(&mut owner.index, &request, strategy, &by_provider(state, &service, strategy));
    placed.is_homeless |= placement.placed.is_empty();
    for (id, instance, provider) in &placement.placed {
        let zone = state.instance(*instance).and_then(|i| i.availability_zone().map(Arc::from));
        let gpus = owner.index.gpus_of(*id).to_vec();
        let place = Place { instance: *instance, zone, capacity_provider: provider.clone(), gpus };
        placed.started.push(Arc::new(template.task(*id, place, &owner.environment)));
    }
    owner.meter.refused(ids.len().saturating_sub(placement.placed.len()), placement.refusals.iter());
    if placed.placement.refusals.is_empty() && placed.placement.empty.is_empty() {
        placed.placement = placement;
    }
}

/// The service as the deployment knows it that a task is started in.
fn as_of<'a>(state: &State, service: &'a Service, deployment: DeploymentId) -> Cow<'a, Service> {
    if service.primary().is_some_and(|primary| primary.id == deployment) {
        return Cow::Borrowed(service);
    }
    let own = service.deployments.iter().find(|one| one.id == deployment).and_then(|one| one.revision);
    let revision = own.and_then(|id| state.service_revision(&service.cluster, &service.name, id));
    Cow::Owned(history::as_deployed(service, deployment, revision.map(|entry| &*entry.value)))
}
