//! From task records to the tasks that agents are told of. Overrides are merged here: agents accept none but `command`.
//!
//! Credentials of roles are added by [`crate::roles`]; what is rendered here is the same at any time.

mod container;
mod docker;
mod fetched;
#[cfg(test)]
mod tests;
mod volume;

use berth_acs::messages::{
    self as acs, Association, AttachTaskNetworkInterfacesMessage, DesiredStatus, ElasticNetworkInterface, Ipv4Address, ProxyConfiguration,
};
use berth_model::arn::Scope;
use berth_model::fargate;
use berth_model::needs;
use berth_model::task::{Container, LaunchType, Task};
use berth_model::task_definition::TaskDefinition;
use berth_model::task_interface::{AttachmentStatus, TaskInterface};
use berth_model::vpc::addresses;
use berth_shapes::ecs;

/// How long an interface may take to appear; ECS's.
const ATTACH_TIMEOUT_MILLIS: i64 = 300_000;

/// Why a task ended whose agent waits for interfaces that only EC2 attaches.
const NO_INTERFACES: &str = "The container agent does not take network interfaces of Berth's";

/// A task as its agent is told of it.
#[must_use]
pub fn render(scope: &Scope, task: &Task, definition: &TaskDefinition) -> acs::Task {
    let document = &definition.document;
    let overrides = task.overrides.as_deref();
    let task_cpu = overrides.and_then(|o| o.cpu.as_deref()).or(document.cpu.as_deref()).and_then(needs::parse_cpu);
    let task_memory = overrides.and_then(|o| o.memory.as_deref()).or(document.memory.as_deref()).and_then(needs::parse_memory);
    let defined = document.container_definitions.as_deref().unwrap_or_default();
    let network_mode = document.network_mode.as_ref().map_or("bridge", |mode| mode.as_str());
    let is_fargate = task.launch_type == LaunchType::Fargate;
    let containers = task.containers.iter().filter_map(|record| {
        let definition = defined.iter().find(|d| d.name.as_deref() == Some(&*record.name))?;
        let own = overrides
            .and_then(|o| o.container_overrides.as_ref())
            .and_then(|list| list.iter().find(|o| o.name.as_deref() == Some(&*record.name)));
        Some(container::render(scope, task, record, definition, own, network_mode))
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
        platform_version: if is_fargate { fargate::PLATFORM_VERSION.to_owned() } else { String::new() },
        cluster: if is_fargate { task.cluster.to_string() } else { String::new() },
        ephemeral_storage_gib: fargate::storage_gib(task, Some(document)),
        network_mode: network_mode.to_owned(),
        cpu: task_cpu.map(|units| f64::from(units) / 1024.0),
        memory: task_memory.map(i64::from),
        pid_mode: document.pid_mode.as_ref().map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
        ipc_mode: document.ipc_mode.as_ref().map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
        ephemeral_storage: overrides
            .and_then(|o| o.ephemeral_storage.as_ref())
            .or(document.ephemeral_storage.as_ref())
            .map(|storage| acs::EphemeralStorage { size_in_gib: i64::from(storage.size_in_gib.unwrap_or_default()) }),
        volumes: document.volumes.iter().flatten().map(volume::render).collect(),
        associations: task.containers.iter().flat_map(gpus).collect(),
        proxy_configuration: document.proxy_configuration.as_ref().map(proxy),
        containers: containers.collect(),
        elastic_network_interfaces: task.interface.iter().map(|interface| self::interface(scope, interface)).collect(),
        zone: task.availability_zone.as_deref().unwrap_or_default().to_owned(),
        enable_fault_injection: document.enable_fault_injection == Some(true),
        ..Default::default()
    }
}

/// Why the official agent would wait for ever with a task, if it would; in the words of a stopped task's reason.
#[must_use]
pub fn unmet(task: &acs::Task) -> Option<String> {
    // Interfaces of Berth's making are never attached by EC2, which it waits for.
    let strange = (!task.elastic_network_interfaces.is_empty()).then(|| NO_INTERFACES.to_owned());
    strange.or_else(|| fetched::unmet(task))
}

/// A task's own interface. No name servers are named: where nothing says otherwise its machine's answer.
fn interface(scope: &Scope, interface: &TaskInterface) -> ElasticNetworkInterface {
    let cidr = interface.subnet_cidr;
    ElasticNetworkInterface {
        attachment_arn: scope.attachment(interface.attachment),
        ec2_id: interface.interface.to_string(),
        mac_address: interface.mac_address.to_string(),
        interface_association_protocol: "default".to_owned(),
        ipv4_addresses: vec![Ipv4Address { primary: true, private_address: interface.private_address.to_string() }],
        subnet_gateway_ipv4_address: format!("{}/{}", addresses::gateway(cidr), cidr.prefix()),
        private_dns_name: interface.private_dns_name.clone().unwrap_or_default(),
        public_ipv4_address: interface.public_address.map(|address| address.to_string()).unwrap_or_default(),
        security_groups: interface.groups.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

/// The interfaces that an agent is to say of that it has them, before their task; `None` of a task that has none, or that was told of.
#[must_use]
pub fn attach(task: &acs::Task, record: &Task) -> Option<AttachTaskNetworkInterfacesMessage> {
    let is_new = record.interface.as_ref().is_some_and(|interface| interface.status == AttachmentStatus::Precreated);
    (is_new && task.desired_status == DesiredStatus::Running).then(|| AttachTaskNetworkInterfacesMessage {
        task_arn: task.arn.clone(),
        task_cluster_arn: task.task_cluster_arn.clone(),
        wait_timeout_ms: ATTACH_TIMEOUT_MILLIS,
        elastic_network_interfaces: task.elastic_network_interfaces.clone(),
        ..Default::default()
    })
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

/// App Mesh's proxy.
fn proxy(defined: &ecs::ProxyConfiguration) -> ProxyConfiguration {
    ProxyConfiguration {
        kind: defined.r#type.as_ref().map_or("APPMESH", |kind| kind.as_str()).to_owned(),
        container_name: defined.container_name.clone().unwrap_or_default(),
        properties: container::pairs(defined.properties.as_deref()),
    }
}

/// A task's desired status in the agent's words.
#[must_use]
pub const fn desired(task: &Task) -> DesiredStatus {
    match task.desired_status {
        berth_model::task::DesiredStatus::Running => DesiredStatus::Running,
        berth_model::task::DesiredStatus::Stopped => DesiredStatus::Stopped,
    }
}
