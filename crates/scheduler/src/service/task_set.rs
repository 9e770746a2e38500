//! Task sets: each is planned as a service of its own with one finished deployment, so that one planner keeps both.

use berth_model::service::{Deployment, DeploymentStatus, RolloutState, Service, ServiceSettings, ServiceStatus};
use berth_model::task::HealthStatus;
use berth_model::task_set::{StabilityStatus, TaskSet, TaskSetStatus};
use berth_model::time::UnixMillis;

use super::{ServicePlan, TaskView};

/// The task set as a service that [`super::plan`] can plan: its share is the desired count, its id the deployment's.
#[must_use]
pub fn as_service(service: &Service, set: &TaskSet) -> Service {
    let ends = set.status == TaskSetStatus::Draining || service.status != ServiceStatus::Active;
    Service {
        status: if ends { ServiceStatus::Draining } else { ServiceStatus::Active },
        desired_count: set.computed_desired_count(service.desired_count),
        launch_type: set.launch_type,
        // Completed: nobody rolls it out, so nothing is to be said of that.
        deployments: vec![Deployment {
            id: set.id,
            status: DeploymentStatus::Primary,
            definition: set.definition.clone(),
            created_at: set.created_at,
            updated_at: set.updated_at,
            rollout_state: RolloutState::Completed,
            rollout_state_reason: String::new(),
            capacity_provider_strategy: set.capacity_provider_strategy.clone(),
            revision: None,
            service_deployment: None,
            progress: Default::default(),
        }],
        task_sets: Vec::new(),
        settings: ServiceSettings { network_configuration: set.network_configuration.clone(), ..service.settings.clone() },
        // What is steady is said by `after`, which knows of health.
        announced_steady: true,
        ..service.clone()
    }
}

/// What the plan for [`as_service`] makes of the task set, and says of it; `None`: it was deleted, and its last task has ended.
#[must_use]
pub fn after(set: &TaskSet, steps: &mut ServicePlan, tasks: &[TaskView], now: UnixMillis) -> Option<TaskSet> {
    if steps.status == ServiceStatus::Inactive {
        return None;
    }
    // A task without health checks reports nothing that could be wrong.
    let is_healthy = tasks.iter().filter(|task| task.is_live()).all(|task| !task.has_check || task.health == HealthStatus::Healthy);
    let is_stable = steps.steady && is_healthy && set.status != TaskSetStatus::Draining;
    let stability = if is_stable { StabilityStatus::SteadyState } else { StabilityStatus::Stabilizing };
    if stability == StabilityStatus::SteadyState && set.stability != stability {
        steps.announcements.push("has reached a steady state.".to_owned());
    }
    let stability_at = if stability == set.stability { set.stability_at } else { now };
    Some(TaskSet { stability, stability_at, ..set.clone() })
}
