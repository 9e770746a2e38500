//! From the port's specification of a container to Docker's. Pure; what Docker would find out only at the start, or in words that do
//! not name ECS's member, is refused here.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding,
    ResourcesUlimits,
};

use super::names::Names;
use crate::native::{bundle, capabilities, ulimits};
use crate::port::{ContainerNetwork, ContainerSpec, RunError, Sharing};

const MIB: i64 = 1024 * 1024;

/// What Docker's log driver keeps, at least: this is what the agent can be away for without a line being lost.
const LEAST_KEPT_BYTES: u64 = 16 << 20;

/// The most that a `ulimits` name can be on this machine; `u64::MAX`: no limit.
pub type MostOf = fn(&str) -> u64;

/// What this machine can give: a daemon that may not raise limits (itself in a container, say) cannot give more than it has.
#[must_use]
pub fn most_here(name: &str) -> u64 {
    // Without root this process says nothing of the daemon.
    // SAFETY: geteuid only returns a number.
    let is_root = unsafe { libc::geteuid() } == 0;
    if is_root && !capabilities::available().contains("SYS_RESOURCE") { ulimits::own_hard_of(name) } else { u64::MAX }
}

/// Docker's specification of a container of the image `image`.
///
/// # Errors
/// [`RunError::InvalidSpec`] that names the member.
pub fn body(spec: &ContainerSpec, image: &str, names: &Names, most: MostOf) -> Result<ContainerCreateBody, RunError> {
    check(spec).map_err(RunError::InvalidSpec)?;
    let ports = match &spec.network {
        ContainerNetwork::Bridge(ports) => ports.as_slice(),
        _ => &[],
    };
    let key = |port: &crate::port::PublishedPort| format!("{}/{}", port.container_port, if port.udp { "udp" } else { "tcp" });
    // Without a name of its own, a container in the machine's network has the machine's, as Docker gives it.
    let short = || Some(spec.id.0.chars().take(12).collect()).filter(|_| spec.network != ContainerNetwork::Host);
    Ok(ContainerCreateBody {
        hostname: spec.hostname.clone().or_else(short),
        user: spec.user.clone(),
        exposed_ports: Some(ports.iter().map(key).collect()),
        tty: Some(spec.terminal),
        open_stdin: Some(spec.stdin_open),
        env: Some(spec.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        cmd: spec.command.clone(),
        // Health is ECS's: an image's own check is ignored there.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        image: Some(image.to_owned()),
        working_dir: spec.working_directory.clone(),
        entrypoint: spec.entry_point.clone(),
        labels: Some(names.labels(spec)),
        host_config: Some(host_config(spec, &mut ports.iter().map(|port| (key(port), port.host_port)), most)),
        ..ContainerCreateBody::default()
    })
}

fn host_config(spec: &ContainerSpec, ports: &mut dyn Iterator<Item = (String, u16)>, most: MostOf) -> HostConfig {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for (key, port) in ports {
        // The address that was checked to be free; Docker's own default would take the port of IPv6 as well.
        let binding = PortBinding { host_ip: Some("0.0.0.0".to_owned()), host_port: Some(port.to_string()) };
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    let bytes = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    HostConfig {
        // No CgroupParent: the containers of a task share no limit that Docker would have to know of, and a parent that Docker makes
        // stays when the last of them is removed.
        cpu_shares: Some(bytes(spec.cpu_shares.max(2))),
        nano_cpus: spec.cpu_limit_millis.map(|millis| bytes(millis.saturating_mul(1_000_000))),
        memory: spec.memory_limit.map(bytes),
        memory_reservation: spec.memory_reservation.map(bytes),
        memory_swap: spec.memory_swap,
        memory_swappiness: spec.swappiness.map(i64::from),
        // Docker makes no group for the containers of a task (see above).
        pids_limit: spec.task_pids_limit.map(i64::from),
        init: Some(spec.init),
        devices: Some(spec.devices.iter().map(device).collect()),
        device_requests: (!spec.gpus.is_empty()).then(|| vec![gpus(&spec.gpus)]),
        ulimits: Some(spec.ulimits.iter().map(|limit| ulimit(limit, most)).collect()),
        log_config: Some(log_config(spec.log_limit)),
        network_mode: Some(network_mode(&spec.network).to_owned()),
        port_bindings: Some(bindings),
        mounts: Some(spec.mounts.iter().map(bind).collect()),
        tmpfs: Some(spec.tmpfs.iter().map(tmpfs).collect()),
        cap_add: Some(spec.capabilities_add.clone()),
        cap_drop: Some(spec.capabilities_drop.clone()),
        dns: Some(spec.dns_servers.clone()),
        dns_search: Some(spec.dns_search.clone()),
        extra_hosts: Some(spec.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        ipc_mode: ipc_mode(spec.ipc).map(str::to_owned),
        pid_mode: (spec.pid == Sharing::Host).then(|| "host".to_owned()),
        privileged: Some(spec.privileged),
        readonly_rootfs: Some(spec.read_only_root),
        security_opt: Some(spec.security_options.clone()),
        shm_size: spec.shared_memory_mib.map(|mib| i64::from(mib) * MIB),
        sysctls: Some(spec.sysctls.clone().into_iter().collect()),
        ..HostConfig::default()
    }
}

fn network_mode(network: &ContainerNetwork) -> &'static str {
    match network {
        ContainerNetwork::Host => "host",
        ContainerNetwork::Bridge(_) => "bridge",
        ContainerNetwork::Isolated | ContainerNetwork::Namespace(_) => "none",
    }
}

fn ipc_mode(ipc: Sharing) -> Option<&'static str> {
    match ipc {
        Sharing::Own | Sharing::Task => None,
        Sharing::Host => Some("host"),
        Sharing::Closed => Some("none"),
    }
}

/// Docker's `local` driver keeps bytes as they are; `json-file` would replace what is not UTF-8.
fn log_config(limit: u64) -> HostConfigLogConfig {
    if limit == 0 {
        return HostConfigLogConfig { typ: Some("none".to_owned()), config: None };
    }
    let half = limit.max(LEAST_KEPT_BYTES).div_ceil(2 * 1024);
    let options = [("max-size", format!("{half}k")), ("max-file", "2".to_owned()), ("compress", "false".to_owned())];
    let config = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    HostConfigLogConfig { typ: Some("local".to_owned()), config: Some(config) }
}

fn bind(mount: &crate::port::BindMount) -> Mount {
    Mount {
        target: Some(mount.destination.display().to_string()),
        source: Some(mount.source.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        ..Mount::default()
    }
}

fn tmpfs(mount: &crate::port::TmpfsMount) -> (String, String) {
    let size = format!("size={}m", mount.size_mib);
    let options: Vec<&str> = std::iter::once(size.as_str()).chain(mount.options.iter().map(String::as_str)).collect();
    (mount.destination.display().to_string(), options.join(","))
}

fn device(device: &crate::port::DeviceMapping) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.host_path.display().to_string()),
        path_in_container: Some(device.container_path.display().to_string()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
}

fn gpus(ids: &[String]) -> DeviceRequest {
    DeviceRequest {
        driver: Some("nvidia".to_owned()),
        device_ids: Some(ids.to_vec()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

/// Docker's -1 is no limit. What this machine cannot give is cut, as for the native runtime.
fn ulimit(limit: &crate::port::Ulimit, most: MostOf) -> ResourcesUlimits {
    let value = |number: u64| Some(i64::try_from(number.min(most(&limit.name))).unwrap_or(-1));
    ResourcesUlimits { name: Some(limit.name.clone()), soft: value(limit.soft), hard: value(limit.hard) }
}

fn check(spec: &ContainerSpec) -> Result<(), String> {
    if !is_name(&spec.id.0) {
        return Err(format!("id: {:?} is not 1 to 64 of [a-z0-9-]", spec.id.0));
    }
    if !is_name(&spec.cgroup_parent) {
        return Err(format!("cgroup_parent: {:?} is not 1 to 64 of [a-z0-9-]", spec.cgroup_parent));
    }
    if let ContainerNetwork::Namespace(path) = &spec.network {
        return Err(format!("network: Docker has its own networks and cannot join {}", path.display()));
    }
    for (member, sharing) in [("pidMode", spec.pid), ("ipcMode", spec.ipc)] {
        if sharing == Sharing::Task {
            return Err(format!("{member}: task needs the native runtime: with Docker a namespace ends with the container that made it"));
        }
    }
    if spec.kept_apart || spec.task_cpu_limit_millis.is_some() || spec.task_memory_limit.is_some() {
        return Err(
            "launchType: tasks of Fargate need the native runtime: Docker neither keeps tasks apart nor limits them as a whole".to_owned()
        );
    }
    if let Some(path) = spec.working_directory.as_ref().filter(|path| !path.is_empty() && !path.starts_with('/')) {
        return Err(format!("workingDirectory: {path:?} is not an absolute path"));
    }
    let name = spec.hostname.as_deref().unwrap_or_default();
    if name.len() > 64 || name.contains(['\n', '\0', ' ']) {
        return Err(format!("hostname: {name:?} is not a host name of at most 64 characters"));
    }
    // Which of them can be given is the daemon's to say; this process may have fewer.
    let all = capabilities::all();
    capabilities::resolve(&spec.capabilities_add, &spec.capabilities_drop, spec.privileged, &capabilities::DEFAULT, &all)?;
    ulimits::rlimits(&spec.ulimits, true)?;
    bundle::sysctls(spec).map_err(|error| error.to_string())?;
    if spec.storage.is_some() {
        return Err("ephemeralStorage: Docker has no limit that the containers of a task share".to_owned());
    }
    for mount in &spec.mounts {
        let inside = &mount.destination;
        if !bundle::is_plain_absolute(inside) || inside == Path::new("/") {
            return Err(format!("mountPoints: {} is not a path in the container", inside.display()));
        }
        if mount.owner.is_some() {
            return Err(format!("accessPointId: the files at {} cannot have a user of their own with Docker", inside.display()));
        }
    }
    if let Some(device) = spec.devices.iter().find(|device| device.permissions.chars().any(|letter| !"rwm".contains(letter))) {
        return Err(format!("devices: permissions {:?} of {} are not of r, w and m", device.permissions, device.host_path.display()));
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
