//! What Docker on this machine honours, in ECS's words. Pure.
//!
//! <https://github.com/aws/amazon-ecs-agent/blob/master/agent/app/agent_capability.go> names them.

use bollard::models::SystemInfo;

/// The names of Docker's API versions, which ECS requires for members of a task definition. Those up to 1.22 are every
/// agent's, whatever its runtime.
const REMOTE_API: [(usize, &str); 22] = [
    (23, "com.amazonaws.ecs.capability.docker-remote-api.1.23"),
    (24, "com.amazonaws.ecs.capability.docker-remote-api.1.24"),
    (25, "com.amazonaws.ecs.capability.docker-remote-api.1.25"),
    (26, "com.amazonaws.ecs.capability.docker-remote-api.1.26"),
    (27, "com.amazonaws.ecs.capability.docker-remote-api.1.27"),
    (28, "com.amazonaws.ecs.capability.docker-remote-api.1.28"),
    (29, "com.amazonaws.ecs.capability.docker-remote-api.1.29"),
    (30, "com.amazonaws.ecs.capability.docker-remote-api.1.30"),
    (31, "com.amazonaws.ecs.capability.docker-remote-api.1.31"),
    (32, "com.amazonaws.ecs.capability.docker-remote-api.1.32"),
    (33, "com.amazonaws.ecs.capability.docker-remote-api.1.33"),
    (34, "com.amazonaws.ecs.capability.docker-remote-api.1.34"),
    (35, "com.amazonaws.ecs.capability.docker-remote-api.1.35"),
    (36, "com.amazonaws.ecs.capability.docker-remote-api.1.36"),
    (37, "com.amazonaws.ecs.capability.docker-remote-api.1.37"),
    (38, "com.amazonaws.ecs.capability.docker-remote-api.1.38"),
    (39, "com.amazonaws.ecs.capability.docker-remote-api.1.39"),
    (40, "com.amazonaws.ecs.capability.docker-remote-api.1.40"),
    (41, "com.amazonaws.ecs.capability.docker-remote-api.1.41"),
    (42, "com.amazonaws.ecs.capability.docker-remote-api.1.42"),
    (43, "com.amazonaws.ecs.capability.docker-remote-api.1.43"),
    (44, "com.amazonaws.ecs.capability.docker-remote-api.1.44"),
];

/// Those of a daemon that speaks `version` (`1.41`) and says `info` of itself. Not `pid-ipc-namespace-sharing`: with Docker a task's
/// shared namespace would end with the container that made it. GPUs are a resource in ECS, not a capability.
#[must_use]
pub fn of(version: &str, info: &SystemInfo) -> Vec<&'static str> {
    let minor: usize = version.rsplit('.').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    let mut all: Vec<&'static str> = REMOTE_API.iter().filter(|(of, _)| *of <= minor).map(|(_, name)| *name).collect();
    all.push("com.amazonaws.ecs.capability.privileged-container");
    let secured =
        |kind: &str| info.security_options.iter().flatten().any(|option| option.split(',').any(|part| part == format!("name={kind}")));
    for (kind, name) in [("apparmor", "com.amazonaws.ecs.capability.apparmor"), ("selinux", "com.amazonaws.ecs.capability.selinux")] {
        if secured(kind) {
            all.push(name);
        }
    }
    all
}

/// Whether the daemon keeps layers by itself and takes an archive without those that it has. The containerd image store, which it names
/// in its driver's status, wants every layer.
#[must_use]
pub fn may_omit_layers(info: &SystemInfo) -> bool {
    let containerd = |line: &Vec<String>| line.iter().any(|word| word.starts_with("io.containerd.snapshotter"));
    !info.driver_status.iter().flatten().any(containerd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_says_of_itself() {
        let info = |text: &str| serde_json::from_str::<SystemInfo>(text).unwrap();
        let plain = of("1.41", &info(r#"{"SecurityOptions":["name=seccomp,profile=default"]}"#));
        assert!(plain.contains(&"com.amazonaws.ecs.capability.docker-remote-api.1.41"));
        assert!(!plain.iter().any(|name| name.ends_with("1.42") || name.ends_with("apparmor")));
        let rich = of("1.52", &info(r#"{"SecurityOptions":["name=apparmor","name=selinux"]}"#));
        for name in ["docker-remote-api.1.44", "apparmor", "selinux", "privileged-container"] {
            assert!(rich.iter().any(|capability| capability.ends_with(name)), "{name}");
        }
        assert!(may_omit_layers(&info(r#"{"DriverStatus":[["Backing Filesystem","extfs"]]}"#)));
        assert!(!may_omit_layers(&info(r#"{"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#)));
    }
}
