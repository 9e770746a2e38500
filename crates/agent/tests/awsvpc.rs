//! Tasks with interfaces of their own, for real: the agent's tasks over the native runtime and this machine's network, in a network
//! namespace of the test's own.
#![cfg(target_os = "linux")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_acs::messages as acs;
use berth_agent::AgentConfig;
use berth_agent::clock::Clock;
use berth_agent::images::Images;
use berth_agent::ledger::Ledger;
use berth_agent::names::Names;
use berth_agent::reports::Submission;
use berth_agent::sources::AwsSources;
use berth_agent::tasks::{Means, PortRanges, PullGate, Tasks};
use berth_network::linux::{BridgeConfig, BridgeNetwork, InterfaceConfig, InterfaceNetwork, MachineNetwork};
use berth_network::port::Network;
use berth_runtime::conformance::fixture::{Packing, TestRegistry, busybox};
use berth_runtime::native::cgroups::Layout;
use berth_runtime::native::{NativeConfig, NativeRuntime};
use berth_runtime::port::{ContainerId, ExecSpec, Runtime};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Generous: it only bounds how long a failing test takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Binaries of the same profile, two folders above the test's own; or where the environment says.
fn program(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|test| test.parent().and_then(Path::parent).map(Path::to_path_buf));
    let folder = std::env::var_os("BERTH_SHIM_DIR").map(PathBuf::from).or(own)?;
    Some(folder.join(name)).filter(|path| path.exists())
}

/// Ends what a failed test leaves: kills only processes in cgroups of this test's own name.
struct Sweep(String);

impl Drop for Sweep {
    fn drop(&mut self) {
        if let Ok(cgroups) = Layout::detect() {
            cgroups.sweep(&self.0);
        }
    }
}

struct World {
    runtime: Arc<NativeRuntime>,
    network: Arc<MachineNetwork>,
    tasks: Arc<Tasks>,
    inbox: mpsc::Receiver<Submission>,
    stop: CancellationToken,
    image: String,
    _registry: TestRegistry,
    folder: PathBuf,
}

impl World {
    async fn new(folder: &Path, cgroup_root: &str, shim: PathBuf, monitor: PathBuf) -> Option<Self> {
        let registry = TestRegistry::start().await;
        registry.put_image("busybox", "1", &[(busybox()?.finish(), Packing::Gzip)], serde_json::json!({}));
        let native = NativeConfig {
            data_dir: folder.join("data"),
            cgroup_root: cgroup_root.to_owned(),
            shim,
            monitor,
            berth_registry: None,
            pull_inactivity: AgentConfig::default().pull_inactivity,
        };
        let runtime = Arc::new(NativeRuntime::open(native).expect("the runtime opens"));
        let mut bridge = BridgeConfig::new("a1", folder.join("network"), folder.join("netns"));
        bridge.subnet_lock = folder.join("subnet.lock");
        let interfaces = InterfaceConfig::new("a1", folder.join("interfaces"), folder.join("interfaces-netns"));
        let interfaces = InterfaceNetwork::open(interfaces).expect("interfaces open");
        let network = Arc::new(MachineNetwork::new(BridgeNetwork::open(bridge).expect("the bridge opens"), Some(interfaces)));
        let image = format!("{}/busybox:1", registry.host());
        let stop = CancellationToken::new();
        let (tasks, inbox) = tasks(folder, &runtime, &network, &stop);
        Some(Self { runtime, network, tasks, inbox, stop, image, _registry: registry, folder: folder.to_owned() })
    }

    /// The agent ends and comes back.
    async fn restart(&mut self) {
        self.stop.cancel();
        self.tasks.ended().await;
        self.stop = CancellationToken::new();
        (self.tasks, self.inbox) = tasks(&self.folder, &self.runtime, &self.network, &self.stop);
        self.tasks.recover("").await.expect("the agent goes on");
    }

    /// The next report's status, which is accepted.
    async fn status(&mut self) -> String {
        let submission = tokio::time::timeout(PATIENCE, self.inbox.recv()).await.expect("a report comes").expect("the agent is there");
        if let Some(done) = submission.done {
            done.send(()).expect("somebody waits");
        }
        let reasons = submission.request.containers.iter().flatten().filter_map(|container| container.reason.clone());
        let bindings = submission.request.containers.iter().flatten().filter_map(|container| container.network_bindings.as_ref());
        assert_eq!(bindings.count(), 0, "nothing is published");
        let reasons: String = reasons.filter(|reason| !reason.is_empty()).map(|reason| format!(": {reason}")).collect();
        format!("{}{reasons}", submission.request.status.unwrap_or_default())
    }

    /// Waits for a report of a status.
    async fn until(&mut self, wanted: &str) {
        loop {
            let status = self.status().await;
            if status == wanted {
                return;
            }
            assert!(!status.starts_with("STOPPED") || wanted == "STOPPED", "{status}");
            if status.starts_with("STOPPED") {
                return;
            }
        }
    }

    fn task(&self, id: &str, last: u8, groups: &[&str], commands: &[&str]) -> acs::Task {
        let container = |(index, command): (usize, &&str)| acs::Container {
            name: format!("c{index}"),
            image: self.image.clone(),
            essential: true,
            command: vec!["sh".into(), "-c".into(), (*command).to_owned()],
            stop_timeout: 1,
            port_mappings: vec![acs::PortMapping { container_port: 80, host_port: 80, ..Default::default() }],
            ..Default::default()
        };
        let address = Ipv4Addr::new(10, 79, 0, last);
        acs::Task {
            arn: format!("arn:aws:ecs:us-east-1:000000000000:task/default/{id}"),
            desired_status: acs::DesiredStatus::Running,
            family: "web".into(),
            version: "1".into(),
            network_mode: "awsvpc".into(),
            elastic_network_interfaces: vec![acs::ElasticNetworkInterface {
                attachment_arn: format!("arn:aws:ecs:us-east-1:000000000000:attachment/{id}"),
                ec2_id: format!("eni-{id}"),
                mac_address: format!("02:00:0a:4f:00:{last:02x}"),
                ipv4_addresses: vec![acs::Ipv4Address { primary: true, private_address: address.to_string() }],
                subnet_gateway_ipv4_address: "10.79.0.1/24".into(),
                domain_name: vec!["eu-west-1.compute.internal".into()],
                domain_name_servers: vec!["10.79.0.2".into()],
                private_dns_name: format!("ip-10-79-0-{last}.eu-west-1.compute.internal"),
                security_groups: groups.iter().map(ToString::to_string).collect(),
                ..Default::default()
            }],
            containers: commands.iter().enumerate().map(container).collect(),
            ..Default::default()
        }
    }

    /// What a command in a container prints; none if it fails.
    async fn prints(&self, container: &str, command: &str) -> Option<String> {
        let spec = ExecSpec {
            command: ["sh", "-c", command].map(str::to_owned).to_vec(),
            environment: Default::default(),
            user: None,
            timeout: Duration::from_secs(20),
            output_limit: 4096,
        };
        let outcome = self.runtime.exec(&ContainerId(container.to_owned()), spec).await.expect("the command runs");
        (outcome.code == Some(0)).then(|| String::from_utf8_lossy(&outcome.output).trim().to_owned())
    }
}

fn tasks(
    folder: &Path,
    runtime: &Arc<NativeRuntime>,
    network: &Arc<MachineNetwork>,
    stop: &CancellationToken,
) -> (Arc<Tasks>, mpsc::Receiver<Submission>) {
    let config = AgentConfig { region: "eu-west-1".into(), data_dir: folder.join("agent"), ..Default::default() };
    let (submissions, inbox) = mpsc::channel(64);
    let clock = Clock::Machine;
    let ledger = Ledger::open(&config.data_dir).expect("a ledger");
    let images = Images::open(&config, runtime.clone(), ledger.clone(), clock.clone()).expect("a book of images");
    let means = Means {
        runtime: runtime.clone(),
        network: network.clone(),
        sources: Arc::new(AwsSources::new(config.service_endpoints.clone(), config.access_key.clone(), clock.clone())),
        names: Names::new(config.dns.clone(), ledger.clone()),
        port_ranges: PortRanges::new(config.dynamic_host_ports.clone()),
        endpoint: Default::default(),
        ledger,
        clock,
        pulls: PullGate::new(2),
        images: Arc::new(images),
        submissions,
        volumes: Default::default(),
        shared: Default::default(),
        config,
    };
    (Tasks::new(Arc::new(means), stop.clone()), inbox)
}

#[test]
fn tasks_share_an_interface_and_reach_each_other_as_their_groups_say() {
    // SAFETY: no memory arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    let (true, Some(shim), Some(monitor), Some(_)) = (is_root, program("berth-shim"), program("berth-monitor"), busybox()) else {
        eprintln!("SKIPPED (needs root, busybox-static, and berth-shim built beside): tasks with interfaces over the native runtime");
        return;
    };
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("a network and mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private mounts");
        raise_loopback();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(story(shim, monitor));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn story(shim: PathBuf, monitor: PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let cgroup_root = format!("berth-test-awsvpc-{}", std::process::id());
    let _sweep = Sweep(cgroup_root.clone());
    let mut world = World::new(folder.path(), &cgroup_root, shim, monitor).await.expect("busybox is there");
    let table = serde_json::json!({
        "groups": {
            "sg-web": {"ingress": [{"traffic": {"tcp": [80, 80]}, "peer": {"group": "sg-client"}}], "egress": []},
            "sg-client": {"ingress": [], "egress": [{"traffic": "all", "peer": {"range": "0.0.0.0/0"}}]}
        },
        "interfaces": {}
    });
    world.tasks.apply_network_table(acs::NetworkTableMessage { table, ..Default::default() }).await.expect("the table is enforced");
    let serve = "mkdir -p /www; echo hello > /www/index.html; exec /bin/busybox httpd -f -p 80 -h /www";
    let web = world.task("web", 5, &["sg-web"], &[serve, "exec sleep 1000"]);
    let client = world.task("client", 6, &["sg-client"], &[serve]);
    for task in [&web, &client] {
        world.tasks.take(task.clone()).await.expect("taken");
        world.until("RUNNING").await;
    }
    let ask = |host: &str| format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc -w 1 {host} 80 | grep -x hello");
    let fetch = |host: &str| format!("for n in 1 2 3 4 5 6 7 8 9; do {} && exit 0; sleep 0.2; done; exit 1", ask(host));
    assert_eq!(world.prints("web-1", &fetch("127.0.0.1")).await.as_deref(), Some("hello"), "containers of a task share localhost");
    assert_eq!(world.prints("client-0", &fetch("10.79.0.5")).await.as_deref(), Some("hello"), "a member of the group");
    assert_eq!(world.prints("web-0", &ask("10.79.0.6")).await, None, "the other way round");
    assert_eq!(world.prints("web-1", "hostname").await.as_deref(), Some("ip-10-79-0-5.eu-west-1.compute.internal"));
    let hosts = world.prints("web-1", "cat /etc/hosts").await.expect("hosts");
    assert!(hosts.contains("10.79.0.5") && hosts.contains("ip-10-79-0-5.eu-west-1.compute.internal"), "{hosts}");
    let resolver = world.prints("web-1", "cat /etc/resolv.conf").await.expect("a resolver");
    assert!(resolver.contains("nameserver 10.79.0.2") && resolver.contains("search eu-west-1.compute.internal"), "{resolver}");
    let address = world.prints("web-1", "/bin/busybox ip addr show eth0").await.expect("addresses");
    assert!(address.contains("10.79.0.5/24") && address.contains("02:00:0a:4f:00:05"), "{address}");
    let listed = world.network.list().await.expect("list");
    assert_eq!(listed.iter().map(|attachment| attachment.id.0.as_str()).collect::<Vec<_>>(), ["client-eni", "web-eni"]);

    world.restart().await;
    assert_eq!(world.prints("client-0", &fetch("10.79.0.5")).await.as_deref(), Some("hello"), "after the agent's restart");
    for task in [web, client] {
        world.tasks.take(acs::Task { desired_status: acs::DesiredStatus::Stopped, ..task }).await.expect("taken");
        world.until("STOPPED").await;
    }
    assert_eq!(world.network.list().await.expect("list"), [], "released before anybody is told of the end");
    world.stop.cancel();
    world.tasks.ended().await;
    world.tasks.purge().await.expect("nothing resists");
    world.network.shutdown().await.expect("nothing is left");
}

fn raise_loopback() {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    // SAFETY: `ifreq` is plain data for which zero is valid; the call only reads it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw mut request);
        assert_eq!(result, 0, "bring lo up");
    }
}
