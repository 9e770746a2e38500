//! What the task sets' actions have in common: finding a set of a service with an EXTERNAL deployment controller, and showing it.

use berth_model::arn::{Scope, parse_task_set};
use berth_model::ids::ClusterName;
use berth_model::service::{DeploymentController, Service};
use berth_model::tags::render_tags;
use berth_model::task_interface::AwsvpcConfiguration;
use berth_model::task_set::{Scale, TaskSet};
use berth_shapes::ecs::{self, ErrorCode};
use berth_store::{Entry, State, Tally};

use super::{capacity, render, service_settings};
use crate::context::Api;
use crate::failure::Failure;

/// The ACTIVE service whose task sets a request is about.
pub(crate) fn holder<'a>(api: &Api, state: &'a State, cluster: &ClusterName, text: Option<&str>) -> Result<&'a Entry<Service>, Failure> {
    let service = service_settings::find_active(api, state, cluster, text.unwrap_or_default())?;
    if service.controller != DeploymentController::External {
        return Err(Failure::invalid(
            "Amazon ECS only supports task set management on services configured to use external deployment controllers.",
        ));
    }
    Ok(service)
}

/// Where in the service's list the named task set stands.
pub(crate) fn position(api: &Api, service: &Service, text: Option<&str>) -> Result<usize, Failure> {
    let id = parse_task_set(api.scope(), &service.cluster, &service.name, text.unwrap_or_default())?;
    let place = service.task_sets.iter().position(|set| set.id == id);
    place.ok_or_else(|| Failure::modelled(ErrorCode::TaskSetNotFound, "The specified task set was not found."))
}

/// Reads `scale`; absent, or without a value, it is all of the desired count.
pub(crate) fn scale(given: Option<&ecs::Scale>) -> Result<Scale, Failure> {
    let Some(percent) = given.and_then(|scale| scale.value) else { return Ok(Scale::MAX) };
    Scale::from_percent(percent).ok_or_else(|| Failure::invalid("Scale value must be between 0 and 100 percent: scale.value"))
}

/// A task set.
pub(crate) fn render(state: &State, scope: &Scope, service: &Service, set: &TaskSet, with_tags: bool) -> ecs::TaskSet {
    let Tally { running, pending } = state.tally(&service.cluster, &service.name, set.id);
    ecs::TaskSet {
        id: Some(set.id.to_string()),
        task_set_arn: Some(scope.task_set(&service.cluster, &service.name, set.id)),
        service_arn: Some(scope.service(&service.cluster, &service.name)),
        cluster_arn: Some(scope.cluster(&service.cluster)),
        external_id: set.external_id.clone(),
        status: Some(set.status.to_string()),
        task_definition: Some(scope.task_definition(&set.definition)),
        computed_desired_count: Some(i32::try_from(set.computed_desired_count(service.desired_count)).unwrap_or(i32::MAX)),
        pending_count: render::count(pending),
        running_count: render::count(running),
        created_at: Some(set.created_at.to_wire()),
        updated_at: Some(set.updated_at.to_wire()),
        launch_type: set.capacity_provider_strategy.is_empty().then(|| set.launch_type.as_str().into()),
        capacity_provider_strategy: (!set.capacity_provider_strategy.is_empty()).then(|| capacity::render(&set.capacity_provider_strategy)),
        platform_version: render::platform_version(set.launch_type),
        platform_family: render::platform_family(set.launch_type),
        network_configuration: set.network_configuration.as_ref().map(AwsvpcConfiguration::to_wire),
        load_balancers: Some(Vec::new()),
        service_registries: Some(set.service_registries.clone()),
        scale: Some(set.scale.to_wire()),
        stability_status: Some(set.stability.as_str().into()),
        stability_status_at: Some(set.stability_at.to_wire()),
        tags: Some(if with_tags { render_tags(&set.tags) } else { Vec::new() }),
        ..Default::default()
    }
}
