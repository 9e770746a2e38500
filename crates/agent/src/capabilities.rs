//! What this agent announces that it can do, whatever its runtime; the runtime adds its own ([`berth_runtime::port::Runtime::capabilities`]).
//! A name belongs here only if the engine honours it: the control plane places tasks by these names.

use crate::config::{EfsBackend, EfsSettings};

/// Names without values, sorted.
pub const CAPABILITIES: [&str; 20] = [
    "com.amazonaws.ecs.capability.docker-remote-api.1.17",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.20",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.docker-remote-api.1.22",
    "com.amazonaws.ecs.capability.logging-driver.awslogs",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
    "com.amazonaws.ecs.capability.logging-driver.none",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.container-restart-policy",
    "ecs.capability.docker-plugin.local",
    "ecs.capability.env-files.s3",
    "ecs.capability.external",
    "ecs.capability.full-sync",
    "ecs.capability.private-registry-authentication.secretsmanager",
    "ecs.capability.secrets.asm.environment-variables",
    "ecs.capability.secrets.ssm.environment-variables",
    "ecs.capability.task-cpu-mem-limit",
];

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

/// Attributes with values, besides those of the configuration.
#[must_use]
pub fn valued(availability_zone: &str) -> [(&'static str, String); 4] {
    [
        ("ecs.availability-zone", availability_zone.to_owned()),
        ("ecs.cpu-architecture", cpu_architecture().to_owned()),
        ("ecs.os-family", "LINUX".to_owned()),
        ("ecs.os-type", "linux".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

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
