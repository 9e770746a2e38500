//! `CreateService`: writes the service with its PRIMARY deployment in one commit; the services loop does the rest.

use berth_model::ids::{DeploymentId, ServiceName};
use berth_model::record::Key;
use berth_model::service::{Deployment, DeploymentStatus, RolloutState, Service, ServiceSettings, ServiceStatus};
use berth_model::tags::parse_tags;
use berth_shapes::ecs::{CreateServiceRequest, CreateServiceResponse, ErrorCode};

use super::service_settings::{deployment_configuration, desired_count, filled, placement, refuse_unserved};
use super::{capacity, definitions, express_services, render};
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
    check_served(&request)?;
    let Some(desired) = request.desired_count else {
        return Err(Failure::invalid("desiredCount must be specified for a service with the REPLICA scheduling strategy."));
    };
    let desired_count = desired_count(desired)?;
    let definition = definitions::usable(api, &api.store.state(), request.task_definition.as_deref())?;
    let tags = parse_tags(request.tags.as_deref())?;
    let (deployment_configuration, percentages) = deployment_configuration(request.deployment_configuration, &Default::default())?;
    let mut settings = ServiceSettings {
        deployment_configuration,
        health_check_grace_period_seconds: request.health_check_grace_period_seconds,
        enable_ecs_managed_tags: request.enable_ecs_managed_tags == Some(true),
        propagate_tags: request.propagate_tags.as_ref().map(|from| from.as_str().to_owned()).filter(|from| from != "NONE"),
        enable_execute_command: request.enable_execute_command == Some(true),
        // Created services rebalance by default; the loop that acts on it has nothing to do on one zone.
        availability_zone_rebalancing: Some(request.availability_zone_rebalancing.as_ref().map_or("ENABLED", |z| z.as_str()).to_owned()),
        role: request.role.clone(),
        ..Default::default()
    };
    placement(&mut settings, request.placement_constraints, request.placement_strategy)?;
    let client_token = request.client_token.filter(|token| !token.is_empty());
    let deployment = DeploymentId::from_random(api.environment.bits64());
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
        expect_cluster(transaction, holder);
        if !strategy.is_empty() {
            // A change of the cluster's providers at this moment sees the service, or this sees the change.
            transaction.touch(Key::Cluster(cluster.clone()));
        }
        let now = api.now();
        let service = Service {
            name: name.clone(),
            cluster: cluster.clone(),
            status: ServiceStatus::Active,
            desired_count,
            launch_type,
            percentages,
            deployments: vec![Deployment {
                id: deployment,
                status: DeploymentStatus::Primary,
                definition: definition.id.clone(),
                created_at: now,
                updated_at: now,
                rollout_state: RolloutState::InProgress,
                rollout_state_reason: format!("ECS deployment {deployment} in progress."),
                capacity_provider_strategy: strategy,
            }],
            settings: settings.clone(),
            tags: tags.clone(),
            created_at: now,
            created_by: api.scope().root_principal(),
            next_event: 0,
            announced_steady: false,
            announced_failure: None,
            client_token: client_token.clone(),
        };
        // A service of the same name that ended may have left events; they are not this one's.
        let shown = berth_shapes::ecs::Service { events: Some(Vec::new()), ..render::service(state, api.scope(), &service, true) };
        transaction.put(service);
        Ok(CreateServiceResponse { service: Some(shown) })
    })
    .await
}

/// Members that Berth cannot honour yet are refused, never ignored.
fn check_served(request: &CreateServiceRequest) -> Result<(), Failure> {
    if request.scheduling_strategy.as_ref().is_some_and(|strategy| strategy.as_str() != "REPLICA") {
        return Err(Failure::unsupported("Berth serves schedulingStrategy REPLICA only, for now."));
    }
    let controller = request.deployment_controller.as_ref().and_then(|controller| controller.r#type.as_ref());
    if controller.is_some_and(|kind| kind.as_str() != "ECS") {
        return Err(Failure::unsupported("Berth serves deploymentController ECS only, for now."));
    }
    refuse_unserved(&[
        ("loadBalancers", filled(request.load_balancers.as_ref())),
        ("serviceRegistries", filled(request.service_registries.as_ref())),
        ("networkConfiguration", request.network_configuration.is_some()),
        ("serviceConnectConfiguration", request.service_connect_configuration.as_ref().is_some_and(|c| c.enabled == Some(true))),
        ("volumeConfigurations", filled(request.volume_configurations.as_ref())),
        ("vpcLatticeConfigurations", filled(request.vpc_lattice_configurations.as_ref())),
        ("gatewayConnectors", filled(request.gateway_connectors.as_ref())),
        ("platformVersion", request.platform_version.is_some()),
    ])
}
