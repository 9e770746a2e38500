//! Tests of what a specification and an image come to.

use super::*;
use crate::port::{BindMount, ContainerId, Sharing, TmpfsMount};

fn spec() -> ContainerSpec {
    ContainerSpec {
        id: ContainerId("0123456789abcdef".into()),
        image_digest: String::new(),
        entry_point: None,
        command: None,
        environment: BTreeMap::new(),
        user: None,
        working_directory: None,
        hostname: None,
        extra_hosts: vec![],
        dns_servers: vec![],
        dns_search: vec![],
        instance_dns: None,
        network: ContainerNetwork::Namespace("/run/netns/x".into()),
        address: None,
        cgroup_parent: "task".into(),
        cpu_shares: 0,
        cpu_limit_millis: None,
        memory_limit: None,
        memory_reservation: None,
        task_pids_limit: None,
        task_cpu_limit_millis: None,
        task_memory_limit: None,
        kept_apart: false,
        capabilities_add: vec![],
        capabilities_drop: vec![],
        privileged: false,
        read_only_root: false,
        mounts: vec![],
        storage: None,
        tmpfs: vec![],
        shared_memory_mib: None,
        ulimits: vec![],
        sysctls: BTreeMap::new(),
        terminal: false,
        stdin_open: false,
        init: false,
        devices: vec![],
        memory_swap: None,
        swappiness: None,
        security_options: vec![],
        pid: Sharing::Own,
        ipc: Sharing::Own,
        gpus: vec![],
        labels: BTreeMap::new(),
        log_limit: 0,
    }
}

fn image() -> ImageDefaults {
    ImageDefaults {
        user: "web".into(),
        env: vec!["PATH=/bin".into(), "A=1".into(), "B=2".into()],
        entrypoint: vec!["/run".into()],
        cmd: vec!["serve".into()],
        working_dir: "/srv".into(),
        stop_signal: String::new(),
    }
}

fn config_of(spec: &ContainerSpec) -> Result<Value, RunError> {
    let machine = Machine {
        root: "/root".into(),
        cgroups: Layout::V1 { hierarchies: vec![] },
        capabilities: BTreeSet::new(),
        modules: Modules::default(),
    };
    config(spec, &plan_process(spec, &image(), "machine")?, Path::new("/data/c"), "/berth/task/c", &machine, false)
}

#[test]
fn entry_point_and_command_combine_as_in_docker() {
    let words = |entry: Option<&[&str]>, command: Option<&[&str]>| {
        let own = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let spec = ContainerSpec { entry_point: entry.map(own), command: command.map(own), ..spec() };
        plan_process(&spec, &image(), "m").map(|plan| plan.arguments.join(" ")).map_err(|e| e.to_string())
    };
    assert_eq!(words(None, None).unwrap(), "/run serve");
    assert_eq!(words(None, Some(&["x", "y"])).unwrap(), "/run x y");
    assert_eq!(words(Some(&["/e"]), None).unwrap(), "/e");
    assert_eq!(words(Some(&["/e"]), Some(&["x"])).unwrap(), "/e x");
    assert!(words(Some(&[]), None).unwrap_err().contains("no command specified"));
}

#[test]
fn the_users_environment_wins() {
    let spec = ContainerSpec { environment: BTreeMap::from([("B".into(), "3".into()), ("C".into(), "a=b".into())]), ..spec() };
    let plan = plan_process(&spec, &image(), "m").unwrap();
    assert_eq!(plan.environment, ["PATH=/bin", "HOSTNAME=0123456789ab", "A=1", "B=3", "C=a=b"]);
    assert_eq!((plan.user.as_str(), plan.working_directory.as_str()), ("web", "/srv"));
}

#[test]
fn host_names() {
    let host = ContainerSpec { network: ContainerNetwork::Host, ..spec() };
    assert_eq!(plan_process(&host, &image(), "machine").unwrap().hostname, "machine");
    assert_eq!(plan_process(&spec(), &image(), "machine").unwrap().hostname, "0123456789ab");
    let bad = ContainerSpec { hostname: Some("a b".into()), ..spec() };
    assert!(plan_process(&bad, &image(), "m").unwrap_err().to_string().starts_with("hostname:"));
}

#[test]
fn limits_reach_the_configuration() {
    let spec = ContainerSpec {
        cpu_shares: 1,
        cpu_limit_millis: Some(250),
        memory_limit: Some(64 << 20),
        memory_reservation: Some(32 << 20),
        task_pids_limit: Some(10),
        ..spec()
    };
    let resources = config_of(&spec).unwrap()["linux"]["resources"].clone();
    assert_eq!(resources["cpu"], json!({"shares": 2, "period": 100_000, "quota": 25_000}));
    assert_eq!(resources["memory"], json!({"limit": 64 << 20, "reservation": 32 << 20}));
    assert_eq!(resources["pids"]["of_task"], 10);
    assert_eq!(resources["devices"][0]["allow"], false);
}

#[test]
fn mounts_are_ordered_and_replace_ours() {
    let source = std::env::temp_dir();
    let bind = |destination: &str| BindMount {
        source: source.clone(),
        destination: destination.into(),
        read_only: true,
        owner: None,
        remote: false,
    };
    let spec = ContainerSpec {
        mounts: vec![bind("/a/b/c"), bind("/a"), bind("/etc/hosts"), bind("/dev")],
        tmpfs: vec![TmpfsMount { destination: "/dev/shm".into(), size_mib: 8, options: vec!["exec".into()] }],
        ..spec()
    };
    let mounts = config_of(&spec).unwrap()["mounts"].as_array().unwrap().clone();
    let places: Vec<&str> = mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    assert!(places.iter().position(|place| *place == "/a") < places.iter().position(|place| *place == "/a/b/c"));
    assert_eq!(places.iter().filter(|place| **place == "/etc/hosts").count(), 1);
    assert!(places.iter().position(|place| *place == "/dev") < places.iter().position(|place| *place == "/dev/pts"));
    let read_only = config_of(&ContainerSpec { read_only_root: true, ..self::spec() }).unwrap()["mounts"].clone();
    let hosts = read_only.as_array().unwrap().iter().find(|mount| mount["destination"] == "/etc/hosts").unwrap();
    assert_eq!(hosts["options"][2], "ro");
    let shm: Vec<&Value> = mounts.iter().filter(|mount| mount["destination"] == "/dev/shm").collect();
    assert_eq!(shm.len(), 1);
    assert_eq!(shm[0]["options"], json!(["exec", "nosuid", "nodev", "size=8m"]));
}

#[test]
fn members_that_cannot_be_are_named() {
    let refused = |spec: ContainerSpec| config_of(&spec).unwrap_err().to_string();
    let missing = BindMount { source: "/no/such/path".into(), destination: "/x".into(), read_only: false, owner: None, remote: false };
    assert!(refused(ContainerSpec { mounts: vec![missing], ..spec() }).starts_with("mountPoints: source path"));
    let up = BindMount { source: "/tmp".into(), destination: "/x/../..".into(), read_only: false, owner: None, remote: false };
    assert!(refused(ContainerSpec { mounts: vec![up], ..spec() }).starts_with("mountPoints: containerPath"));
    let proc = BindMount { source: "/tmp".into(), destination: "/proc/sys".into(), read_only: false, owner: None, remote: false };
    assert!(refused(ContainerSpec { mounts: vec![proc], ..spec() }).contains("inside /proc"));
    let tmpfs = TmpfsMount { destination: "/x".into(), size_mib: 1, options: vec!["lowerdir=/".into()] };
    assert!(refused(ContainerSpec { tmpfs: vec![tmpfs], ..spec() }).contains("lowerdir"));
    let sysctl = BTreeMap::from([("kernel.panic".to_owned(), "1".to_owned())]);
    assert!(refused(ContainerSpec { sysctls: sysctl, ..spec() }).starts_with("systemControls:"));
    let net = BTreeMap::from([("net.core.somaxconn".to_owned(), "1".to_owned())]);
    assert!(config_of(&ContainerSpec { sysctls: net.clone(), ..spec() }).is_ok());
    assert!(refused(ContainerSpec { sysctls: net, network: ContainerNetwork::Host, ..spec() }).contains("somaxconn"));
}

#[test]
fn swap_goes_with_memory() {
    let config = |limit, swap| config_of(&ContainerSpec { memory_limit: limit, memory_swap: swap, ..spec() });
    let swap = |limit, swap| config(limit, swap).unwrap()["linux"]["resources"]["memory"]["swap"].clone();
    assert_eq!(swap(Some(10), None), Value::Null);
    assert_eq!((swap(Some(10), Some(10)), swap(Some(10), Some(15))), (json!(10), json!(15)));
    assert_eq!((swap(Some(10), Some(-1)), swap(None, Some(-1))), (json!(-1), json!(-1)));
    for (limit, swap) in [(Some(10), Some(9)), (None, Some(9)), (Some(10), Some(-2))] {
        let error = config(limit, swap).unwrap_err().to_string();
        assert!(error.starts_with("linuxParameters.maxSwap: "), "{error}");
    }
    let error = config_of(&ContainerSpec { swappiness: Some(101), ..spec() }).unwrap_err().to_string();
    assert!(error.starts_with("linuxParameters.swappiness: 101"), "{error}");
}

#[test]
fn namespaces_are_own_shared_or_the_machines() {
    let of = |pid, ipc| {
        let config = config_of(&ContainerSpec { pid, ipc, ..spec() }).unwrap();
        let kinds: Vec<String> = config["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|namespace| namespace["type"].as_str().unwrap().to_owned())
            .filter(|kind| kind == "pid" || kind == "ipc")
            .collect();
        let kind_at = |place: &str| {
            let mounts = config["mounts"].as_array().unwrap();
            mounts.iter().find(|mount| mount["destination"] == place).map(|mount| mount["type"].as_str().unwrap().to_owned())
        };
        (kinds.join(" "), kind_at("/proc").unwrap_or_default(), kind_at("/dev/shm").unwrap_or_default())
    };
    let expected = |kinds: &str, proc: &str, shm: &str| (kinds.to_owned(), proc.to_owned(), shm.to_owned());
    assert_eq!(of(Sharing::Own, Sharing::Own), expected("pid ipc", "proc", "tmpfs"));
    assert_eq!(of(Sharing::Closed, Sharing::Closed), expected("pid ipc", "proc", ""));
    assert_eq!(of(Sharing::Task, Sharing::Task), expected("", "shared", "shared"));
    let (kinds, proc, _) = of(Sharing::Host, Sharing::Host);
    assert_eq!((kinds.as_str(), proc.as_str()), ("", "proc"));
    let sysctl = BTreeMap::from([("kernel.shmmax".to_owned(), "1".to_owned())]);
    let host = ContainerSpec { sysctls: sysctl, ipc: Sharing::Host, ..spec() };
    assert!(config_of(&host).unwrap_err().to_string().contains("kernel.shmmax"), "the machine's are not the container's to set");
}

#[test]
fn privileged_containers_see_all() {
    let linux = config_of(&ContainerSpec { privileged: true, ..spec() }).unwrap()["linux"].clone();
    assert!(linux.get("maskedPaths").is_none());
    assert_eq!(linux["resources"]["devices"][0]["allow"], true);
    assert!(linux["devices"].as_array().unwrap().iter().any(|device| device["path"] == "/dev/null"));
}

#[test]
fn files_of_etc() {
    let spec = ContainerSpec {
        address: Some("10.0.0.2".parse().unwrap()),
        extra_hosts: vec![("db".into(), "10.0.0.9".into())],
        dns_search: vec!["internal".into()],
        ..spec()
    };
    let plan = plan_process(&spec, &image(), "m").unwrap();
    let machine = "127.0.0.1 localhost\n10.9.9.9 printer\n";
    assert!(hosts(&spec, &plan, machine).ends_with("10.0.0.9\tdb\n10.0.0.2\t0123456789ab\n"));
    assert!(!hosts(&spec, &plan, machine).contains("printer"));
    let on_host = ContainerSpec { network: ContainerNetwork::Host, address: None, ..spec.clone() };
    assert_eq!(hosts(&on_host, &plan, machine), format!("{machine}10.0.0.9\tdb\n"));
    assert_eq!(resolv_conf(&spec, "nameserver 1.1.1.1\nsearch x\n"), "search internal\nnameserver 1.1.1.1\n");
    let local = "nameserver 127.0.0.1\nnameserver ::1\nnameserver 1.1.1.1\n";
    let plain = ContainerSpec { dns_search: vec![], ..spec.clone() };
    assert_eq!(resolv_conf(&plain, local), "nameserver 1.1.1.1\n");
    assert_eq!(resolv_conf(&ContainerSpec { network: ContainerNetwork::Host, ..plain }, local), local);
    let own = ContainerSpec { dns_servers: vec!["10.0.0.1".into()], dns_search: vec![], ..spec.clone() };
    assert_eq!(resolv_conf(&own, "nameserver 1.1.1.1\n"), "nameserver 10.0.0.1\n");
}

#[test]
fn the_instances_name_server_goes_before_the_machines() {
    let machine = "search corp\nnameserver 127.0.0.1\nnameserver 1.1.1.1\noptions ndots:2\n";
    let with = |alone, more: ContainerSpec| {
        let instance_dns = Some(crate::port::InstanceDns { address: "10.9.0.1".parse().unwrap(), alone });
        resolv_conf(&ContainerSpec { instance_dns, ..more }, machine)
    };
    assert_eq!(with(false, spec()), "nameserver 10.9.0.1\nsearch corp\nnameserver 1.1.1.1\noptions ndots:2\n");
    assert_eq!(with(true, spec()), "nameserver 10.9.0.1\nsearch corp\noptions ndots:2\n");
    let searching = ContainerSpec { dns_search: vec!["ns.local".into()], ..spec() };
    assert_eq!(with(true, searching), "search ns.local\nnameserver 10.9.0.1\n");
    let defined = ContainerSpec { dns_servers: vec!["10.0.0.1".into()], ..spec() };
    assert_eq!(with(true, defined), "nameserver 10.0.0.1\n", "what a definition says is stronger");
    assert_eq!(with(true, ContainerSpec { network: ContainerNetwork::Host, ..spec() }), machine);
}

#[test]
fn stop_signals() {
    for (text, number) in [("", 15), ("SIGQUIT", 3), ("quit", 3), ("9", 9), ("99", 15), ("SIGRTMIN+3", libc::SIGRTMIN() + 3), ("x", 15)] {
        assert_eq!(stop_signal(text), number, "{text:?}");
    }
}
