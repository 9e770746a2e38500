//! A Fargate task's isolation, for real, in a network namespace of the test's own; what is tried from inside is in tests/breakout.
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
use berth_runtime::port::{ContainerId, ContainerState, ExecSpec, Runtime};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Generous: it only bounds how long a failing test takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program that tries to get out, as it goes into the image; none where it cannot be built.
fn breakout(folder: &Path) -> Option<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/breakout/breakout.c");
    let program = folder.join("breakout");
    let built = std::process::Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(source).output().ok()?;
    built.status.success().then(|| std::fs::read(program).ok()).flatten()
}

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
}

impl World {
    async fn new(folder: &Path, cgroup_root: &str, shim: PathBuf, monitor: PathBuf) -> Option<Self> {
        let registry = TestRegistry::start().await;
        let layer = busybox()?.file("bin/breakout", 0o755, breakout(folder)?).file("etc/whose", 0o644, "the image's\n");
        let more = ["awk", "ln", "nc", "ping", "sort", "tr"];
        let layer = more.iter().fold(layer, |layer, name| layer.symlink(&format!("bin/{name}"), "busybox"));
        registry.put_image("busybox", "1", &[(layer.finish(), Packing::Gzip)], serde_json::json!({}));
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
        Some(Self { runtime, network, tasks, inbox, stop, image, _registry: registry })
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

    fn task(&self, id: &str, last: u8, group: &str) -> acs::Task {
        let container = |name: &str| acs::Container {
            name: name.to_owned(),
            image: self.image.clone(),
            essential: true,
            command: ["sh", "-c", "trap exit TERM; while :; do sleep 1; done"].map(str::to_owned).to_vec(),
            stop_timeout: 1,
            mount_points: vec![acs::MountPoint { source_volume: "scratch".into(), container_path: "/data".into(), read_only: false }],
            ..Default::default()
        };
        let address = Ipv4Addr::new(10, 79, 0, last);
        acs::Task {
            arn: format!("arn:aws:ecs:us-east-1:000000000000:task/default/{id}"),
            desired_status: acs::DesiredStatus::Running,
            family: "web".into(),
            version: "1".into(),
            launch_type: "FARGATE".into(),
            platform_version: "1.4.0".into(),
            cluster: "default".into(),
            network_mode: "awsvpc".into(),
            cpu: Some(0.25),
            memory: Some(512),
            ephemeral_storage_gib: 20,
            volumes: vec![acs::Volume { name: "scratch".into(), kind: "host".into(), ..Default::default() }],
            elastic_network_interfaces: vec![acs::ElasticNetworkInterface {
                attachment_arn: format!("arn:aws:ecs:us-east-1:000000000000:attachment/{id}"),
                ec2_id: format!("eni-{id}"),
                mac_address: format!("02:00:0a:4f:00:{last:02x}"),
                ipv4_addresses: vec![acs::Ipv4Address { primary: true, private_address: address.to_string() }],
                subnet_gateway_ipv4_address: "10.79.0.1/24".into(),
                domain_name_servers: vec!["10.79.0.2".into()],
                security_groups: vec![group.to_owned()],
                ..Default::default()
            }],
            containers: vec![container("one"), container("two")],
            ..Default::default()
        }
    }

    /// The first process of a container, as the machine counts.
    async fn pid(&self, container: &str) -> i32 {
        let all = self.runtime.list().await.expect("list");
        let found = all.into_iter().find(|one| one.id.0 == container).expect("it is there");
        match found.state {
            ContainerState::Running(started) => started.pid,
            other => panic!("{container} is {other:?}"),
        }
    }

    /// A command's exit code and output in a container.
    async fn run(&self, container: &str, command: &str) -> (Option<i32>, String) {
        let spec = ExecSpec {
            command: ["sh", "-c", command].map(str::to_owned).to_vec(),
            environment: Default::default(),
            user: None,
            timeout: PATIENCE,
            output_limit: 64 << 10,
        };
        let outcome = self.runtime.exec(&ContainerId(container.to_owned()), spec).await.expect("the command runs");
        (outcome.code, String::from_utf8_lossy(&outcome.output).trim().to_owned())
    }

    /// What a command in a container prints; none if it fails.
    async fn prints(&self, container: &str, command: &str) -> Option<String> {
        let (code, said) = self.run(container, command).await;
        (code == Some(0)).then_some(said)
    }

    /// What a command in a container prints, which must not fail.
    async fn says(&self, container: &str, command: &str) -> String {
        let (code, said) = self.run(container, command).await;
        assert_eq!(code, Some(0), "{container}: {command}: {said}");
        said
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
        ledger,
        clock,
        pulls: PullGate::new(2),
        images: Arc::new(images),
        submissions,
        volumes: Default::default(),
        shared: Default::default(),
        endpoint: Default::default(),
        config,
    };
    (Tasks::new(Arc::new(means), stop.clone()), inbox)
}

#[test]
fn a_fargate_task_is_kept_in_its_size_and_its_place() {
    // SAFETY: no memory arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    let trial = tempfile::tempdir().expect("a folder");
    let can_build = breakout(trial.path()).is_some();
    let (true, true, Some(shim), Some(monitor), Some(_)) = (is_root, can_build, program("berth-shim"), program("berth-monitor"), busybox())
    else {
        eprintln!(
            "SKIPPED (needs root, cc and a static C library, busybox-static, berth-shim built beside): the isolation of Fargate tasks"
        );
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
    let cgroup_root = format!("berth-test-fargate-{}", std::process::id());
    let _sweep = Sweep(cgroup_root.clone());
    let mut world = World::new(folder.path(), &cgroup_root, shim, monitor).await.expect("busybox is there");
    let table = serde_json::json!({
        "groups": {
            "sg-closed": {"ingress": [], "egress": []},
            "sg-open": {"ingress": [], "egress": [{"traffic": "all", "peer": {"range": "0.0.0.0/0"}}]}
        },
        "interfaces": {}
    });
    world.tasks.apply_network_table(acs::NetworkTableMessage { table, ..Default::default() }).await.expect("the table is enforced");
    let (one, other) = (world.task("one", 5, "sg-closed"), world.task("other", 6, "sg-open"));
    for task in [&one, &other] {
        world.tasks.take(task.clone()).await.expect("taken");
        world.until("RUNNING").await;
    }
    has_users_of_its_own(&world).await;
    works_as_anybody_would_expect(&world).await;
    is_held_to_its_size(&world, &cgroup_root).await;
    does_not_get_out(&world).await;
    let (beside, together) = (another_of_ec2(&mut world).await, containers_that_share_processes(&mut world).await);
    for task in [one, other, beside, together] {
        world.tasks.take(acs::Task { desired_status: acs::DesiredStatus::Stopped, ..task }).await.expect("taken");
        world.until("STOPPED").await;
    }
    asks_for_nothing_of_the_machine(&mut world).await;
    world.stop.cancel();
    world.tasks.ended().await;
    world.tasks.purge().await.expect("nothing resists");
    world.network.shutdown().await.expect("nothing is left");
    assert!(world.runtime.list().await.expect("list").is_empty());
    assert!(!folder.path().join("agent/volumes/one").exists());
}

/// The machine's user ids of a process: real, effective, saved, file system.
fn users(pid: i32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("it has users");
    line.split_whitespace().map(|id| id.parse().expect("a number")).collect()
}

async fn has_users_of_its_own(world: &World) {
    if let Err(why) = world.runtime.remapping().await {
        eprintln!("SKIPPED (needs idmapped mounts below an overlay): users of a task's own: {why}");
        return;
    }
    let first = users(world.pid("one-0").await);
    assert!(first[0] >= 0x7000_0000 && first.iter().all(|id| *id == first[0]), "{first:?}");
    assert_eq!(users(world.pid("one-1").await), first, "containers of a task have the same");
    assert_ne!(users(world.pid("other-0").await), first, "two tasks are strangers");
    let map: Vec<String> = world.says("one-0", "cat /proc/self/uid_map").await.split_whitespace().map(str::to_owned).collect();
    assert_eq!(map, ["0", &first[0].to_string(), "65536"]);
    // An exec is in there as well: what it makes is the container's root's.
    world.says("one-0", "sleep 999 & echo $! > /data/pid").await;
    assert_eq!(world.says("one-0", "cat /proc/$(cat /data/pid)/uid_map | tr -s ' '").await.trim(), format!("0 {} 65536", first[0]));
}

async fn works_as_anybody_would_expect(world: &World) {
    assert_eq!(world.says("one-0", "id -u; stat -c %u:%g / /bin/busybox /etc/hosts /data /dev /tmp | sort -u").await, "0\n0:0");
    world
        .says(
            "one-0",
            "echo '10.0.0.1 more' >> /etc/hosts; echo changed > /etc/plain; mkdir /made; touch /made/file; chown 33:34 /made/file",
        )
        .await;
    assert_eq!(world.says("one-0", "stat -c %u:%g /made /made/file /etc/plain").await, "0:0\n33:34\n0:0");
    // Volumes are of the task.
    world.says("one-0", "echo shared > /data/file; chown 33 /data/file").await;
    assert_eq!(world.says("one-1", "cat /data/file; stat -c %u /data/file").await, "shared\n33");
    assert_eq!(world.prints("other-0", "cat /data/file").await, None);
    // Ports below 1024 and ping, without rights over the network.
    world.says("one-0", "mkdir -p /www; echo hello > /www/index.html; /bin/busybox httpd -p 80 -h /www").await;
    world.says("one-0", "/bin/breakout works").await;
    let fetch = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc -w 1 127.0.0.1 80 | grep -x hello";
    assert_eq!(world.says("one-1", fetch).await, "hello");
    let status = world.says("one-0", "cat /proc/self/status").await;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    // Docker's default set, which is Fargate's; set-user-id programs work, and there is a filter.
    let all = if world.runtime.remapping().await.is_ok() { "00000000a80425fb" } else { "00000000a00405fb" };
    assert_eq!((field("CapEff:"), field("CapBnd:")), (all.to_owned(), all.to_owned()));
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("0".to_owned(), "2".to_owned()));
    let groups = world.says("one-0", "cut -d: -f3 /proc/self/cgroup | sort -u").await;
    assert_eq!(groups, "/", "its cgroup is the top of what it sees");
}

async fn is_held_to_its_size(world: &World, root: &str) {
    let read = |controller: &str, file: &str| {
        let places = [format!("/sys/fs/cgroup/{controller}/{root}/one/{file}"), format!("/sys/fs/cgroup/{root}/one/{file}")];
        places.iter().find_map(|path| std::fs::read_to_string(path).ok()).map(|text| text.trim().to_owned())
    };
    let either = |one: Option<String>, other: Option<String>| one.or(other).expect("the task has a limit");
    let cpu = either(read("cpu", "cpu.cfs_quota_us").map(|quota| format!("{quota} 100000")), read("", "cpu.max"));
    assert_eq!(cpu, "25000 100000", "a quarter of a core for both containers");
    assert_eq!(either(read("memory", "memory.limit_in_bytes"), read("", "memory.max")), (512_u64 << 20).to_string());
    assert_eq!(either(read("pids", "pids.max"), None), "32768");
    // It is really held back: until the kernel says that it was.
    for container in ["one-0", "one-1"] {
        world.says(container, "(while :; do :; done) & echo $! > /tmp/busy").await;
    }
    let throttled = || {
        let stat = either(read("cpu", "cpu.stat"), None);
        stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    tokio::time::timeout(PATIENCE, async {
        while throttled() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the kernel holds it back");
    for container in ["one-0", "one-1"] {
        world.says(container, "kill -9 $(cat /tmp/busy)").await;
    }
    // 300 MiB in each of two containers are more than 512: the kernel ends one of the two, and nothing of the other task.
    let used = "cat /sys/fs/cgroup/memory/memory.usage_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.current";
    let holds = format!("[ $({used}) -gt {} ]", 250 << 20);
    let hold = "dd bs=300M count=1 if=/dev/zero 2>/dev/null";
    world
        .says("one-0", &format!("({hold} | sleep 999) & for i in $(seq 300); do {holds} && exit 0; sleep 0.1; done; {used}; exit 1"))
        .await;
    let second = world.prints("one-1", &format!("{hold} of=/dev/null")).await;
    let first = world.prints("one-0", &holds).await;
    assert!(first.is_none() || second.is_none(), "600 of 512 MiB cannot be had");
    assert_eq!(world.says("other-0", "echo well").await, "well");
    let limits = world.says("one-0", "ulimit -n; ulimit -Hn").await;
    let mut own = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `own` has room for what the kernel writes.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut own) };
    let most = if available_resource() { 65_535 } else { own.rlim_max.min(65_535) };
    assert_eq!(limits, format!("{most}\n{most}"));
}

fn available_resource() -> bool {
    berth_runtime::native::capabilities::available().contains("SYS_RESOURCE")
}

async fn does_not_get_out(world: &World) {
    // What there is to be found: a port of the machine like the agent's introspection, a socket without a file, processes.
    let added = std::process::Command::new("ip").args(["address", "add", "10.99.0.1/32", "dev", "lo"]).status();
    assert!(added.is_ok_and(|status| status.success()), "an address of the machine");
    let listener = std::net::TcpListener::bind("10.99.0.1:51678").expect("a port of the machine");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let name = format!("berth-test-{}", std::process::id());
    let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).expect("a name");
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).expect("an abstract socket");
    assert!(world.prints("other-0", "/bin/busybox nc -w 5 10.99.0.1 51678 < /dev/null").await.is_some(), "whoever has leave gets there");
    let stranger = world.pid("other-0").await;
    let script = format!("/bin/breakout 10.99.0.1:51678 10.79.0.6:80 @{name} {stranger} {} 2>&1", std::process::id());
    for (container, what) in [("one-0", "root"), ("one-1", "root of another container")] {
        let said = world.says(container, &script).await;
        let out: Vec<&str> = said.lines().filter(|line| !line.contains(" refused: ") && *line != "all tried").collect();
        assert!(out.is_empty(), "{what}: {out:#?}");
        assert!(said.ends_with("all tried") && said.lines().count() > 100, "{said}");
        eprintln!("{said}");
    }
    // What one container leaves in a volume leads others nowhere but in themselves.
    world.says("one-0", "ln -sfn / /data/up; ln -sfn ../../../../../../etc/whose /data/whose; echo mine > /etc/whose").await;
    assert_eq!(world.says("one-1", "cat /data/up/etc/whose /data/whose").await, "the image's\nthe image's");
    // Nobody of the machine, and nobody of another task, is among its processes.
    let seen = world.says("one-0", "ls /proc | grep -c '^[0-9]'").await.parse::<usize>().expect("a number");
    assert!(seen < 20, "{seen} processes");
}

/// What is tried can be done: by a task that is not Fargate's, on the same machine at the same time.
async fn another_of_ec2(world: &mut World) -> acs::Task {
    let task = acs::Task { launch_type: "EC2".into(), ..world.task("beside", 7, "sg-open") };
    world.tasks.take(task.clone()).await.expect("taken");
    world.until("RUNNING").await;
    assert_eq!(users(world.pid("beside-0").await), [0; 4]);
    let said = world.says("beside-0", "/bin/breakout 2>&1").await;
    assert!(said.contains("af_packet BROKE OUT") && said.contains("raw-ip BROKE OUT"), "{said}");
    task
}

/// With one pid namespace the root of one container is that of the others, as on Fargate, and of nobody else.
async fn containers_that_share_processes(world: &mut World) -> acs::Task {
    let task = acs::Task { pid_mode: "task".into(), ..world.task("together", 8, "sg-closed") };
    world.tasks.take(task.clone()).await.expect("taken");
    world.until("RUNNING").await;
    let namespace = "readlink /proc/self/ns/user";
    assert_eq!(world.says("together-0", namespace).await, world.says("together-1", namespace).await);
    assert_eq!(users(world.pid("together-0").await), users(world.pid("together-1").await));
    world.says("together-0", "/bin/busybox su web -c 'sleep 997 & echo $! > /tmp/sleeper'").await;
    let sleeper = world.says("together-0", "cat /tmp/sleeper").await;
    assert_eq!(world.says("together-1", &format!("stat -c %u /proc/{sleeper}; kill -9 {sleeper} && echo gone")).await, "33\ngone");
    let out: Vec<String> =
        world.says("together-1", "/bin/breakout 2>&1").await.lines().filter(|line| line.contains("BROKE OUT")).map(str::to_owned).collect();
    assert!(out.is_empty(), "{out:#?}");
    // Its first process is the machine's, and nobody of the task may touch it.
    for command in ["cat /proc/1/environ", "ls /proc/1/root/", "readlink /proc/1/exe"] {
        assert_eq!(world.prints("together-0", command).await.filter(|said| !said.is_empty()), None, "{command}");
    }
    world.run("together-0", "kill -9 1").await;
    assert_eq!(world.says("together-1", "echo well").await, "well");
    task
}

/// Makes a task ask for what it may not.
type Change = Box<dyn Fn(&mut acs::Task)>;

/// Refused by the agent, whatever a control plane sends.
async fn asks_for_nothing_of_the_machine(world: &mut World) {
    let plain = |world: &World, id: &str| world.task(id, 9, "sg-closed");
    let with_host = |host: serde_json::Value| Some(acs::DockerConfig { host_config: Some(host.to_string()), ..Default::default() });
    let cases: Vec<(&str, Change)> = vec![
        ("sourcePath", Box::new(|task| task.volumes[0].host = Some(acs::HostVolume { source_path: "/etc".into() }))),
        ("privileged", Box::new(move |task| task.containers[0].docker_config = with_host(serde_json::json!({"Privileged": true})))),
        ("SYS_ADMIN", Box::new(move |task| task.containers[0].docker_config = with_host(serde_json::json!({"CapAdd": ["SYS_ADMIN"]})))),
        (
            "dockerSecurityOptions",
            Box::new(move |task| task.containers[0].docker_config = with_host(serde_json::json!({"SecurityOpt": ["seccomp=unconfined"]}))),
        ),
        ("pidMode", Box::new(|task| task.pid_mode = "host".into())),
        ("cpu and memory", Box::new(|task| task.cpu = None)),
    ];
    for (number, (member, change)) in cases.iter().enumerate() {
        let mut task = plain(world, &format!("bad{number}"));
        change(&mut task);
        world.tasks.take(task).await.expect("taken");
        let status = loop {
            let status = world.status().await;
            if status.starts_with("STOPPED") {
                break status;
            }
        };
        assert!(status.contains(member), "{member}: {status}");
    }
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
