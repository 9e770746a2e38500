//! The suite that every [`crate::port::Runtime`] must pass, and what is needed to run it. Only for tests and benches.
//!
//! Asks of an implementation nothing but the port: what it leaves behind on the machine, its own tests must look at.

pub mod fixture;
mod hardware;
mod inside;
mod lifecycle;
mod lives;
mod process;
mod pulls;
mod sharing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use self::fixture::{Layer, Packing, TestNamespace, TestRegistry};
use crate::port::{
    ContainerId, ContainerNetwork, ContainerSpec, ContainerState, ExecSpec, Exit, PullBehavior, PullRequest, RunError, Runtime, Sharing,
};

/// Nothing in the suite takes long; whoever waits this long waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime under test.
pub struct Subject<F: Fn() -> Arc<dyn Runtime>> {
    /// Opens the runtime on the same data directory each time; the one before has been dropped then.
    pub open: F,
    /// An empty folder for the suite's own files.
    pub folder: PathBuf,
}

/// Where a runtime may differ from the native one; each is said in the port's own words or in the documentation of that runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct Differences {
    /// It has networks of its own: it takes no namespace, and isolates by itself.
    pub own_networks: bool,
    /// What the kernel refuses to execute, and what an init does not find, shows after the start, as an end with an exit code.
    pub late_format_errors: bool,
    /// When a container that has ended cannot be started again, that is its last end, with an exit code of its own.
    pub failed_starts_are_ends: bool,
    /// The two streams of a process run in a container come by two pipes, between which there is no order.
    pub two_exec_streams: bool,
    /// It hears of a container's end and of its lack of memory separately, and on a busy machine misses the latter now and then.
    pub may_miss_lack_of_memory: bool,
    /// The machine lacks capabilities that it would have to give a privileged container.
    pub no_privileged: bool,
}

/// What the cases share.
struct Bench {
    differences: Differences,
    runtime: Arc<dyn Runtime>,
    registry: TestRegistry,
    folder: PathBuf,
    image: String,
    next: AtomicU64,
}

/// Runs every case, in order, and removes every container it made.
///
/// # Panics
/// At the first promise that is not kept.
pub async fn run_all<F: Fn() -> Arc<dyn Runtime>>(subject: Subject<F>) {
    run_all_but(subject, Differences::default()).await;
}

/// The same for a runtime that differs.
///
/// # Panics
/// At the first promise that is not kept.
pub async fn run_all_but<F: Fn() -> Arc<dyn Runtime>>(subject: Subject<F>, differences: Differences) {
    let Some(layer) = fixture::busybox() else {
        println!("SKIPPED (needs busybox-static): runtime conformance");
        return;
    };
    let registry = TestRegistry::start().await;
    let above = Layer::default().file("etc/above", 0o644, "upper layer\n").file("etc/.wh.plain", 0o644, "");
    let config = json!({
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sleep", "1000"], "WorkingDir": "/srv/app", "StopSignal": "SIGQUIT",
    });
    registry.put_image("busybox", "1", &[(layer.finish(), Packing::Gzip), (above.finish(), Packing::Zstd)], config);
    let runtime = (subject.open)();
    let request =
        PullRequest { reference: format!("{}/busybox:1", registry.host()), behavior: PullBehavior::Always, credentials: None, login: None };
    let image = runtime.pull(request).await.expect("the suite's image can be pulled").digest;
    let bench = Bench { differences, runtime, registry, folder: subject.folder.clone(), image, next: AtomicU64::new(0) };

    pulls::run(&bench).await;
    lifecycle::run(&bench).await;
    inside::run(&bench).await;
    process::run(&bench).await;
    hardware::run(&bench).await;
    sharing::run(&bench).await;
    lives::run(&bench).await;

    // An agent that ends and comes back.
    let survivors = lifecycle::before_restart(&bench).await;
    let sharing = sharing::before_restart(&bench).await;
    let Bench { runtime, registry, folder, image, next, .. } = bench;
    drop(runtime);
    let bench = Bench { differences, runtime: (subject.open)(), registry, folder, image, next };
    sharing::after_restart(&bench, sharing).await;
    lifecycle::after_restart(&bench, survivors).await;
    assert!(bench.runtime.list().await.expect("list").is_empty(), "containers are left");
}

impl Bench {
    /// A container of the suite's image with its own name, in the machine's network.
    fn spec(&self, command: &[&str]) -> ContainerSpec {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        ContainerSpec {
            command: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            cgroup_parent: format!("task-{number}"),
            ..plain_spec(&format!("case-{number}"), &self.image)
        }
    }

    /// A container that runs a shell script, both streams in one: between two pipes there is no order.
    fn script(&self, script: &str) -> ContainerSpec {
        self.spec(&["sh", "-c", &format!("exec 2>&1; {script}")])
    }

    async fn begin(&self, spec: ContainerSpec) -> ContainerId {
        let id = spec.id.clone();
        self.runtime.create(spec).await.expect("create");
        self.runtime.start(&id).await.expect("start");
        id
    }

    /// Begins a container that uses up 20 MiB by a script that needs more, and waits until it is killed for that and the runtime says so.
    async fn begin_out_of_memory(&self, script: &str) -> ContainerId {
        let most = if self.differences.may_miss_lack_of_memory { 5 } else { 1 };
        for attempt in 1..=most {
            let id = self.begin(ContainerSpec { memory_limit: Some(20 << 20), ..self.script(script) }).await;
            let exit = self.end(&id).await;
            assert_eq!(exit.code, 137);
            if exit.oom_killed {
                return id;
            }
            println!("attempt {attempt}: the runtime did not notice a lack of memory");
            self.remove(&id).await;
        }
        panic!("a container that ran out of memory is not said to have");
    }

    async fn end(&self, id: &ContainerId) -> Exit {
        patiently(self.runtime.wait(id)).await.expect("wait")
    }

    async fn remove(&self, id: &ContainerId) {
        patiently(self.runtime.remove(id)).await.expect("remove");
    }

    /// Runs to the end; gives exit and output (both streams, without the log's own fields), and removes the container.
    async fn run(&self, spec: ContainerSpec) -> (Exit, String) {
        let id = self.begin(spec).await;
        let exit = self.end(&id).await;
        let output = self.output(&id);
        self.remove(&id).await;
        (exit, output)
    }

    /// Runs a script that must end well; gives its output.
    async fn say(&self, spec: ContainerSpec) -> String {
        let (exit, output) = self.run(spec).await;
        assert_eq!(exit.code, 0, "{output}");
        output
    }

    fn records(&self, id: &ContainerId) -> Vec<(String, String, String)> {
        let mut records = Vec::new();
        for file in self.runtime.log_files(id) {
            for line in std::fs::read_to_string(file).expect("a log file can be read").lines() {
                let mut parts = line.splitn(4, ' ');
                let at = parts.next().expect("a record has a time");
                assert!(at.ends_with('Z') && at.len() == "2000-01-01T00:00:00.000000000Z".len(), "{line}");
                let mut next = || parts.next().unwrap_or_else(|| panic!("a record has four fields: {line}")).to_owned();
                records.push((next(), next(), next()));
            }
        }
        records
    }

    fn output(&self, id: &ContainerId) -> String {
        let piece = |(_, tag, text): (String, String, String)| if tag == "P" { text } else { text + "\n" };
        self.records(id).into_iter().map(piece).collect()
    }

    async fn exec(&self, id: &ContainerId, script: &str) -> (Option<i32>, String) {
        let outcome = patiently(self.runtime.exec(id, exec_spec(script))).await.expect("exec");
        (outcome.code, String::from_utf8_lossy(&outcome.output).into_owned())
    }

    /// Waits until the container's output has a line; containers say when they are ready.
    async fn until_said(&self, id: &ContainerId, word: &str) {
        patiently(async {
            while !self.output(id).lines().any(|line| line == word) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// A network that is not the machine's, with lo alone, for as long as what comes with it is kept.
    fn network(&self) -> (Option<TestNamespace>, ContainerNetwork) {
        if self.differences.own_networks {
            return (None, ContainerNetwork::Isolated);
        }
        let namespace = TestNamespace::make(&self.folder).expect("a network namespace can be made");
        let network = ContainerNetwork::Namespace(namespace.path());
        (Some(namespace), network)
    }

    /// A specification that cannot be: it is refused at creation, or at the start where the runtime finds out only then.
    async fn refuses(&self, spec: ContainerSpec, part: &str) {
        let id = spec.id.clone();
        let result = match self.runtime.create(spec).await {
            Ok(()) => self.runtime.start(&id).await.map(drop),
            refused => refused,
        };
        self.remove(&id).await;
        let error = result.expect_err("it cannot be");
        assert!(matches!(error, RunError::InvalidSpec(_)) && error.to_string().contains(part), "{part}: {error:?}");
    }

    async fn state(&self, id: &ContainerId) -> Option<ContainerState> {
        let all = self.runtime.list().await.expect("list");
        all.into_iter().find(|container| container.id == *id).map(|container| container.state)
    }
}

/// A container that asks for nothing special: in the machine's network, with the image's command.
pub fn plain_spec(id: &str, image_digest: &str) -> ContainerSpec {
    ContainerSpec {
        id: ContainerId(id.to_owned()),
        image_digest: image_digest.to_owned(),
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
        network: ContainerNetwork::Host,
        address: None,
        cgroup_parent: format!("task-{id}"),
        cpu_shares: 64,
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
        log_limit: 1 << 20,
    }
}

fn exec_spec(script: &str) -> ExecSpec {
    ExecSpec {
        command: vec!["sh".into(), "-c".into(), script.into()],
        environment: BTreeMap::new(),
        user: None,
        timeout: PATIENCE,
        output_limit: 64 << 10,
    }
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it does not hang")
}
