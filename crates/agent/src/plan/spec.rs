//! From ECS's container to the runtime's specification of it.

use std::collections::BTreeMap;

use berth_acs::messages as acs;
use berth_acs::messages::{ContainerConfig, HostConfig};
use berth_runtime::port::{ContainerId, ContainerNetwork, ContainerSpec};

use super::{Blueprint, GPU, PlanContext, Wiring, docker, fargate, interface, logging, ports, volumes};
use crate::sources::has_log_options;

const MIB: u64 = 1024 * 1024;
/// The kernel's least share of CPU; ECS gives it to containers without CPU units.
const LEAST_CPU_SHARES: u64 = 2;

/// Docker's own configuration, or which of its two strings cannot be read.
fn docker_config(container: &acs::Container) -> Result<(ContainerConfig, HostConfig), String> {
    let Some(docker) = &container.docker_config else { return Ok(Default::default()) };
    let config = docker.container_config().map_err(|error| error.to_string())?;
    Ok((config, docker.host_config().map_err(|error| error.to_string())?))
}

/// How a container is connected. Docker's network mode comes first, as with the official agent; the task's is bookkeeping.
pub(super) fn wiring(task: &acs::Task, container: &acs::Container) -> Result<Wiring, String> {
    let (config, host) = docker_config(container)?;
    if interface::is_wanted(task) {
        return Ok(Wiring::Interface);
    }
    let mode = if host.network_mode.is_empty() { &task.network_mode } else { &host.network_mode };
    match mode.as_str() {
        _ if config.network_disabled => Ok(Wiring::Isolated),
        "" | "default" | "bridge" => Ok(Wiring::Bridge),
        "host" => Ok(Wiring::Host),
        "none" => Ok(Wiring::Isolated),
        other => Err(format!("network mode {other} is not supported by this agent")),
    }
}

/// What to make of a container, or what of it cannot be honoured.
pub(super) fn blueprint(
    task: &acs::Task,
    container: &acs::Container,
    task_id: &str,
    id: &ContainerId,
    wiring: Wiring,
    overridden: Option<Vec<String>>,
    context: &PlanContext,
) -> Result<Blueprint, String> {
    let (config, host) = docker_config(container)?;
    if let Some(refusal) = docker::unsupported(container) {
        return Err(refusal);
    }
    if container.image.is_empty() {
        return Err("the container has no image".to_owned());
    }
    let (ports, port_ranges) = ports::mapped(container)?;
    if !container.links.is_empty() && wiring != Wiring::Bridge {
        // Docker's own words.
        return Err(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior".to_owned()
        );
    }
    if fargate::is_wanted(task) {
        fargate::check(task, &host)?;
    }
    let driver = logging::LogDriver::of(&host, context.log_limit);
    let has_secret_options = has_log_options(container);
    let gpus = gpus(task, container);
    let (mounts, volumes) = volumes::mounts(task, container, task_id, context)?;
    let command = overridden.unwrap_or_else(|| container.command.clone());
    let mut spec = ContainerSpec {
        id: id.clone(),
        image_digest: String::new(),
        entry_point: non_empty(&container.entry_point),
        command: non_empty(&command),
        environment: environment(task, container, &context.region, &gpus),
        user: some_text(&config.user),
        working_directory: some_text(&config.working_dir),
        hostname: some_text(&config.hostname),
        extra_hosts: docker::extra_hosts(&host)?,
        dns_servers: host.dns.clone(),
        dns_search: host.dns_search.clone(),
        instance_dns: None,
        network: ContainerNetwork::Host,
        address: None,
        cgroup_parent: task_id.to_owned(),
        cpu_shares: u64::try_from(container.cpu).unwrap_or(0).max(LEAST_CPU_SHARES),
        cpu_limit_millis: task.cpu.filter(|cpu| *cpu > 0.0 && *cpu < 4096.0).map(|cpu| (cpu * 1000.0).round() as u64),
        memory_limit: mib(container.memory).or_else(|| task.memory.and_then(mib)),
        memory_reservation: u64::try_from(host.memory_reservation).ok().filter(|bytes| *bytes > 0),
        task_pids_limit: context.task_pids_limit,
        task_cpu_limit_millis: None,
        task_memory_limit: None,
        kept_apart: false,
        capabilities_add: host.cap_add.clone(),
        capabilities_drop: host.cap_drop.clone(),
        privileged: host.privileged,
        read_only_root: host.readonly_rootfs,
        mounts,
        storage: None,
        tmpfs: docker::tmpfs(&host)?,
        shared_memory_mib: docker::shared_memory_mib(&host)?,
        ulimits: docker::ulimits(&host),
        sysctls: host.sysctls.clone(),
        terminal: config.tty,
        stdin_open: config.open_stdin,
        init: host.init == Some(true),
        devices: docker::devices(&host)?,
        memory_swap: Some(host.memory_swap).filter(|bytes| *bytes != 0),
        swappiness: host.memory_swappiness.and_then(|percent| u8::try_from(percent).ok()).filter(|percent| *percent <= 100),
        security_options: host.security_opt.clone(),
        pid: docker::sharing("pidMode", &task.pid_mode, &host.pid_mode)?,
        ipc: docker::sharing("ipcMode", &task.ipc_mode, &host.ipc_mode)?,
        gpus,
        labels: labels(task, container, config.labels),
        // Where options are secret, what is known now may not be all that the driver needs.
        log_limit: match &driver {
            Some(driver) if !has_secret_options => driver.limit(&BTreeMap::new())?,
            _ => context.log_limit,
        },
    };
    if fargate::is_wanted(task) {
        fargate::confine(&mut spec, task);
    }
    let (ports, port_ranges) = if wiring == Wiring::Bridge { (ports, port_ranges) } else { Default::default() };
    Ok(Blueprint { spec, ports, port_ranges, volumes, log_driver: driver.filter(|_| has_secret_options) })
}

fn some_text(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn non_empty(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn mib(amount: i64) -> Option<u64> {
    u64::try_from(amount).ok().filter(|mib| *mib > 0).map(|mib| mib.saturating_mul(MIB))
}

/// Gives a container the region, unless it has an opinion on it.
pub(crate) fn give_region(environment: &mut BTreeMap<String, String>, region: &str) {
    const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    if !REGION.iter().any(|name| environment.contains_key(*name)) {
        environment.extend(REGION.map(|name| (name.to_owned(), region.to_owned())));
    }
}

/// The region is given unless the task has an opinion on it, and where it runs, in the words by which SDKs tell it in their user agents. The
/// variables of the metadata endpoint and of a role's credentials come at the launch.
fn environment(task: &acs::Task, container: &acs::Container, region: &str, gpus: &[String]) -> BTreeMap<String, String> {
    let mut environment = container.environment.clone();
    let execution = if fargate::is_wanted(task) { "AWS_ECS_FARGATE" } else { "AWS_ECS_EC2" };
    environment.entry("AWS_EXECUTION_ENV".to_owned()).or_insert_with(|| execution.to_owned());
    // What its files say of the region is known only once they are here.
    if container.environment_files.is_empty() {
        give_region(&mut environment, region);
    }
    if !gpus.is_empty() {
        // By which NVIDIA's own tools know, as with the official agent.
        environment.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), gpus.join(","));
    }
    environment
}

/// The identifiers of the GPUs that the task gives to this container.
fn gpus(task: &acs::Task, container: &acs::Container) -> Vec<String> {
    let own = |association: &&acs::Association| association.kind == GPU && association.containers.contains(&container.name);
    task.associations.iter().filter(own).map(|association| association.name.clone()).collect()
}

/// The labels that the official agent sets; a task definition's own cannot replace them.
fn labels(task: &acs::Task, container: &acs::Container, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = own;
    let ecs = [
        ("cluster", &task.task_cluster_arn),
        ("container-name", &container.name),
        ("task-arn", &task.arn),
        ("task-definition-family", &task.family),
        ("task-definition-version", &task.version),
    ];
    labels.extend(ecs.map(|(name, value)| (format!("com.amazonaws.ecs.{name}"), value.clone())));
    labels
}
