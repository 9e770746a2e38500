//! One container as its agent is told of it: what has a field of its own in the protocol. The rest travels in Docker's words
//! ([`super::docker`]).

use std::collections::BTreeMap;

use berth_acs::messages::{
    self as acs, ContainerDependency, DockerConfig, EnvironmentFile, FirelensConfiguration, MountPoint, PortMapping, RestartPolicy,
    VolumeFrom,
};
use berth_model::arn::Scope;
use berth_model::task::{Container, Task};
use berth_shapes::ecs;

use super::{docker, fetched};

/// For how many seconds a container must have run to be restarted, where the definition says nothing.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerRestartPolicy.html>
const RESTART_ATTEMPT_PERIOD: i32 = 300;

/// A container of a task, with what its RunTask overrides.
pub(super) fn render(
    scope: &Scope,
    task: &Task,
    record: &Container,
    defined: &ecs::ContainerDefinition,
    own: Option<&ecs::ContainerOverride>,
    network_mode: &str,
) -> acs::Container {
    let number = |own: Option<i32>, defined: Option<i32>| i64::from(own.or(defined).unwrap_or(0));
    let mut environment: BTreeMap<String, String> = pairs(defined.environment.as_deref());
    environment.extend(pairs(own.and_then(|o| o.environment.as_deref())));
    // Files of an override come instead of the definition's, unlike its variables.
    let files = own.and_then(|o| o.environment_files.as_deref()).or(defined.environment_files.as_deref());
    let sizes = docker::Sizes {
        memory: number(own.and_then(|o| o.memory), defined.memory),
        memory_reservation: number(own.and_then(|o| o.memory_reservation), defined.memory_reservation),
    };
    let has_check = defined.health_check.as_ref().is_some_and(docker::is_check);
    let config = docker::config(defined);
    let host_config = docker::host_config(defined, network_mode, sizes);
    acs::Container {
        name: record.name.to_string(),
        image: image(task, record, defined),
        essential: defined.essential != Some(false),
        cpu: number(own.and_then(|o| o.cpu), defined.cpu),
        memory: sizes.memory,
        command: own.and_then(|o| o.command.clone()).or_else(|| defined.command.clone()).unwrap_or_default(),
        entry_point: defined.entry_point.clone().unwrap_or_default(),
        environment,
        environment_files: files.unwrap_or_default().iter().map(environment_file).collect(),
        links: defined.links.clone().unwrap_or_default(),
        port_mappings: defined.port_mappings.iter().flatten().map(port_mapping).collect(),
        mount_points: defined.mount_points.iter().flatten().map(mount_point).collect(),
        volumes_from: defined.volumes_from.iter().flatten().map(volume_from).collect(),
        depends_on: defined.depends_on.iter().flatten().map(dependency).collect(),
        start_timeout: number(None, defined.start_timeout),
        stop_timeout: number(None, defined.stop_timeout),
        // Without this word the official agent keeps what it learns of a container's health to itself, and with it it demands a check.
        health_check_type: if has_check { "docker".to_owned() } else { String::new() },
        registry_authentication: fetched::registry_login(scope, &record.image, defined.repository_credentials.as_ref()),
        secrets: fetched::secrets(scope, defined),
        firelens_configuration: defined.firelens_configuration.as_ref().map(firelens),
        restart_policy: defined.restart_policy.as_ref().map(restart_policy),
        container_arn: scope.container(&task.cluster, task.id, record.id),
        credential_specs: defined.credential_specs.clone().unwrap_or_default(),
        docker_config: Some(DockerConfig {
            version: docker::api_version(&config, &host_config).to_owned(),
            ..DockerConfig::render(&config, &host_config)
        }),
        ..Default::default()
    }
}

/// What the agent is to run: of a service's task the very image that the revision's first task ran, once that is known. A user is shown
/// the tag all the same.
fn image(task: &Task, record: &Container, defined: &ecs::ContainerDefinition) -> String {
    let is_pinned = defined.version_consistency.as_ref().is_none_or(|consistency| consistency.as_str() != "disabled");
    match &record.image_digest {
        Some(digest) if task.service.is_some() && is_pinned && !record.image.contains('@') => {
            let name = record.image.rfind(':').filter(|colon| !record.image[*colon..].contains('/'));
            format!("{}@{digest}", &record.image[..name.unwrap_or(record.image.len())])
        }
        _ => record.image.to_string(),
    }
}

/// Names and values as a map; of a name that comes twice, the last.
pub(super) fn pairs(list: Option<&[ecs::KeyValuePair]>) -> BTreeMap<String, String> {
    list.unwrap_or_default().iter().filter_map(|pair| Some((pair.name.clone()?, pair.value.clone().unwrap_or_default()))).collect()
}

fn environment_file(file: &ecs::EnvironmentFile) -> EnvironmentFile {
    EnvironmentFile {
        value: file.value.clone().unwrap_or_default(),
        kind: file.r#type.as_ref().map_or("s3", |kind| kind.as_str()).to_owned(),
    }
}

fn port_mapping(mapping: &ecs::PortMapping) -> PortMapping {
    PortMapping {
        container_port: i64::from(mapping.container_port.unwrap_or(0)),
        host_port: i64::from(mapping.host_port.unwrap_or(0)),
        protocol: mapping.protocol.as_ref().map_or("tcp", |protocol| protocol.as_str()).to_owned(),
        container_port_range: mapping.container_port_range.clone().unwrap_or_default(),
    }
}

fn mount_point(mount: &ecs::MountPoint) -> MountPoint {
    MountPoint {
        source_volume: mount.source_volume.clone().unwrap_or_default(),
        container_path: mount.container_path.clone().unwrap_or_default(),
        read_only: mount.read_only == Some(true),
    }
}

fn volume_from(from: &ecs::VolumeFrom) -> VolumeFrom {
    VolumeFrom { source_container: from.source_container.clone().unwrap_or_default(), read_only: from.read_only == Some(true) }
}

fn dependency(dependency: &ecs::ContainerDependency) -> ContainerDependency {
    ContainerDependency {
        container_name: dependency.container_name.clone().unwrap_or_default(),
        condition: dependency.condition.as_ref().map(|condition| condition.as_str().to_owned()).unwrap_or_default(),
    }
}

fn firelens(defined: &ecs::FirelensConfiguration) -> FirelensConfiguration {
    FirelensConfiguration {
        kind: defined.r#type.as_ref().map_or("fluentbit", |kind| kind.as_str()).to_owned(),
        options: defined.options.clone().unwrap_or_default(),
    }
}

fn restart_policy(policy: &ecs::ContainerRestartPolicy) -> RestartPolicy {
    RestartPolicy {
        enabled: policy.enabled == Some(true),
        ignored_exit_codes: policy.ignored_exit_codes.clone().unwrap_or_default(),
        restart_attempt_period: i64::from(policy.restart_attempt_period.unwrap_or(RESTART_ATTEMPT_PERIOD)),
    }
}
