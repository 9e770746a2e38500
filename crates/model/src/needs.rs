//! What a task needs of the machine it runs on, parsed once out of the task definition.

use std::collections::BTreeSet;

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

/// Resources that one task takes on its container instance from placement until it is STOPPED.
#[derive(Debug, Clone, Eq, Hash, Default, Serialize, Deserialize)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "equal in every member, as derived; only faster")]
pub struct Demand {
    /// CPU units.
    pub cpu: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// Static TCP host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports_tcp: Vec<u16>,
    /// Static UDP host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports_udp: Vec<u16>,
    /// GPUs, each for this task alone.
    #[serde(default, skip_serializing_if = "is_none")]
    pub gpus: u32,
    /// Network interfaces of its own: one in network mode `awsvpc`.
    #[serde(default, skip_serializing_if = "is_none")]
    pub interfaces: u32,
    /// Addresses of the machine's that stand for it outside: one of a task that asks for it (`assignPublicIp`) where machines have any.
    #[serde(default, skip_serializing_if = "is_none")]
    pub public_addresses: u32,
}

impl PartialEq for Demand {
    fn eq(&self, other: &Self) -> bool {
        // Mostly there are no ports. Comparing two empty lists asks the C library, which takes longer for none than for a few.
        let same = |one: &[u16], other: &[u16]| one.len() == other.len() && (one.is_empty() || one == other);
        (self.cpu, self.memory, self.gpus) == (other.cpu, other.memory, other.gpus)
            && (self.interfaces, self.public_addresses) == (other.interfaces, other.public_addresses)
            && same(&self.ports_tcp, &other.ports_tcp)
            && same(&self.ports_udp, &other.ports_udp)
    }
}

/// Most tasks want none, and say nothing of it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_none(count: &u32) -> bool {
    *count == 0
}

/// What decisions need of a task definition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskNeeds {
    /// Resources without overrides.
    pub demand: Demand,
    /// Task-level CPU units, if the definition sets them.
    pub task_cpu: Option<u32>,
    /// Task-level memory in MiB, if the definition sets it.
    pub task_memory: Option<u32>,
    /// Names of attributes that a container instance must have (`requiresAttributes`).
    pub attributes: BTreeSet<String>,
}

/// Reads a `cpu` member of a task: CPU units (`"1024"`) or vCPUs (`"1 vCPU"`, `".5 vcpu"`).
#[must_use]
pub fn parse_cpu(text: &str) -> Option<u32> {
    let text = text.trim().to_ascii_lowercase();
    match text.strip_suffix("vcpu") {
        Some(number) => scaled(number, 1024.0),
        None => text.parse().ok(),
    }
}

/// Reads a `memory` member of a task: MiB (`"512"`) or GB (`"1GB"`, `"0.5 gb"`).
#[must_use]
pub fn parse_memory(text: &str) -> Option<u32> {
    let text = text.trim().to_ascii_lowercase();
    match text.strip_suffix("gb") {
        Some(number) => scaled(number, 1024.0),
        None => text.parse().ok(),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a whole number in u32's range")]
fn scaled(number: &str, unit: f64) -> Option<u32> {
    let value = number.trim().parse::<f64>().ok()? * unit;
    let whole = value.is_finite() && value >= 0.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0;
    whole.then_some(value as u32)
}

/// CPU units and MiB of one container: the override if there is one, else the definition's. ECS counts the soft limit
/// (`memoryReservation`) before the hard one.
fn container_size(container: &ecs::ContainerDefinition, overrides: Option<&ecs::ContainerOverride>) -> (u32, u32) {
    let positive = |value: Option<i32>| value.and_then(|v| u32::try_from(v).ok());
    let cpu = overrides.and_then(|o| positive(o.cpu)).or_else(|| positive(container.cpu)).unwrap_or(0);
    let memory = overrides
        .and_then(|o| positive(o.memory_reservation).or_else(|| positive(o.memory)))
        .or_else(|| positive(container.memory_reservation))
        .or_else(|| positive(container.memory))
        .unwrap_or(0);
    (cpu, memory)
}

/// GPUs that one container asks for: the override if there is one, else the definition's.
#[must_use]
pub fn gpus_of(container: &ecs::ContainerDefinition, overrides: Option<&ecs::ContainerOverride>) -> u32 {
    let own = overrides.and_then(|o| o.resource_requirements.as_deref()).filter(|list| !list.is_empty());
    let asked = own.or(container.resource_requirements.as_deref()).unwrap_or_default();
    let gpus = asked.iter().filter(|one| one.r#type.as_ref().is_some_and(|kind| kind.as_str() == "GPU"));
    gpus.filter_map(|one| one.value.as_deref()?.parse::<u32>().ok()).sum()
}

/// What a task of this document takes, with the overrides of its RunTask.
#[must_use]
pub fn demand(document: &ecs::TaskDefinition, overrides: Option<&ecs::TaskOverride>) -> Demand {
    let containers = document.container_definitions.as_deref().unwrap_or_default();
    let container_overrides = overrides.and_then(|o| o.container_overrides.as_deref()).unwrap_or_default();
    // A task with an interface of its own takes none of the machine's ports.
    let is_on_machine = document.network_mode.as_ref().is_none_or(|mode| mode.as_str() != "awsvpc");
    let mut demand = Demand { interfaces: u32::from(!is_on_machine), ..Demand::default() };
    for container in containers {
        let own = container_overrides.iter().find(|o| o.name == container.name);
        let (cpu, memory) = container_size(container, own);
        demand.cpu = demand.cpu.saturating_add(cpu);
        demand.memory = demand.memory.saturating_add(memory);
        demand.gpus = demand.gpus.saturating_add(gpus_of(container, own));
        for mapping in container.port_mappings.iter().flatten().filter(|_| is_on_machine) {
            let Some(port) = mapping.host_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0) else { continue };
            match mapping.protocol.as_ref().map(ecs::TransportProtocol::as_str) {
                Some("udp") => demand.ports_udp.push(port),
                _ => demand.ports_tcp.push(port),
            }
        }
    }
    let task_level = |own: Option<&String>, defined: Option<&String>, parse: fn(&str) -> Option<u32>| {
        own.and_then(|text| parse(text)).or_else(|| defined.and_then(|text| parse(text)))
    };
    if let Some(cpu) = task_level(overrides.and_then(|o| o.cpu.as_ref()), document.cpu.as_ref(), parse_cpu) {
        demand.cpu = cpu;
    }
    if let Some(memory) = task_level(overrides.and_then(|o| o.memory.as_ref()), document.memory.as_ref(), parse_memory) {
        demand.memory = memory;
    }
    demand
}

/// The capabilities that a document asks of an agent: `requiresAttributes` in ECS's order of names.
///
/// Follows the list in <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-definition-placement.html> and the
/// capabilities that amazon-ecs-agent announces.
#[must_use]
pub fn required_attributes(document: &ecs::TaskDefinition) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut need = |name: &str| {
        names.insert(name.to_owned());
    };
    match document.network_mode.as_ref().map(ecs::NetworkMode::as_str) {
        Some("awsvpc") => need("ecs.capability.task-eni"),
        _ => need("com.amazonaws.ecs.capability.docker-remote-api.1.18"),
    }
    if document.cpu.is_some() || document.memory.is_some() {
        need("ecs.capability.task-cpu-mem-limit");
    }
    if document.task_role_arn.is_some() {
        let on_host = document.network_mode.as_ref().is_some_and(|mode| mode.as_str() == "host");
        need(if on_host {
            "com.amazonaws.ecs.capability.task-iam-role-network-host"
        } else {
            "com.amazonaws.ecs.capability.task-iam-role"
        });
    }
    if document.pid_mode.is_some() || document.ipc_mode.is_some() {
        need("ecs.capability.pid-ipc-namespace-sharing");
    }
    if document.proxy_configuration.is_some() {
        need("ecs.capability.aws-appmesh");
    }
    if document.ephemeral_storage.is_some() {
        // ECS has the size on Fargate alone; here it holds wherever a file system can keep to it.
        need("ecs.capability.berth.ephemeral-storage");
    }
    for volume in document.volumes.as_deref().unwrap_or_default() {
        if volume.docker_volume_configuration.is_some() {
            let driver = volume.docker_volume_configuration.as_ref().and_then(|v| v.driver.as_deref()).unwrap_or("local");
            need(&format!("ecs.capability.docker-plugin.{driver}"));
        }
        if volume.efs_volume_configuration.is_some() {
            need("ecs.capability.efs");
        }
        if volume.efs_volume_configuration.as_ref().is_some_and(is_authorized) {
            need("ecs.capability.efsAuth");
        }
        if volume.s3files_volume_configuration.is_some() {
            need("ecs.capability.storage.s3-files");
        }
        if volume.fsx_windows_file_server_volume_configuration.is_some() {
            need("ecs.capability.fsxWindowsFileServer");
        }
        if volume.configured_at_launch == Some(true) {
            need("ecs.capability.storage.ebs-task-volume-attach");
        }
    }
    for container in document.container_definitions.as_deref().unwrap_or_default() {
        container_attributes(container, &mut need);
    }
    names
}

/// Whether an EFS volume wants more than a plain mount, for which the official agent needs the mount helper.
fn is_authorized(efs: &ecs::EFSVolumeConfiguration) -> bool {
    let authorization = efs.authorization_config.as_ref();
    let point = authorization.and_then(|config| config.access_point_id.as_deref()).is_some_and(|id| !id.is_empty());
    let iam = authorization.and_then(|config| config.iam.as_ref()).is_some_and(|iam| iam.as_str() == "ENABLED");
    let encrypted = efs.transit_encryption.as_ref().is_some_and(|encryption| encryption.as_str() == "ENABLED");
    point || iam || encrypted
}

fn container_attributes(container: &ecs::ContainerDefinition, need: &mut impl FnMut(&str)) {
    let non_empty = |list: Option<usize>| list.is_some_and(|len| len > 0);
    if container.privileged == Some(true) {
        need("com.amazonaws.ecs.capability.privileged-container");
    }
    if let Some(driver) = container.log_configuration.as_ref().and_then(|log| log.log_driver.as_ref()) {
        need(&format!("com.amazonaws.ecs.capability.logging-driver.{}", driver.as_str()));
    }
    if let Some(parameters) = &container.linux_parameters {
        if parameters.init_process_enabled == Some(true) {
            need("com.amazonaws.ecs.capability.docker-remote-api.1.25");
        }
        if parameters.shared_memory_size.is_some() || non_empty(parameters.tmpfs.as_ref().map(Vec::len)) {
            need("com.amazonaws.ecs.capability.docker-remote-api.1.22");
        }
    }
    if non_empty(container.secrets.as_ref().map(Vec::len)) {
        for secret in container.secrets.as_deref().unwrap_or_default() {
            let asm = secret.value_from.as_deref().is_some_and(|from| from.contains(":secretsmanager:"));
            need(if asm { "ecs.capability.secrets.asm.environment-variables" } else { "ecs.capability.secrets.ssm.environment-variables" });
        }
    }
    for secret in container.log_configuration.iter().flat_map(|log| log.secret_options.as_deref().unwrap_or_default()) {
        let asm = secret.value_from.as_deref().is_some_and(|from| from.contains(":secretsmanager:"));
        need(if asm { "ecs.capability.secrets.asm.bootstrap.log-driver" } else { "ecs.capability.secrets.ssm.bootstrap.log-driver" });
    }
    // What Docker would leave aside where the kernel has it not: only an agent that was told that it is on (ECS_APPARMOR_CAPABLE,
    // ECS_SELINUX_CAPABLE) takes such tasks.
    // https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
    for option in container.docker_security_options.as_deref().unwrap_or_default() {
        match option.split_once([':', '=']) {
            Some(("apparmor", profile)) if profile != "unconfined" => need("com.amazonaws.ecs.capability.apparmor"),
            Some(("label", label)) if label != "disable" => need("com.amazonaws.ecs.capability.selinux"),
            _ => {}
        }
    }
    if non_empty(container.environment_files.as_ref().map(Vec::len)) {
        need("ecs.capability.env-files.s3");
    }
    if container.repository_credentials.is_some() {
        need("ecs.capability.private-registry-authentication.secretsmanager");
    }
    if non_empty(container.depends_on.as_ref().map(Vec::len)) {
        need("ecs.capability.container-ordering");
    }
    if container.start_timeout.is_some() || container.stop_timeout.is_some() {
        need("ecs.capability.container-ordering");
    }
    if container.health_check.is_some() {
        need("ecs.capability.container-health-check");
    }
    if container.restart_policy.as_ref().is_some_and(|policy| policy.enabled == Some(true)) {
        need("ecs.capability.container-restart-policy");
    }
    if container.firelens_configuration.is_some() {
        let kind = container.firelens_configuration.as_ref().and_then(|f| f.r#type.as_ref()).map_or("fluentbit", |t| t.as_str());
        need(&format!("ecs.capability.firelens.{kind}"));
    }
    if non_empty(container.credential_specs.as_ref().map(Vec::len)) {
        need("ecs.capability.gmsa");
    }
    // GPUs are a resource, not a capability.
    if container.resource_requirements.iter().flatten().any(|one| one.r#type.as_ref().is_some_and(|kind| kind.as_str() != "GPU")) {
        need("ecs.capability.berth.resource-requirements");
    }
    for mapping in container.port_mappings.as_deref().unwrap_or_default() {
        if mapping.container_port_range.is_some() {
            need("ecs.capability.network.container-port-range");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(json: serde_json::Value) -> ecs::ContainerDefinition {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_every_agent_honours_needs_no_name() {
        let document = ecs::TaskDefinition {
            container_definitions: Some(vec![container(serde_json::json!({"name": "a", "links": ["b:c"], "interactive": true,
                "pseudoTerminal": true, "volumesFrom": [{"sourceContainer": "b"}], "dockerSecurityOptions": ["no-new-privileges"],
                "linuxParameters": {"devices": [{"hostPath": "/dev/fuse"}], "maxSwap": 0, "swappiness": 10}}))]),
            ..Default::default()
        };
        let bare = required_attributes(&ecs::TaskDefinition::default());
        assert_eq!(required_attributes(&document), bare);
        let checked = ecs::TaskDefinition {
            container_definitions: Some(vec![container(serde_json::json!({"name": "a", "healthCheck": {"command": ["CMD", "true"]},
                "restartPolicy": {"enabled": true}}))]),
            volumes: Some(vec![serde_json::from_value(serde_json::json!({"name": "v", "dockerVolumeConfiguration": {}})).unwrap()]),
            ..Default::default()
        };
        let more: Vec<_> = required_attributes(&checked).difference(&bare).cloned().collect();
        let names =
            ["ecs.capability.container-health-check", "ecs.capability.container-restart-policy", "ecs.capability.docker-plugin.local"];
        assert_eq!(more, names);
    }

    #[test]
    fn what_only_some_agents_honour_has_the_agents_own_names() {
        let more = |of: serde_json::Value| {
            let of = ecs::TaskDefinition { container_definitions: Some(vec![container(of)]), ..Default::default() };
            let more = required_attributes(&of).into_iter().filter(|name| name != "com.amazonaws.ecs.capability.docker-remote-api.1.18");
            more.collect::<Vec<_>>()
        };
        let options = |options: &[&str]| more(serde_json::json!({"dockerSecurityOptions": options}));
        assert_eq!(options(&["apparmor:unconfined", "label:disable", "seccomp=unconfined"]), [""; 0]);
        assert_eq!(options(&["apparmor:web"]), ["com.amazonaws.ecs.capability.apparmor"]);
        assert_eq!(options(&["label:type:web_t"]), ["com.amazonaws.ecs.capability.selinux"]);
        let driver = |from: &str| {
            let log = serde_json::json!({"logDriver": "splunk", "secretOptions": [{"name": "splunk-token", "valueFrom": from}]});
            more(serde_json::json!({"logConfiguration": log}))
        };
        let splunk = "com.amazonaws.ecs.capability.logging-driver.splunk";
        assert_eq!(driver("/token"), [splunk, "ecs.capability.secrets.ssm.bootstrap.log-driver"]);
        let secret = "arn:aws:secretsmanager:us-east-1:000000000000:secret:token-a1b2c3";
        assert_eq!(driver(secret), [splunk, "ecs.capability.secrets.asm.bootstrap.log-driver"]);
    }

    #[test]
    fn sizes_in_both_notations() {
        assert_eq!(parse_cpu("256"), Some(256));
        assert_eq!(parse_cpu("1 vCPU"), Some(1024));
        assert_eq!(parse_cpu(".25 vcpu"), Some(256));
        assert_eq!(parse_cpu("-1"), None);
        assert_eq!(parse_memory("1GB"), Some(1024));
        assert_eq!(parse_memory("0.5 GB"), Some(512));
        assert_eq!(parse_memory("lots"), None);
    }

    #[test]
    fn demand_sums_containers_and_prefers_the_soft_limit() {
        let document = ecs::TaskDefinition {
            container_definitions: Some(vec![
                container(serde_json::json!({"name": "a", "cpu": 10, "memory": 100, "memoryReservation": 40,
                    "portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 0}]})),
                container(serde_json::json!({"name": "b", "cpu": 5, "memory": 60,
                    "portMappings": [{"containerPort": 53, "hostPort": 53, "protocol": "udp"}, {"containerPortRange": "8000-8010"}]})),
            ]),
            ..Default::default()
        };
        let got = demand(&document, None);
        assert_eq!(got, Demand { cpu: 15, memory: 100, ports_tcp: vec![8080], ports_udp: vec![53], ..Demand::default() });
    }

    #[test]
    fn a_task_with_an_interface_takes_that_and_no_ports() {
        let document = ecs::TaskDefinition {
            network_mode: Some("awsvpc".into()),
            container_definitions: Some(vec![container(
                serde_json::json!({"name": "a", "memory": 5, "portMappings": [{"containerPort": 80, "hostPort": 80}]}),
            )]),
            ..Default::default()
        };
        assert_eq!(demand(&document, None), Demand { memory: 5, interfaces: 1, ..Demand::default() });
    }

    #[test]
    fn overrides_win() {
        let document = ecs::TaskDefinition {
            container_definitions: Some(vec![container(serde_json::json!({"name": "a", "cpu": 10, "memory": 100}))]),
            ..Default::default()
        };
        let overrides: ecs::TaskOverride =
            serde_json::from_value(serde_json::json!({"containerOverrides": [{"name": "a", "cpu": 20, "memory": 200}]})).unwrap();
        let got = demand(&document, Some(&overrides));
        assert_eq!((got.cpu, got.memory), (20, 200));
        let overrides: ecs::TaskOverride = serde_json::from_value(serde_json::json!({"cpu": "512", "memory": "1GB"})).unwrap();
        let got = demand(&document, Some(&overrides));
        assert_eq!((got.cpu, got.memory), (512, 1024));
    }
}
