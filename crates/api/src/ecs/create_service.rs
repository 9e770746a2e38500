//! `CreateService`: writes the service with its PRIMARY deployment in one commit; the services loop does the rest.

use berth_model::ids::ServiceName;
use berth_model::record::Key;
use berth_model::service::{DeploymentController, SchedulingStrategy, Service, ServiceSettings, ServiceStatus};
use berth_model::tags::parse_tags;
use berth_shapes::ecs::{CreateServiceRequest, CreateServiceResponse, ErrorCode};

use super::deployment_configuration::check_targets;
use super::placement::check_together;
use super::service_settings::{deployment_configuration, desired_count, filled, is_monitored, placement, refuse_unserved};
use super::{
    capacity, daemon_scheduling, definitions, express_services, fargate, network_configuration, render, service_history,
    service_registries, zone_rebalancing,
};
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: CreateServiceRequest) -> Result<CreateServiceResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let name = request.service_name.as_deref().unwrap_or_default();
    let name = ServiceName::parse(name).ok_or_else(|| {
        Failure::invalid(
            "Invalid service name: up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed: serviceName",
        )
    })?;
    let controller = controller(&request)?;
    let scheduling_strategy = daemon_scheduling::strategy(&request, controller)?;
    let is_daemon = scheduling_strategy == SchedulingStrategy::Daemon;
    check_served(&request)?;
    let Some(desired) = request.desired_count.or((controller == DeploymentController::External || is_daemon).then_some(0)) else {
        return Err(Failure::invalid("desiredCount must be specified for a service with the REPLICA scheduling strategy."));
    };
    let desired_count = desired_count(desired)?;
    let definition = match controller {
        DeploymentController::Ecs => Some(definitions::usable(api, &api.store.state(), request.task_definition.as_deref())?),
        DeploymentController::External => None,
    };
    let tags = parse_tags(request.tags.as_deref())?;
    check_targets(api.control.hooks(), request.deployment_configuration.as_ref())?;
    let (deployment_configuration, percentages) =
        deployment_configuration(request.deployment_configuration, &daemon_scheduling::defaults(scheduling_strategy))?;
    daemon_scheduling::check_deployment(scheduling_strategy, &deployment_configuration, percentages)?;
    if controller == DeploymentController::External
        && deployment_configuration.strategy.as_ref().is_some_and(|kind| kind.as_str() != "ROLLING")
    {
        return Err(Failure::invalid(
            "Deployment strategies other than ROLLING are only valid with the ECS deployment controller: deploymentConfiguration.strategy",
        ));
    }
    let mut settings = ServiceSettings {
        deployment_configuration,
        health_check_grace_period_seconds: request.health_check_grace_period_seconds,
        enable_ecs_managed_tags: request.enable_ecs_managed_tags == Some(true),
        propagate_tags: request.propagate_tags.as_ref().map(|from| from.as_str().to_owned()).filter(|from| from != "NONE"),
        enable_execute_command: request.enable_execute_command == Some(true),
        availability_zone_rebalancing: request.availability_zone_rebalancing.as_ref().map(|zones| zones.as_str().to_owned()),
        role: request.role.clone(),
        ..Default::default()
    };
    placement(api.control.constraints(), &mut settings, request.placement_constraints, request.placement_strategy)?;
    if let Some(definition) = &definition {
        check_together(&settings.placement_constraints, definition)?;
    }
    let client_token = request.client_token.filter(|token| !token.is_empty());
    let fresh = service_history::Fresh::draw(api);
    api.change(|state, transaction| {
        let holder = active(state, &cluster)?;
        let key = Key::Service(cluster.clone(), name.clone());
        match state.service(&cluster, &name) {
            Some(known) if known.status != ServiceStatus::Inactive => {
                let is_retry = client_token.is_some() && known.client_token == client_token;
                if is_retry {
                    transaction.expect(key, known.modified);
                    return Ok(CreateServiceResponse { service: Some(render::service(state, api.scope(), known, true)) });
                }
                let text = if known.status == ServiceStatus::Draining {
                    "Unable to Start a service that is still Draining."
                } else {
                    "Creation of service was not idempotent."
                };
                return Err(Failure::modelled(ErrorCode::InvalidParameter, text));
            }
            Some(inactive) => {
                // The name is free again; what is left of the old one goes.
                transaction.expect(key, inactive.modified);
                for event in state.events_of(&cluster, &name) {
                    transaction.delete(Key::ServiceEvent(cluster.clone(), name.clone(), event.number));
                }
            }
            None => {
                transaction.expect_absent(key);
            }
        }
        express_services::clear_name(state, transaction, &cluster, &name)?;
        let (launch_type, strategy) =
            capacity::chosen(api, state, &holder.value, request.launch_type.as_ref(), request.capacity_provider_strategy.as_deref())?;
        daemon_scheduling::check_capacity(scheduling_strategy, &strategy)?;
        let constraints = Some(&settings.placement_constraints);
        fargate::check_placement(launch_type, constraints, Some(&settings.placement_strategy))?;
        if let Some(definition) = &definition {
            fargate::check_launch(definition, launch_type, None)?;
        }
        expect_cluster(transaction, holder);
        if !strategy.is_empty() {
            // A change of the cluster's providers at this moment sees the service, or this sees the change.
            transaction.touch(Key::Cluster(cluster.clone()));
        }
        let now = api.now();
        let mut service = Service {
            name: name.clone(),
            cluster: cluster.clone(),
            status: ServiceStatus::Active,
            desired_count,
            launch_type,
            percentages,
            deployments: Vec::new(),
            settings: ServiceSettings {
                platform_version: fargate::platform_version(launch_type, request.platform_version.as_deref())?,
                ..settings.clone()
            },
            tags: tags.clone(),
            created_at: now,
            created_by: api.scope().root_principal(),
            next_event: 0,
            announced_steady: false,
            announced_failure: None,
            client_token: client_token.clone(),
            controller,
            scheduling_strategy,
            task_sets: Vec::new(),
            completed_revision: None,
        };
        zone_rebalancing::settle(&mut service)?;
        if let Some(definition) = &definition {
            let given = request.network_configuration.as_ref();
            service.settings.network_configuration = network_configuration::read(state, definition, launch_type, given)?;
        }
        service_registries::settle(api, state, &mut service, request.service_registries.as_ref(), definition.as_deref())?;
        if let Some(definition) = &definition {
            service_history::begin(state, transaction, &mut service, definition, strategy, fresh, now);
            if is_daemon {
                // Waiters must not take it for steady before its loop has counted.
                service.desired_count = api.control.daemon_desired_count(state, &service);
            }
        }
        // A service of the same name that ended may have left events; they are not this one's.
        let shown = berth_shapes::ecs::Service { events: Some(Vec::new()), ..render::service(state, api.scope(), &service, true) };
        transaction.put(service);
        Ok(CreateServiceResponse { service: Some(shown) })
    })
    .await
}

/// Reads `deploymentController`. What an EXTERNAL one's task sets name is not for the service:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-external.html>.
fn controller(request: &CreateServiceRequest) -> Result<DeploymentController, Failure> {
    let kind = request.deployment_controller.as_ref().and_then(|controller| controller.r#type.as_ref()).map(|kind| kind.as_str());
    match kind {
        None | Some("ECS") => return Ok(DeploymentController::Ecs),
        Some("EXTERNAL") => {}
        Some(_) => return Err(Failure::unsupported("Berth serves deploymentController ECS and EXTERNAL only, for now.")),
    }
    let blank = [
        ("TaskDefinition", request.task_definition.is_some()),
        ("LaunchType", request.launch_type.is_some()),
        ("PlatformVersion", request.platform_version.is_some()),
        ("NetworkConfiguration", request.network_configuration.is_some()),
        ("LoadBalancers", filled(request.load_balancers.as_ref())),
        ("ServiceRegistries", filled(request.service_registries.as_ref())),
        ("CapacityProviderStrategy", filled(request.capacity_provider_strategy.as_ref())),
    ];
    match blank.iter().find(|(_, is_given)| *is_given) {
        Some((member, _)) => Err(Failure::invalid(format!("{member} must be blank."))),
        None => Ok(DeploymentController::External),
    }
}

/// Members that Berth cannot honour yet are refused, never ignored.
fn check_served(request: &CreateServiceRequest) -> Result<(), Failure> {
    refuse_unserved(&[
        ("loadBalancers", filled(request.load_balancers.as_ref())),
        ("serviceConnectConfiguration", request.service_connect_configuration.as_ref().is_some_and(|c| c.enabled == Some(true))),
        ("volumeConfigurations", filled(request.volume_configurations.as_ref())),
        ("vpcLatticeConfigurations", filled(request.vpc_lattice_configurations.as_ref())),
        ("gatewayConnectors", filled(request.gateway_connectors.as_ref())),
        ("monitoring", is_monitored(request.monitoring.as_ref())),
    ])
}
