//! What of a specification becomes what of Docker's configuration. It never talks to a daemon.

use std::collections::BTreeMap;

use super::*;
use crate::port::{BindMount, ContainerId, DeviceMapping as Device, PublishedPort, TmpfsMount, Ulimit};

fn plain() -> ContainerSpec {
    serde_json::from_value(serde_json::json!({
        "id": "t-0", "image_digest": "sha256:aa", "entry_point": null, "command": null, "environment": {}, "user": null,
        "working_directory": null, "hostname": null, "extra_hosts": [], "dns_servers": [], "dns_search": [], "network": "Host",
        "address": null, "cgroup_parent": "t", "cpu_shares": 0, "cpu_limit_millis": null, "memory_limit": null,
        "memory_reservation": null, "task_pids_limit": null, "capabilities_add": [], "capabilities_drop": [], "privileged": false,
        "read_only_root": false, "mounts": [], "tmpfs": [], "shared_memory_mib": null, "ulimits": [], "sysctls": {}, "terminal": false,
        "stdin_open": false, "init": false, "devices": [], "memory_swap": null, "swappiness": null, "security_options": [],
        "pid": "Own", "ipc": "Own", "gpus": [], "labels": {}, "log_limit": 1000
    }))
    .unwrap()
}

fn made(spec: &ContainerSpec) -> ContainerCreateBody {
    body(spec, "image", &Names::new("aa"), |_| u64::MAX).unwrap()
}

fn host(spec: &ContainerSpec) -> HostConfig {
    made(spec).host_config.unwrap()
}

#[test]
fn process_and_names() {
    let spec = ContainerSpec {
        entry_point: Some(vec!["e".into()]),
        command: Some(vec!["c".into()]),
        environment: BTreeMap::from([("A".into(), "b c".into())]),
        user: Some("web".into()),
        working_directory: Some("/srv".into()),
        terminal: true,
        stdin_open: true,
        labels: BTreeMap::from([("task".into(), "x".into())]),
        ..plain()
    };
    let body = made(&spec);
    assert_eq!(
        (body.entrypoint.unwrap(), body.cmd.unwrap(), body.env.unwrap()),
        (vec!["e".into()], vec!["c".into()], vec!["A=b c".into()])
    );
    assert_eq!((body.user.as_deref(), body.working_dir.as_deref(), body.image.as_deref()), (Some("web"), Some("/srv"), Some("image")));
    assert_eq!((body.tty, body.open_stdin), (Some(true), Some(true)));
    assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"], "an image's own health check is ignored");
    let (id, labels, limit) = super::super::names::read_labels(&body.labels.unwrap()).unwrap();
    assert_eq!((id, labels, limit), (spec.id.clone(), spec.labels.clone(), 1000));
    // The machine's name in the machine's network, else the container's own.
    assert_eq!(made(&plain()).hostname, None);
    let isolated = ContainerSpec { id: ContainerId("0123456789abcdef".into()), network: ContainerNetwork::Isolated, ..plain() };
    assert_eq!(made(&isolated).hostname.unwrap(), "0123456789ab");
}

#[test]
fn resources() {
    let spec = ContainerSpec {
        cpu_limit_millis: Some(250),
        memory_limit: Some(64 << 20),
        memory_reservation: Some(32 << 20),
        memory_swap: Some(-1),
        swappiness: Some(7),
        task_pids_limit: Some(9),
        shared_memory_mib: Some(5),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: u64::MAX }],
        gpus: vec!["GPU-1".into()],
        init: true,
        ..plain()
    };
    let host = host(&spec);
    assert_eq!((host.cpu_shares, host.nano_cpus), (Some(2), Some(250_000_000)));
    assert_eq!((host.memory, host.memory_reservation, host.memory_swap), (Some(64 << 20), Some(32 << 20), Some(-1)));
    assert_eq!((host.memory_swappiness, host.pids_limit, host.shm_size, host.init), (Some(7), Some(9), Some(5 << 20), Some(true)));
    let limit = &host.ulimits.unwrap()[0];
    assert_eq!((limit.name.as_deref(), limit.soft, limit.hard), (Some("nofile"), Some(1), Some(-1)));
    let cut = body(&spec, "image", &Names::new("aa"), |_| 100).unwrap().host_config.unwrap().ulimits.unwrap();
    assert_eq!((cut[0].soft, cut[0].hard), (Some(1), Some(100)));
    assert_eq!(host.device_requests.unwrap()[0].device_ids.as_ref().unwrap(), &["GPU-1"]);
    assert_eq!(host.cgroup_parent, None);
}

#[test]
fn networks_and_ports() {
    let port = |container_port, host_port, udp| PublishedPort { container_port, host_port, udp };
    let ports = vec![port(80, 8080, false), port(80, 8081, false), port(53, 5353, true)];
    let spec = ContainerSpec { network: ContainerNetwork::Bridge(ports), ..plain() };
    let host = host(&spec);
    assert_eq!(host.network_mode.as_deref(), Some("bridge"));
    let bindings = host.port_bindings.unwrap();
    let of = |key: &str| bindings[key].clone().unwrap().into_iter().map(|b| (b.host_ip.unwrap(), b.host_port.unwrap())).collect::<Vec<_>>();
    assert_eq!(of("80/tcp"), [("0.0.0.0".to_owned(), "8080".to_owned()), ("0.0.0.0".to_owned(), "8081".to_owned())]);
    assert_eq!(of("53/udp"), [("0.0.0.0".to_owned(), "5353".to_owned())]);
    assert_eq!(super::network_mode(&ContainerNetwork::Isolated), "none");
    assert_eq!(super::network_mode(&ContainerNetwork::Host), "host");
}

#[test]
fn files_and_confinement() {
    let spec = ContainerSpec {
        mounts: vec![BindMount { source: "/a".into(), destination: "/b".into(), read_only: true, owner: None, remote: false }],
        tmpfs: vec![TmpfsMount { destination: "/t".into(), size_mib: 3, options: vec!["mode=1777".into()] }],
        devices: vec![Device { host_path: "/dev/null".into(), container_path: "/dev/x".into(), permissions: "rw".into() }],
        capabilities_add: vec!["NET_ADMIN".into()],
        capabilities_drop: vec!["ALL".into()],
        security_options: vec!["no-new-privileges".into()],
        read_only_root: true,
        privileged: true,
        pid: Sharing::Host,
        ipc: Sharing::Closed,
        ..plain()
    };
    let host = host(&spec);
    let mount = &host.mounts.unwrap()[0];
    assert_eq!((mount.source.as_deref(), mount.target.as_deref(), mount.read_only), (Some("/a"), Some("/b"), Some(true)));
    assert_eq!(host.tmpfs.unwrap()["/t"], "size=3m,mode=1777");
    assert_eq!(host.devices.unwrap()[0].path_in_container.as_deref(), Some("/dev/x"));
    assert_eq!((host.cap_add.unwrap(), host.cap_drop.unwrap()), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!((host.readonly_rootfs, host.privileged), (Some(true), Some(true)));
    assert_eq!((host.pid_mode.as_deref(), host.ipc_mode.as_deref()), (Some("host"), Some("none")));
}

#[test]
fn output_is_kept_by_docker_until_it_is_written_down() {
    let log = |limit| host(&ContainerSpec { log_limit: limit, ..plain() }).log_config.unwrap();
    assert_eq!(log(0).typ.as_deref(), Some("none"));
    let kept = log(1000);
    assert_eq!((kept.typ.as_deref(), kept.config.unwrap()["max-size"].as_str()), (Some("local"), "8192k"));
    assert_eq!(log(64 << 20).config.unwrap()["max-size"], "32768k");
}

#[test]
fn what_cannot_be_is_named() {
    let refused = |spec: ContainerSpec, member: &str| {
        let error = body(&spec, "image", &Names::new("aa"), |_| u64::MAX).expect_err("it cannot be");
        assert!(matches!(&error, RunError::InvalidSpec(text) if text.contains(member)), "{member}: {error:?}");
    };
    refused(ContainerSpec { network: ContainerNetwork::Namespace("/x".into()), ..plain() }, "network");
    refused(ContainerSpec { pid: Sharing::Task, ..plain() }, "pidMode");
    refused(ContainerSpec { ipc: Sharing::Task, ..plain() }, "ipcMode");
    refused(ContainerSpec { cgroup_parent: "../up".into(), ..plain() }, "cgroup_parent");
    refused(ContainerSpec { id: ContainerId("A".into()), ..plain() }, "id");
    refused(ContainerSpec { hostname: Some("a b".into()), ..plain() }, "hostname");
    refused(ContainerSpec { sysctls: BTreeMap::from([("net.core.somaxconn".into(), "1".into())]), ..plain() }, "systemControls");
    let device = Device { host_path: "/dev/null".into(), container_path: "/dev/x".into(), permissions: "x".into() };
    refused(ContainerSpec { devices: vec![device], ..plain() }, "devices");
    let mount = BindMount { source: "/a".into(), destination: "/b/../..".into(), read_only: true, owner: None, remote: false };
    refused(ContainerSpec { mounts: vec![mount], ..plain() }, "mountPoints");
}
