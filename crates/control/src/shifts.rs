//! Services whose current deployment goes through lifecycle stages: finds it, and asks the planner of those. It decides nothing, and keeps
//! nothing.

use berth_model::service::{Service, ServiceStatus};
use berth_model::service_deployment::ServiceDeployment;
use berth_model::time::UnixMillis;
use berth_scheduler::service::shift::{ShiftPlan, ShiftView, plan_shift};
use berth_scheduler::service::{ServicePlan, ServiceView};
use berth_store::{Entry, State};

/// The service's current deployment, if it goes through stages.
pub(crate) fn ongoing<'a>(state: &'a State, service: &Service) -> Option<&'a Entry<ServiceDeployment>> {
    let id = service.primary().filter(|_| service.status == ServiceStatus::Active)?.service_deployment?;
    let record = state.service_deployment(&service.cluster, &service.name, id)?;
    (record.rollout.is_some() && !record.status.is_finished()).then_some(record)
}

/// What is next, for a service that [`ongoing`] has a deployment of, and what that deployment becomes.
pub(crate) fn planned<'a>(
    service: ServiceView<'a>,
    record: &'a ServiceDeployment,
    bits: &'a dyn Fn() -> u128,
    now: UnixMillis,
) -> (ServicePlan, Option<ServiceDeployment>) {
    // No service has target groups yet.
    let ShiftPlan { steps, record } = plan_shift(&ShiftView { service, record, target_healthy: None, bits }, now);
    (steps, Some(record))
}
