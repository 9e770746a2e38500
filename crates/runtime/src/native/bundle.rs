//! From a container's specification and its image to what the shim is told: an OCI configuration and the files it names.
//! Pure but for reading this machine's name and resolver; writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use crate::images::store::ImageDefaults;
use crate::native::cgroups::Layout;
use crate::native::security::Modules;
use crate::native::{devices, mounts, ulimits};
use crate::port::{ContainerNetwork, ContainerSpec, RunError, Sharing};

/// Docker's PATH for images that have none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files below /proc and /sys that tell or do too much; Docker's list.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// cfs period in microseconds, and the kernel's smallest quota.
const CPU_PERIOD: u64 = 100_000;
const MIN_CPU_QUOTA: u64 = 1_000;
/// The kernel's smallest share.
pub const MIN_CPU_SHARES: u64 = 2;

/// What a container's process is, known at creation; kept for exec.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessPlan {
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// `user[:group]`.
    pub user: String,
    /// Absolute path.
    pub working_directory: String,
    /// Its name in its own UTS namespace.
    pub hostname: String,
}

/// Decides the process from image and specification.
///
/// # Errors
/// [`RunError::InvalidSpec`] that names the member.
pub fn plan_process(spec: &ContainerSpec, image: &ImageDefaults, machine: &str) -> Result<ProcessPlan, RunError> {
    let mut arguments = spec.entry_point.clone().unwrap_or_else(|| image.entrypoint.clone());
    match (&spec.command, &spec.entry_point) {
        (Some(command), _) => arguments.extend(command.iter().cloned()),
        (None, None) => arguments.extend(image.cmd.iter().cloned()),
        (None, Some(_)) => {}
    }
    if arguments.first().is_none_or(String::is_empty) {
        return Err(RunError::InvalidSpec("command: no command specified, and the image has none".into()));
    }
    let hostname = match (&spec.hostname, &spec.network) {
        (Some(name), _) => name.clone(),
        (None, ContainerNetwork::Host) => machine.to_owned(),
        (None, _) => spec.id.0.chars().take(12).collect(),
    };
    if hostname.len() > 64 || hostname.contains(['\n', '\0', ' ']) {
        return Err(RunError::InvalidSpec(format!("hostname: {hostname:?} is not a host name of at most 64 characters")));
    }
    let wished = spec.working_directory.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| image.working_dir.clone());
    let working_directory = if wished.is_empty() { "/".to_owned() } else { wished };
    if !working_directory.starts_with('/') {
        return Err(RunError::InvalidSpec(format!("workingDirectory: {working_directory:?} is not an absolute path")));
    }
    let environment = environment(&image.env, &spec.environment, &hostname);
    if let Some(bad) = arguments.iter().chain(&environment).chain([&working_directory]).find(|text| text.contains('\0')) {
        return Err(RunError::InvalidSpec(format!("command or environment: {bad:?} contains a NUL character")));
    }
    let user = spec.user.clone().filter(|user| !user.is_empty()).unwrap_or_else(|| image.user.clone());
    Ok(ProcessPlan { arguments, environment, user, working_directory, hostname })
}

/// Docker's order: its own, the image's, the user's; a later value takes an earlier one's place.
fn environment(image: &[String], own: &BTreeMap<String, String>, hostname: &str) -> Vec<String> {
    let mut all = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    let own = own.iter().map(|(name, value)| format!("{name}={value}"));
    for entry in image.iter().cloned().chain(own) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        match all.iter_mut().find(|known| known.split('=').next() == Some(name.as_str())) {
            Some(known) => *known = entry,
            None => all.push(entry),
        }
    }
    all
}

/// What this machine is like, as far as a bundle depends on it.
#[derive(Debug)]
pub struct Machine {
    /// Where each container's root is mounted, each in a mount namespace of its own.
    pub root: PathBuf,
    /// How cgroups are mounted.
    pub cgroups: Layout,
    /// All capabilities that can be given.
    pub capabilities: BTreeSet<&'static str>,
    /// Security modules in force.
    pub modules: Modules,
}

/// The OCI configuration, complete but for user, groups and HOME, and with the working directory left to the shim. `mapped`: its users are
/// others on the machine.
///
/// # Errors
/// [`RunError::InvalidSpec`] that names the member.
pub fn config(
    spec: &ContainerSpec,
    plan: &ProcessPlan,
    folder: &Path,
    cgroup: &str,
    machine: &Machine,
    mapped: bool,
) -> Result<Value, RunError> {
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "uts"})];
    for (kind, sharing) in [("pid", spec.pid), ("ipc", spec.ipc)] {
        // The task's are joined by way of its holder.
        if matches!(sharing, Sharing::Own | Sharing::Closed) {
            namespaces.push(json!({"type": kind}));
        }
    }
    if let ContainerNetwork::Namespace(path) = &spec.network {
        namespaces.push(json!({"type": "network", "path": path}));
    }
    if machine.cgroups == Layout::V2 || spec.kept_apart {
        namespaces.push(json!({"type": "cgroup"}));
    }
    let mut resources = resources(spec, machine)?;
    let devices = devices::devices(spec)?;
    for rule in devices.rules {
        resources["devices"].as_array_mut().into_iter().for_each(|rules| rules.push(rule.clone()));
    }
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": cgroup,
        "resources": resources,
        "devices": devices.files,
    });
    if !spec.privileged {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    if !spec.sysctls.is_empty() {
        linux["sysctl"] = json!(sysctls(spec)?);
    }
    if mapped {
        // Its root has no rights over the network namespace, which is the machine's: what any user may do there instead is what Docker lets any user do.
        // The task definition's own settings win.
        for (name, value) in [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")] {
            if !spec.sysctls.contains_key(name) {
                linux["sysctl"][name] = value.into();
            }
        }
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": {"path": machine.root, "readonly": spec.read_only_root},
        "hostname": plan.hostname,
        "mounts": mounts::mounts(spec, folder)?,
        "process": {
            "terminal": spec.terminal,
            "args": plan.arguments,
            "env": plan.environment,
            "cwd": "/",
            "rlimits": rlimits(spec, machine)?,
        },
        "linux": linux,
    }))
}

/// Resource limits of every process that is started in the container.
///
/// # Errors
/// [`RunError::InvalidSpec`] that names the limit.
pub fn rlimits(spec: &ContainerSpec, machine: &Machine) -> Result<Vec<Value>, RunError> {
    ulimits::rlimits(&spec.ulimits, machine.capabilities.contains("SYS_RESOURCE")).map_err(RunError::InvalidSpec)
}

fn resources(spec: &ContainerSpec, machine: &Machine) -> Result<Value, RunError> {
    let mut resources = json!({
        "devices": [{"allow": spec.privileged, "access": "rwm"}],
        "cpu": {"shares": spec.cpu_shares.max(MIN_CPU_SHARES)},
    });
    let quota = |millis: u64| (millis.saturating_mul(CPU_PERIOD) / 1_000).max(MIN_CPU_QUOTA);
    if let Some(millis) = spec.cpu_limit_millis {
        resources["cpu"]["period"] = CPU_PERIOD.into();
        resources["cpu"]["quota"] = quota(millis).into();
    }
    if let Some(millis) = spec.task_cpu_limit_millis {
        resources["cpu"]["of_task"] = quota(millis).into();
    }
    if let Some(limit) = spec.task_memory_limit {
        resources["memory"]["of_task"] = limit.into();
    }
    if let Some(limit) = spec.memory_limit {
        resources["memory"]["limit"] = limit.into();
    }
    if let Some(reservation) = spec.memory_reservation {
        resources["memory"]["reservation"] = reservation.into();
    }
    if let Some(limit) = spec.task_pids_limit {
        resources["pids"]["of_task"] = limit.into();
    }
    if let Some(swap) = memory_swap(spec)? {
        if !machine.cgroups.knows_swap() {
            tracing::warn!(container = %spec.id, "this machine's kernel does not count swap: the container's use of it is not limited");
        }
        resources["memory"]["swap"] = swap.into();
    }
    if let Some(swappiness) = spec.swappiness {
        if swappiness > 100 {
            return Err(RunError::InvalidSpec(format!("linuxParameters.swappiness: {swappiness} is not between 0 and 100")));
        }
        if !machine.cgroups.knows_swappiness() {
            tracing::warn!(container = %spec.id, "this machine's kernel has no swappiness of single containers: the machine's holds");
        }
        resources["memory"]["swappiness"] = swappiness.into();
    }
    Ok(resources)
}

/// The limit of memory and swap together, in Docker's words where it cannot be.
fn memory_swap(spec: &ContainerSpec) -> Result<Option<i64>, RunError> {
    let refuse = |text: &str| Err(RunError::InvalidSpec(format!("linuxParameters.maxSwap: {text}")));
    match (spec.memory_swap, spec.memory_limit) {
        (None, _) => Ok(None),
        (Some(swap), _) if swap < -1 => refuse(&format!("{swap} is no limit")),
        (Some(-1), _) => Ok(Some(-1)),
        (Some(_), None) => refuse("You should always set the Memory limit when using Memoryswap limit"),
        (Some(swap), Some(limit)) if swap.unsigned_abs() < limit => refuse("Minimum memoryswap limit should be larger than memory limit"),
        (swap, _) => Ok(swap),
    }
}

/// Only settings that belong to a namespace of the container's own; the others are the machine's.
pub fn sysctls(spec: &ContainerSpec) -> Result<&BTreeMap<String, String>, RunError> {
    for name in spec.sysctls.keys() {
        let is_ipc = ["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix));
        let own_ipc = is_ipc && spec.ipc != Sharing::Host;
        let own_network = name.starts_with("net.") && spec.network != ContainerNetwork::Host;
        if !(own_ipc || own_network) {
            return Err(RunError::InvalidSpec(format!("systemControls: {name:?} is not a setting of the container's own namespaces")));
        }
    }
    Ok(&spec.sysctls)
}

/// Whether a path inside a container is absolute and goes straight down.
pub fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// /etc/hosts, as Docker writes it: in the machine's network the machine's own, else one with the container's name.
pub fn hosts(spec: &ContainerSpec, plan: &ProcessPlan, machine: &str) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    if spec.network == ContainerNetwork::Host && !machine.is_empty() {
        text = format!("{}\n", machine.trim_end());
    }
    let own = spec.address.map(|address| (plan.hostname.clone(), address.to_string()));
    for (name, address) in spec.extra_hosts.iter().cloned().chain(own) {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// /etc/resolv.conf: the machine's own unless the specification has name servers or search domains. Name servers on the machine's
/// loopback are left out where the container's is another; unlike Docker, nobody's public servers are put in their place. The instance's name
/// server goes before the machine's, or in their place.
pub fn resolv_conf(spec: &ContainerSpec, machine: &str) -> String {
    let reachable = |line: &&str| {
        let server = line.strip_prefix("nameserver").and_then(|address| address.trim().parse::<std::net::IpAddr>().ok());
        spec.network == ContainerNetwork::Host || !server.is_some_and(|address| address.is_loopback())
    };
    let instance = spec.instance_dns.filter(|_| spec.network != ContainerNetwork::Host);
    let wanted = |line: &&str| !(line.starts_with("nameserver") && instance.is_some_and(|instance| instance.alone));
    let machine = machine.lines().filter(reachable).filter(wanted).map(|line| format!("{line}\n"));
    let machine: String = instance.map(|instance| format!("nameserver {}\n", instance.address)).into_iter().chain(machine).collect();
    if spec.dns_servers.is_empty() && spec.dns_search.is_empty() {
        return machine;
    }
    let mut text = String::new();
    if !spec.dns_search.is_empty() {
        text.push_str(&format!("search {}\n", spec.dns_search.join(" ")));
    }
    if spec.dns_servers.is_empty() {
        machine.lines().filter(|line| line.starts_with("nameserver")).for_each(|line| text.push_str(&format!("{line}\n")));
    }
    for server in &spec.dns_servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

/// The number of a `StopSignal`; SIGTERM for what is empty or unknown, as Docker does.
pub fn stop_signal(text: &str) -> i32 {
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { number } else { libc::SIGTERM };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    const SIGNALS: [(&str, i32); 16] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ABRT", libc::SIGABRT),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("WINCH", libc::SIGWINCH),
        ("IO", libc::SIGIO),
        ("PWR", libc::SIGPWR),
    ];
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return *number;
    }
    match name.strip_prefix("RTMIN+").and_then(|offset| offset.parse::<i32>().ok()) {
        Some(offset @ 0..=30) => libc::SIGRTMIN() + offset,
        _ => libc::SIGTERM,
    }
}

/// This machine's resolver configuration; behind systemd-resolved the real one, since its stub is not reachable from a container.
pub fn machine_resolv_conf() -> String {
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if own.contains("nameserver 127.0.0.53")
        && let Ok(real) = std::fs::read_to_string("/run/systemd/resolve/resolv.conf")
    {
        return real;
    }
    own
}

/// This machine's host name.
pub fn machine_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
