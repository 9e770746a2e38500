//! From records to the shapes of answers.

use berth_model::arn::Scope;
use berth_model::cluster::Cluster;
use berth_model::container_instance::{ContainerInstance, FARGATE, Resources};
use berth_model::fargate;
use berth_model::ids::{ClusterName, DeploymentId, uuid};
use berth_model::lifecycle;
use berth_model::needs;
use berth_model::service::{Deployment, DeploymentController, Service};
use berth_model::tags::render_tags;
use berth_model::task::{Container, LaunchType, NetworkBinding, Task, TaskStatus};
use berth_model::task_definition::TaskDefinition;
use berth_model::task_interface::{AwsvpcConfiguration, TaskInterface};
use berth_model::time::UnixMillis;
use berth_shapes::ecs;
use berth_store::{Entry, State, Tally};

use super::{capacity, capacity_providers, service_history, task_sets};

/// Counts are `i32` on the wire.
pub(crate) fn count(number: usize) -> Option<i32> {
    Some(i32::try_from(number).unwrap_or(i32::MAX))
}

fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// `failures[]` with reason MISSING.
pub(crate) fn missing(arn: String) -> ecs::Failure {
    failure(arn, "MISSING")
}

/// An item of `failures[]`.
pub(crate) fn failure(arn: String, reason: &str) -> ecs::Failure {
    ecs::Failure { arn: Some(arn), reason: Some(reason.to_owned()), detail: None }
}

/// A cluster; `include` holds the optional parts asked for.
pub(crate) fn cluster(state: &State, scope: &Scope, cluster: &Cluster, include: &[&str]) -> ecs::Cluster {
    let index = state.index(&cluster.name);
    let has = |part: &str| include.contains(&part);
    let has_providers = !cluster.capacity_providers.is_empty();
    let active_instances = state
        .instances_of(&cluster.name)
        .filter(|instance| instance.status != berth_model::container_instance::ContainerInstanceStatus::Inactive)
        .count();
    let active_services =
        state.services_of(&cluster.name).filter(|service| service.status == berth_model::service::ServiceStatus::Active).count()
            + state.express_services_of(&cluster.name).filter(|s| s.status == berth_model::service::ServiceStatus::Active).count();
    ecs::Cluster {
        cluster_arn: Some(scope.cluster(&cluster.name)),
        cluster_name: Some(cluster.name.to_string()),
        status: Some(cluster.status.to_string()),
        registered_container_instances_count: count(active_instances),
        running_tasks_count: count(index.map_or(0, |i| i.running_tasks)),
        pending_tasks_count: count(index.map_or(0, |i| i.pending_tasks)),
        active_services_count: count(active_services),
        statistics: Some(if has("STATISTICS") { statistics(state, &cluster.name) } else { Vec::new() }),
        tags: Some(if has("TAGS") { render_tags(&cluster.tags) } else { Vec::new() }),
        settings: Some(if has("SETTINGS") { cluster.settings.clone() } else { Vec::new() }),
        configuration: if has("CONFIGURATIONS") { cluster.configuration.clone() } else { None },
        capacity_providers: Some(cluster.capacity_providers.clone()),
        default_capacity_provider_strategy: Some(cluster.default_capacity_provider_strategy.clone()),
        service_connect_defaults: cluster.service_connect_defaults.clone(),
        attachments: Some(if has("ATTACHMENTS") { capacity_providers::attachments(state, scope, cluster) } else { Vec::new() }),
        attachments_status: has_providers.then(|| "UPDATE_COMPLETE".to_owned()).filter(|_| has("ATTACHMENTS")),
    }
}

/// `statistics`: tasks and services by launch type, in ECS's order.
fn statistics(state: &State, cluster: &ClusterName) -> Vec<ecs::KeyValuePair> {
    use berth_model::service::ServiceStatus;
    let tasks = |launch: LaunchType, running: bool| {
        let index = state.index(cluster);
        let ids = index.into_iter().flat_map(|i| i.desired_running.iter().chain(&i.desired_stopped));
        ids.filter_map(|id| state.task(*id))
            .filter(|task| task.launch_type == launch)
            .filter(|task| if running { task.last_status == TaskStatus::Running } else { task.last_status < TaskStatus::Running })
            .count()
    };
    let services = |launch: LaunchType, status: ServiceStatus| {
        let express = state.express_services_of(cluster).filter(|service| launch == LaunchType::Fargate && service.status == status);
        state.services_of(cluster).filter(|service| service.launch_type == launch && service.status == status).count() + express.count()
    };
    let mut list = Vec::new();
    let mut add = |name: &str, value: usize| {
        list.push(ecs::KeyValuePair { name: Some(name.to_owned()), value: Some(value.to_string()) });
    };
    for (launch, suffix) in [(LaunchType::Ec2, "EC2"), (LaunchType::Fargate, "Fargate"), (LaunchType::External, "External")] {
        add(&format!("running{suffix}TasksCount"), tasks(launch, true));
        add(&format!("pending{suffix}TasksCount"), tasks(launch, false));
        add(&format!("active{suffix}ServiceCount"), services(launch, ServiceStatus::Active));
        add(&format!("draining{suffix}ServiceCount"), services(launch, ServiceStatus::Draining));
    }
    list
}

/// A task.
pub(crate) fn task(state: &State, scope: &Scope, entry: &Entry<Task>, with_tags: bool) -> ecs::Task {
    let task = &*entry.value;
    let definition = state.definition(&task.definition);
    let instance = state.instance(task.container_instance);
    let connectivity = connectivity(task, instance.map(|instance| &*instance.value));
    let checked = |name: &str| definition.is_some_and(|d| is_checked_essential(d, name));
    let document = definition.map(|d| &d.document);
    let size = |own: Option<&String>, defined: Option<&String>, parse: Parse| own.or(defined).map(|text| size(text, parse));
    let overrides = task.overrides.as_deref();
    let is_fargate = task.launch_type == LaunchType::Fargate;
    let storage = number(fargate::storage_gib(task, document));
    ecs::Task {
        attachments: Some(task.interface.iter().map(|interface| interface.to_wire()).collect()),
        attributes: Some(attribute_list(definition.map(|d| &*d.value))),
        availability_zone: task.availability_zone.as_deref().map(str::to_owned),
        capacity_provider_name: task.capacity_provider.as_ref().map(ToString::to_string),
        cluster_arn: Some(scope.cluster(&task.cluster)),
        connectivity: connectivity.map(Into::into),
        connectivity_at: task.connected_at.map(UnixMillis::to_wire),
        container_instance_arn: (!is_fargate).then(|| scope.container_instance(&task.cluster, task.container_instance)),
        containers: Some(task.containers.iter().map(|c| container(scope, task, c, definition.map(|d| &*d.value))).collect()),
        cpu: Some(
            size(overrides.and_then(|o| o.cpu.as_ref()), document.and_then(|d| d.cpu.as_ref()), needs::parse_cpu)
                .unwrap_or_else(|| task.demand.cpu.to_string()),
        ),
        memory: Some(
            size(overrides.and_then(|o| o.memory.as_ref()), document.and_then(|d| d.memory.as_ref()), needs::parse_memory)
                .unwrap_or_else(|| task.demand.memory.to_string()),
        ),
        created_at: Some(task.created_at.to_wire()),
        desired_status: Some(task.desired_status.to_string()),
        ephemeral_storage: is_fargate.then_some(ecs::EphemeralStorage { size_in_gib: Some(storage) }),
        fargate_ephemeral_storage: is_fargate.then(|| ecs::TaskEphemeralStorage { size_in_gib: Some(storage), ..Default::default() }),
        platform_version: platform_version(task.launch_type),
        platform_family: platform_family(task.launch_type),
        enable_execute_command: Some(task.enable_execute_command),
        execution_stopped_at: task.execution_stopped_at.map(UnixMillis::to_wire),
        group: Some(task.group.to_string()),
        health_status: Some(lifecycle::health(task, checked).as_str().into()),
        last_status: Some(task.last_status.to_string()),
        launch_type: Some(task.launch_type.as_str().into()),
        overrides: Some(task_overrides(task)),
        pull_started_at: task.pull_started_at.map(UnixMillis::to_wire),
        pull_stopped_at: task.pull_stopped_at.map(UnixMillis::to_wire),
        started_at: task.started_at.map(UnixMillis::to_wire),
        started_by: started_by(task),
        stop_code: task.stop_code.map(|code| code.as_str().into()),
        stopped_at: task.stopped_at.map(UnixMillis::to_wire),
        stopped_reason: task.stopped_reason.clone(),
        stopping_at: task.stopping_at.map(UnixMillis::to_wire),
        tags: Some(if with_tags { render_tags(&task.tags) } else { Vec::new() }),
        task_arn: Some(scope.task(&task.cluster, task.id)),
        task_definition_arn: Some(scope.task_definition(&task.definition)),
        version: Some(i64::try_from(entry.version).unwrap_or(i64::MAX)),
        ..Default::default()
    }
}

/// `platformVersion` of what runs: that for which `LATEST` stands.
pub(super) fn platform_version(launch_type: LaunchType) -> Option<String> {
    (launch_type == LaunchType::Fargate).then(|| fargate::PLATFORM_VERSION.to_owned())
}

/// `platformFamily`.
pub(super) fn platform_family(launch_type: LaunchType) -> Option<String> {
    (launch_type == LaunchType::Fargate).then(|| fargate::PLATFORM_FAMILY.to_owned())
}

/// How `cpu` and `memory` are read.
pub(super) type Parse = fn(&str) -> Option<u32>;

/// `cpu` or `memory` of a task: in units, however it was written.
pub(super) fn size(text: &str, parse: Parse) -> String {
    parse(text).map_or_else(|| text.to_owned(), |value| value.to_string())
}

/// `connectivity`: a stopped task keeps what it had.
pub(super) fn connectivity(task: &Task, instance: Option<&ContainerInstance>) -> Option<&'static str> {
    match (task.connected_at, instance) {
        _ if task.is_stopped() => task.connected_at.map(|_| "CONNECTED"),
        (None, _) => None,
        (Some(_), Some(instance)) if instance.agent_connected => Some("CONNECTED"),
        (Some(_), _) => Some("DISCONNECTED"),
    }
}

/// `startedBy`: a service's task carries its deployment's id.
pub(crate) fn started_by(task: &Task) -> Option<String> {
    match &task.service {
        Some(membership) => Some(membership.deployment.to_string()),
        None => task.started_by.as_deref().map(str::to_owned),
    }
}

pub(super) fn is_checked_essential(definition: &TaskDefinition, name: &str) -> bool {
    definition
        .document
        .container_definitions
        .iter()
        .flatten()
        .any(|c| c.name.as_deref() == Some(name) && c.essential != Some(false) && c.health_check.is_some())
}

/// The value of `ecs.cpu-architecture`.
pub(super) fn architecture(definition: Option<&TaskDefinition>) -> &'static str {
    definition.and_then(|d| d.document.runtime_platform.as_ref()).and_then(|platform| platform.cpu_architecture.as_ref()).map_or(
        "x86_64",
        |architecture| match architecture.as_str() {
            "ARM64" => "arm64",
            _ => "x86_64",
        },
    )
}

/// ECS shows the architecture that the task was made for as an attribute.
fn attribute_list(definition: Option<&TaskDefinition>) -> Vec<ecs::Attribute> {
    let architecture = architecture(definition);
    vec![ecs::Attribute { name: Some("ecs.cpu-architecture".to_owned()), value: Some(architecture.to_owned()), ..Default::default() }]
}

/// `overrides` as ECS shows it: one entry a container, even where nothing is overridden.
pub(super) fn task_overrides(task: &Task) -> ecs::TaskOverride {
    let mut shown = task.overrides.as_deref().cloned().unwrap_or_default();
    let given = shown.container_overrides.take().unwrap_or_default();
    let all = task.containers.iter().map(|container| {
        let own = given.iter().find(|o| o.name.as_deref() == Some(&*container.name)).cloned();
        own.unwrap_or_else(|| ecs::ContainerOverride { name: Some(container.name.to_string()), ..Default::default() })
    });
    shown.container_overrides = Some(all.collect());
    shown.inference_accelerator_overrides.get_or_insert_with(Vec::new);
    shown
}

/// A binding of one port has numbers, one of a range of ports has texts like `80-90`.
fn network_binding(binding: &NetworkBinding) -> ecs::NetworkBinding {
    let ranges = binding.ranges();
    let (container_port_range, host_port_range) = ranges.clone().unzip();
    ecs::NetworkBinding {
        bind_ip: Some(binding.bind_ip.clone()),
        container_port: ranges.is_none().then(|| i32::from(binding.container_port)),
        host_port: ranges.is_none().then(|| i32::from(binding.host_port)),
        protocol: Some(binding.protocol.as_str().into()),
        container_port_range,
        host_port_range,
    }
}

fn container(scope: &Scope, task: &Task, container: &Container, definition: Option<&TaskDefinition>) -> ecs::Container {
    let defined = definition
        .and_then(|d| d.document.container_definitions.as_ref())
        .and_then(|list| list.iter().find(|c| c.name.as_deref() == Some(&*container.name)));
    let own = task
        .overrides
        .as_ref()
        .and_then(|o| o.container_overrides.as_ref())
        .and_then(|list| list.iter().find(|o| o.name.as_deref() == Some(&*container.name)));
    let size = |own: Option<i32>, defined: Option<i32>| own.or(defined).map(|value| value.to_string());
    let bindings = container.network_bindings.iter().map(network_binding);
    ecs::Container {
        container_arn: Some(scope.container(&task.cluster, task.id, container.id)),
        task_arn: Some(scope.task(&task.cluster, task.id)),
        name: Some(container.name.to_string()),
        image: Some(container.image.to_string()),
        image_digest: container.image_digest.as_deref().map(str::to_owned),
        runtime_id: container.runtime_id.clone(),
        last_status: Some(container.last_status.to_string()),
        exit_code: container.exit_code,
        reason: container.reason.clone(),
        network_bindings: Some(bindings.collect()),
        gpu_ids: (!container.gpu_ids.is_empty()).then(|| container.gpu_ids.clone()),
        network_interfaces: Some(task.interface.iter().map(|interface| network_interface(interface)).collect()),
        health_status: Some(container.health_status.as_str().into()),
        cpu: Some(size(own.and_then(|o| o.cpu), defined.and_then(|d| d.cpu)).unwrap_or_else(|| "0".to_owned())),
        memory: size(own.and_then(|o| o.memory), defined.and_then(|d| d.memory)),
        memory_reservation: size(own.and_then(|o| o.memory_reservation), defined.and_then(|d| d.memory_reservation)),
        ..Default::default()
    }
}

/// A task's interface, as each of its containers shows it.
fn network_interface(interface: &TaskInterface) -> ecs::NetworkInterface {
    ecs::NetworkInterface {
        attachment_id: Some(uuid(interface.attachment.0)),
        private_ipv4_address: Some(interface.private_address.to_string()),
        ..Default::default()
    }
}

/// A service.
pub(crate) fn service(state: &State, scope: &Scope, service: &Service, with_tags: bool) -> ecs::Service {
    let settings = &service.settings;
    let (mut running, mut pending) = (0, 0);
    for (_, tally) in state.tallies(&service.cluster, &service.name) {
        running += tally.running;
        pending += tally.pending;
    }
    let tally = |of: DeploymentId| state.tally(&service.cluster, &service.name, of);
    let deployments = service.deployments.iter().map(|d| deployment(state, scope, service, d, d.ids().map(tally).sum()));
    let events = state.events_of(&service.cluster, &service.name).rev().take(100).map(|event| ecs::ServiceEvent {
        id: Some(event.id.clone()),
        created_at: Some(event.created_at.to_wire()),
        message: Some(event.message.clone()),
    });
    ecs::Service {
        service_arn: Some(scope.service(&service.cluster, &service.name)),
        service_name: Some(service.name.to_string()),
        cluster_arn: Some(scope.cluster(&service.cluster)),
        load_balancers: Some(Vec::new()),
        network_configuration: settings.network_configuration.as_ref().map(AwsvpcConfiguration::to_wire),
        service_registries: Some(settings.service_registries.clone()),
        status: Some(service.status.to_string()),
        desired_count: Some(number(service.desired_count)),
        running_count: count(running),
        pending_count: count(pending),
        launch_type: match service.controller {
            DeploymentController::Ecs => service.primary().and_then(|primary| launch_type(service, primary)),
            DeploymentController::External => {
                let set = service.primary_task_set().filter(|set| set.capacity_provider_strategy.is_empty());
                set.map(|set| set.launch_type.as_str().into())
            }
        },
        capacity_provider_strategy: service.primary().and_then(strategy),
        platform_version: settings.platform_version.clone(),
        platform_family: settings.platform_version.as_ref().and_then(|_| platform_family(service.launch_type)),
        task_definition: service.definition().map(|definition| scope.task_definition(definition)),
        task_sets: Some(service.task_sets.iter().map(|set| task_sets::render(state, scope, service, set, with_tags)).collect()),
        current_service_deployment: service
            .primary()
            .and_then(|primary| primary.service_deployment)
            .map(|id| scope.service_deployment(&service.cluster, &service.name, id)),
        current_service_revisions: Some(service_history::render_current(state, scope, service)),
        deployment_configuration: Some(settings.deployment_configuration.clone()),
        deployments: Some(deployments.collect()),
        role_arn: settings.role.clone(),
        events: Some(events.collect()),
        created_at: Some(service.created_at.to_wire()),
        placement_constraints: Some(settings.placement_constraints.clone()),
        placement_strategy: Some(settings.placement_strategy.clone()),
        health_check_grace_period_seconds: settings.health_check_grace_period_seconds,
        scheduling_strategy: Some(service.scheduling_strategy.as_str().into()),
        deployment_controller: Some(ecs::DeploymentController { r#type: Some(service.controller.as_str().into()) }),
        tags: with_tags.then(|| render_tags(&service.tags)),
        created_by: Some(service.created_by.clone()),
        enable_ecs_managed_tags: Some(settings.enable_ecs_managed_tags),
        propagate_tags: Some(settings.propagate_tags.as_deref().unwrap_or("NONE").into()),
        enable_execute_command: Some(settings.enable_execute_command),
        availability_zone_rebalancing: settings.availability_zone_rebalancing.as_deref().map(Into::into),
        resource_management_type: Some("CUSTOMER".into()),
    }
}

/// `launchType` is shown where there is no strategy.
fn launch_type(service: &Service, deployment: &Deployment) -> Option<ecs::LaunchType> {
    deployment.capacity_provider_strategy.is_empty().then(|| service.launch_type.as_str().into())
}

fn strategy(deployment: &Deployment) -> Option<Vec<ecs::CapacityProviderStrategyItem>> {
    (!deployment.capacity_provider_strategy.is_empty()).then(|| capacity::render(&deployment.capacity_provider_strategy))
}

fn deployment(
    state: &State,
    scope: &Scope,
    service: &Service,
    deployment: &Deployment,
    Tally { running, pending }: Tally,
) -> ecs::Deployment {
    let revision = deployment.revision.and_then(|id| state.service_revision(&service.cluster, &service.name, id));
    // What is being created has no record of its revision yet.
    let settings = revision.map_or(&service.settings, |revision| &revision.settings);
    let launched = revision.map_or(service.launch_type, |revision| revision.launch_type);
    let is_primary = deployment.status == berth_model::service::DeploymentStatus::Primary;
    let kept = deployment.progress.keeps.map_or(running + pending, |keeps| usize::try_from(keeps).unwrap_or(usize::MAX));
    ecs::Deployment {
        id: Some(deployment.id.to_string()),
        status: Some(deployment.status.to_string()),
        task_definition: Some(scope.task_definition(&deployment.definition)),
        desired_count: if is_primary { Some(number(service.desired_count)) } else { count(kept) },
        pending_count: count(pending),
        running_count: count(running),
        failed_tasks: Some(number(deployment.progress.failures)),
        created_at: Some(deployment.created_at.to_wire()),
        updated_at: Some(deployment.updated_at.to_wire()),
        launch_type: launch_type(service, deployment),
        platform_version: platform_version(launched),
        platform_family: platform_family(launched),
        network_configuration: settings.network_configuration.as_ref().map(AwsvpcConfiguration::to_wire),
        capacity_provider_strategy: strategy(deployment),
        rollout_state: Some(deployment.rollout_state.as_str().into()),
        rollout_state_reason: Some(deployment.rollout_state_reason.clone()),
        ..Default::default()
    }
}

/// A container instance.
pub(crate) fn container_instance(
    state: &State,
    scope: &Scope,
    entry: &Entry<ContainerInstance>,
    with_tags: bool,
) -> ecs::ContainerInstance {
    let instance = &*entry.value;
    let mut remaining = instance.registered.clone();
    let has_gpus = !remaining.gpus.is_empty();
    let (mut running, mut pending) = (0, 0);
    for task in state.tasks_of_machine(&instance.cluster, instance.id).filter(|task| !task.is_stopped()) {
        remaining.cpu = remaining.cpu.saturating_sub(task.demand.cpu);
        remaining.memory = remaining.memory.saturating_sub(task.demand.memory);
        remaining.ports_tcp.extend(&task.demand.ports_tcp);
        remaining.ports_udp.extend(&task.demand.ports_udp);
        for gpu in task.containers.iter().flat_map(|c| &c.gpu_ids) {
            remaining.gpus.remove(gpu);
        }
        for binding in task.containers.iter().flat_map(|c| &c.network_bindings) {
            let ports = if binding.protocol == "udp" { &mut remaining.ports_udp } else { &mut remaining.ports_tcp };
            ports.extend(binding.host_ports());
        }
        match task.last_status {
            // They take from what it has, and are not its tasks.
            _ if task.launch_type == LaunchType::Fargate => {}
            TaskStatus::Running => running += 1,
            status if status < TaskStatus::Running => pending += 1,
            _ => {}
        }
    }
    ecs::ContainerInstance {
        container_instance_arn: Some(scope.container_instance(&instance.cluster, instance.id)),
        ec2_instance_id: instance.ec2_instance_id.clone(),
        version: Some(i64::try_from(entry.version).unwrap_or(i64::MAX)),
        version_info: Some(ecs::VersionInfo {
            agent_version: instance.agent.agent_version.clone(),
            agent_hash: instance.agent.agent_hash.clone(),
            docker_version: instance.agent.docker_version.clone(),
        }),
        remaining_resources: Some(resources(&remaining, has_gpus)),
        registered_resources: Some(resources(&instance.registered, has_gpus)),
        status: Some(instance.status.to_string()),
        status_reason: instance.status_reason.clone(),
        agent_connected: Some(instance.agent_connected),
        running_tasks_count: count(running),
        pending_tasks_count: count(pending),
        attributes: Some(
            instance
                .attributes
                .iter()
                .filter(|(name, _)| *name != FARGATE)
                .map(|(name, value)| ecs::Attribute { name: Some(name.clone()), value: value.clone(), ..Default::default() })
                .collect(),
        ),
        registered_at: Some(instance.registered_at.to_wire()),
        capacity_provider_name: instance.capacity_provider().map(str::to_owned),
        attachments: Some(Vec::new()),
        tags: Some(if with_tags { render_tags(&instance.tags) } else { Vec::new() }),
        ..Default::default()
    }
}

fn resources(resources: &Resources, has_gpus: bool) -> Vec<ecs::Resource> {
    let integer = |name: &str, value: u32| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        double_value: Some(0.0),
        long_value: Some(0),
        integer_value: Some(number(value)),
        string_set_value: None,
    };
    let set = |name: &str, values: Vec<String>| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("STRINGSET".to_owned()),
        double_value: Some(0.0),
        long_value: Some(0),
        integer_value: Some(0),
        string_set_value: Some(values),
    };
    let ports = |ports: &std::collections::BTreeSet<u16>| ports.iter().map(ToString::to_string).collect();
    let mut shown = vec![
        integer("CPU", resources.cpu),
        integer("MEMORY", resources.memory),
        set("PORTS", ports(&resources.ports_tcp)),
        set("PORTS_UDP", ports(&resources.ports_udp)),
    ];
    if has_gpus {
        shown.push(set("GPU", resources.gpus.iter().cloned().collect()));
    }
    shown
}
