//! What of a container travels in Docker's own words, as `dockerConfig.config` and `dockerConfig.hostConfig`.
//!
//! Pid and ipc modes are not among it: agents take them from the task, since containers that share a namespace must first be told of
//! the one that holds it.

use berth_acs::messages::{self as acs, ContainerConfig, Device, HealthCheck, HostConfig, LogConfig};
use berth_shapes::ecs;

const MIB: i64 = 1024 * 1024;
const NANOS: i64 = 1_000_000_000;

/// A container's memory in MiB, overrides merged; 0 for none.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// The hard limit.
    pub(super) memory: i64,
    /// The soft limit.
    pub(super) memory_reservation: i64,
}

/// Whether a health check checks anything: `NONE` only switches an image's own off.
pub(super) fn is_check(check: &ecs::HealthCheck) -> bool {
    check.command.as_deref().and_then(<[String]>::first).is_some_and(|kind| kind != "NONE")
}

/// What travels in Docker's `Config`.
pub(super) fn config(defined: &ecs::ContainerDefinition) -> ContainerConfig {
    ContainerConfig {
        user: defined.user.clone().unwrap_or_default(),
        working_dir: defined.working_directory.clone().unwrap_or_default(),
        hostname: defined.hostname.clone().unwrap_or_default(),
        labels: defined.docker_labels.clone().unwrap_or_default(),
        tty: defined.pseudo_terminal == Some(true),
        open_stdin: defined.interactive == Some(true),
        network_disabled: defined.disable_networking == Some(true),
        healthcheck: defined.health_check.as_ref().map(health_check),
    }
}

fn health_check(check: &ecs::HealthCheck) -> HealthCheck {
    let nanos = |seconds: Option<i32>| i64::from(seconds.unwrap_or(0)) * NANOS;
    HealthCheck {
        test: check.command.clone().unwrap_or_default(),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        retries: i64::from(check.retries.unwrap_or(0)),
    }
}

/// What travels in Docker's `HostConfig`.
pub(super) fn host_config(defined: &ecs::ContainerDefinition, network_mode: &str, sizes: Sizes) -> HostConfig {
    let linux = defined.linux_parameters.as_ref();
    let capabilities = linux.and_then(|linux| linux.capabilities.as_ref());
    let controls = defined.system_controls.iter().flatten();
    let (memory_swap, memory_swappiness) = linux.map_or((0, None), |linux| swap(linux, sizes.memory));
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
        devices: linux.and_then(|linux| linux.devices.as_deref()).unwrap_or_default().iter().map(device).collect(),
        init: linux.and_then(|linux| linux.init_process_enabled).filter(|enabled| *enabled),
        shm_size: linux.and_then(|linux| linux.shared_memory_size).map_or(0, |mib| i64::from(mib) * MIB),
        tmpfs: linux.and_then(|linux| linux.tmpfs.as_deref()).unwrap_or_default().iter().filter_map(tmpfs).collect(),
        sysctls: controls.filter_map(|control| Some((control.namespace.clone()?, control.value.clone()?))).collect(),
        ulimits: defined.ulimits.iter().flatten().map(ulimit).collect(),
        dns: defined.dns_servers.clone().unwrap_or_default(),
        dns_search: defined.dns_search_domains.clone().unwrap_or_default(),
        extra_hosts: defined.extra_hosts.iter().flatten().map(extra_host).collect(),
        security_opt: defined.docker_security_options.clone().unwrap_or_default(),
        memory_reservation: sizes.memory_reservation * MIB,
        memory_swap,
        memory_swappiness,
        ..Default::default()
    }
}

/// `MemorySwap` and `MemorySwappiness`. ECS counts swap beside memory and Docker both together, and Docker limits no swap without a
/// limit of memory. Without `maxSwap`, ECS ignores `swappiness`.
///
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_LinuxParameters.html>
fn swap(linux: &ecs::LinuxParameters, memory: i64) -> (i64, Option<i64>) {
    match linux.max_swap {
        Some(swap) if memory > 0 => ((memory + i64::from(swap)) * MIB, linux.swappiness.map(i64::from)),
        Some(_) => (0, linux.swappiness.map(i64::from)),
        None => (0, None),
    }
}

fn device(device: &ecs::Device) -> Device {
    let path = device.host_path.clone().unwrap_or_default();
    // ECS gives all three rights where none is named.
    let letter = |permission: &ecs::DeviceCgroupPermission| match permission.as_str() {
        "read" => "r",
        "write" => "w",
        "mknod" => "m",
        _ => "",
    };
    let letters: String = device.permissions.iter().flatten().map(letter).collect();
    Device {
        path_in_container: device.container_path.clone().filter(|inside| !inside.is_empty()).unwrap_or_else(|| path.clone()),
        path_on_host: path,
        cgroup_permissions: if letters.is_empty() { "rwm".to_owned() } else { letters },
    }
}

fn tmpfs(mount: &ecs::Tmpfs) -> Option<(String, String)> {
    let mut options = mount.mount_options.clone().unwrap_or_default();
    options.push(format!("size={}m", mount.size.unwrap_or(0)));
    Some((mount.container_path.clone()?, options.join(",")))
}

fn ulimit(limit: &ecs::Ulimit) -> acs::Ulimit {
    acs::Ulimit {
        name: limit.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default(),
        soft: i64::from(limit.soft_limit.unwrap_or(0)),
        hard: i64::from(limit.hard_limit.unwrap_or(0)),
    }
}

fn extra_host(host: &ecs::HostEntry) -> String {
    format!("{}:{}", host.hostname.as_deref().unwrap_or_default(), host.ip_address.as_deref().unwrap_or_default())
}

/// The oldest version of Docker's API that has all of it. An agent with an older Docker then refuses the container, instead of
/// running it without what that Docker does not know.
pub(super) fn api_version(config: &ContainerConfig, host_config: &HostConfig) -> &'static str {
    if config.healthcheck.as_ref().is_some_and(|check| check.start_period > 0) {
        "1.29"
    } else if host_config.init.is_some() {
        "1.25"
    } else if config.healthcheck.is_some() || !host_config.sysctls.is_empty() {
        "1.24"
    } else if host_config.shm_size != 0 || !host_config.tmpfs.is_empty() {
        "1.22"
    } else {
        "1.21"
    }
}
