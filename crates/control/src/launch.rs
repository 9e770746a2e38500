//! From a task definition and a wish to task records.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::capacity_provider::StrategyItem;
use berth_model::ids::{CapacityProviderName, ClusterName, ContainerId, ContainerInstanceId, TaskId};
use berth_model::needs::{Demand, gpus_of};
use berth_model::shared_text;
use berth_model::tags::Tags;
use berth_model::task::{ClientToken, Container, LaunchType, ServiceMembership, Task};
use berth_model::task_definition::TaskDefinition;
use berth_model::task_interface::{AwsvpcConfiguration, TaskInterface};
use berth_scheduler::placement::{Constraint, PlaceRequest, Strategy};
use berth_shapes::ecs;

use crate::environment::Environment;
use crate::fargate;

/// Where a task was placed.
#[derive(Debug, Clone)]
pub struct Place {
    /// The container instance.
    pub instance: ContainerInstanceId,
    /// Its availability zone.
    pub zone: Option<Arc<str>>,
    /// The capacity provider that a strategy gave the task to.
    pub capacity_provider: Option<CapacityProviderName>,
    /// The ids of the GPUs that it gets there.
    pub gpus: Vec<String>,
    /// The network interface that it gets.
    pub interface: Option<TaskInterface>,
}

/// What tasks are made of: everything but their ids and places.
#[derive(Debug, Clone)]
pub struct TaskTemplate {
    /// Their cluster.
    pub cluster: ClusterName,
    /// Their definition; it must be ACTIVE when they are committed.
    pub definition: Arc<TaskDefinition>,
    /// What each takes, overrides included.
    pub demand: Demand,
    /// Their group.
    pub group: Arc<str>,
    /// The user's `startedBy`.
    pub started_by: Option<Arc<str>>,
    /// Their service.
    pub service: Option<ServiceMembership>,
    /// Their launch type.
    pub launch_type: LaunchType,
    /// The capacity providers that they are spread over; empty with a launch type.
    pub capacity_provider_strategy: Vec<StrategyItem>,
    /// Where each gets an interface of its own (`networkMode: awsvpc`).
    pub network: Option<AwsvpcConfiguration>,
    /// Overrides.
    pub overrides: Option<Box<ecs::TaskOverride>>,
    /// Tags.
    pub tags: Tags,
    /// `enableExecuteCommand`.
    pub enable_execute_command: bool,
    /// The idempotency token.
    pub client_token: Option<ClientToken>,
    /// Binding conditions.
    pub constraints: Vec<Constraint>,
    /// Preferences.
    pub strategies: Vec<Strategy>,
    /// What the images of some containers stand for, by container: where a service's earlier tasks have told it, all later ones of the
    /// revision run the same.
    pub digests: BTreeMap<String, Arc<str>>,
}

impl TaskTemplate {
    /// The placement request for some tasks of this kind.
    #[must_use]
    pub fn place_request<'a>(&'a self, tasks: &'a [TaskId], seed: u64) -> PlaceRequest<'a> {
        let is_fargate = self.launch_type == LaunchType::Fargate;
        PlaceRequest {
            tasks,
            demand: &self.demand,
            attributes: &self.definition.needs.attributes,
            group: if is_fargate { fargate::GROUP } else { &self.group },
            constraints: &self.constraints,
            capacity_provider: None,
            strategies: if is_fargate { &fargate::STRATEGIES } else { &self.strategies },
            seed,
        }
    }

    /// How many GPUs one of its containers has.
    fn gpus_of(&self, container: &ecs::ContainerDefinition) -> usize {
        let overrides = self.overrides.iter().flat_map(|overrides| overrides.container_overrides.iter().flatten());
        let own = overrides.into_iter().find(|own| own.name == container.name);
        usize::try_from(gpus_of(container, own)).unwrap_or(usize::MAX)
    }

    /// The record of a task that was placed, on an instance of a capacity provider if a strategy said so.
    #[must_use]
    pub fn task(&self, id: TaskId, place: Place, environment: &Environment) -> Task {
        let Place { instance, zone, capacity_provider, gpus, interface } = place;
        let mut gpus = gpus.into_iter();
        let defined = self.definition.document.container_definitions.as_deref().unwrap_or_default();
        let containers = defined.iter().map(|container| Container {
            image_digest: container.name.as_ref().and_then(|name| self.digests.get(name)).cloned(),
            gpu_ids: gpus.by_ref().take(self.gpus_of(container)).collect(),
            ..Container::pending(
                ContainerId(environment.entropy.bits()),
                shared_text::recent(container.name.as_deref().unwrap_or_default()),
                shared_text::recent(container.image.as_deref().unwrap_or_default()),
            )
        });
        Task {
            started_by: self.started_by.clone(),
            service: self.service.clone(),
            launch_type: self.launch_type,
            availability_zone: zone,
            demand: self.demand.clone(),
            interface: interface.map(Box::new),
            containers: containers.collect(),
            overrides: self.overrides.clone(),
            tags: self.tags.clone(),
            enable_execute_command: self.enable_execute_command,
            client_token: self.client_token.clone(),
            capacity_provider,
            ..Task::placed(
                id,
                ClusterName(shared_text::recent(&self.cluster.0)),
                self.definition.id.clone(),
                shared_text::recent(&self.group),
                instance,
                environment.now(),
            )
        }
    }
}

/// Fresh task ids.
#[must_use]
pub fn task_ids(count: u32, environment: &Environment) -> Vec<TaskId> {
    (0..count).map(|_| TaskId(environment.entropy.bits())).collect()
}
