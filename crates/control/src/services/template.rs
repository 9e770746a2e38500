//! What a service's new tasks are made of, and how they are placed: its settings and those of its revisions, read. It starts nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::capacity_provider::StrategyItem;
use berth_model::ids::DeploymentId;
use berth_model::needs::Demand;
use berth_model::service::{DeploymentStatus, Service};
use berth_model::service_deployment::ServiceRevision;
use berth_model::task::{DesiredStatus, LaunchType, ServiceMembership};
use berth_scheduler::placement::{SpreadField, Strategy};
use berth_store::State;

use crate::constraints::Constraints;
use crate::fargate::public_addresses;
use crate::interfaces::zone_constraint;
use crate::launch::TaskTemplate;

/// How a service's tasks are placed: its `placementStrategy`, or what ECS does without one.
#[must_use]
pub fn strategies(service: &Service) -> Vec<Strategy> {
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
    let launch_type = revision.map_or(service.launch_type, |revision| revision.launch_type);
    let mut constraints = known.of_definition(&definition.document).ok()?;
    // Fargate's machines are all alike, and in no zone.
    if launch_type != LaunchType::Fargate {
        // Where tasks go is the service's, not a revision's.
        for constraint in &service.settings.placement_constraints {
            constraints.push(known.read(constraint).ok()?);
        }
        if let Some(network) = &settings.network_configuration {
            constraints.extend(zone_constraint(state, network, known));
        }
    }
    let network = settings.network_configuration.clone();
    let demand = Demand { public_addresses: public_addresses(state, network.as_ref()), ..definition.needs.demand.clone() };
    Some(TaskTemplate {
        cluster: service.cluster.clone(),
        definition: Arc::clone(&definition.value),
        demand,
        group: format!("service:{}", service.name).into(),
        started_by: None,
        service: Some(ServiceMembership { service: service.name.clone(), deployment: deployment.id }),
        launch_type,
        capacity_provider_strategy: deployment.capacity_provider_strategy.clone(),
        overrides: None,
        tags,
        enable_execute_command: settings.enable_execute_command,
        client_token: None,
        constraints,
        strategies: strategies(service),
        network,
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
