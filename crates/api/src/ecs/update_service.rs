//! `UpdateService`: absent members stay as they are. A new task definition or `forceNewDeployment` makes a new PRIMARY deployment
//! in the same commit; a new desired count or placement alone makes none.

use berth_model::record::Key;
use berth_model::service::{DeploymentController, Service};
use berth_model::task::LaunchType;
use berth_model::task_definition::TaskDefinition;
use berth_shapes::ecs::{UpdateServiceRequest, UpdateServiceResponse};
use berth_store::{State, Transaction};

use super::deployment_configuration::check_targets;
use super::placement::check_together;
use super::service_settings::{deployment_configuration, desired_count, filled, find_active, is_monitored, placement, refuse_unserved};
use super::{
    capacity, daemon_scheduling, definitions, fargate, network_configuration, render, service_history, service_registries, zone_rebalancing,
};
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateServiceRequest) -> Result<UpdateServiceResponse, Failure> {
    let decide = decision(api, request)?;
    api.change(decide).await
}

/// What a request makes of a state: changes for a transaction, and the answer if they are committed.
pub(crate) fn decision(
    api: &Api,
    request: UpdateServiceRequest,
) -> Result<impl FnMut(&State, &mut Transaction) -> Result<UpdateServiceResponse, Failure>, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let text = request.service.clone().unwrap_or_default();
    refuse_unserved(&[
        ("loadBalancers", filled(request.load_balancers.as_ref())),
        ("serviceConnectConfiguration", request.service_connect_configuration.as_ref().is_some_and(|c| c.enabled == Some(true))),
        ("volumeConfigurations", filled(request.volume_configurations.as_ref())),
        ("vpcLatticeConfigurations", filled(request.vpc_lattice_configurations.as_ref())),
        ("gatewayConnectors", filled(request.gateway_connectors.as_ref())),
        ("monitoring", is_monitored(request.monitoring.as_ref())),
    ])?;
    check_targets(api.control.hooks(), request.deployment_configuration.as_ref())?;
    let desired = request.desired_count.map(desired_count).transpose()?;
    let fresh = service_history::Fresh::draw(api);
    Ok(move |state: &State, transaction: &mut Transaction| {
        let entry = find_active(api, state, &cluster, &text)?;
        check_controller(&request, entry)?;
        daemon_scheduling::check_update(&request, entry)?;
        let definition = match request.task_definition.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Some(definitions::usable(api, state, Some(text))?.id.clone()),
            None => entry.definition().cloned(),
        };
        let mut service = (*entry.value).clone();
        let (configuration, percentages) =
            deployment_configuration(request.deployment_configuration.clone(), &service.settings.deployment_configuration)?;
        service.settings.deployment_configuration = configuration;
        service.percentages = percentages;
        daemon_scheduling::check_deployment(service.scheduling_strategy, &service.settings.deployment_configuration, percentages)?;
        let known = api.control.constraints();
        placement(known, &mut service.settings, request.placement_constraints.clone(), request.placement_strategy.clone())?;
        let of_task_sets = service.task_sets.iter().map(|set| &set.definition);
        for used in definition.iter().chain(of_task_sets).filter_map(|id| state.definition(id)) {
            check_together(&service.settings.placement_constraints, used)?;
        }
        if let Some(seconds) = request.health_check_grace_period_seconds {
            service.settings.health_check_grace_period_seconds = Some(seconds);
        }
        if let Some(enable) = request.enable_execute_command {
            service.settings.enable_execute_command = enable;
        }
        if let Some(enable) = request.enable_ecs_managed_tags {
            service.settings.enable_ecs_managed_tags = enable;
        }
        if let Some(from) = &request.propagate_tags {
            service.settings.propagate_tags = Some(from.as_str().to_owned()).filter(|from| from != "NONE");
        }
        if let Some(zones) = &request.availability_zone_rebalancing {
            service.settings.availability_zone_rebalancing = Some(zones.as_str().to_owned());
            zone_rebalancing::settle(&mut service)?;
        }
        let before = entry.primary().map_or(&[][..], |primary| &primary.capacity_provider_strategy);
        let strategy = match request.capacity_provider_strategy.as_deref() {
            None => before.to_vec(),
            Some([]) => Vec::new(),
            given => {
                let holder = active(state, &cluster)?;
                expect_cluster(transaction, holder);
                // A change of the cluster's providers at this moment sees the service, or this sees the change.
                transaction.touch(Key::Cluster(cluster.clone()));
                let (launch_type, strategy) = capacity::chosen(api, state, &holder.value, None, given)?;
                service.launch_type = launch_type;
                strategy
            }
        };
        daemon_scheduling::check_capacity(service.scheduling_strategy, &strategy)?;
        if strategy != before && request.force_new_deployment != Some(true) {
            return Err(Failure::invalid(
                "When switching from launch type to capacity provider strategy on an existing service, or making a change to a capacity \
                 provider strategy on a service that is already using one, you must force a new deployment: forceNewDeployment",
            ));
        }
        settle_fargate(&mut service, entry, definition.as_ref().and_then(|id| state.definition(id)).map(|known| &*known.value), &request)?;
        if let Some(given) = request.network_configuration.as_ref().and_then(|given| given.awsvpc_configuration.as_ref()) {
            service.settings.network_configuration = Some(network_configuration::checked(state, service.launch_type, given)?);
        }
        if let Some(definition) = definition.as_ref().and_then(|id| state.definition(id)).filter(|_| is_ecs(&service)) {
            network_configuration::fits(definition, service.settings.network_configuration.as_ref())?;
        }
        // A registry that was deleted meanwhile keeps nobody from changing the rest.
        let is_looked_at = request.service_registries.is_some() || definition.as_ref() != entry.definition();
        let used = definition.as_ref().filter(|_| is_looked_at).and_then(|id| state.definition(id)).map(|definition| &*definition.value);
        service_registries::settle(api, state, &mut service, request.service_registries.as_ref(), used)?;
        service.set_desired_count(desired.unwrap_or(service.desired_count));
        let (old, new) = (&entry.settings, &service.settings);
        let is_deployment = request.force_new_deployment == Some(true)
            || definition.as_ref() != entry.definition()
            || old.network_configuration != new.network_configuration
            || old.platform_version != new.platform_version
            || old.service_registries != new.service_registries
            || old.propagate_tags != new.propagate_tags
            || old.enable_ecs_managed_tags != new.enable_ecs_managed_tags
            || old.enable_execute_command != new.enable_execute_command;
        let now = api.now();
        transaction.expect(Key::Service(cluster.clone(), service.name.clone()), entry.modified);
        if let Some(definition) = definition.filter(|_| is_deployment && service.controller == DeploymentController::Ecs) {
            let definition = state.definition(&definition).ok_or_else(|| Failure::client("TaskDefinition not found."))?;
            service_history::begin(state, transaction, &mut service, definition, strategy, fresh, now);
            service.announced_failure = None;
        }
        if is_deployment || service.desired_count != entry.desired_count {
            service.announced_steady = false;
            service.task_sets.iter_mut().for_each(|set| set.unsettle(now));
        }
        if service == *entry.value {
            return Ok(UpdateServiceResponse { service: Some(render::service(state, api.scope(), entry, true)) });
        }
        if service.is_daemon() {
            service.desired_count = api.control.daemon_desired_count(state, &service);
        }
        let shown = render::service(state, api.scope(), &service, true);
        transaction.put(service);
        Ok(UpdateServiceResponse { service: Some(shown) })
    })
}

/// What the launch type that the service is to have asks of the rest of it; and its platform.
fn settle_fargate(
    service: &mut Service,
    before: &Service,
    definition: Option<&TaskDefinition>,
    request: &UpdateServiceRequest,
) -> Result<(), Failure> {
    let settings = &service.settings;
    fargate::check_placement(service.launch_type, Some(&settings.placement_constraints), Some(&settings.placement_strategy))?;
    if let Some(definition) = definition.filter(|_| is_ecs(service)) {
        fargate::check_launch(definition, service.launch_type, None)?;
    }
    let kept = before.settings.platform_version.as_deref().filter(|_| service.launch_type == before.launch_type);
    let wanted = request.platform_version.as_deref().or(kept);
    service.settings.platform_version = fargate::platform_version(service.launch_type, wanted)?;
    if service.launch_type != LaunchType::Fargate
        && let Some(network) = &mut service.settings.network_configuration
    {
        // Tasks on container instances have no public addresses of their own.
        network.assign_public_ip = false;
    }
    Ok(())
}

/// Its definition and network are its own, not its task sets'.
fn is_ecs(service: &Service) -> bool {
    service.controller == DeploymentController::Ecs
}

/// Refuses what belongs to an EXTERNAL controller's task sets, and another controller.
fn check_controller(request: &UpdateServiceRequest, service: &Service) -> Result<(), Failure> {
    let wanted = request.deployment_controller.as_ref().and_then(|controller| controller.r#type.as_ref());
    if wanted.is_some_and(|kind| kind.as_str() != service.controller.as_str()) {
        return Err(Failure::unsupported("Berth does not change a service's deploymentController yet."));
    }
    if service.controller == DeploymentController::Ecs {
        return Ok(());
    }
    let only = "services with an EXTERNAL deployment controller. Create a task set instead";
    if request.task_definition.is_some() {
        return Err(Failure::invalid(format!("Unable to update task definition on {only}: taskDefinition")));
    }
    if request.network_configuration.is_some() {
        return Err(Failure::invalid(format!("Unable to update network parameters on {only}: networkConfiguration")));
    }
    if request.force_new_deployment == Some(true) {
        return Err(Failure::invalid(format!("Cannot force a new deployment on {only}: forceNewDeployment")));
    }
    if request.deployment_configuration.is_some() {
        return Err(Failure::invalid(format!("Unable to update deployment configuration on {only}: deploymentConfiguration")));
    }
    Ok(())
}
