//! `serviceRegistries` of CreateService and UpdateService: read and checked against Cloud Map and the task definition.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceRegistry.html>

use berth_model::discovery::{DiscoveryService, DiscoveryServiceId, RecordType};
use berth_model::service::{DeploymentController, Service};
use berth_model::task_definition::TaskDefinition;
use berth_shapes::ecs::ServiceRegistry;
use berth_store::State;

use crate::context::Api;
use crate::failure::Failure;

/// Checks the registries of a service that runs this definition.
pub(crate) fn check(api: &Api, state: &State, given: &[ServiceRegistry], definition: &TaskDefinition) -> Result<(), Failure> {
    match given {
        [] => Ok(()),
        [registry] => check_one(api, state, registry, definition),
        _ => Err(Failure::invalid("Multiple service registries for a service aren't supported: serviceRegistries")),
    }
}

/// Replaces a service's registries by those that a request gives, which an empty list removes, and checks what it has then.
pub(crate) fn settle(
    api: &Api,
    state: &State,
    service: &mut Service,
    given: Option<&Vec<ServiceRegistry>>,
    definition: Option<&TaskDefinition>,
) -> Result<(), Failure> {
    if let Some(given) = given {
        if service.controller == DeploymentController::External && !given.is_empty() {
            return Err(Failure::invalid("ServiceRegistries must be blank."));
        }
        service.settings.service_registries.clone_from(given);
    }
    match definition {
        Some(definition) => check(api, state, &service.settings.service_registries, definition),
        None => Ok(()),
    }
}

fn check_one(api: &Api, state: &State, registry: &ServiceRegistry, definition: &TaskDefinition) -> Result<(), Failure> {
    let arn = registry.registry_arn.as_deref().unwrap_or_default();
    if arn.is_empty() {
        return Err(Failure::invalid("The service registry ARN must be specified: serviceRegistries.registryArn"));
    }
    let id = api.scope().strip_cloud_map(arn).and_then(|rest| DiscoveryServiceId::parse(rest.strip_prefix("service/")?));
    let service = id.and_then(|id| state.discovery_service(&id)).ok_or_else(|| {
        let arn: String = arn.chars().take(256).collect();
        Failure::invalid(format!(
            "The service registry could not be found in AWS Cloud Map: serviceRegistries.registryArn. Registry: {arn}"
        ))
    })?;
    let refused = |text: &str| Err(Failure::invalid(format!("{text} Registry: {arn}")));
    if [registry.port, registry.container_port].into_iter().flatten().any(|port| !(1..=65_535).contains(&port)) {
        return refused("A port must be between 1 and 65535: serviceRegistries.");
    }
    if registry.port.is_some() && (registry.container_name.is_some() || registry.container_port.is_some()) {
        return refused(
            "Specify a value for either 'port' or the 'containerName' and 'containerPort' combination, but not both. Remove one and retry.",
        );
    }
    let mode = definition.document.network_mode.as_ref().map_or("bridge", |mode| mode.as_str());
    if mode == "none" {
        return refused("Service discovery isn't supported for task definitions with networkMode 'none'.");
    }
    check_records(service).or_else(refused)?;
    let has = |kind| service.dns.as_ref().is_some_and(|dns| dns.has(kind));
    if mode == "awsvpc" {
        // Found by API calls alone, a port is as good as any attribute.
        let is_needless = service.dns.is_some() && !has(RecordType::Srv);
        let member = [("port", registry.port.is_some()), ("containerName", registry.container_name.is_some())];
        let member = member.into_iter().chain([("containerPort", registry.container_port.is_some())]).rfind(|(_, is_given)| *is_given);
        if let Some((member, _)) = member.filter(|_| is_needless) {
            let text =
                format!("The values specified for serviceRegistries do not require a value for '{member}'. Remove the value and retry.");
            return refused(&text);
        }
        if has(RecordType::Srv) && member.is_none() {
            return refused(
                "A service registry with SRV records requires either 'port' or the 'containerName' and 'containerPort' combination.",
            );
        }
    } else {
        if registry.container_name.is_none() || registry.container_port.is_none() {
            return refused(
                "When specifying 'host' or 'bridge' for networkMode, values for 'containerName' and 'containerPort' must be specified from \
                 the task definition.",
            );
        }
        if service.dns.is_some() && !has(RecordType::Srv) {
            return refused("When specifying 'host' or 'bridge' for networkMode, the service registry must have SRV records.");
        }
    }
    check_container(registry, definition)
}

/// Records that a task can have.
fn check_records(service: &DiscoveryService) -> Result<(), &'static str> {
    let has = |kind| service.dns.as_ref().is_some_and(|dns| dns.has(kind));
    if has(RecordType::Cname) {
        return Err("A service registry with CNAME records isn't supported.");
    }
    if has(RecordType::Aaaa) {
        return Err("Berth's tasks have no IPv6 addresses that a service registry with AAAA records needs.");
    }
    Ok(())
}

/// The container and its port are the definition's.
fn check_container(registry: &ServiceRegistry, definition: &TaskDefinition) -> Result<(), Failure> {
    let (name, port) = match (registry.container_name.as_deref(), registry.container_port) {
        (None, None) => return Ok(()),
        (Some(name), Some(port)) => (name, port),
        _ => {
            let text = "'containerName' and 'containerPort' must be specified together: serviceRegistries";
            return Err(Failure::invalid(text));
        }
    };
    let mut containers = definition.document.container_definitions.iter().flatten();
    let Some(container) = containers.find(|container| container.name.as_deref() == Some(name)) else {
        let name: String = name.chars().take(255).collect();
        return Err(Failure::invalid(format!("The container {name} does not exist in the task definition.")));
    };
    if !container.port_mappings.iter().flatten().any(|mapping| mapping.container_port == Some(port)) {
        return Err(Failure::invalid(format!("The container {name} did not have a container port {port} defined.")));
    }
    Ok(())
}
