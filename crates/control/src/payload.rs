//! From task records to the tasks that agents are told of. Overrides are merged here: agents accept none but `command`.

use std::collections::BTreeMap;

use berth_acs::messages::{
    self as acs, Association, ContainerConfig, ContainerDependency, DesiredStatus, DockerConfig, HostConfig, HostVolume, LogConfig,
    MountPoint, PortMapping, Volume, VolumeFrom,
};
use berth_model::arn::Scope;
use berth_model::needs;
use berth_model::task::{Container, Task};
use berth_model::task_definition::TaskDefinition;
use berth_shapes::ecs;

const MIB: i64 = 1024 * 1024;

/// A task as its agent is told of it.
#[must_use]
pub fn render(scope: &Scope, task: &Task, definition: &TaskDefinition) -> acs::Task {
    let document = &definition.document;
    let overrides = task.overrides.as_deref();
    let task_cpu = overrides.and_then(|o| o.cpu.as_deref()).or(document.cpu.as_deref()).and_then(needs::parse_cpu);
    let task_memory = overrides.and_then(|o| o.memory.as_deref()).or(document.memory.as_deref()).and_then(needs::parse_memory);
    let defined = document.container_definitions.as_deref().unwrap_or_default();
    let network_mode = document.network_mode.as_ref().map_or("bridge", |mode| mode.as_str());
    let containers = task.containers.iter().filter_map(|record| {
        let definition = defined.iter().find(|d| d.name.as_deref() == Some(&*record.name))?;
        let own = overrides
            .and_then(|o| o.container_overrides.as_ref())
            .and_then(|list| list.iter().find(|o| o.name.as_deref() == Some(&*record.name)));
        Some(container(scope, task, record, definition, own, network_mode))
    });
    acs::Task {
        arn: scope.task(&task.cluster, task.id),
        task_cluster_arn: scope.cluster(&task.cluster),
        desired_status: desired(task),
        family: task.definition.family.to_string(),
        version: task.definition.revision.to_string(),
        task_definition_account_id: scope.account.to_string(),
        group: task.group.to_string(),
        service_name: task.service.as_ref().map(|membership| membership.service.to_string()).unwrap_or_default(),
        launch_type: task.launch_type.to_string(),
        network_mode: network_mode.to_owned(),
        cpu: task_cpu.map(|units| f64::from(units) / 1024.0),
        memory: task_memory.map(i64::from),
        pid_mode: document.pid_mode.as_ref().map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
        ipc_mode: document.ipc_mode.as_ref().map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
        volumes: document.volumes.iter().flatten().map(volume).collect(),
        associations: task.containers.iter().flat_map(gpus).collect(),
        containers: containers.collect(),
        ..Default::default()
    }
}

/// The GPUs that a container alone may use.
fn gpus(container: &Container) -> impl Iterator<Item = Association> {
    container.gpu_ids.iter().map(|id| Association {
        name: id.clone(),
        kind: "gpu".to_owned(),
        containers: vec![container.name.to_string()],
        content: None,
    })
}

/// A task's desired status in the agent's words.
#[must_use]
pub const fn desired(task: &Task) -> DesiredStatus {
    match task.desired_status {
        berth_model::task::DesiredStatus::Running => DesiredStatus::Running,
        berth_model::task::DesiredStatus::Stopped => DesiredStatus::Stopped,
    }
}

fn container(
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
    let memory_reservation = number(own.and_then(|o| o.memory_reservation), defined.memory_reservation) * MIB;
    acs::Container {
        name: record.name.to_string(),
        image: image(task, record, defined),
        essential: defined.essential != Some(false),
        cpu: number(own.and_then(|o| o.cpu), defined.cpu),
        memory: number(own.and_then(|o| o.memory), defined.memory),
        command: own.and_then(|o| o.command.clone()).or_else(|| defined.command.clone()).unwrap_or_default(),
        entry_point: defined.entry_point.clone().unwrap_or_default(),
        environment,
        links: defined.links.clone().unwrap_or_default(),
        port_mappings: defined.port_mappings.iter().flatten().map(port_mapping).collect(),
        mount_points: defined.mount_points.iter().flatten().map(mount_point).collect(),
        volumes_from: defined
            .volumes_from
            .iter()
            .flatten()
            .map(|from| VolumeFrom {
                source_container: from.source_container.clone().unwrap_or_default(),
                read_only: from.read_only == Some(true),
            })
            .collect(),
        depends_on: defined
            .depends_on
            .iter()
            .flatten()
            .map(|dependency| ContainerDependency {
                container_name: dependency.container_name.clone().unwrap_or_default(),
                condition: dependency.condition.as_ref().map(|condition| condition.as_str().to_owned()).unwrap_or_default(),
            })
            .collect(),
        start_timeout: number(None, defined.start_timeout),
        stop_timeout: number(None, defined.stop_timeout),
        container_arn: scope.container(&task.cluster, task.id, record.id),
        docker_config: Some(DockerConfig::render(&config(defined), &host_config(defined, network_mode, memory_reservation))),
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

fn pairs(list: Option<&[ecs::KeyValuePair]>) -> BTreeMap<String, String> {
    list.unwrap_or_default().iter().filter_map(|pair| Some((pair.name.clone()?, pair.value.clone().unwrap_or_default()))).collect()
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

/// Other kinds need capabilities that only agents with them announce; their volumes come with those agents.
fn volume(volume: &ecs::Volume) -> Volume {
    Volume {
        name: volume.name.clone().unwrap_or_default(),
        kind: "host".to_owned(),
        host: Some(HostVolume { source_path: volume.host.as_ref().and_then(|host| host.source_path.clone()).unwrap_or_default() }),
        ..Default::default()
    }
}

/// What travels in Docker's `Config`.
fn config(defined: &ecs::ContainerDefinition) -> ContainerConfig {
    ContainerConfig {
        user: defined.user.clone().unwrap_or_default(),
        working_dir: defined.working_directory.clone().unwrap_or_default(),
        hostname: defined.hostname.clone().unwrap_or_default(),
        labels: defined.docker_labels.clone().unwrap_or_default(),
        tty: defined.pseudo_terminal == Some(true),
        open_stdin: defined.interactive == Some(true),
        network_disabled: defined.disable_networking == Some(true),
        healthcheck: None,
    }
}

/// What travels in Docker's `HostConfig`.
fn host_config(defined: &ecs::ContainerDefinition, network_mode: &str, memory_reservation: i64) -> HostConfig {
    let linux = defined.linux_parameters.as_ref();
    let capabilities = linux.and_then(|linux| linux.capabilities.as_ref());
    let tmpfs = linux.and_then(|linux| linux.tmpfs.as_deref()).unwrap_or_default().iter().filter_map(|mount| {
        let mut options = mount.mount_options.clone().unwrap_or_default();
        options.push(format!("size={}m", mount.size.unwrap_or(0)));
        Some((mount.container_path.clone()?, options.join(",")))
    });
    HostConfig {
        network_mode: network_mode.to_owned(),
        log_config: defined.log_configuration.as_ref().map(|log| LogConfig {
            kind: log.log_driver.as_ref().map(|driver| driver.as_str().to_owned()).unwrap_or_default(),
            config: log.options.clone().unwrap_or_default(),
        }),
        privileged: defined.privileged == Some(true),
        readonly_rootfs: defined.readonly_root_filesystem == Some(true),
        cap_add: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
        cap_drop: capabilities.and_then(|c| c.drop.clone()).unwrap_or_default(),
        init: linux.and_then(|linux| linux.init_process_enabled).filter(|enabled| *enabled),
        shm_size: linux.and_then(|linux| linux.shared_memory_size).map_or(0, |mib| i64::from(mib) * MIB),
        tmpfs: tmpfs.collect(),
        sysctls: defined
            .system_controls
            .iter()
            .flatten()
            .filter_map(|control| Some((control.namespace.clone()?, control.value.clone()?)))
            .collect(),
        ulimits: defined
            .ulimits
            .iter()
            .flatten()
            .map(|limit| acs::Ulimit {
                name: limit.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default(),
                soft: i64::from(limit.soft_limit.unwrap_or(0)),
                hard: i64::from(limit.hard_limit.unwrap_or(0)),
            })
            .collect(),
        dns: defined.dns_servers.clone().unwrap_or_default(),
        dns_search: defined.dns_search_domains.clone().unwrap_or_default(),
        extra_hosts: defined
            .extra_hosts
            .iter()
            .flatten()
            .map(|host| format!("{}:{}", host.hostname.as_deref().unwrap_or_default(), host.ip_address.as_deref().unwrap_or_default()))
            .collect(),
        security_opt: defined.docker_security_options.clone().unwrap_or_default(),
        memory_reservation,
        ..Default::default()
    }
}
