//! `RegisterTaskDefinition`: checks the document, fills in ECS's defaults, gives the next revision.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::container_instance::MAX_GPUS;
use berth_model::ids::{DefinitionId, Family};
use berth_model::needs::{self, TaskNeeds};
use berth_model::record::Key;
use berth_model::tags::{Tags, parse_tags, render_tags};
use berth_model::task_definition::{FamilyCounter, TaskDefinition, TaskDefinitionStatus};
use berth_shapes::ecs::{self, RegisterTaskDefinitionRequest, RegisterTaskDefinitionResponse};
use berth_store::{State, Transaction};

use super::{fargate, placement, port_mappings, task_volumes};
use crate::context::Api;
use crate::failure::Failure;

/// Largest document, as JSON. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
pub(crate) const MAX_DOCUMENT: usize = 64 * 1024;
/// Most containers of a task.
pub(crate) const MAX_CONTAINERS: usize = 10;
/// Docker's smallest memory limit, in MiB.
const MIN_MEMORY: i32 = 6;

pub(crate) async fn run(api: &Api, request: RegisterTaskDefinitionRequest) -> Result<RegisterTaskDefinitionResponse, Failure> {
    let draft = Draft::checked(request)?;
    api.change(|state, transaction| {
        let definition = draft.register(api, state, transaction);
        Ok(RegisterTaskDefinitionResponse {
            task_definition: Some(definition.render(api.scope())),
            tags: (!draft.tags.is_empty()).then(|| render_tags(&draft.tags)),
        })
    })
    .await
}

/// A definition that is in order and has no revision yet.
#[derive(Clone)]
pub(crate) struct Draft {
    family: Family,
    tags: Tags,
    document: ecs::TaskDefinition,
    needs: TaskNeeds,
}

impl Draft {
    /// The draft of a request, or the first thing wrong with that.
    pub(crate) fn checked(request: RegisterTaskDefinitionRequest) -> Result<Self, Failure> {
        let family = request
            .family
            .as_deref()
            .filter(|family| !family.is_empty())
            .ok_or_else(|| Failure::client("Family should not be null or empty."))?;
        let family = Family::parse(family).ok_or_else(|| {
            Failure::client("Family contains invalid characters. Up to 255 letters (uppercase and lowercase), numbers, hyphens, and underscores are allowed.")
        })?;
        let tags = parse_tags(request.tags.as_deref())?;
        let mut document = document(&family, request)?;
        let needs = TaskNeeds {
            demand: needs::demand(&document, None),
            task_cpu: document.cpu.as_deref().and_then(needs::parse_cpu),
            task_memory: document.memory.as_deref().and_then(needs::parse_memory),
            attributes: needs::required_attributes(&document),
        };
        let size = serde_json::to_vec(&document).map_or(0, |json| json.len());
        if size > MAX_DOCUMENT {
            return Err(Failure::client(format!("Actual length: '{size}'. Max allowed length is '{MAX_DOCUMENT}' bytes.")));
        }
        document.requires_attributes =
            Some(needs.attributes.iter().map(|name| ecs::Attribute { name: Some(name.clone()), ..Default::default() }).collect());
        document.compatibilities = Some(compatibilities(&document));
        Ok(Self { family, tags, document, needs })
    }

    /// Adds its family's next revision to a transaction.
    pub(crate) fn register(&self, api: &Api, state: &State, transaction: &mut Transaction) -> TaskDefinition {
        let counter = state.family(&self.family);
        let key = Key::Family(self.family.clone());
        match counter {
            Some(known) => transaction.expect(key, known.modified),
            None => transaction.expect_absent(key),
        };
        let revision = counter.map_or(0, |known| known.last_revision) + 1;
        let definition = TaskDefinition {
            id: DefinitionId { family: self.family.clone(), revision },
            status: TaskDefinitionStatus::Active,
            registered_at: api.now(),
            registered_by: api.scope().root_principal(),
            deregistered_at: None,
            delete_requested_at: None,
            tags: self.tags.clone(),
            document: self.document.clone(),
            needs: self.needs.clone(),
        };
        transaction.put(FamilyCounter { family: self.family.clone(), last_revision: revision });
        transaction.put(definition.clone());
        definition
    }
}

/// Which launch types could run it, in ECS's order.
fn compatibilities(document: &ecs::TaskDefinition) -> Vec<ecs::Compatibility> {
    let mode = document.network_mode.as_ref().map(ecs::NetworkMode::as_str);
    let asked = document.requires_compatibilities.iter().flatten().any(|c| c.as_str() == "FARGATE");
    if mode == Some("awsvpc") {
        let mut list = vec!["EC2".into()];
        if asked {
            list.push("FARGATE".into());
        }
        return list;
    }
    vec!["EXTERNAL".into(), "EC2".into()]
}

/// The document with ECS's defaults, or the first thing wrong with it.
fn document(family: &Family, request: RegisterTaskDefinitionRequest) -> Result<ecs::TaskDefinition, Failure> {
    let mut containers = request.container_definitions.unwrap_or_default();
    if containers.is_empty() {
        return Err(Failure::client("Container list cannot be empty."));
    }
    if containers.len() > MAX_CONTAINERS {
        return Err(Failure::client(format!("A task definition can have at most {MAX_CONTAINERS} containers.")));
    }
    let mode = request.network_mode.as_ref().map_or("bridge", ecs::NetworkMode::as_str).to_owned();
    let cpu = task_size("cpu", request.cpu.as_deref(), needs::parse_cpu)?;
    let memory = task_size("memory", request.memory.as_deref(), needs::parse_memory)?;
    for container in &mut containers {
        check_container(container, memory.is_some())?;
        port_mappings::check(container, &mode)?;
        if mode == "awsvpc" {
            check_names(container)?;
        }
        fill_in(container, &mode);
    }
    check_together(&containers, request.volumes.as_deref().unwrap_or_default())?;
    task_volumes::check_volumes(request.volumes.as_deref().unwrap_or_default())?;
    task_volumes::check_ephemeral(request.ephemeral_storage.as_ref())?;
    let has_links = containers.iter().any(|container| container.links.as_ref().is_some_and(|links| !links.is_empty()));
    if has_links && mode != "bridge" {
        return Err(Failure::client("Links are not supported when networkMode is not bridge."));
    }
    let constraints = request.placement_constraints.unwrap_or_default();
    placement::check_definition(&constraints)?;
    if request.trusted_execution_configuration.is_some() {
        return Err(Failure::client(
            "Berth does not serve trusted execution, which is of Managed Instances: trustedExecutionConfiguration",
        ));
    }
    // That ECS asks for the role is documented ("Pass sensitive data to a container"); the words are not, and these are what users quote.
    let has_secrets = containers.iter().any(|container| container.secrets.as_ref().is_some_and(|secrets| !secrets.is_empty()));
    if has_secrets && request.execution_role_arn.as_deref().unwrap_or_default().is_empty() {
        return Err(Failure::client("When you are specifying container secrets, you must also specify a value for 'executionRoleArn'."));
    }
    let document = ecs::TaskDefinition {
        family: Some(family.to_string()),
        container_definitions: Some(containers),
        task_role_arn: request.task_role_arn,
        execution_role_arn: request.execution_role_arn,
        network_mode: request.network_mode,
        volumes: Some(request.volumes.unwrap_or_default()),
        placement_constraints: Some(constraints),
        runtime_platform: request.runtime_platform,
        requires_compatibilities: request.requires_compatibilities,
        cpu,
        memory,
        inference_accelerators: request.inference_accelerators,
        pid_mode: request.pid_mode,
        ipc_mode: request.ipc_mode,
        proxy_configuration: request.proxy_configuration,
        ephemeral_storage: request.ephemeral_storage,
        enable_fault_injection: request.enable_fault_injection,
        ..Default::default()
    };
    fargate::check_definition(&document)?;
    Ok(document)
}

/// Task-level sizes are kept as integer texts, whatever notation they came in.
pub(crate) fn task_size(member: &str, text: Option<&str>, parse: fn(&str) -> Option<u32>) -> Result<Option<String>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match parse(text).filter(|size| *size > 0) {
        Some(size) => Ok(Some(size.to_string())),
        None => Err(Failure::client(format!(
            "Invalid '{member}' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."
        ))),
    }
}

pub(crate) fn check_container(container: &ecs::ContainerDefinition, has_task_memory: bool) -> Result<(), Failure> {
    let name = container.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(Failure::client("Container.name should not be null or empty."));
    }
    if name.len() > 255 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(Failure::client(format!(
            "Container.name contains invalid characters: '{}'",
            name.chars().take(255).collect::<String>()
        )));
    }
    if container.image.as_deref().unwrap_or_default().is_empty() {
        return Err(Failure::client("Container.image should not be null or empty."));
    }
    let setting = |problem: String| Failure::client(format!("Invalid setting for container '{name}'. {problem}"));
    if container.cpu.is_some_and(|cpu| cpu < 0) {
        return Err(setting("'cpu' must not be negative.".to_owned()));
    }
    if !has_task_memory && container.memory.is_none() && container.memory_reservation.is_none() {
        return Err(setting("At least one of 'memory' or 'memoryReservation' must be specified.".to_owned()));
    }
    for (member, value) in [("memory", container.memory), ("memoryReservation", container.memory_reservation)] {
        if value.is_some_and(|value| value < MIN_MEMORY) {
            return Err(setting(format!("'{member}' must be at least {MIN_MEMORY} MiB.")));
        }
    }
    if let (Some(memory), Some(reservation)) = (container.memory, container.memory_reservation)
        && reservation > memory
    {
        return Err(setting("'memoryReservation' must not be greater than 'memory'.".to_owned()));
    }
    for pair in container.environment.iter().flatten() {
        if pair.name.as_deref().unwrap_or_default().is_empty() {
            return Err(setting("Environment variable name must not be null or empty.".to_owned()));
        }
    }
    for one in container.resource_requirements.iter().flatten().filter(|one| one.r#type.as_ref().is_some_and(|kind| kind.as_str() == "GPU"))
    {
        let value = one.value.as_deref().unwrap_or_default();
        if !value.parse::<usize>().is_ok_and(|count| (1..=MAX_GPUS).contains(&count)) {
            return Err(setting(format!(
                "'resourceRequirements': the value of a GPU must be a number from 1 to {MAX_GPUS}, not '{value}'."
            )));
        }
    }
    if shares_nothing(container.resource_requirements.as_deref()) {
        return Err(setting("'sharingStrategy' of a resource requirement must have exactly one member.".to_owned()));
    }
    for limit in container.ulimits.iter().flatten() {
        if limit.soft_limit > limit.hard_limit {
            return Err(setting("'softLimit' of a ulimit must not be greater than its 'hardLimit'.".to_owned()));
        }
    }
    Ok(())
}

/// Whether a `sharingStrategy` is empty: it is a union, and no SDK could read it back.
pub(crate) fn shares_nothing(requirements: Option<&[ecs::ResourceRequirement]>) -> bool {
    let strategies = requirements.unwrap_or_default().iter().filter_map(|requirement| requirement.sharing_strategy.as_ref());
    strategies.into_iter().any(|strategy| strategy.nvidia_mps.is_none())
}

/// What ECS shows where the user said nothing.
fn fill_in(container: &mut ecs::ContainerDefinition, mode: &str) {
    container.cpu.get_or_insert(0);
    container.essential.get_or_insert(true);
    container.environment.get_or_insert_with(Vec::new);
    container.mount_points.get_or_insert_with(Vec::new);
    container.volumes_from.get_or_insert_with(Vec::new);
    container.system_controls.get_or_insert_with(Vec::new);
    for mapping in container.port_mappings.get_or_insert_with(Vec::new) {
        mapping.protocol.get_or_insert_with(|| "tcp".into());
        if mapping.container_port_range.is_none() {
            let same = if mode == "bridge" { Some(0) } else { mapping.container_port };
            if mapping.host_port.is_none_or(|port| port == 0) {
                mapping.host_port = same;
            }
        }
    }
    if let Some(check) = &mut container.health_check {
        check.interval.get_or_insert(30);
        check.timeout.get_or_insert(5);
        check.retries.get_or_insert(3);
    }
}

/// A task with an interface of its own has its names from that.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>
fn check_names(container: &ecs::ContainerDefinition) -> Result<(), Failure> {
    let given = [
        ("hostname is", container.hostname.as_ref().is_some_and(|name| !name.is_empty())),
        ("dnsServers are", container.dns_servers.as_ref().is_some_and(|list| !list.is_empty())),
        ("dnsSearchDomains are", container.dns_search_domains.as_ref().is_some_and(|list| !list.is_empty())),
        ("extraHosts are", container.extra_hosts.as_ref().is_some_and(|list| !list.is_empty())),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((what, _)) => Err(Failure::client(format!("{what} not supported on container when networkMode=awsvpc."))),
        None => Ok(()),
    }
}

/// What containers say of each other, of volumes and of the machine's ports.
pub(crate) fn check_together(containers: &[ecs::ContainerDefinition], volumes: &[ecs::Volume]) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for container in containers {
        let name = container.name.as_deref().unwrap_or_default();
        if !names.insert(name) {
            return Err(Failure::client(format!("Container names must be unique within a task definition: '{name}'")));
        }
    }
    if !containers.iter().any(|container| container.essential != Some(false)) {
        return Err(Failure::client("Invalid setting for container. At least one container must be essential."));
    }
    let mut host_ports = BTreeSet::new();
    let volume_names: BTreeSet<_> = volumes.iter().filter_map(|volume| volume.name.as_deref()).collect();
    for container in containers {
        let name = container.name.as_deref().unwrap_or_default();
        for mapping in container.port_mappings.iter().flatten() {
            let port = mapping.host_port.unwrap_or(0);
            let protocol = mapping.protocol.as_ref().map_or("tcp", ecs::TransportProtocol::as_str);
            if port != 0 && !host_ports.insert((port, protocol.to_owned())) {
                return Err(Failure::client(format!("Host port {port}/{protocol} is used more than once: container '{name}'")));
            }
        }
        for mount in container.mount_points.iter().flatten() {
            let volume = mount.source_volume.as_deref().unwrap_or_default();
            if !volume_names.contains(volume) {
                return Err(Failure::client(format!("Unknown volume '{volume}'.")));
            }
            if mount.container_path.as_deref().is_none_or(|path| !path.starts_with('/')) {
                return Err(Failure::client(format!("containerPath of a mount point must be an absolute path: container '{name}'")));
            }
        }
        for from in container.volumes_from.iter().flatten() {
            let source = from.source_container.as_deref().unwrap_or_default();
            if !names.contains(source) {
                return Err(Failure::client(format!("Unknown container '{source}' in volumesFrom of container '{name}'.")));
            }
        }
    }
    check_dependencies(containers, &names)
}

/// Every dependency names another container of the task, and they have an order.
fn check_dependencies(containers: &[ecs::ContainerDefinition], names: &BTreeSet<&str>) -> Result<(), Failure> {
    let mut waits_for: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in containers {
        let name = container.name.as_deref().unwrap_or_default();
        let all = waits_for.entry(name).or_default();
        for dependency in container.depends_on.iter().flatten() {
            let on = dependency.container_name.as_deref().unwrap_or_default();
            if on == name || !names.contains(on) {
                return Err(Failure::client(format!("Invalid dependsOn of container '{name}': unknown container '{on}'.")));
            }
            all.insert(on);
        }
    }
    // Takes away what waits for nothing until nothing is left; what remains waits in a circle.
    while let Some(free) = waits_for.iter().find(|(_, waits)| waits.is_empty()).map(|(name, _)| *name) {
        waits_for.remove(free);
        for waits in waits_for.values_mut() {
            waits.remove(free);
        }
    }
    match waits_for.keys().next() {
        None => Ok(()),
        Some(name) => Err(Failure::client(format!("Cyclic dependency between containers: dependsOn of container '{name}'."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(json: serde_json::Value) -> Result<ecs::TaskDefinition, String> {
        let request: RegisterTaskDefinitionRequest = serde_json::from_value(json).unwrap();
        document(&Family::parse("f").unwrap(), request).map_err(|failure| failure.message)
    }

    fn one(container: serde_json::Value) -> serde_json::Value {
        serde_json::json!({"family": "f", "containerDefinitions": [container]})
    }

    #[test]
    fn defaults_are_filled_in_as_ecs_shows_them() {
        let document = register(one(serde_json::json!({
            "name": "web", "image": "hello", "memory": 64, "portMappings": [{"containerPort": 80}]
        })))
        .unwrap();
        let container = &document.container_definitions.unwrap()[0];
        assert_eq!((container.cpu, container.essential), (Some(0), Some(true)));
        let mapping = &container.port_mappings.as_ref().unwrap()[0];
        assert_eq!((mapping.host_port, mapping.protocol.as_ref().map(|p| p.as_str())), (Some(0), Some("tcp")));
        assert_eq!(container.environment, Some(Vec::new()));
    }

    #[test]
    fn host_mode_shows_the_container_port_as_host_port() {
        let mut request = one(serde_json::json!({"name": "a", "image": "i", "memory": 64, "portMappings": [{"containerPort": 80}]}));
        request["networkMode"] = "host".into();
        let document = register(request).unwrap();
        assert_eq!(document.container_definitions.unwrap()[0].port_mappings.as_ref().unwrap()[0].host_port, Some(80));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (serde_json::json!({"family": "f", "containerDefinitions": []}), "Container list"),
            (one(serde_json::json!({"image": "i", "memory": 64})), "Container.name"),
            (one(serde_json::json!({"name": "a b", "image": "i", "memory": 64})), "Container.name"),
            (one(serde_json::json!({"name": "a", "memory": 64})), "Container.image"),
            (one(serde_json::json!({"name": "a", "image": "i"})), "'memory' or 'memoryReservation'"),
            (one(serde_json::json!({"name": "a", "image": "i", "memory": 3})), "at least 6"),
            (one(serde_json::json!({"name": "a", "image": "i", "memory": 64, "memoryReservation": 65})), "memoryReservation"),
            (
                one(serde_json::json!({"name": "a", "image": "i", "memory": 64, "portMappings": [{"containerPort": 70000}]})),
                "containerPort",
            ),
            (one(serde_json::json!({"name": "a", "image": "i", "memory": 64, "essential": false})), "essential"),
            (
                one(
                    serde_json::json!({"name": "a", "image": "i", "memory": 64, "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]}),
                ),
                "Unknown volume 'v'",
            ),
            (
                one(
                    serde_json::json!({"name": "a", "image": "i", "memory": 64, "dependsOn": [{"containerName": "b", "condition": "START"}]}),
                ),
                "unknown container 'b'",
            ),
        ];
        for (request, named) in cases {
            let message = register(request.clone()).unwrap_err();
            assert!(message.contains(named), "{request}: {message}");
        }
    }

    #[test]
    fn dependencies_in_a_circle_are_refused() {
        let container = |name: &str, on: &str| serde_json::json!({"name": name, "image": "i", "memory": 64, "dependsOn": [{"containerName": on, "condition": "START"}]});
        let request = serde_json::json!({"family": "f", "containerDefinitions": [container("a", "b"), container("b", "a")]});
        assert!(register(request).unwrap_err().contains("Cyclic"));
    }
}
