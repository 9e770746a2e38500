//! One simulation from its seed to its end: a bad time with load and faults, then all is put right, then everything has to settle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::service::ServiceStatus;
use berth_model::task::{ContainerStatus, DesiredStatus, TaskStatus};
use berth_registry::Registry;
use berth_shapes::ecs::Operation;
use berth_store::{SimulatedEtcd, Store};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::checker::{Checker, Tally, Violation};
use crate::clock::SimClock;
use crate::disk::Disk;
use crate::faults;
use crate::home::{Cell, Home};
use crate::host::{Host, Size};
use crate::load::{Desk, definition_user, service_user, task_user};
use crate::machine::Machine;
use crate::net::Net;
use crate::server::{Server, Temper, scope};
use crate::trace::Trace;
use crate::wire::Way;

/// How long everything may take to settle once nothing goes wrong: a service whose tasks never ran is rightly throttled for minutes.
const SETTLES_WITHIN: Duration = Duration::from_secs(40 * 60);
/// Most machines that an operator adds.
const MOST_HOSTS: usize = 40;
/// How long a server may lag once nothing goes wrong any more.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(30);
/// For how long it then has to stay so.
const STAYS: Duration = Duration::from_secs(20);

/// How a simulation is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Print every line of the trace.
    pub aloud: bool,
    /// Something that the checkers have to notice.
    pub sabotage: Option<Sabotage>,
    /// Where the servers keep their state; drawn, if nothing is said.
    pub home: Option<HomeKind>,
}

/// Where the servers keep their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeKind {
    /// One server has a disk.
    Disk,
    /// So many servers share an etcd cluster.
    Etcd(u64),
}

/// Something broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The disk acknowledges the write of a task and does not do it.
    LostWrite,
    /// A machine starts a container twice.
    DoubleStart,
    /// A commit takes a task's status back.
    StatusBack,
    /// A task is put beside others that fill its instance.
    DoubleBooking,
    /// A service says that it is steady when it is not.
    FalseEvent,
    /// A task vanishes.
    LostTask,
    /// Tasks are made again under a client token that was used.
    TokenTwice,
    /// A container runs that no task knows.
    Stray,
    /// A service starts a task and does not say so.
    Silence,
    /// A server fails without a reason.
    Failure,
    /// A machine that burned down is shown connected.
    Ghost,
    /// A server that was killed still writes.
    Undead,
}

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// A hash over everything that happened.
    pub hash: u64,
    /// Virtual milliseconds.
    pub millis: u128,
    /// Commits.
    pub commits: u64,
    /// Tasks.
    pub tasks: usize,
    /// How deployments ended.
    pub deployments: Tally,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// The last lines of the trace that tell of it.
    pub lines: Vec<String>,
}

/// Everything in one simulation.
pub struct World {
    /// What happened.
    pub trace: Trace,
    /// The judge.
    pub checker: Arc<Checker>,
    /// The servers.
    pub servers: Arc<[Arc<Server>]>,
    /// All hosts there ever were.
    pub hosts: Arc<Mutex<Vec<Arc<Host>>>>,
    /// The users' way in.
    pub desk: Desk,
    harm: Arc<AtomicBool>,
    chance: Chance,
    origin: Instant,
    slowest: u64,
}

/// Runs one simulation on this thread.
#[must_use]
pub fn simulate(seed: u64, options: Options, registry: &Registry) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the machine");
    runtime.block_on(async {
        let world = World::new(seed, options, registry.clone());
        world.live(options.sabotage).await;
        world.report(seed)
    })
}

impl World {
    fn new(seed: u64, options: Options, registry: Registry) -> Arc<Self> {
        let origin = Instant::now();
        let chance = Chance::new(seed);
        let trace = Trace::new(origin, options.aloud);
        let kinds = [HomeKind::Disk, HomeKind::Disk, HomeKind::Etcd(1), HomeKind::Etcd(2), HomeKind::Etcd(2), HomeKind::Etcd(3)];
        let kind = options.home.unwrap_or(*chance.part("home", 0).pick(&kinds));
        let harm = Arc::new(AtomicBool::new(false));
        let drawn = chance.part("temper", 0);
        let temper = Temper {
            slowest_commit: *drawn.pick(&[0, 2, 10, 40]),
            healthy_after: Duration::from_millis(*drawn.pick(&[200, 2_000, 10_000])),
            replace_after: *drawn.pick(&[None, Some(Duration::from_secs(1)), Some(Duration::from_secs(5))]),
            // A seed is short.
            deployment_minute: Duration::from_secs(3),
            heartbeats: true,
        };
        let checker = Checker::new(trace.clone(), kind != HomeKind::Disk, temper.replace_after.is_some());
        let slowest = *drawn.pick(&[2, 20, 200]);
        trace.line(format_args!("seed {seed}: {kind:?}, {temper:?}, messages take up to {slowest} ms"));
        let homes = homes(kind, &checker, &harm, &chance);
        let server = |(number, home): (u64, Home)| {
            let judge = (trace.clone(), Arc::clone(&checker));
            Arc::new(Server::new(number, home, SimClock::new(origin), chance.part("server", number), temper, judge, registry.clone()))
        };
        let servers: Arc<[Arc<Server>]> = (0..).zip(homes).map(server).collect();
        let net = Net::new(Arc::clone(&servers), chance.part("users' net", 0), trace.clone(), Arc::clone(&harm), "users", slowest);
        let desk =
            Desk { net, checker: Arc::clone(&checker), trace: trace.clone(), over: CancellationToken::new(), services: Arc::default() };
        Arc::new(Self { trace, checker, servers, hosts: Arc::default(), desk, harm, chance, origin, slowest })
    }

    fn report(&self, seed: u64) -> Report {
        let violation = self.checker.verdict();
        let lines = violation.as_ref().map(|violation| self.trace.last(&words(&violation.what), 60)).unwrap_or_default();
        Report {
            seed,
            hash: self.trace.hash(),
            millis: self.origin.elapsed().as_millis(),
            commits: self.checker.revision(),
            tasks: self.checker.tasks().len(),
            deployments: self.checker.tally(),
            violation,
            lines,
        }
    }

    async fn live(self: &Arc<Self>, sabotage: Option<Sabotage>) {
        let course = async {
            self.bad_time(sabotage).await;
            self.put_right().await;
            self.settle().await;
            self.hold_to_account().await;
        };
        tokio::select! {
            biased;
            () = self.checker.until_violated() => {}
            () = course => {}
        }
    }

    /// Starts the servers that are down.
    async fn ensure_servers(&self) {
        for server in self.servers.iter() {
            server.ensure().await;
        }
    }

    /// Another host, whose agent starts; a spare one is large.
    pub fn join_host(self: &Arc<Self>, chance: &Chance, spare: bool) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        let number = hosts.len();
        let own = self.chance.part("host", number as u64);
        let clock = SimClock::new(self.origin);
        let size = if spare {
            Size { cpu: 65_536, memory: 262_144 }
        } else {
            Size { cpu: 1024 * u32::try_from(chance.within(1, 4)).unwrap_or(1) + 48, memory: 1024 * chance.within(1, 4) + 48 }
        };
        let (trace, checker, harm) = (self.trace.clone(), Arc::clone(&self.checker), Arc::clone(&self.harm));
        let machine = Machine::new(number, clock.clone(), own.part("machine", 0), trace.clone(), checker, Arc::clone(&harm));
        let name = format!("host {number}");
        let net = Net::new(Arc::clone(&self.servers), own.part("net", 0), trace.clone(), harm, &name, self.slowest);
        let host = Host::new(number, machine, net, clock, size, own.part("agent", 0), trace);
        hosts.push(Arc::clone(&host));
        drop(hosts);
        host.start_agent();
        host
    }

    async fn bad_time(self: &Arc<Self>, sabotage: Option<Sabotage>) {
        let chance = self.chance.part("course", 0);
        self.ensure_servers().await;
        let _ = self.desk.insist(Operation::CreateCluster, json!({})).await;
        self.desk.register_all(&chance).await;
        for _ in 0..chance.within(2, 5) {
            self.join_host(&chance, false);
        }
        tokio::time::sleep(chance.millis(0, 3_000)).await;
        self.harm.store(true, Ordering::Relaxed);
        let mut users = JoinSet::new();
        for number in 0..chance.within(1, 3) {
            let own = self.chance.part("task user", number);
            users.spawn(task_user(self.desk.clone(), own, number, Arc::clone(&self.hosts)));
        }
        for number in 0..chance.within(1, 3) {
            users.spawn(service_user(self.desk.clone(), self.chance.part("service user", number), format!("svc-{number}")));
        }
        users.spawn(definition_user(self.desk.clone(), self.chance.part("definition user", 0)));
        users.spawn(faults::run(Arc::clone(self), self.chance.part("faults", 0)));
        if let Some(sabotage) = sabotage {
            users.spawn(crate::sabotage::run(Arc::clone(self), sabotage));
        }
        tokio::time::sleep(chance.millis(10_000, 150_000)).await;
        self.desk.over.cancel();
        // Faults end by themselves; users finish what they are at.
        while users.join_next().await.is_some() {}
    }

    async fn put_right(self: &Arc<Self>) {
        self.harm.store(false, Ordering::Relaxed);
        for server in self.servers.iter() {
            server.home.set_full(false);
            server.home.cell().inspect(|cell| cell.mend());
            server.way.send_replace(Way::Open);
            *server.way_to_etcd.lock() = Way::Open;
        }
        self.ensure_servers().await;
        for host in self.living_hosts() {
            host.net.set_way(Way::Open);
            host.start_agent();
        }
        // Room for everything that services want: more than the most that has a host port, and one to spare for its replacement.
        let chance = self.chance.part("spare", 0);
        for _ in 0..6 {
            self.join_host(&chance, true);
        }
        self.trace.line(format_args!("nothing goes wrong any more"));
        // An agent that was away for long dials every two minutes.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(150) && !self.all_connected() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let lost: BTreeSet<String> = self.hosts.lock().iter().filter(|host| host.is_lost()).map(|host| host.arn()).collect();
        if !lost.is_empty() {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        for instance in self.checker.instances().iter().filter(|instance| instance.agent_connected) {
            if lost.contains(&scope().container_instance(&instance.cluster, instance.id)) {
                self.checker.violated("connectivity", format!("instance {} burned down and counts as connected", instance.id));
            }
        }
        // What no agent came back for is taken out by an operator, as a machine that burned down is.
        let claimed: BTreeSet<String> = self.living_hosts().iter().map(|host| host.arn()).collect();
        for instance in self.checker.instances() {
            let arn = scope().container_instance(&instance.cluster, instance.id);
            if instance.status == ContainerInstanceStatus::Active && !claimed.contains(&arn) {
                self.trace.line(format_args!("operator: deregisters {arn}"));
                let request = json!({"containerInstance": arn, "force": true});
                if let Err(text) = self.desk.insist(Operation::DeregisterContainerInstance, request).await {
                    self.checker.violated("answers", format!("a machine that is gone cannot be deregistered: {text}"));
                }
            }
        }
    }

    fn living_hosts(&self) -> Vec<Arc<Host>> {
        self.hosts.lock().iter().filter(|host| !host.is_lost()).cloned().collect()
    }

    fn all_connected(&self) -> bool {
        let instances = self.checker.instances();
        let is_connected = |arn: &str| instances.iter().any(|i| i.agent_connected && scope().container_instance(&i.cluster, i.id) == arn);
        self.living_hosts().iter().all(|host| is_connected(&host.arn()))
    }

    async fn settle(self: &Arc<Self>) {
        let begun = Instant::now();
        let chance = self.chance.part("reinforcements", 0);
        loop {
            let Some(why) = self.unsettled().await else {
                tokio::time::sleep(STAYS).await;
                match self.unsettled().await {
                    None => return,
                    Some(why) => {
                        if begun.elapsed() > SETTLES_WITHIN {
                            return self.checker.violated("settles", format!("it does not stay settled: {why}"));
                        }
                        self.trace.line(format_args!("not settled after all: {why}"));
                        continue;
                    }
                }
            };
            if begun.elapsed() > SETTLES_WITHIN {
                return self.checker.violated("settles", why);
            }
            self.loosen().await;
            self.cure().await;
            // Several services and users may want the same port: each machine has it once.
            if why.contains(" of port:") && begun.elapsed() > Duration::from_secs(60) && self.hosts.lock().len() < MOST_HOSTS {
                self.join_host(&chance, true);
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    /// What is not yet as it should be at rest.
    async fn unsettled(&self) -> Option<String> {
        let hosts = self.living_hosts();
        let instances = self.checker.instances();
        let tasks = self.checker.tasks();
        let mut live = BTreeSet::new();
        for host in &hosts {
            let arn = host.arn();
            let instance = instances.iter().find(|instance| scope().container_instance(&instance.cluster, instance.id) == arn);
            let Some(instance) = instance.filter(|i| i.status == ContainerInstanceStatus::Active && i.agent_connected) else {
                return Some(format!("host {} is not an ACTIVE and connected container instance ({arn})", host.number));
            };
            live.insert(instance.id);
            let wanted: BTreeSet<String> = tasks
                .iter()
                .filter(|task| task.container_instance == instance.id && task.last_status == TaskStatus::Running)
                .flat_map(|task| {
                    let running = task.containers.iter().enumerate().filter(|(_, c)| c.last_status == ContainerStatus::Running);
                    running.map(|(index, _)| format!("{}-{index}", task.id))
                })
                .collect();
            let running: BTreeSet<String> = host.machine.running().into_iter().collect();
            if let Some(stray) = running.difference(&wanted).next() {
                return Some(format!("container {stray} runs on host {} and the state does not say so", host.number));
            }
            if let Some(missing) = wanted.difference(&running).next() {
                return Some(format!("the state says that container {missing} runs on host {}, and it does not", host.number));
            }
        }
        for task in &tasks {
            let rests = task.last_status == TaskStatus::Stopped
                || (task.last_status == TaskStatus::Running
                    && task.desired_status == DesiredStatus::Running
                    && live.contains(&task.container_instance));
            if !rests {
                return Some(format!("task {} is {} and should be {}", task.id, task.last_status, task.desired_status));
            }
        }
        self.unsettled_service().await
    }

    async fn unsettled_service(&self) -> Option<String> {
        for service in self.checker.services_to_settle() {
            let name = &service.name;
            match service.status {
                ServiceStatus::Inactive => continue,
                ServiceStatus::Draining => return Some(format!("service {name} is DRAINING")),
                ServiceStatus::Active => {}
            }
            if !self.checker.is_steady(&service) {
                let of = service.definition().map(ToString::to_string).unwrap_or_default();
                return Some(format!("service {name} does not run {} tasks of {of}", service.desired_count));
            }
            let answer = self.desk.insist(Operation::DescribeServices, json!({"services": [name.to_string()]})).await;
            let shown: Value = answer.map(|answer| answer["services"][0].clone()).unwrap_or_default();
            let (running, pending, desired) = (&shown["runningCount"], &shown["pendingCount"], &shown["desiredCount"]);
            let deployments = shown["deployments"].as_array().map_or(0, Vec::len);
            let completed = shown["deployments"][0]["rolloutState"] == "COMPLETED";
            let newest = shown["events"][0]["message"].as_str().unwrap_or_default();
            if running != desired || *pending != 0 || deployments != 1 || !completed {
                return Some(format!(
                    "service {name} shows {running} running, {pending} pending of {desired}, {deployments} deployments, {}",
                    shown["deployments"][0]["rolloutState"]
                ));
            }
            // What it says of availability zones it says in the steady state.
            // Tasks that were started for it and ended at once leave it as it was, and are tried again ever more seldom.
            let of_zones = [") is AZ balanced", ") is unable to place a task in ", "was unable to AZ Rebalance", " to AZ Rebalance: "];
            if !newest.contains("has reached a steady state") && !of_zones.iter().any(|text| newest.contains(text)) {
                return Some(format!("service {name} is steady, and its newest event says '{newest}'"));
            }
        }
        None
    }

    fn is_same(&self, server: &Server, store: &Store) -> bool {
        // The judge may not have heard yet of what a server does as it starts.
        let heard = server.home.disk().is_none() || store.state().revision.0 == self.checker.revision();
        heard && self.checker.compare(&store.state())
    }

    /// Every server has what there is, as soon as it knows everything.
    async fn compare_servers(&self) {
        let begun = Instant::now();
        for server in self.servers.iter() {
            while !server.store().is_some_and(|store| self.is_same(server, &store)) {
                if begun.elapsed() > CATCHES_UP_WITHIN {
                    return self.checker.violated("peers agree", format!("server {} does not catch up", server.number));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// What users were promised, at the end.
    async fn hold_to_account(&self) {
        self.checker.audit();
        let services = self.desk.services.lock().clone();
        for (name, desired) in services {
            let Some(desired) = desired else { continue };
            let answer = self.desk.insist(Operation::DescribeServices, json!({"services": [name]})).await.unwrap_or_default();
            if answer["services"][0]["desiredCount"] != json!(desired) {
                let shown = &answer["services"][0]["desiredCount"];
                self.checker.violated("acknowledged", format!("service {name} was acknowledged to keep {desired} tasks and shows {shown}"));
            }
        }
        if self.servers.iter().filter_map(|server| server.home.disk()).any(|disk| disk.written_by_the_dead() > 0) {
            self.checker.violated("stop", "a loop of a server that was killed still wrote");
        }
        self.compare_servers().await;
        // Once more through a restart: what is durable is all of it.
        self.servers.iter().for_each(|server| server.crash());
        self.ensure_servers().await;
        self.compare_servers().await;
        self.checker.audit();
        let acknowledged = self.checker.acknowledged_tasks();
        for asked in acknowledged.chunks(100) {
            let tasks: Vec<_> = asked.iter().map(ToString::to_string).collect();
            let answer = self.desk.insist(Operation::DescribeTasks, json!({"tasks": tasks})).await.unwrap_or_default();
            if answer["tasks"].as_array().map_or(0, Vec::len) != asked.len() {
                self.checker.violated("acknowledged", format!("DescribeTasks does not know all of them: {}", answer["failures"]));
            }
        }
    }
}

/// A home for each server.
fn homes(kind: HomeKind, checker: &Arc<Checker>, harm: &Arc<AtomicBool>, chance: &Chance) -> Vec<Home> {
    let HomeKind::Etcd(servers) = kind else { return vec![Home::Disk(Disk::default())] };
    let judge = Arc::clone(checker);
    let etcd = SimulatedEtcd::new(Arc::new(move |commit| judge.commit(commit)));
    tokio::spawn(Arc::clone(&etcd).keep_time());
    let cell = Cell::new(etcd, Arc::clone(harm), &chance.part("etcd", 0));
    (0..servers).map(|_| Home::Etcd(Arc::clone(&cell))).collect()
}

/// What a trace is searched for: ids and names out of a violation's text.
pub(crate) fn words(what: &str) -> Vec<String> {
    let parts = what.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let telling = parts.filter(|word| word.len() >= 32 || word.starts_with("svc-") || word.starts_with("token-"));
    telling.map(|word| word.chars().take(if word.len() > 32 { 32 } else { word.len() }).collect()).collect()
}
