//! Services, their deployments and their events.

use std::sync::Arc;

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::capacity_provider::StrategyItem;
use crate::ids::{ClusterName, DefinitionId, DeploymentId, ServiceName};
use crate::service_deployment::{ServiceDeploymentId, ServiceRevisionId};
use crate::tags::Tags;
use crate::task::LaunchType;
use crate::task_interface::AwsvpcConfiguration;
use crate::task_set::{TaskSet, TaskSetStatus};
use crate::time::UnixMillis;

wire_enum!(
    /// A service's status.
    ServiceStatus {
        /// Keeps its count.
        Active = "ACTIVE",
        /// Deleted; its tasks are ending.
        Draining = "DRAINING",
        /// Deleted and gone.
        Inactive = "INACTIVE",
    }
);

wire_enum!(
    /// A deployment's status: the newest is PRIMARY, older ones with tasks are ACTIVE.
    DeploymentStatus {
        /// The one the service is to become.
        Primary = "PRIMARY",
        /// Being replaced.
        Active = "ACTIVE",
    }
);

wire_enum!(
    /// How far a deployment is.
    RolloutState {
        /// On its way.
        InProgress = "IN_PROGRESS",
        /// Reached the steady state.
        Completed = "COMPLETED",
        /// Given up.
        Failed = "FAILED",
    }
);

wire_enum!(
    /// Who decides when which tasks of a service run: `deploymentController.type`.
    DeploymentController {
        /// Rolling updates by the service itself.
        Ecs = "ECS",
        /// Whoever calls the task sets' actions.
        External = "EXTERNAL",
    }
);

impl Default for DeploymentController {
    /// What a service has whose creation names none.
    fn default() -> Self {
        Self::Ecs
    }
}

wire_enum!(
    /// How a service's tasks are spread over container instances: `schedulingStrategy`.
    SchedulingStrategy {
        /// So many tasks as are desired, wherever placement puts them.
        Replica = "REPLICA",
        /// One task on each container instance that meets the constraints.
        Daemon = "DAEMON",
    }
);

impl Default for SchedulingStrategy {
    /// What a service has whose creation names none.
    fn default() -> Self {
        Self::Replica
    }
}

impl SchedulingStrategy {
    const fn is_replica(&self) -> bool {
        matches!(self, Self::Replica)
    }
}

/// One deployment of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// PRIMARY or ACTIVE.
    pub status: DeploymentStatus,
    /// What it runs.
    pub definition: DefinitionId,
    /// When it began.
    pub created_at: UnixMillis,
    /// When it last changed.
    pub updated_at: UnixMillis,
    /// How far it is.
    pub rollout_state: RolloutState,
    /// ...in words.
    pub rollout_state_reason: String,
    /// The capacity providers that its tasks are spread over; empty with a launch type. The PRIMARY one's is the service's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_provider_strategy: Vec<StrategyItem>,
    /// What it brings out; none if it is older than revisions are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<ServiceRevisionId>,
    /// The service deployment that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_deployment: Option<ServiceDeploymentId>,
    /// What its planner must not forget between two plans.
    #[serde(default, skip_serializing_if = "Progress::is_none")]
    pub progress: Progress,
}

impl Deployment {
    /// Does a task that was started in deployment `id` belong to this one?
    #[must_use]
    pub fn owns(&self, id: DeploymentId) -> bool {
        self.id == id || self.progress.adopted.contains(&id)
    }

    /// The deployments whose tasks are its own.
    pub fn ids(&self) -> impl Iterator<Item = DeploymentId> {
        std::iter::once(self.id).chain(self.progress.adopted.iter().copied())
    }
}

/// What a deployment's planner must not forget between two plans.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// How many tasks a deployment that is being replaced still keeps: one that is lost meanwhile is replaced from its own revision.
    /// `None`: as many as it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<u32>,
    /// Earlier deployments of the same revision, whose tasks a rollback took over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<DeploymentId>,
    /// Since when it only waits for `bakeTimeInMinutes` to pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bakes_since: Option<UnixMillis>,
    /// How many failures its circuit breaker counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// The alarms that ended it, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggered_alarms: Vec<String>,
    /// How far it is with moving tasks to other availability zones; none while it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalancing: Option<Rebalancing>,
}

/// Tasks of a service are being moved to availability zones that have fewer of them:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html>.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rebalancing {
    /// The desired count that it began with. With another one the service needs something else first.
    pub desired: u32,
    /// How often in a row tasks were started for it without others having been stopped for them since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// When it last started tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_at: Option<UnixMillis>,
    /// What keeps it, as an event told, and when that was; none once it went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<(String, UnixMillis)>,
}

impl Progress {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// `deploymentConfiguration`'s percentages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentages {
    /// `minimumHealthyPercent`.
    pub minimum_healthy: u32,
    /// `maximumPercent`.
    pub maximum: u32,
}

impl Percentages {
    /// Fewest healthy tasks that a deployment leaves: rounded up.
    #[must_use]
    pub fn lower(self, desired: u32) -> u32 {
        u32::try_from((u64::from(desired) * u64::from(self.minimum_healthy)).div_ceil(100)).unwrap_or(u32::MAX)
    }

    /// Most running and pending tasks that a deployment makes: rounded down.
    #[must_use]
    pub fn upper(self, desired: u32) -> u32 {
        u32::try_from(u64::from(desired) * u64::from(self.maximum) / 100).unwrap_or(u32::MAX)
    }
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its status.
    pub status: ServiceStatus,
    /// How many tasks it keeps. Of a DAEMON service the loop keeps it at the container instances that are to have one.
    pub desired_count: u32,
    /// Its launch type.
    pub launch_type: LaunchType,
    /// Percentages of its rolling updates.
    pub percentages: Percentages,
    /// PRIMARY first, then older ones that still have tasks. None under an EXTERNAL controller.
    pub deployments: Vec<Deployment>,
    /// What the user asked for beyond that, in AWS's shape: placement, deployment configuration, flags. Echoed, and read where it acts.
    pub settings: ServiceSettings,
    /// Its tags.
    pub tags: Tags,
    /// When it was created.
    pub created_at: UnixMillis,
    /// ARN of who created it.
    pub created_by: String,
    /// The number of the next event.
    pub next_event: u64,
    /// The steady state was announced and still holds.
    pub announced_steady: bool,
    /// The failures that became events and still last, a line each, with the time of the first (duplicates are suppressed for 6 hours).
    pub announced_failure: Option<(Arc<str>, UnixMillis)>,
    /// `clientToken` of its creation.
    pub client_token: Option<String>,
    /// Who decides what runs.
    #[serde(default)]
    pub controller: DeploymentController,
    /// How its tasks are spread over container instances.
    #[serde(default, skip_serializing_if = "SchedulingStrategy::is_replica")]
    pub scheduling_strategy: SchedulingStrategy,
    /// Its task sets, oldest first; only under an EXTERNAL controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_sets: Vec<TaskSet>,
    /// The last revision that came out whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_revision: Option<ServiceRevisionId>,
}

/// Members of a service that are echoed, in AWS's shapes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServiceSettings {
    /// `deploymentConfiguration` with defaults.
    pub deployment_configuration: ecs::DeploymentConfiguration,
    /// `placementConstraints`.
    pub placement_constraints: Vec<ecs::PlacementConstraint>,
    /// `placementStrategy`.
    pub placement_strategy: Vec<ecs::PlacementStrategy>,
    /// `healthCheckGracePeriodSeconds`.
    pub health_check_grace_period_seconds: Option<i32>,
    /// `enableECSManagedTags`.
    pub enable_ecs_managed_tags: bool,
    /// `propagateTags`.
    pub propagate_tags: Option<String>,
    /// `enableExecuteCommand`.
    pub enable_execute_command: bool,
    /// `availabilityZoneRebalancing`.
    pub availability_zone_rebalancing: Option<String>,
    /// `role`.
    pub role: Option<String>,
    /// `serviceRegistries`: where its tasks are registered, in Cloud Map; one at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_registries: Vec<ecs::ServiceRegistry>,
    /// `networkConfiguration`: where its tasks get interfaces of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_configuration: Option<AwsvpcConfiguration>,
    /// `platformVersion`, of launch type FARGATE: as it was asked for, `LATEST` if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_version: Option<String>,
}

impl Service {
    /// How many tasks it keeps from now on. While a deployment goes on, a larger number applies to the revision that is being replaced
    /// as well: the new one may yet fail.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html>
    pub fn set_desired_count(&mut self, count: u32) {
        let more = count.saturating_sub(self.desired_count);
        self.desired_count = count;
        let replaced = self.deployments.iter_mut().filter(|deployment| deployment.status == DeploymentStatus::Active);
        if let Some(keeps) = replaced.filter_map(|deployment| deployment.progress.keeps.as_mut()).next() {
            *keeps = keeps.saturating_add(more);
        }
    }

    /// The PRIMARY deployment becomes one that is replaced, and keeps its tasks until then.
    pub fn demote_primary(&mut self, now: UnixMillis) {
        let desired = self.desired_count;
        for deployment in self.deployments.iter_mut().filter(|deployment| deployment.status == DeploymentStatus::Primary) {
            deployment.status = DeploymentStatus::Active;
            deployment.updated_at = now;
            deployment.progress.rebalancing = None;
            // One that never came out whole has nothing to keep that is worth replacing.
            let was_whole = deployment.rollout_state == RolloutState::Completed;
            deployment.progress.keeps = was_whole.then_some(desired);
        }
    }

    /// The deployment that the service is to become; `None` only under an EXTERNAL controller.
    #[must_use]
    pub fn primary(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|d| d.status == DeploymentStatus::Primary)
    }

    /// It has one task on each container instance that meets its constraints.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.scheduling_strategy == SchedulingStrategy::Daemon
    }

    /// The task set that serves production traffic, if there is one.
    #[must_use]
    pub fn primary_task_set(&self) -> Option<&TaskSet> {
        self.task_sets.iter().find(|set| set.status == TaskSetStatus::Primary)
    }

    /// Are its tasks, or those of one of its task sets, to be registered in Cloud Map?
    #[must_use]
    pub fn names_registries(&self) -> bool {
        !self.settings.service_registries.is_empty() || self.task_sets.iter().any(|set| !set.service_registries.is_empty())
    }

    /// What it runs, as far as one definition can say.
    #[must_use]
    pub fn definition(&self) -> Option<&DefinitionId> {
        let deployed = self.primary().map(|deployment| &deployment.definition);
        deployed.or_else(|| self.primary_task_set().map(|set| &set.definition))
    }
}

/// One line of a service's `events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvent {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its service.
    pub service: ServiceName,
    /// Its number in the service, counted up.
    pub number: u64,
    /// Its id as ECS shows it.
    pub id: String,
    /// When it happened.
    pub created_at: UnixMillis,
    /// ECS's text.
    pub message: String,
}

/// How many events a service keeps; ECS shows the newest hundred.
pub const MAX_EVENTS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_is_rounded_up_and_maximum_down() {
        let percentages = Percentages { minimum_healthy: 50, maximum: 150 };
        assert_eq!((percentages.lower(3), percentages.upper(3)), (2, 4));
        let default = Percentages { minimum_healthy: 100, maximum: 200 };
        assert_eq!((default.lower(2), default.upper(2)), (2, 4));
        assert_eq!((default.lower(0), default.upper(0)), (0, 0));
    }

    #[test]
    fn services_from_before_revisions_and_task_sets_are_read() {
        let old = r#"{"name":"web","cluster":"c","status":"ACTIVE","desired_count":1,"launch_type":"EC2",
            "percentages":{"minimum_healthy":100,"maximum":200},
            "deployments":[{"id":7,"status":"PRIMARY","definition":{"family":"web","revision":1},"created_at":1,"updated_at":1,
                "rollout_state":"COMPLETED","rollout_state_reason":""}],
            "settings":{"deployment_configuration":{},"placement_constraints":[],"placement_strategy":[],
                "health_check_grace_period_seconds":null,"enable_ecs_managed_tags":false,"propagate_tags":null,
                "enable_execute_command":false,"availability_zone_rebalancing":null,"role":null},
            "tags":{},"created_at":1,"created_by":"","next_event":0,"announced_steady":true,"announced_failure":null,"client_token":null}"#;
        let service: Service = serde_json::from_str(old).unwrap();
        assert_eq!((service.controller, service.task_sets.len(), service.completed_revision), (DeploymentController::Ecs, 0, None));
        assert_eq!(service.scheduling_strategy, SchedulingStrategy::Replica);
        assert_eq!(service.primary().map(|primary| (primary.id, primary.revision)), Some((DeploymentId(7), None)));
        let again: Service = serde_json::from_str(&serde_json::to_string(&service).unwrap()).unwrap();
        assert_eq!(again, service);
    }
}
