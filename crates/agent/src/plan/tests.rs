//! From the wire to a specification, and what is refused on the way.

use berth_acs::messages as acs;
use berth_acs::messages::{ContainerConfig, DockerConfig, HealthCheck, HostConfig};
use berth_network::port::Protocol;
use berth_runtime::port::Sharing;

use super::*;
use crate::fakes::task;

mod fargate;
mod fields;

fn context() -> PlanContext {
    PlanContext {
        region: "eu-west-1".into(),
        volumes_dir: "/data/volumes".into(),
        efs: Default::default(),
        stop_timeout: 30_000,
        log_limit: 1000,
        pull_upfront: true,
        task_pids_limit: Some(77),
    }
}

fn one(change: impl FnOnce(&mut acs::Task)) -> ContainerPlan {
    let mut task = task("0123abc", &[("main", "busybox")]);
    change(&mut task);
    plan(&task, &context()).unwrap().containers.remove(0)
}

fn with_docker(config: ContainerConfig, host: HostConfig) -> ContainerPlan {
    one(|task| task.containers[0].docker_config = Some(DockerConfig::render(&config, &host)))
}

#[test]
fn a_full_container() {
    let config = ContainerConfig {
        user: "1000:100".into(),
        working_dir: "/srv".into(),
        hostname: "box".into(),
        labels: [("team".to_owned(), "a".to_owned()), ("com.amazonaws.ecs.task-arn".to_owned(), "forged".to_owned())].into(),
        ..Default::default()
    };
    let host = HostConfig {
        privileged: true,
        readonly_rootfs: true,
        cap_add: vec!["NET_ADMIN".into()],
        cap_drop: vec!["ALL".into()],
        shm_size: 100 << 20,
        tmpfs: [("/run".to_owned(), "noexec,mode=1777,size=64m".to_owned())].into(),
        sysctls: [("net.core.somaxconn".to_owned(), "1024".to_owned())].into(),
        ulimits: vec![acs::Ulimit { name: "nofile".into(), soft: 10, hard: -1 }],
        dns: vec!["1.2.3.4".into()],
        dns_search: vec!["example".into()],
        extra_hosts: vec!["db:10.0.0.1".into(), "six:fe80::1".into()],
        memory_reservation: 64 << 20,
        log_config: Some(acs::LogConfig {
            kind: "json-file".into(),
            config: [("max-size".to_owned(), "2m".to_owned()), ("max-file".to_owned(), "3".to_owned())].into(),
        }),
        ..Default::default()
    };
    let container = one(|task| {
        task.cpu = Some(0.5);
        task.memory = Some(512);
        let container = &mut task.containers[0];
        container.cpu = 256;
        container.memory = 128;
        container.stop_timeout = 5;
        container.command = vec!["echo".into()];
        container.entry_point = vec!["sh".into()];
        container.overrides = acs::JsonText(r#"{"command":["ls","-l"]}"#.into());
        container.environment = [("A".to_owned(), "1".to_owned())].into();
        container.port_mappings = vec![
            acs::PortMapping { container_port: 80, ..Default::default() },
            acs::PortMapping { container_port: 53, host_port: 53, protocol: "udp".into(), ..Default::default() },
        ];
        container.docker_config = Some(DockerConfig::render(&config, &host));
    });
    assert_eq!((container.runtime_id.0.as_str(), container.attachment_id.0.as_str()), ("0123abc-0", "0123abc-0"));
    assert_eq!((container.wiring, container.stop_timeout), (Wiring::Bridge, 5000));
    let Blueprint { spec, ports, .. } = *container.blueprint.unwrap();
    assert_eq!(spec.command.unwrap(), ["ls", "-l"]);
    assert_eq!(spec.entry_point.unwrap(), ["sh"]);
    assert_eq!(spec.environment["AWS_REGION"], "eu-west-1");
    assert_eq!(spec.environment["AWS_DEFAULT_REGION"], "eu-west-1");
    assert_eq!(spec.environment["AWS_EXECUTION_ENV"], "AWS_ECS_EC2");
    assert!(!spec.environment.keys().any(|name| name.contains("CREDENTIALS")));
    assert_eq!(
        (spec.user.as_deref(), spec.working_directory.as_deref(), spec.hostname.as_deref()),
        (Some("1000:100"), Some("/srv"), Some("box"))
    );
    assert_eq!((spec.cpu_shares, spec.cpu_limit_millis), (256, Some(500)));
    assert_eq!((spec.memory_limit, spec.memory_reservation), (Some(128 << 20), Some(64 << 20)));
    assert!(spec.privileged && spec.read_only_root);
    assert_eq!((spec.shared_memory_mib, spec.log_limit), (Some(100), 6 << 20));
    assert_eq!((spec.tmpfs[0].size_mib, spec.tmpfs[0].options.clone()), (64, vec!["noexec".to_owned(), "mode=1777".to_owned()]));
    assert_eq!((spec.ulimits[0].soft, spec.ulimits[0].hard), (10, u64::MAX));
    assert_eq!(spec.extra_hosts[1], ("six".to_owned(), "fe80::1".to_owned()));
    assert_eq!(spec.labels["team"], "a");
    assert!(spec.labels["com.amazonaws.ecs.task-arn"].ends_with("/0123abc"), "a label of ours cannot be forged");
    assert_eq!((spec.cgroup_parent.as_str(), spec.task_pids_limit), ("0123abc", Some(77)));
    assert_eq!((ports[0].host_port, ports[0].protocol), (None, Protocol::Tcp));
    assert_eq!((ports[1].host_port, ports[1].protocol), (Some(53), Protocol::Udp));
}

#[test]
fn defaults() {
    let spec = one(|_| {}).blueprint.unwrap().spec;
    assert_eq!((spec.cpu_shares, spec.cpu_limit_millis, spec.memory_limit, spec.log_limit), (2, None, None, 1000));
    assert_eq!((spec.command, spec.entry_point, spec.user), (None, None, None));
    let spec = one(|task| task.memory = Some(512)).blueprint.unwrap().spec;
    assert_eq!(spec.memory_limit, Some(512 << 20), "the task's limit where the container has none");
    let container = &mut one(|task| task.containers[0].environment = [("AWS_REGION".to_owned(), "x".to_owned())].into());
    let spec = container.blueprint.as_ref().unwrap().spec.clone();
    assert!(!spec.environment.contains_key("AWS_DEFAULT_REGION"), "the task has an opinion of its own");
}

#[test]
fn networks() {
    let mode = |task_mode: &str, docker_mode: &str| {
        let host = HostConfig { network_mode: docker_mode.into(), ..Default::default() };
        one(|task| {
            task.network_mode = task_mode.into();
            task.containers[0].port_mappings = vec![acs::PortMapping { container_port: 80, ..Default::default() }];
            task.containers[0].docker_config = Some(DockerConfig::render(&ContainerConfig::default(), &host));
        })
    };
    for (task_mode, docker_mode, wiring, ports) in [
        ("", "", Wiring::Bridge, 1),
        ("bridge", "default", Wiring::Bridge, 1),
        ("host", "", Wiring::Host, 0),
        ("bridge", "host", Wiring::Host, 0),
        ("none", "none", Wiring::Isolated, 0),
    ] {
        let container = mode(task_mode, docker_mode);
        assert_eq!((container.wiring, container.blueprint.unwrap().ports.len()), (wiring, ports), "{task_mode} {docker_mode}");
    }
    assert_eq!(mode("awsvpc", "").blueprint.unwrap_err(), "elasticNetworkInterfaces: network mode awsvpc needs one");
    assert_eq!(mode("", "container:x").blueprint.unwrap_err(), "network mode container:x is not supported by this agent");
    let disabled = with_docker(ContainerConfig { network_disabled: true, ..Default::default() }, HostConfig::default());
    assert_eq!(disabled.wiring, Wiring::Isolated);
}

#[test]
fn every_refusal_names_its_member() {
    type Change = fn(&mut acs::Task);
    let changes: [(Change, &str); 16] = [
        (|task| task.containers[0].links = vec!["x".into()], "links: the task has no container 'x'"),
        (|task| task.containers[0].volumes_from = vec![acs::VolumeFrom::default()], "volumesFrom: the task has no container ''"),
        (|task| task.containers[0].secrets = vec![acs::Secret { name: "S".into(), ..Default::default() }], "secret S: provider '' "),
        (|task| task.containers[0].environment_files = vec![acs::EnvironmentFile::default()], "environmentFiles: type '' "),
        (|task| task.containers[0].firelens_configuration = Some(acs::FirelensConfiguration::default()), "firelensConfiguration "),
        (|task| task.containers[0].image = String::new(), "the container has no image"),
        (|task| task.containers[0].port_mappings = vec![acs::PortMapping::default()], "containerPort 0 "),
        (
            |task| task.containers[0].port_mappings = vec![acs::PortMapping { container_port_range: "2-1".into(), ..Default::default() }],
            "containerPortRange '2-1' ",
        ),
        (
            |task| {
                task.containers[0].port_mappings =
                    vec![acs::PortMapping { container_port: 1, protocol: "sctp".into(), ..Default::default() }]
            },
            "port mapping protocol sctp ",
        ),
        (|task| task.pid_mode = "none-such".into(), "pidMode none-such "),
        (|task| task.ipc_mode = "none-such".into(), "ipcMode none-such "),
        (|task| task.associations = vec![acs::Association { kind: "x".into(), ..Default::default() }], "associations of type x "),
        (|task| task.volumes[0].docker_volume_configuration.as_mut().unwrap().driver = "rexray".into(), "volume 'v': driver rexray "),
        (|task| task.volumes[0].docker_volume_configuration.as_mut().unwrap().scope = "x".into(), "volume 'v': scope x "),
        (
            |task| {
                let options = &mut task.volumes[0].docker_volume_configuration.as_mut().unwrap().driver_opts;
                options.insert("type".to_owned(), "tmpfs".to_owned());
            },
            "volume 'v': missing required option: \"device\"",
        ),
        (
            |task| task.containers[0].docker_config = Some(DockerConfig { host_config: Some("{".into()), ..Default::default() }),
            "dockerConfig.hostConfig is not ",
        ),
    ];
    for (change, text) in changes {
        let with_volume = |task: &mut acs::Task| {
            let docker_volume_configuration = Some(acs::DockerVolumeConfiguration::default());
            task.volumes = vec![acs::Volume { name: "v".into(), kind: "docker".into(), docker_volume_configuration, ..Default::default() }];
            task.containers[0].mount_points =
                vec![acs::MountPoint { source_volume: "v".into(), container_path: "/v".into(), read_only: false }];
            change(task);
        };
        let refusal = one(with_volume).blueprint.unwrap_err();
        assert!(refusal.starts_with(text), "{refusal}");
    }
    let bad_check = HealthCheck { test: vec!["CMD".into()], ..Default::default() };
    let docker: [(ContainerConfig, HostConfig, &str); 6] = [
        (ContainerConfig { healthcheck: Some(bad_check), ..Default::default() }, HostConfig::default(), "healthCheck: command CMD "),
        (
            ContainerConfig::default(),
            HostConfig { devices: vec![acs::Device::default()], ..Default::default() },
            "linuxParameters.devices: hostPath '' ",
        ),
        (ContainerConfig::default(), HostConfig { pid_mode: "container:x".into(), ..Default::default() }, "pidMode container:x "),
        (
            ContainerConfig::default(),
            HostConfig { log_config: Some(acs::LogConfig { kind: "splunk".into(), ..Default::default() }), ..Default::default() },
            "log driver splunk ",
        ),
        (
            ContainerConfig::default(),
            HostConfig { tmpfs: [("/x".to_owned(), "rw".to_owned())].into(), ..Default::default() },
            "tmpfs /x has no size",
        ),
        (ContainerConfig::default(), HostConfig { extra_hosts: vec!["nobody".into()], ..Default::default() }, "extraHosts: 'nobody' "),
    ];
    for (config, host, text) in docker {
        let refusal = with_docker(config, host).blueprint.unwrap_err();
        assert!(refusal.starts_with(text), "{refusal}");
    }
}

#[test]
fn volumes() {
    let mount = |name: &str, path: &str, source: &str| {
        one(|task| {
            task.volumes = vec![acs::Volume {
                name: "v".into(),
                kind: "host".into(),
                host: Some(acs::HostVolume { source_path: source.into() }),
                ..Default::default()
            }];
            task.containers[0].mount_points =
                vec![acs::MountPoint { source_volume: name.into(), container_path: path.into(), read_only: true }];
        })
        .blueprint
        .map(|blueprint| blueprint.spec.mounts[0].clone())
    };
    let own = mount("v", "/data", "").unwrap();
    assert_eq!((own.source.to_str().unwrap(), own.read_only), ("/data/volumes/0123abc/v", true));
    assert_eq!(mount("v", "/data", "/srv").unwrap().source.to_str(), Some("/srv"));
    for (name, path, source) in
        [("w", "/data", ""), ("v", "data", ""), ("v", "/../data", ""), ("v", "/data", "srv"), ("v", "/data", "/a/../b")]
    {
        assert!(mount(name, path, source).is_err(), "{name} {path} {source}");
    }
    let efs = one(|task| {
        task.volumes = vec![acs::Volume { name: "v".into(), kind: "efs".into(), ..Default::default() }];
        task.containers[0].mount_points =
            vec![acs::MountPoint { source_volume: "v".into(), container_path: "/d".into(), read_only: false }];
    });
    // Not refused before anything is looked at: the task ends with the class that ECS has for it.
    let blueprint = efs.blueprint.unwrap();
    let [VolumePlan::Refused(reason)] = &blueprint.volumes[..] else { panic!("{:?}", blueprint.volumes) };
    assert!(reason.starts_with("fileSystemId: ") && reason.contains("BERTH_EFS"), "{reason}");
    let other = one(|task| {
        task.volumes = vec![acs::Volume { name: "v".into(), kind: "ebs".into(), ..Default::default() }];
        task.containers[0].mount_points =
            vec![acs::MountPoint { source_volume: "v".into(), container_path: "/d".into(), read_only: false }];
    });
    assert_eq!(other.blueprint.unwrap_err(), "volume 'v' of type ebs is not supported by this agent");
}

#[test]
fn storage_with_a_size_comes_before_the_volumes_in_it() {
    let sized = |size_in_gib| {
        one(|task| {
            task.ephemeral_storage = Some(acs::EphemeralStorage { size_in_gib });
            task.volumes = vec![acs::Volume { name: "v".into(), kind: "host".into(), ..Default::default() }];
            task.containers[0].mount_points =
                vec![acs::MountPoint { source_volume: "v".into(), container_path: "/d".into(), read_only: false }];
        })
        .blueprint
    };
    let volumes = sized(21).unwrap().volumes;
    assert_eq!(volumes[0], VolumePlan::Sized { folder: "/data/volumes/0123abc".into(), bytes: 21 << 30, required: true });
    assert!(matches!(volumes[1], VolumePlan::Task { .. }) && volumes.len() == 2);
    assert_eq!(sized(0).unwrap_err(), "ephemeralStorage: sizeInGiB 0 is no size");
}

#[test]
fn tasks_that_are_none() {
    let error = |change: fn(&mut acs::Task)| {
        let mut task = task("t1", &[("main", "x")]);
        change(&mut task);
        plan(&task, &context()).unwrap_err()
    };
    for change in [
        (|task| task.containers.clear()) as fn(&mut acs::Task),
        |task| task.arn = "arn:aws:ecs:r:1:task/c/..".into(),
        |task| task.arn = String::new(),
        |task| task.containers[0].name = String::new(),
        |task| task.containers = vec![task.containers[0].clone(); 2],
        |task| task.containers[0].overrides = acs::JsonText(r#"{"environment":[]}"#.into()),
        |task| task.containers[0].overrides = acs::JsonText("x".into()),
    ] {
        assert!(matches!(error(change), PlanError::Unreadable(_)), "{:?}", error(change));
    }
    let depends = |name: &str, condition: &str| acs::ContainerDependency { container_name: name.into(), condition: condition.into() };
    let mut circle = task("t1", &[("main", "x")]);
    for dependency in [depends("main", "START"), depends("nobody", "START"), depends("main", "HEALTHY"), depends("main", "NEVER")] {
        circle.containers[0].depends_on = vec![dependency];
        assert!(matches!(plan(&circle, &context()), Err(PlanError::Dependencies(_))));
    }
}
