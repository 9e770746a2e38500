//! The members of Docker's own configuration that travel as strings, and what of a container this agent refuses.

use std::path::PathBuf;

use berth_acs::messages as acs;
use berth_acs::messages::HostConfig;
use berth_runtime::port::{DeviceMapping, Sharing, TmpfsMount, Ulimit};

use super::{HealthCheck, RestartPolicy};
use crate::engine::Millis;

const MIB: u64 = 1024 * 1024;

/// The command of the container's `overrides`; no other key is allowed there, as with the official agent.
pub(super) fn overridden_command(container: &acs::Container) -> Result<Option<Vec<String>>, String> {
    let text = container.overrides.0.trim();
    if matches!(text, "" | "{}" | "null") {
        return Ok(None);
    }
    let name = &container.name;
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| format!("overrides of container {name} are no JSON object: {error}"))?;
    if let Some(key) = fields.keys().find(|key| *key != "command") {
        return Err(format!("overrides of container {name} hold '{key}', and only 'command' is allowed"));
    }
    let command = fields.get("command").cloned().unwrap_or_default();
    serde_json::from_value(command).map_err(|error| format!("overrides of container {name}: command: {error}"))
}

/// The first member that this agent does not honour.
pub(super) fn unsupported(container: &acs::Container) -> Option<String> {
    let named = [
        (container.firelens_configuration.is_some(), "firelensConfiguration"),
        (!container.managed_agents.is_empty(), "managedAgents (ECS Exec)"),
        (!container.credential_specs.is_empty(), "credentialSpecs"),
    ];
    named.into_iter().find(|(set, _)| *set).map(|(_, name)| format!("{name} is not supported by this agent"))
}

/// The health check, in ECS's defaults where Docker's configuration leaves something out.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html>.
pub(super) fn health_check(container: &acs::Container) -> Result<Option<HealthCheck>, String> {
    let Some(docker) = &container.docker_config else { return Ok(None) };
    let Some(check) = docker.container_config().map_err(|error| error.to_string())?.healthcheck else { return Ok(None) };
    let command = match check.test.split_first() {
        None => return Ok(None),
        Some((kind, [])) if kind == "NONE" => return Ok(None),
        Some((kind, command)) if kind == "CMD" && !command.is_empty() => command.to_vec(),
        Some((kind, [line])) if kind == "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        Some((kind, _)) => return Err(format!("healthCheck: command {kind} is not CMD with a program or CMD-SHELL with a line")),
    };
    let millis = |nanos: i64, default: Millis| if nanos > 0 { (nanos / 1_000_000).max(1) } else { default };
    Ok(Some(HealthCheck {
        command,
        interval: millis(check.interval, 30_000),
        timeout: millis(check.timeout, 5_000),
        retries: u32::try_from(check.retries).ok().filter(|retries| *retries > 0).unwrap_or(3),
        start_period: millis(check.start_period, 0),
    }))
}

/// The restart policy, if it is enabled. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerRestartPolicy.html>.
pub(super) fn restart_policy(container: &acs::Container) -> Option<RestartPolicy> {
    const DEFAULT_PERIOD: i64 = 300;
    let policy = container.restart_policy.as_ref().filter(|policy| policy.enabled)?;
    let period = if policy.restart_attempt_period > 0 { policy.restart_attempt_period } else { DEFAULT_PERIOD };
    let ignored_exit_codes = policy.ignored_exit_codes.clone();
    Some(RestartPolicy { ignored_exit_codes, attempt_period: period.saturating_mul(1000) })
}

/// `Devices`; Docker's defaults are all permissions, and the same path inside.
pub(super) fn devices(host: &HostConfig) -> Result<Vec<DeviceMapping>, String> {
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let one = |device: &acs::Device| {
        let on_host = &device.path_on_host;
        if !on_host.starts_with('/') {
            return Err(format!("linuxParameters.devices: hostPath '{on_host}' is not an absolute path"));
        }
        let container_path = PathBuf::from(or(&device.path_in_container, on_host));
        Ok(DeviceMapping { host_path: PathBuf::from(on_host), container_path, permissions: or(&device.cgroup_permissions, "rwm") })
    };
    host.devices.iter().map(one).collect()
}

/// A namespace's mode: the task's, or else Docker's own. `task` is no mode of Docker's.
pub(super) fn sharing(member: &str, of_task: &str, of_docker: &str) -> Result<Sharing, String> {
    match (of_task, of_docker) {
        ("", "" | "private" | "shareable") => Ok(Sharing::Own),
        ("host", _) | ("", "host") => Ok(Sharing::Host),
        ("task", _) => Ok(Sharing::Task),
        ("none", _) | ("", "none") => Ok(Sharing::Closed),
        (mode, docker) => Err(format!("{member} {} is not supported by this agent", if mode.is_empty() { docker } else { mode })),
    }
}

/// Docker's notation of sizes: `10m`, `512k`, `1g`, bytes without a unit.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (number, unit) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(number) => (number, text.as_bytes()[text.len() - 1]),
        None => (text, b'1'),
    };
    let factor = match unit {
        b'k' => 1024,
        b'm' => MIB,
        b'g' => 1024 * MIB,
        _ => 1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `Tmpfs`: path to options, the size among them.
pub(super) fn tmpfs(host: &HostConfig) -> Result<Vec<TmpfsMount>, String> {
    let one = |(path, options): (&String, &String)| {
        let mut size = None;
        let mut rest = Vec::new();
        for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            match option.strip_prefix("size=") {
                Some(text) => size = Some(parse_size(text).ok_or_else(|| format!("tmpfs {path}: '{option}' is no size"))?),
                None => rest.push(option.to_owned()),
            }
        }
        let size = size.filter(|size| *size > 0).ok_or_else(|| format!("tmpfs {path} has no size"))?;
        let size_mib = u32::try_from(size.div_ceil(MIB)).map_err(|_| format!("tmpfs {path} is too large"))?;
        Ok(TmpfsMount { destination: PathBuf::from(path), size_mib, options: rest })
    };
    host.tmpfs.iter().map(one).collect()
}

/// `Ulimits`; Docker's -1 means without limit.
pub(super) fn ulimits(host: &HostConfig) -> Vec<Ulimit> {
    let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
    host.ulimits.iter().map(|limit| Ulimit { name: limit.name.clone(), soft: value(limit.soft), hard: value(limit.hard) }).collect()
}

/// `ExtraHosts`: `name:address`, where the address may hold colons.
pub(super) fn extra_hosts(host: &HostConfig) -> Result<Vec<(String, String)>, String> {
    let one = |line: &String| match line.split_once(':') {
        Some((name, address)) if !name.is_empty() && address.parse::<std::net::IpAddr>().is_ok() => {
            Ok((name.to_owned(), address.to_owned()))
        }
        _ => Err(format!("extraHosts: '{line}' is not name:address")),
    };
    host.extra_hosts.iter().map(one).collect()
}

/// `ShmSize` in MiB, rounded up.
pub(super) fn shared_memory_mib(host: &HostConfig) -> Result<Option<u32>, String> {
    match u64::try_from(host.shm_size).map_err(|_| "sharedMemorySize is negative".to_owned())? {
        0 => Ok(None),
        bytes => u32::try_from(bytes.div_ceil(MIB)).map(Some).map_err(|_| "sharedMemorySize is too large".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_docker_writes_them() {
        for (text, bytes) in
            [("10m", Some(10 * MIB)), ("512K", Some(512 * 1024)), ("1gb", Some(1024 * MIB)), ("77", Some(77)), ("x", None), ("", None)]
        {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
