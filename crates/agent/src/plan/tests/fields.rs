//! Members that pass through, and those that concern several containers.

use super::*;
use crate::plan::links::{hosts, variables};

#[test]
fn what_the_runtime_is_told() {
    let config = ContainerConfig { tty: true, open_stdin: true, ..Default::default() };
    let host = HostConfig {
        init: Some(true),
        devices: vec![
            acs::Device { path_on_host: "/dev/fuse".into(), ..Default::default() },
            acs::Device { path_on_host: "/dev/null".into(), path_in_container: "/dev/n".into(), cgroup_permissions: "r".into() },
        ],
        memory_swap: 128 << 20,
        memory_swappiness: Some(10),
        security_opt: vec!["no-new-privileges".into()],
        ..Default::default()
    };
    let spec = with_docker(config, host).blueprint.unwrap().spec;
    assert!(spec.terminal && spec.stdin_open && spec.init);
    let devices: Vec<_> = spec
        .devices
        .iter()
        .map(|device| (device.host_path.to_str().unwrap(), device.container_path.to_str().unwrap(), device.permissions.as_str()))
        .collect();
    assert_eq!(devices, [("/dev/fuse", "/dev/fuse", "rwm"), ("/dev/null", "/dev/n", "r")]);
    assert_eq!((spec.memory_swap, spec.swappiness), (Some(128 << 20), Some(10)));
    assert_eq!(spec.security_options, ["no-new-privileges"]);
    let host = HostConfig { memory_swap: -1, memory_swappiness: Some(-1), ..Default::default() };
    let spec = with_docker(ContainerConfig::default(), host).blueprint.unwrap().spec;
    assert_eq!((spec.memory_swap, spec.swappiness), (Some(-1), None));
    let spec = one(|_| {}).blueprint.unwrap().spec;
    assert!(!spec.terminal && !spec.stdin_open && !spec.init && spec.devices.is_empty());
    assert_eq!((spec.memory_swap, spec.swappiness), (None, None));
}

#[test]
fn namespaces() {
    let modes = |pid: &str, ipc: &str, docker: &str| {
        let spec = one(|task| {
            (task.pid_mode, task.ipc_mode) = (pid.to_owned(), ipc.to_owned());
            let host = HostConfig { pid_mode: docker.into(), ipc_mode: docker.into(), ..Default::default() };
            task.containers[0].docker_config = Some(DockerConfig::render(&ContainerConfig::default(), &host));
        });
        let spec = spec.blueprint.unwrap().spec;
        (spec.pid, spec.ipc)
    };
    assert_eq!(modes("", "", ""), (Sharing::Own, Sharing::Own));
    assert_eq!(modes("host", "none", ""), (Sharing::Host, Sharing::Closed));
    assert_eq!(modes("task", "task", ""), (Sharing::Task, Sharing::Task));
    assert_eq!(modes("", "", "host"), (Sharing::Host, Sharing::Host));
}

#[test]
fn gpus_go_to_their_container_alone() {
    let mut task = task("t1", &[("a", "x"), ("b", "y")]);
    let gpu = |name: &str| acs::Association { name: name.into(), kind: "gpu".into(), containers: vec!["b".into()], content: None };
    task.associations = vec![gpu("GPU-1"), gpu("GPU-2")];
    let plan = plan(&task, &context()).unwrap();
    let spec = |index: usize| plan.containers[index].blueprint.as_ref().unwrap().spec.clone();
    assert!(spec(0).gpus.is_empty() && !spec(0).environment.contains_key("NVIDIA_VISIBLE_DEVICES"));
    assert_eq!(spec(1).gpus, ["GPU-1", "GPU-2"]);
    assert_eq!(spec(1).environment["NVIDIA_VISIBLE_DEVICES"], "GPU-1,GPU-2");
}

#[test]
fn health_checks_and_their_defaults() {
    let check = |healthcheck: HealthCheck| {
        with_docker(ContainerConfig { healthcheck: Some(healthcheck), ..Default::default() }, HostConfig::default()).health_check
    };
    let test = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let shell = check(HealthCheck { test: test(&["CMD-SHELL", "a || b"]), ..Default::default() }).unwrap();
    assert_eq!(shell.command, ["/bin/sh", "-c", "a || b"]);
    assert_eq!((shell.interval, shell.timeout, shell.retries, shell.start_period), (30_000, 5_000, 3, 0));
    let second = 1_000_000_000;
    let full =
        HealthCheck { test: test(&["CMD", "a", "b"]), interval: 7 * second, timeout: 2 * second, start_period: 9 * second, retries: 1 };
    let full = check(full).unwrap();
    assert_eq!(full.command, ["a", "b"]);
    assert_eq!((full.interval, full.timeout, full.retries, full.start_period), (7_000, 2_000, 1, 9_000));
    assert_eq!(check(HealthCheck { test: test(&["NONE"]), ..Default::default() }), None);
    assert_eq!(check(HealthCheck::default()), None);
}

#[test]
fn restart_policies() {
    let policy = |enabled: bool, period: i64| {
        let ignored_exit_codes = vec![0, 3];
        let policy = acs::RestartPolicy { enabled, ignored_exit_codes, restart_attempt_period: period };
        one(|task| task.containers[0].restart_policy = Some(policy)).restart
    };
    assert_eq!(policy(false, 60), None);
    assert_eq!(policy(true, 60), Some(RestartPolicy { ignored_exit_codes: vec![0, 3], attempt_period: 60_000 }));
    assert_eq!(policy(true, 0).unwrap().attempt_period, 300_000);
}

fn mount(volume: &str, path: &str) -> acs::MountPoint {
    acs::MountPoint { source_volume: volume.into(), container_path: path.into(), read_only: false }
}

#[test]
fn volumes_of_other_containers() {
    let mut task = task("t1", &[("a", "x"), ("b", "y"), ("c", "z")]);
    task.volumes = ["v", "w"].map(|name| acs::Volume { name: name.into(), ..Default::default() }).to_vec();
    task.containers[0].mount_points = vec![mount("v", "/v"), mount("w", "/w")];
    task.containers[1].volumes_from = vec![acs::VolumeFrom { source_container: "a".into(), read_only: true }];
    task.containers[1].mount_points = vec![mount("w", "/v")];
    task.containers[2].volumes_from = vec![acs::VolumeFrom { source_container: "b".into(), read_only: false }];
    let plan = super::plan(&task, &context()).unwrap();
    let mounts = |index: usize| {
        let blueprint = plan.containers[index].blueprint.as_ref().unwrap();
        let mounts = blueprint.spec.mounts.iter().map(|mount| {
            let text = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
            format!("{}:{}:{}", text(&mount.source), mount.destination.display(), if mount.read_only { "ro" } else { "rw" })
        });
        mounts.collect::<Vec<_>>()
    };
    assert_eq!(mounts(0), ["v:/v:rw", "w:/w:rw"]);
    assert_eq!(mounts(1), ["w:/v:rw", "w:/w:ro"], "its own wins; what is taken over read-only stays so");
    assert_eq!(mounts(2), ["w:/v:rw", "w:/w:ro"]);
    assert_eq!(plan.containers[1].depends_on, [Dependency { on: 0, condition: Condition::Start }]);
    assert_eq!(plan.containers[1].blueprint.as_ref().unwrap().volumes.len(), 1, "each volume is made once");
    task.containers[0].volumes_from = vec![acs::VolumeFrom { source_container: "c".into(), read_only: false }];
    assert!(matches!(super::plan(&task, &context()), Err(PlanError::Dependencies(_))));
}

#[test]
fn docker_volumes() {
    let volume = |scope: &str, autoprovision: bool, options: &[(&str, &str)]| {
        let container = one(|task| {
            let driver_opts = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let docker = acs::DockerVolumeConfiguration { scope: scope.into(), autoprovision, driver_opts, ..Default::default() };
            task.volumes = vec![acs::Volume {
                name: "v".into(),
                kind: "docker".into(),
                docker_volume_configuration: Some(docker),
                ..Default::default()
            }];
            task.containers[0].mount_points = vec![mount("v", "/v")];
        });
        let blueprint = container.blueprint.unwrap();
        (blueprint.spec.mounts[0].source.display().to_string(), blueprint.volumes[0].clone())
    };
    let (source, plan) = volume("task", false, &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]);
    assert_eq!(source, "/data/volumes/0123abc/v");
    let mount = MountPlan { kind: "tmpfs".into(), device: "tmpfs".into(), options: "size=1m".into() };
    assert_eq!(plan, VolumePlan::Task { folder: source.into(), mount: Some(mount) });
    let (source, plan) = volume("shared", true, &[]);
    assert_eq!(source, "/data/volumes/_shared/v/data");
    assert!(matches!(plan, VolumePlan::Shared { autoprovision: true, mount: None, .. }), "{plan:?}");
}

#[test]
fn links_name_a_container_of_the_task_on_the_bridge() {
    let mut task = task("t1", &[("db-1", "x"), ("web", "y")]);
    task.containers[0].port_mappings = vec![
        acs::PortMapping { container_port: 5432, ..Default::default() },
        acs::PortMapping { container_port: 53, protocol: "udp".into(), ..Default::default() },
    ];
    task.containers[0].environment = [("USER".to_owned(), "me".to_owned()), ("PATH".to_owned(), "/x".to_owned())].into();
    task.containers[1].links = vec!["db-1:the-db".into(), "db-1".into()];
    let plan = super::plan(&task, &context()).unwrap();
    let (db, web) = (&plan.containers[0], &plan.containers[1]);
    assert_eq!(web.depends_on, [Dependency { on: 0, condition: Condition::Start }]);
    let address = std::net::Ipv4Addr::new(172, 30, 0, 2);
    let names = |link: &Link| hosts(link, db, address).into_iter().map(|(name, address)| format!("{name}={address}")).collect::<Vec<_>>();
    assert_eq!(names(&web.links[0]), ["the-db=172.30.0.2", "db-1=172.30.0.2"]);
    assert_eq!(names(&web.links[1]), ["db-1=172.30.0.2"]);
    let variables = variables(&web.links[0], web, db, address);
    for (name, value) in [
        ("THE_DB_NAME", "/web/the-db"),
        ("THE_DB_PORT", "udp://172.30.0.2:53"),
        ("THE_DB_PORT_5432_TCP", "tcp://172.30.0.2:5432"),
        ("THE_DB_PORT_5432_TCP_ADDR", "172.30.0.2"),
        ("THE_DB_PORT_5432_TCP_PORT", "5432"),
        ("THE_DB_PORT_5432_TCP_PROTO", "tcp"),
        ("THE_DB_PORT_53_UDP", "udp://172.30.0.2:53"),
        ("THE_DB_ENV_USER", "me"),
    ] {
        assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!variables.contains_key("THE_DB_ENV_PATH"));
    task.network_mode = "host".into();
    let refusal = super::plan(&task, &context()).unwrap().containers.remove(1).blueprint.unwrap_err();
    assert!(refusal.starts_with("conflicting options: host type networking can't be used with links."), "{refusal}");
}

#[test]
fn who_waits_for_health_waits_for_a_check() {
    let mut task = task("t1", &[("a", "x"), ("b", "y")]);
    task.containers[1].depends_on = vec![acs::ContainerDependency { container_name: "a".into(), condition: "HEALTHY".into() }];
    assert!(matches!(plan(&task, &context()), Err(PlanError::Dependencies(_))));
    let check = HealthCheck { test: vec!["CMD".into(), "true".into()], ..Default::default() };
    let config = ContainerConfig { healthcheck: Some(check), ..Default::default() };
    task.containers[0].docker_config = Some(DockerConfig::render(&config, &HostConfig::default()));
    let planned = plan(&task, &context()).unwrap();
    assert_eq!(planned.containers[1].depends_on, [Dependency { on: 0, condition: Condition::Healthy }]);
}
