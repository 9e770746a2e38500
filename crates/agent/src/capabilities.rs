//! What this agent announces that it can do, whatever its runtime; the runtime adds its own ([`berth_runtime::port::Runtime::capabilities`]),
//! and the configuration keeps some back. A name belongs here only if the engine honours it: the control plane places tasks by these names.
//!
//! The official agent's are in `agent/app/agent_capability.go` and `ecs-agent/api/ecs/client/ecs_client.go` of
//! <https://github.com/aws/amazon-ecs-agent>; docs/agent.md says which of them are not announced, and why.

use crate::config::{EfsBackend, EfsSettings};
use crate::machine;

/// Names without values, sorted; those of logging drivers are made of [`LOGGING_DRIVERS`].
const CAPABILITIES: [&str; 21] = [
    "com.amazonaws.ecs.capability.docker-remote-api.1.17",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.20",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.docker-remote-api.1.22",
    HEALTH_CHECK,
    "ecs.capability.container-ordering",
    "ecs.capability.container-restart-policy",
    "ecs.capability.docker-plugin.local",
    "ecs.capability.env-files.s3",
    EXTERNAL,
    "ecs.capability.full-sync",
    INCREASED_TASK_CPU,
    "ecs.capability.network.container-port-range",
    "ecs.capability.private-registry-authentication.secretsmanager",
    "ecs.capability.secrets.asm.bootstrap.log-driver",
    "ecs.capability.secrets.asm.environment-variables",
    "ecs.capability.secrets.ssm.bootstrap.log-driver",
    "ecs.capability.secrets.ssm.environment-variables",
    TASK_LIMITS,
];

/// Tasks can have network interfaces of their own: where the network of this machine makes them.
pub const TASK_ENI: &str = "ecs.capability.task-eni";
/// Containers can have the credentials of their task's role: where the network of this machine leads them to the agent, on the bridge, at an
/// interface of their own, and in the machine's own network.
pub const TASK_ROLES: [&str; 2] = [TASK_ROLE, TASK_ROLE_HOST];
/// The cluster by which a machine registers that takes tasks of Fargate alone. No cluster of a user's can be called so.
pub const FARGATE_CLUSTER: &str = "berth:fargate";
const TASK_ROLE: &str = "com.amazonaws.ecs.capability.task-iam-role";
const TASK_ROLE_HOST: &str = "com.amazonaws.ecs.capability.task-iam-role-network-host";
const HEALTH_CHECK: &str = "ecs.capability.container-health-check";
const EXTERNAL: &str = "ecs.capability.external";
const INCREASED_TASK_CPU: &str = "ecs.capability.increased-task-cpu-limit";
const TASK_LIMITS: &str = "ecs.capability.task-cpu-mem-limit";
const PRIVILEGED: &str = "com.amazonaws.ecs.capability.privileged-container";
const SELINUX: &str = "com.amazonaws.ecs.capability.selinux";
const APPARMOR: &str = "com.amazonaws.ecs.capability.apparmor";
const LOGGING_DRIVER: &str = "com.amazonaws.ecs.capability.logging-driver.";

/// Logging drivers that this agent honours.
pub const LOGGING_DRIVERS: [&str; 3] = ["awslogs", "json-file", "none"];
/// Logging drivers of ECS's that it does not.
pub const DRIVERS_OF_OTHERS: [&str; 8] = ["awsfirelens", "fluentd", "gelf", "journald", "logentries", "splunk", "syslog", "sumologic"];

/// What of all that agent and runtime could do is announced: `ECS_AVAILABLE_LOGGING_DRIVERS`, `ECS_DISABLE_PRIVILEGED` and their like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// These logging drivers alone, as far as they are honoured; all that are if none.
    pub logging_drivers: Option<Vec<String>>,
    /// Privileged containers.
    pub privileged: bool,
    /// SELinux labels: not at all, where the runtime has them, or, if none, the same.
    pub selinux: Option<bool>,
    /// AppArmor profiles: as with SELinux.
    pub apparmor: Option<bool>,
    /// Credentials of tasks' roles.
    pub task_roles: bool,
    /// The same for tasks in the machine's own network.
    pub task_roles_host: bool,
    /// Limits of cpu and memory of a task as a whole.
    pub task_limits: bool,
    /// Health checks of containers.
    pub health_checks: bool,
    /// That this is no EC2 instance.
    pub external: bool,
}

impl Default for Announced {
    fn default() -> Self {
        Self {
            logging_drivers: None,
            privileged: true,
            selinux: None,
            apparmor: None,
            task_roles: true,
            task_roles_host: true,
            task_limits: true,
            health_checks: true,
            external: true,
        }
    }
}

impl Announced {
    /// The names to announce, with a runtime that honours `runtime`; sorted, each once.
    #[must_use]
    pub fn names(&self, runtime: &[&str]) -> Vec<String> {
        let drivers = LOGGING_DRIVERS
            .iter()
            .filter(|driver| self.logging_drivers.as_ref().is_none_or(|given| given.iter().any(|one| one == *driver)));
        let kept = CAPABILITIES.iter().chain(runtime).filter(|name| self.lets(name)).map(|name| (*name).to_owned());
        let mut names: Vec<String> = kept.chain(drivers.map(|driver| format!("{LOGGING_DRIVER}{driver}"))).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn lets(&self, name: &str) -> bool {
        match name {
            PRIVILEGED => self.privileged,
            SELINUX => self.selinux.unwrap_or(true),
            APPARMOR => self.apparmor.unwrap_or(true),
            TASK_ROLE => self.task_roles,
            TASK_ROLE_HOST => self.task_roles_host,
            TASK_LIMITS | INCREASED_TASK_CPU => self.task_limits,
            HEALTH_CHECK => self.health_checks,
            EXTERNAL => self.external,
            _ => true,
        }
    }

    /// What was asked to be announced and is not, since the runtime would not honour it: a line each, for the log.
    #[must_use]
    pub fn unmet(&self, runtime: &[&str]) -> Vec<String> {
        let claims = [("ECS_SELINUX_CAPABLE", self.selinux, SELINUX), ("ECS_APPARMOR_CAPABLE", self.apparmor, APPARMOR)];
        let unmet = claims.into_iter().filter(|(_, claim, name)| *claim == Some(true) && !runtime.contains(name));
        unmet
            .map(|(variable, _, name)| format!("{variable} is ignored: {name} is not announced, since the runtime does not honour it here"))
            .collect()
    }
}

/// What of EFS can be had here: `ecs.capability.efs` where a file system of the configuration can be mounted, `ecs.capability.efsAuth` where
/// an access point is known or the way to one is safe. A name that nothing stands behind would bring tasks that end at once.
#[must_use]
pub fn efs(settings: &EfsSettings) -> Vec<&'static str> {
    efs_with(settings, has_nfs())
}

fn efs_with(settings: &EfsSettings, has_nfs: bool) -> Vec<&'static str> {
    let usable = |backend: &EfsBackend| match backend {
        EfsBackend::Directory(folder) => folder.is_dir(),
        EfsBackend::Nfs { .. } => has_nfs,
    };
    let usable: Vec<_> = settings.file_systems.iter().filter(|(_, backend)| usable(backend)).collect();
    let mut names = Vec::new();
    if !usable.is_empty() {
        names.push("ecs.capability.efs");
    }
    let has_point = |id: &str| settings.access_points.values().any(|point| point.file_system_id == id);
    if usable.iter().any(|(id, backend)| backend.is_private() || has_point(id)) {
        names.push("ecs.capability.efsAuth");
    }
    names
}

/// Whether the kernel mounts NFS 4: it has it built in or loaded, or loads it when it is wanted.
#[must_use]
pub fn has_nfs() -> bool {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease".to_owned());
    let folder = format!("/lib/modules/{}", release.trim());
    read("/proc/filesystems".to_owned()).contains("\tnfs4\n") || read(format!("{folder}/modules.dep")).contains("/nfsv4.ko")
}

/// The machine's architecture in ECS's words.
#[must_use]
pub const fn cpu_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

/// Attributes with values, besides those of the configuration. `os_family_detailed` instead of what the machine says. The instance type is
/// that of EC2, where the firmware names it; the AMI's id is known to EC2's metadata service alone, which is not asked.
#[must_use]
pub fn valued(availability_zone: &str, os_family_detailed: Option<&str>) -> Vec<(&'static str, String)> {
    let detailed = os_family_detailed.map_or_else(machine::os_family_detailed, str::to_owned);
    let mut list = vec![
        ("ecs.availability-zone", availability_zone.to_owned()),
        ("ecs.cpu-architecture", cpu_architecture().to_owned()),
        ("ecs.os-family", "LINUX".to_owned()),
        ("ecs.os-type", "linux".to_owned()),
        ("ecs.os-type-detailed", detailed),
    ];
    list.extend(machine::instance_type().map(|kind| ("ecs.instance-type", kind)));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_honoured_unless_told_otherwise() {
        let names = Announced::default().names(&[PRIVILEGED, APPARMOR, "ecs.capability.container-ordering"]);
        assert!(names.is_sorted());
        assert_eq!(names.len(), CAPABILITIES.len() + LOGGING_DRIVERS.len() + 2);
        for name in [PRIVILEGED, APPARMOR, "com.amazonaws.ecs.capability.logging-driver.awslogs", EXTERNAL, HEALTH_CHECK, TASK_LIMITS] {
            assert!(names.iter().any(|one| one == name), "{name}");
        }
        assert!(!names.iter().any(|one| one == SELINUX), "the runtime has none");
    }

    #[test]
    fn what_is_kept_back() {
        let announced = Announced {
            logging_drivers: Some(vec!["none".into(), "syslog".into()]),
            privileged: false,
            selinux: Some(true),
            apparmor: Some(false),
            task_roles: false,
            task_roles_host: false,
            task_limits: false,
            health_checks: false,
            external: false,
        };
        let names = announced.names(&[PRIVILEGED, APPARMOR, TASK_ROLE, TASK_ROLE_HOST]);
        assert_eq!(names.len(), CAPABILITIES.len() - 4 + 1, "{names:?}");
        assert!(names.iter().any(|one| one == "com.amazonaws.ecs.capability.logging-driver.none"));
        let unmet = announced.unmet(&[PRIVILEGED, APPARMOR]);
        assert!(unmet.len() == 1 && unmet[0].starts_with("ECS_SELINUX_CAPABLE"), "{unmet:?}");
        assert!(Announced::default().unmet(&[]).is_empty());
    }

    #[test]
    fn efs_is_announced_where_it_works() {
        let there = tempfile::tempdir().unwrap();
        let names = |systems: &str, points: Option<&str>, has_nfs| efs_with(&EfsSettings::parse(Some(systems), points).unwrap(), has_nfs);
        let both = ["ecs.capability.efs", "ecs.capability.efsAuth"];
        assert_eq!(names("", None, true), [""; 0]);
        assert_eq!(names(&format!("fs-1={}", there.path().display()), None, false), both);
        assert_eq!(names("fs-1=/no/such/folder", None, true), [""; 0]);
        assert_eq!(names("fs-1=nfs://10.0.0.7/e", None, false), [""; 0]);
        assert_eq!(names("fs-1=nfs://10.0.0.7/e", None, true), both[..1]);
        assert_eq!(names("fs-1=nfs://127.0.0.1/e", None, true), both);
        assert_eq!(names("fs-1=nfs://10.0.0.7/e", Some(r#"[{"AccessPointId": "fsap-1", "FileSystemId": "fs-1"}]"#), true), both);
    }
}
