//! What is different about a Fargate task (`launchType: FARGATE`): it is kept apart from the machine, its size is a limit, and nothing of the machine
//! can be asked for. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>

use berth_acs::messages as acs;
use berth_acs::messages::HostConfig;
use berth_runtime::port::ContainerSpec;

/// Most processes and threads of a task, where the agent is not told another number. Fargate gives a task a kernel of its own, whose `pid_max` is
/// this one's default.
const MOST_PROCESSES: u32 = 32_768;

/// What of the disk a task has whose definition says nothing, in GiB.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-task-storage.html>
const DEFAULT_STORAGE_GIB: u64 = 20;

const MIB: u64 = 1024 * 1024;

/// Whether a task is one of Fargate's.
pub(super) fn is_wanted(task: &acs::Task) -> bool {
    task.launch_type == super::FARGATE
}

/// How much a task may keep on disk, in GiB.
pub(super) fn storage_gib(task: &acs::Task) -> u64 {
    let named = task.ephemeral_storage.as_ref().and_then(|storage| u64::try_from(storage.size_in_gib).ok());
    Some(u64::from(task.ephemeral_storage_gib)).filter(|size| *size > 0).or(named).filter(|size| *size > 0).unwrap_or(DEFAULT_STORAGE_GIB)
}

/// Refuses what would lead out of the task. The runtime refuses the rest, and the control plane all of it at registration.
///
/// # Errors
/// The text names the member.
pub(super) fn check(task: &acs::Task, host: &HostConfig) -> Result<(), String> {
    let refuse = |member: &str| Err(format!("{member} is not supported by tasks of launch type FARGATE"));
    let size = task.cpu.is_some_and(|cpu| cpu > 0.0) && task.memory.is_some_and(|memory| memory > 0);
    if !size {
        return Err("cpu and memory of the task are required by tasks of launch type FARGATE".to_owned());
    }
    if !super::interface::is_wanted(task) {
        return refuse(&format!("network mode {}", if task.network_mode.is_empty() { "bridge" } else { &task.network_mode }));
    }
    let of_the_machine = |volume: &&acs::Volume| volume.host.as_ref().is_some_and(|host| !host.source_path.is_empty());
    if let Some(volume) = task.volumes.iter().find(of_the_machine) {
        return refuse(&format!("volume '{}': sourcePath", volume.name));
    }
    if let Some(volume) = task.volumes.iter().find(|volume| volume.docker_volume_configuration.is_some()) {
        return refuse(&format!("volume '{}': dockerVolumeConfiguration", volume.name));
    }
    if !host.security_opt.is_empty() {
        return refuse("dockerSecurityOptions");
    }
    Ok(())
}

/// Makes a container one of a Fargate task.
pub(super) fn confine(spec: &mut ContainerSpec, task: &acs::Task) {
    spec.kept_apart = true;
    // Of all containers together, instead of each: three of them would have three times the size.
    spec.cpu_limit_millis = None;
    spec.task_cpu_limit_millis = task.cpu.map(|cpu| (cpu * 1000.0).round() as u64);
    spec.task_memory_limit = task.memory.and_then(|mib| u64::try_from(mib).ok()).map(|mib| mib.saturating_mul(MIB));
    spec.task_pids_limit = spec.task_pids_limit.or(Some(MOST_PROCESSES));
}
