//! Containers and volumes of daemon task definitions: the rules of task definitions, and those of daemons.

use std::collections::BTreeSet;

use berth_shapes::ecs::{self, ContainerDefinition, DaemonContainerDefinition, DaemonVolume, Volume};

use super::register_task_definition::{MAX_CONTAINERS, check_container, check_together};
use crate::failure::Failure;

/// Checks containers and volumes, and fills in what ECS shows where the user said nothing.
pub(crate) fn check(containers: &mut [DaemonContainerDefinition], volumes: &[DaemonVolume], has_task_memory: bool) -> Result<(), Failure> {
    if !(1..=MAX_CONTAINERS).contains(&containers.len()) {
        return Err(Failure::client(format!("Container list must have 1 to {MAX_CONTAINERS} items: containerDefinitions")));
    }
    let volumes = check_volumes(volumes)?;
    let mut plain = Vec::new();
    for container in containers.iter_mut() {
        let same = as_plain(container)?;
        check_container(&same, has_task_memory)?;
        check_times(container)?;
        plain.push(same);
        container.cpu.get_or_insert(0);
        container.essential.get_or_insert(true);
        container.environment.get_or_insert_with(Vec::new);
        container.mount_points.get_or_insert_with(Vec::new);
        container.system_controls.get_or_insert_with(Vec::new);
        if let Some(check) = &mut container.health_check {
            check.interval.get_or_insert(30);
            check.timeout.get_or_insert(5);
            check.retries.get_or_insert(3);
        }
        if let Some(policy) = container.restart_policy.as_mut().filter(|policy| policy.enabled == Some(true)) {
            policy.restart_attempt_period.get_or_insert(300);
        }
    }
    check_together(&plain, &volumes)
}

/// A daemon's container as a task's: what a daemon's has, a task's has under the same name and with the same meaning.
fn as_plain(container: &DaemonContainerDefinition) -> Result<ContainerDefinition, Failure> {
    let value = serde_json::to_value(container).and_then(serde_json::from_value);
    value.map_err(|error| Failure::client(format!("containerDefinitions: {error}")))
}

fn check_times(container: &DaemonContainerDefinition) -> Result<(), Failure> {
    let name = container.name.as_deref().unwrap_or_default();
    let check = container.health_check.clone().unwrap_or_default();
    let period = container.restart_policy.as_ref().and_then(|policy| policy.restart_attempt_period);
    let ranges = [
        ("healthCheck.interval", check.interval, 5..=300),
        ("healthCheck.timeout", check.timeout, 2..=60),
        ("healthCheck.retries", check.retries, 1..=10),
        ("healthCheck.startPeriod", check.start_period, 0..=300),
        ("restartPolicy.restartAttemptPeriod", period, 60..=1_800),
    ];
    for (member, value, range) in ranges {
        if value.is_some_and(|value| !range.contains(&value)) {
            let (from, to) = range.into_inner();
            return Err(Failure::client(format!("Invalid setting for container '{name}'. '{member}' must be between {from} and {to}.")));
        }
    }
    let codes = container.restart_policy.as_ref().and_then(|policy| policy.ignored_exit_codes.as_ref()).map_or(0, Vec::len);
    if codes > 50 {
        let text = format!("Invalid setting for container '{name}'. 'restartPolicy.ignoredExitCodes' can have at most 50 items.");
        return Err(Failure::client(text));
    }
    Ok(())
}

/// Checks volumes; gives what mount points need to know of them.
fn check_volumes(volumes: &[DaemonVolume]) -> Result<Vec<Volume>, Failure> {
    let mut names = BTreeSet::new();
    for volume in volumes {
        let name = volume.name.as_deref().unwrap_or_default();
        let legal = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !legal {
            return Err(Failure::client(format!("Invalid volume name: '{}': volumes.name", name.chars().take(255).collect::<String>())));
        }
        if !names.insert(name) {
            return Err(Failure::client(format!("Volume names must be unique within a daemon task definition: '{name}'")));
        }
        let Some(logs) = &volume.log_driver_volume_configuration else { continue };
        if volume.host.is_some() {
            return Err(Failure::client(format!("host and logDriverVolumeConfiguration cannot both be given: volume '{name}'")));
        }
        if logs.driver.as_ref().map(ecs::LogDriver::as_str) != Some("json-file") {
            return Err(Failure::client(format!("logDriverVolumeConfiguration supports driver json-file only: volume '{name}'")));
        }
    }
    Ok(volumes.iter().map(|volume| Volume { name: volume.name.clone(), host: volume.host.clone(), ..Default::default() }).collect())
}
