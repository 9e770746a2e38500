//! What Fargate asks of task definitions and of requests, in ECS's words where they are known.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>

use berth_model::fargate::{LATEST, PLATFORM_VERSION, has_size, is_compatible};
use berth_model::needs::{parse_cpu, parse_memory};
use berth_model::task::LaunchType;
use berth_model::task_definition::TaskDefinition;
use berth_shapes::ecs::{self, ErrorCode};

use super::service_settings::filled;
use crate::failure::Failure;

/// Log drivers of Fargate tasks.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_LogConfiguration.html>
const LOG_DRIVERS: [&str; 3] = ["awslogs", "splunk", "awsfirelens"];
/// The only capability that a container may be given.
const CAPABILITY: &str = "SYS_PTRACE";

fn unsupported(member: &str) -> Failure {
    Failure::client(format!("Tasks using the Fargate launch type do not support {member}."))
}

/// The first thing in a definition that Fargate does not take, if the definition is to be compatible with it.
pub(crate) fn check_definition(document: &ecs::TaskDefinition) -> Result<(), Failure> {
    if !document.requires_compatibilities.iter().flatten().any(|one| one.as_str() == "FARGATE") {
        return Ok(());
    }
    if document.network_mode.as_ref().is_none_or(|mode| mode.as_str() != "awsvpc") {
        return Err(Failure::client("Fargate only supports network mode ‘awsvpc’."));
    }
    let (Some(cpu), Some(memory)) = (&document.cpu, &document.memory) else {
        return Err(Failure::client("Fargate requires that 'cpu' and 'memory' be defined at the task level."));
    };
    check_size(parse_cpu(cpu).unwrap_or(0), parse_memory(memory).unwrap_or(0))?;
    if document.ipc_mode.as_ref().is_some_and(|mode| mode.as_str() != "none") {
        return Err(unsupported("ipcMode"));
    }
    if let Some(mode) = document.pid_mode.as_ref().filter(|mode| mode.as_str() != "task") {
        return Err(unsupported(&format!("pidMode {}", mode.as_str())));
    }
    if filled(document.placement_constraints.as_ref()) {
        return Err(unsupported("placementConstraints"));
    }
    if filled(document.inference_accelerators.as_ref()) {
        return Err(unsupported("inferenceAccelerators"));
    }
    let system = document.runtime_platform.as_ref().and_then(|platform| platform.operating_system_family.as_ref());
    if let Some(family) = system.filter(|family| family.as_str() != "LINUX") {
        return Err(Failure::client(format!(
            "Berth runs Linux containers only: runtimePlatform.operatingSystemFamily {}",
            family.as_str()
        )));
    }
    for volume in document.volumes.iter().flatten() {
        let path = volume.host.as_ref().and_then(|host| host.source_path.as_deref()).unwrap_or_default();
        if !path.is_empty() {
            return Err(unsupported(&format!("host.sourcePath of volume '{}'", volume.name.as_deref().unwrap_or_default())));
        }
        if volume.docker_volume_configuration.is_some() {
            return Err(unsupported("dockerVolumeConfiguration"));
        }
        if volume.fsx_windows_file_server_volume_configuration.is_some() {
            return Err(unsupported("fsxWindowsFileServerVolumeConfiguration"));
        }
    }
    document.container_definitions.iter().flatten().try_for_each(check_container)
}

fn check_container(container: &ecs::ContainerDefinition) -> Result<(), Failure> {
    let linux = container.linux_parameters.clone().unwrap_or_default();
    let capabilities = linux.capabilities.clone().unwrap_or_default();
    let given = [
        ("privileged", container.privileged == Some(true)),
        ("disableNetworking", container.disable_networking == Some(true)),
        ("dnsServers", filled(container.dns_servers.as_ref())),
        ("dnsSearchDomains", filled(container.dns_search_domains.as_ref())),
        ("dockerSecurityOptions", filled(container.docker_security_options.as_ref())),
        ("extraHosts", filled(container.extra_hosts.as_ref())),
        ("links", filled(container.links.as_ref())),
        ("resourceRequirements", filled(container.resource_requirements.as_ref())),
        ("devices", filled(linux.devices.as_ref())),
        ("sharedMemorySize", linux.shared_memory_size.is_some()),
        ("tmpfs", filled(linux.tmpfs.as_ref())),
        ("maxSwap", linux.max_swap.is_some()),
        ("swappiness", linux.swappiness.is_some()),
    ];
    if let Some((member, _)) = given.iter().find(|(_, is_given)| *is_given) {
        return Err(unsupported(member));
    }
    if let Some(other) = capabilities.add.iter().flatten().find(|name| name.as_str() != CAPABILITY) {
        return Err(unsupported(&format!("adding the capability {other}: the only one that can be added is {CAPABILITY}")));
    }
    let driver = container.log_configuration.as_ref().and_then(|log| log.log_driver.as_ref());
    match driver.filter(|driver| !LOG_DRIVERS.contains(&driver.as_str())) {
        Some(driver) => Err(unsupported(&format!("the log driver {}: it can be {}", driver.as_str(), LOG_DRIVERS.join(", ")))),
        None => Ok(()),
    }
}

fn check_size(cpu: u32, memory: u32) -> Result<(), Failure> {
    if has_size(cpu, memory) {
        return Ok(());
    }
    Err(Failure::client(format!(
        "No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. See the Amazon ECS documentation for the valid values."
    )))
}

/// Whether tasks of this definition, with these overrides, can be launched so.
pub(crate) fn check_launch(
    definition: &TaskDefinition,
    launch_type: LaunchType,
    overrides: Option<&ecs::TaskOverride>,
) -> Result<(), Failure> {
    if launch_type != LaunchType::Fargate {
        return Ok(());
    }
    if !is_compatible(definition) {
        return Err(Failure::invalid("Task definition does not support launch_type FARGATE."));
    }
    let Some(overrides) = overrides else { return Ok(()) };
    if overrides.container_overrides.iter().flatten().any(|own| filled(own.resource_requirements.as_ref())) {
        return Err(unsupported("resourceRequirements"));
    }
    let size =
        |own: Option<&String>, defined: Option<&String>, parse: fn(&str) -> Option<u32>| own.or(defined).and_then(|text| parse(text));
    let cpu = size(overrides.cpu.as_ref(), definition.document.cpu.as_ref(), parse_cpu);
    let memory = size(overrides.memory.as_ref(), definition.document.memory.as_ref(), parse_memory);
    check_size(cpu.unwrap_or(0), memory.unwrap_or(0))
}

/// Fargate's machines are all alike: nobody says which.
pub(crate) fn check_placement(
    launch_type: LaunchType,
    constraints: Option<&Vec<ecs::PlacementConstraint>>,
    strategies: Option<&Vec<ecs::PlacementStrategy>>,
) -> Result<(), Failure> {
    if launch_type != LaunchType::Fargate {
        return Ok(());
    }
    if filled(constraints) {
        return Err(Failure::invalid("Placement constraints are not supported with FARGATE launch type."));
    }
    if filled(strategies) {
        return Err(Failure::invalid("Placement strategies are not supported with FARGATE launch type."));
    }
    Ok(())
}

/// Reads `platformVersion`, which is Fargate's alone; what a service shows of it. There is one: `LATEST` stands for it.
pub(crate) fn platform_version(launch_type: LaunchType, given: Option<&str>) -> Result<Option<String>, Failure> {
    let given = given.filter(|text| !text.is_empty());
    match (launch_type, given) {
        (LaunchType::Fargate, None) => Ok(Some(LATEST.to_owned())),
        (LaunchType::Fargate, Some(text)) if text == LATEST || text == PLATFORM_VERSION => Ok(Some(text.to_owned())),
        (LaunchType::Fargate, Some(_)) => {
            Err(Failure::modelled(ErrorCode::PlatformUnknown, "The specified platform does not exist: platformVersion"))
        }
        (_, None) => Ok(None),
        (_, Some(_)) => Err(Failure::invalid(format!("The platform version must be null when specifying an {launch_type} launch type."))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refusal(mut changed: Value) -> Option<String> {
        let mut document = json!({"networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512"});
        let container = changed.as_object_mut().unwrap().remove("container").unwrap_or(json!({}));
        document["containerDefinitions"] = json!([container]);
        document.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        check_definition(&serde_json::from_value(document).unwrap()).err().map(|failure| failure.message)
    }

    #[test]
    fn what_fargate_takes() {
        for good in [
            json!({}),
            json!({"pidMode": "task", "ipcMode": "none", "volumes": [{"name": "v"}, {"name": "h", "host": {}}]}),
            json!({"runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "ARM64"}}),
            json!({"container": {"linuxParameters": {"capabilities": {"add": ["SYS_PTRACE"], "drop": ["ALL"]}, "initProcessEnabled": true}}}),
            json!({"container": {"logConfiguration": {"logDriver": "awslogs"}, "ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 2}]}}),
            json!({"requiresCompatibilities": ["EC2"], "networkMode": "host", "container": {"privileged": true}}),
        ] {
            assert_eq!(refusal(good.clone()), None, "{good}");
        }
    }

    #[test]
    fn what_fargate_does_not_take_is_named() {
        for (bad, named) in [
            (json!({"networkMode": "bridge"}), "network mode ‘awsvpc’"),
            (json!({"networkMode": null}), "network mode ‘awsvpc’"),
            (json!({"cpu": null}), "'cpu' and 'memory'"),
            (json!({"memory": "4096"}), "256 CPU, 4096 memory"),
            (json!({"ipcMode": "host"}), "ipcMode"),
            (json!({"pidMode": "host"}), "pidMode host"),
            (json!({"placementConstraints": [{"type": "memberOf", "expression": "attribute:a exists"}]}), "placementConstraints"),
            (json!({"runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}}), "operatingSystemFamily"),
            (json!({"volumes": [{"name": "v", "host": {"sourcePath": "/"}}]}), "host.sourcePath of volume 'v'"),
            (json!({"volumes": [{"name": "v", "dockerVolumeConfiguration": {"driver": "local"}}]}), "dockerVolumeConfiguration"),
            (json!({"container": {"privileged": true}}), "privileged"),
            (json!({"container": {"dockerSecurityOptions": ["no-new-privileges"]}}), "dockerSecurityOptions"),
            (json!({"container": {"resourceRequirements": [{"type": "GPU", "value": "1"}]}}), "resourceRequirements"),
            (json!({"container": {"linuxParameters": {"capabilities": {"add": ["SYS_ADMIN"]}}}}), "SYS_ADMIN"),
            (json!({"container": {"linuxParameters": {"devices": [{"hostPath": "/dev/fuse"}]}}}), "devices"),
            (json!({"container": {"linuxParameters": {"sharedMemorySize": 64}}}), "sharedMemorySize"),
            (json!({"container": {"linuxParameters": {"tmpfs": [{"containerPath": "/t", "size": 1}]}}}), "tmpfs"),
            (json!({"container": {"linuxParameters": {"maxSwap": 0}}}), "maxSwap"),
            (json!({"container": {"logConfiguration": {"logDriver": "json-file"}}}), "json-file"),
        ] {
            let said = refusal(bad.clone()).unwrap_or_default();
            assert!(said.contains(named), "{bad}: {said}");
        }
    }

    #[test]
    fn platforms() {
        assert_eq!(platform_version(LaunchType::Fargate, None).unwrap().as_deref(), Some("LATEST"));
        assert_eq!(platform_version(LaunchType::Fargate, Some("1.4.0")).unwrap().as_deref(), Some("1.4.0"));
        assert_eq!(platform_version(LaunchType::Fargate, Some("1.3.0")).unwrap_err().code, "PlatformUnknownException");
        assert_eq!(platform_version(LaunchType::Ec2, None).unwrap(), None);
        assert!(platform_version(LaunchType::Ec2, Some("LATEST")).unwrap_err().message.contains("must be null"));
    }
}
