//! A week of a fleet: 1,000 services of ten tasks on 500 hollow container instances, with deployments, scalings, deaths, crashes and
//! partitions, and hours between them in which nothing happens and no processor time is spent.
//!
//! Control plane, store, actions, websocket sessions and checkers are those of every other simulation. Three things are abstracted,
//! and none of them decides anything. An agent is hollow ([`hollow`]): it answers the protocol and has no containers behind it. Heartbeats are
//! left out while a connection is undisturbed, where each would be answered and change nothing; what goes silent is asked for its pulse
//! within the time between two of them, and from there on everything is the session's own patience. Messages need no time of their own: what
//! reorders and loses single ones is the load of the other simulation.

mod happenings;
mod hollow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use berth_model::service::ServiceStatus;
use berth_model::task::{ContainerStatus, DesiredStatus, TaskStatus};
use berth_registry::Registry;
use berth_shapes::ecs::Operation;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::checker::Checker;
use crate::clock::SimClock;
use crate::disk::Disk;
use crate::home::Home;
use crate::load::Desk;
use crate::net::Net;
use crate::server::{Server, Temper};
use crate::trace::Trace;
use crate::world::Report;
use happenings::Happenings;
use hollow::Hollow;

/// How long everything may take to settle after the last happening: deployments bake, throttles and partitions end.
const SETTLES_WITHIN: Duration = Duration::from_secs(3 * 60 * 60);

/// How large a fleet is, and how much happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    /// Container instances.
    pub hosts: usize,
    /// Services.
    pub services: usize,
    /// Tasks of each service at first.
    pub tasks: u64,
    /// Virtual hours.
    pub hours: u64,
    /// Happenings in that time.
    pub happenings: usize,
}

/// What SPECIFICATION.md promises: a week.
pub const WEEK: Fleet = Fleet { hosts: 500, services: 1_000, tasks: 10, hours: 7 * 24, happenings: 2_500 };

/// A fleet with everything that lives in it.
struct Week {
    fleet: Fleet,
    trace: Trace,
    checker: Arc<Checker>,
    server: Arc<Server>,
    hosts: Vec<Arc<Hollow>>,
    desk: Desk,
    chance: Chance,
    origin: Instant,
}

/// Runs a fleet's time on this thread. `aloud` prints every line of the trace.
#[must_use]
pub fn simulate_fleet(seed: u64, fleet: Fleet, aloud: bool, registry: &Registry) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the machine");
    runtime.block_on(async {
        let week = Week::new(seed, fleet, aloud, registry.clone());
        tokio::select! {
            biased;
            () = week.checker.until_violated() => {}
            () = week.live() => {}
        }
        let violation = week.checker.verdict();
        let lines = violation.as_ref().map(|violation| week.trace.last(&crate::world::words(&violation.what), 60)).unwrap_or_default();
        Report {
            seed,
            hash: week.trace.hash(),
            millis: week.origin.elapsed().as_millis(),
            commits: week.checker.revision(),
            tasks: week.checker.tasks_seen(),
            deployments: week.checker.tally(),
            violation,
            lines,
        }
    })
}

impl Week {
    fn new(seed: u64, fleet: Fleet, aloud: bool, registry: Registry) -> Self {
        let origin = Instant::now();
        let chance = Chance::new(seed).part("fleet", 0);
        let trace = Trace::terse(origin, aloud);
        let drawn = chance.part("temper", 0);
        let temper = Temper {
            slowest_commit: *drawn.pick(&[0, 2]),
            healthy_after: Duration::from_secs(40),
            replace_after: Some(Duration::from_secs(1)),
            deployment_minute: Duration::from_secs(60),
            heartbeats: false,
        };
        let checker = Checker::new(trace.clone(), false, true);
        trace.line(format_args!("seed {seed}: {fleet:?}, {temper:?}"));
        let judge = (trace.clone(), Arc::clone(&checker));
        let home = Home::Disk(Disk::default());
        let server = Arc::new(Server::new(0, home, SimClock::new(origin), chance.part("server", 0), temper, judge, registry));
        let servers: Arc<[Arc<Server>]> = Arc::new([Arc::clone(&server)]);
        let harm = Arc::new(AtomicBool::new(false));
        let net = Net::new(servers, chance.part("users' net", 0), trace.clone(), harm, "users", 2);
        let desk =
            Desk { net, checker: Arc::clone(&checker), trace: trace.clone(), over: CancellationToken::new(), services: Arc::default() };
        let host = |number: usize| {
            let own = chance.part("host", number as u64);
            Hollow::new(number, Arc::clone(&server), own, trace.clone(), Arc::clone(&checker))
        };
        let hosts = (0..fleet.hosts).map(host).collect();
        Self { fleet, trace, checker, server, hosts, desk, chance, origin }
    }

    async fn live(&self) {
        self.server.ensure().await;
        let _ = self.desk.insist(Operation::CreateCluster, json!({})).await;
        for family in happenings::FAMILIES {
            let container = json!({"name": "main", "image": family, "cpu": 64, "memory": 64, "stopTimeout": 2});
            let document = json!({"family": family, "containerDefinitions": [container]});
            let _ = self.desk.insist(Operation::RegisterTaskDefinition, document).await;
        }
        for host in &self.hosts {
            host.boot();
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let happenings = Happenings::new(self);
        happenings.begin().await;
        self.settle().await;
        self.trace.line(format_args!("the fleet is up"));
        happenings.run().await;
        self.trace.line(format_args!("nothing happens any more"));
        happenings.cure().await;
        self.settle().await;
        self.hold_to_account().await;
    }

    async fn settle(&self) {
        let begun = Instant::now();
        while let Some(why) = self.unsettled() {
            if begun.elapsed() > SETTLES_WITHIN {
                return self.checker.violated("settles", why);
            }
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
    }

    /// What is not yet as it should be at rest.
    fn unsettled(&self) -> Option<String> {
        let instances = self.checker.instances();
        let by_arn: BTreeMap<_, _> = instances.iter().map(|i| (crate::server::scope().container_instance(&i.cluster, i.id), i)).collect();
        let mut wanted: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for task in self.checker.tasks() {
            let rests = task.last_status == TaskStatus::Stopped
                || (task.last_status == TaskStatus::Running && task.desired_status == DesiredStatus::Running);
            if !rests {
                return Some(format!("task {} is {} and should be {}", task.id, task.last_status, task.desired_status));
            }
            let running = task.containers.iter().enumerate().filter(|(_, container)| container.last_status == ContainerStatus::Running);
            wanted.entry(task.container_instance).or_default().extend(running.map(|(index, _)| format!("{}-{index}", task.id)));
        }
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(instance) = by_arn.get(&host.arn()).filter(|instance| instance.agent_connected) else {
                return Some(format!("host {number} is not a connected container instance ({})", host.arn()));
            };
            let running = host.running();
            let wanted = wanted.remove(&instance.id).unwrap_or_default();
            if let Some(other) = running.symmetric_difference(&wanted).next() {
                return Some(format!("container {other} runs on host {number} or in the state, and not in both"));
            }
        }
        let unsteady = |service: &Arc<berth_model::service::Service>| {
            service.status == ServiceStatus::Active && !(service.announced_steady && self.checker.is_steady(service))
        };
        let service = self.checker.services_to_settle().into_iter().find(unsteady)?;
        Some(format!("service {} does not run {} tasks", service.name, service.desired_count))
    }

    /// What users were promised, at the end, and once more after a restart.
    async fn hold_to_account(&self) {
        self.checker.audit();
        for (name, desired) in self.desk.services.lock().iter() {
            let shown = self.checker.services().into_iter().find(|service| *service.name.to_string() == **name);
            let shown = shown.map(|service| u64::from(service.desired_count));
            if desired.is_some() && shown != *desired {
                self.checker
                    .violated("acknowledged", format!("service {name} was acknowledged to keep {desired:?} tasks, and has {shown:?}"));
            }
        }
        self.server.crash();
        self.server.ensure().await;
        if let Some(store) = self.server.store() {
            self.checker.catch_up(&store);
            self.checker.compare(&store.state());
        }
        self.checker.audit();
    }
}
