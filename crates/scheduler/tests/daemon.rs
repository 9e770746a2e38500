//! The planner of DAEMON services on a fleet that changes under it: after every plan an auditor, which counts for itself, looks whether the
//! promises hold.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use std::collections::BTreeMap;

use berth_model::ids::{ContainerInstanceId, DeploymentId, TaskId};
use berth_model::service::{DeploymentStatus, RolloutState, SchedulingStrategy, Service, ServiceStatus};
use berth_model::task::{DesiredStatus, HealthStatus, StopCode, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::placement::Rule;
use berth_scheduler::service::{DaemonInstance, DaemonPlan, DaemonView, Machine, ServiceView, Standing, TaskView, plan_daemon};
use proptest::prelude::*;
use world::{deployment, service};

const HEALTHY_AFTER: i64 = 3_000;

/// A container instance.
#[derive(Debug, Clone)]
struct Host {
    suits: bool,
    draining: bool,
    others: u32,
    connected: bool,
    lost_at: Option<UnixMillis>,
    /// Whether there is room for a task.
    roomy: bool,
    /// Tasks fail there before they run.
    broken: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self { suits: true, draining: false, others: 0, connected: true, lost_at: None, roomy: true, broken: false }
    }
}

struct Fleet {
    service: Service,
    tasks: Vec<TaskView>,
    hosts: BTreeMap<u128, Host>,
    now: UnixMillis,
    next: u128,
    events: Vec<String>,
}

impl Fleet {
    fn new(hosts: u128, minimum: u32) -> Self {
        let service = Service { scheduling_strategy: SchedulingStrategy::Daemon, ..service(0, minimum, 100) };
        let hosts = (0..hosts).map(|id| (id, Host::default())).collect();
        Self { service, tasks: Vec::new(), hosts, now: UnixMillis(0), next: 1, events: Vec::new() }
    }

    fn primary(&self) -> DeploymentId {
        self.service.primary().unwrap().id
    }

    fn plan(&self) -> DaemonPlan {
        let view = |(id, host): (&u128, &Host)| DaemonInstance {
            id: ContainerInstanceId(*id),
            standing: match (host.suits, host.draining) {
                (false, _) => Standing::Unsuited(Rule::Attribute("stack".to_owned())),
                (true, true) => Standing::Draining { others: host.others },
                (true, false) => Standing::Eligible,
            },
            connected: host.connected,
            lost_at: host.lost_at,
        };
        let instances: Vec<_> = self.hosts.iter().map(view).collect();
        let machine = |_| Machine::default();
        let (service, tasks) = (&self.service, self.tasks.as_slice());
        let of = ServiceView { service, tasks, healthy_after_millis: HEALTHY_AFTER, blocked: false, strategies: &[], machine: &machine };
        plan_daemon(&DaemonView { of, instances: &instances }, self.now)
    }

    fn is_live(task: &TaskView) -> bool {
        task.desired == DesiredStatus::Running && task.last != TaskStatus::Stopped
    }

    fn is_protected(&self, task: &TaskView) -> bool {
        task.protected_until.is_some_and(|until| until > self.now)
    }

    fn is_healthy(&self, task: &TaskView) -> bool {
        Self::is_live(task) && task.last == TaskStatus::Running && task.started_at.is_some_and(|at| self.now.since(at) >= HEALTHY_AFTER)
    }

    fn on(&self, host: u128) -> impl Iterator<Item = &TaskView> {
        self.tasks.iter().filter(move |task| task.instance == ContainerInstanceId(host))
    }

    fn live_on(&self, host: u128) -> Option<&TaskView> {
        self.on(host).find(|task| Self::is_live(task))
    }

    fn is_lost(&self, host: &Host) -> bool {
        host.lost_at.is_some_and(|at| at <= self.now)
    }

    /// The hosts that are to have a task, by the promises and not by the planner.
    fn wanted(&self) -> Vec<u128> {
        let is_wanted = |id: u128, host: &Host| match self.live_on(id) {
            Some(task) if self.is_protected(task) => true,
            _ if self.is_lost(host) || !host.suits => false,
            Some(_) => !host.draining || host.others > 0,
            None => !host.draining,
        };
        self.hosts.iter().filter(|(id, host)| is_wanted(**id, host)).map(|(id, _)| *id).collect()
    }

    fn healthy_on(&self, hosts: &[u128]) -> u32 {
        let healthy = hosts.iter().filter(|id| self.live_on(**id).is_some_and(|task| self.is_healthy(task)));
        u32::try_from(healthy.count()).unwrap()
    }

    /// Carries out a plan, and looks whether it keeps the promises.
    fn step(&mut self) -> DaemonPlan {
        let wanted = self.wanted();
        let before = self.healthy_on(&wanted);
        let plan = self.plan();
        assert_eq!(plan.desired as usize, wanted.len(), "desiredCount is the instances that are to have a task");
        for stop in &plan.steps.stop {
            let task = self.tasks.iter().find(|task| task.id == stop.task).expect("a plan stops tasks that are there");
            assert!(Self::is_live(task), "a task is stopped once");
            assert!(!self.is_protected(task), "a protected task is left alone");
            let task = self.tasks.iter_mut().find(|task| task.id == stop.task).unwrap();
            task.desired = DesiredStatus::Stopped;
            task.stop_code = Some(stop.code);
        }
        let lower = self.service.percentages.lower(plan.desired);
        let after = self.healthy_on(&wanted);
        assert!(after >= before.min(lower), "{before} were healthy, {after} are left, {lower} is the minimum");
        for id in &plan.on {
            let host = &self.hosts[&id.0];
            assert!(host.suits && !host.draining && host.connected && !self.is_lost(host), "started on {host:?}");
            assert!(self.on(id.0).all(|task| task.last == TaskStatus::Stopped), "a second task on one instance");
            if host.roomy {
                let task = self.task(*id);
                self.tasks.push(task);
            }
        }
        for task in self.tasks.iter().filter(|task| Self::is_live(task) && !self.is_protected(task)) {
            assert!(wanted.contains(&task.instance.0), "a task stays where it should not be: {:?}", self.hosts.get(&task.instance.0));
        }
        if plan.steps.steady {
            let runs =
                |id: &u128| self.live_on(*id).is_some_and(|task| task.last == TaskStatus::Running && task.deployment == self.primary());
            assert!(wanted.iter().all(runs), "it is steady and an instance has no task");
            assert_eq!(plan.steps.deployments.len(), 1, "it is steady in the middle of a deployment");
        } else {
            assert!(!plan.steps.why.is_empty(), "it says what it waits for");
        }
        self.service.desired_count = plan.desired;
        self.service.deployments.clone_from(&plan.steps.deployments);
        self.service.status = plan.steps.status;
        self.service.announced_steady = plan.steps.steady;
        self.events.extend(plan.steps.announcements.iter().cloned());
        plan
    }

    fn task(&mut self, instance: ContainerInstanceId) -> TaskView {
        self.next += 1;
        TaskView {
            id: TaskId(self.next),
            deployment: self.primary(),
            desired: DesiredStatus::Running,
            last: TaskStatus::Pending,
            health: HealthStatus::Unknown,
            has_check: false,
            cpu: 1,
            memory: 1,
            instance,
            zone: None,
            created_at: self.now,
            started_at: None,
            stopped_at: None,
            stop_code: None,
            lost_at: None,
            draining: false,
            protected_until: None,
        }
    }

    fn end(task: &mut TaskView, now: UnixMillis, code: StopCode) {
        task.desired = DesiredStatus::Stopped;
        task.last = TaskStatus::Stopped;
        task.stopped_at = Some(now);
        task.stop_code.get_or_insert(code);
    }

    /// Agents do what is asked, a second passes, and what is known of hosts is known of their tasks.
    fn pass(&mut self) {
        for task in &mut self.tasks {
            let host = self.hosts.get(&task.instance.0);
            match (task.desired, task.last, host) {
                (_, TaskStatus::Stopped, _) => {}
                (_, _, Some(host)) if !host.connected => {}
                (DesiredStatus::Stopped, ..) => Self::end(task, self.now, StopCode::ServiceSchedulerInitiated),
                (DesiredStatus::Running, TaskStatus::Pending, Some(host)) if host.broken => {
                    Self::end(task, self.now, StopCode::TaskFailedToStart);
                }
                (DesiredStatus::Running, TaskStatus::Pending, _) => {
                    task.last = TaskStatus::Running;
                    task.started_at = Some(self.now);
                }
                _ => {}
            }
        }
        self.now = self.now.plus_millis(1_000);
        self.tell();
    }

    fn tell(&mut self) {
        for task in &mut self.tasks {
            if let Some(host) = self.hosts.get(&task.instance.0) {
                task.lost_at = host.lost_at;
                task.draining = host.draining;
            }
        }
    }

    fn run(&mut self, seconds: usize) {
        for _ in 0..seconds {
            self.step();
            self.pass();
        }
        self.step();
    }

    fn deploy(&mut self) {
        let next = self.primary().0 + 1;
        for deployment in &mut self.service.deployments {
            deployment.status = DeploymentStatus::Active;
        }
        self.service.deployments.insert(0, deployment(next, DeploymentStatus::Primary));
        self.service.announced_steady = false;
    }

    fn silence(&mut self, host: u128, seconds: i64) {
        let lost_at = self.now.plus_millis(seconds * 1_000);
        let host = self.hosts.get_mut(&host).unwrap();
        host.connected = false;
        host.lost_at.get_or_insert(lost_at);
        self.tell();
    }

    fn is_steady(&self) -> bool {
        let primary = self.service.primary().unwrap();
        self.service.announced_steady && self.service.deployments.len() == 1 && primary.rollout_state == RolloutState::Completed
    }

    fn said(&self, words: &str) -> bool {
        self.events.iter().any(|event| event.contains(words))
    }
}

#[test]
fn each_instance_gets_one_and_a_new_one_too() {
    let mut fleet = Fleet::new(3, 0);
    assert_eq!(fleet.step().on.len(), 3);
    fleet.pass();
    fleet.run(1);
    assert!(fleet.is_steady() && fleet.service.desired_count == 3);
    assert!(fleet.plan().steps.is_idle(&fleet.service), "the steady state needs nothing");
    fleet.hosts.insert(7, Host::default());
    assert_eq!(fleet.step().on, [ContainerInstanceId(7)]);
    fleet.run(2);
    assert!(fleet.is_steady() && fleet.service.desired_count == 4);
}

#[test]
fn without_instances_it_is_steady_and_wants_none() {
    let mut fleet = Fleet::new(0, 50);
    fleet.run(1);
    assert!(fleet.is_steady() && fleet.service.desired_count == 0);
}

#[test]
fn an_update_stops_before_it_starts_and_keeps_the_minimum() {
    let mut fleet = Fleet::new(4, 50);
    fleet.run(10);
    fleet.deploy();
    let first = fleet.step();
    assert_eq!((first.steps.stop.len(), first.on.len()), (2, 0));
    for _ in 0..30 {
        fleet.pass();
        fleet.step();
        assert!(fleet.healthy_on(&fleet.wanted()) >= 2);
    }
    assert!(fleet.is_steady(), "{:?}", fleet.plan().steps.why);
}

#[test]
fn with_a_minimum_of_none_all_are_replaced_at_once() {
    let mut fleet = Fleet::new(4, 0);
    fleet.run(10);
    fleet.deploy();
    assert_eq!(fleet.step().steps.stop.len(), 4);
    fleet.pass();
    assert_eq!(fleet.step().on.len(), 4);
}

#[test]
fn where_the_minimum_is_rounded_to_all_of_them_it_says_so() {
    let mut fleet = Fleet::new(1, 1);
    fleet.run(10);
    fleet.deploy();
    fleet.run(10);
    assert!(!fleet.is_steady() && fleet.said("because of the service deployment configuration"));
}

#[test]
fn what_no_longer_meets_the_constraints_is_stopped_and_told_of() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(2);
    fleet.hosts.get_mut(&1).unwrap().suits = false;
    let plan = fleet.step();
    assert_eq!((plan.steps.stop.len(), plan.desired), (1, 1));
    assert!(plan.steps.stop[0].reason.contains("no longer meets the placement constraints"), "{:?}", plan.steps.stop);
    assert!(fleet.said("no longer meet the placement constraints"));
    fleet.run(2);
    assert!(fleet.is_steady() && fleet.live_on(1).is_none());
}

#[test]
fn it_is_the_last_to_leave_a_drained_instance() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(2);
    let host = fleet.hosts.get_mut(&0).unwrap();
    (host.draining, host.others) = (true, 2);
    fleet.run(3);
    assert!(fleet.live_on(0).is_some() && fleet.is_steady());
    fleet.hosts.get_mut(&0).unwrap().others = 1;
    fleet.run(3);
    assert!(fleet.live_on(0).is_some());
    fleet.hosts.get_mut(&0).unwrap().others = 0;
    fleet.run(3);
    assert!(fleet.live_on(0).is_none() && fleet.is_steady() && fleet.service.desired_count == 1);
}

#[test]
fn a_lost_instance_is_not_waited_for_and_gets_a_new_task_when_it_is_back() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(2);
    fleet.silence(1, 5);
    fleet.run(3);
    assert!(fleet.live_on(1).is_some() && fleet.service.desired_count == 2, "it may come back");
    fleet.run(4);
    assert!(fleet.live_on(1).is_none() && fleet.service.desired_count == 1 && fleet.is_steady());
    assert_eq!(fleet.tasks.len(), 2, "nobody takes its place elsewhere");
    let host = fleet.hosts.get_mut(&1).unwrap();
    (host.connected, host.lost_at) = (true, None);
    fleet.tell();
    fleet.run(4);
    assert!(fleet.live_on(1).is_some() && fleet.service.desired_count == 2 && fleet.is_steady());
}

#[test]
fn one_bad_machine_waits_alone() {
    let mut fleet = Fleet::new(3, 0);
    fleet.hosts.get_mut(&2).unwrap().broken = true;
    let mut starts = Vec::new();
    for second in 0..200 {
        if fleet.step().on.contains(&ContainerInstanceId(2)) {
            starts.push(second);
        }
        if second == 20 {
            fleet.hosts.insert(3, Host::default());
            assert_eq!(fleet.step().on, [ContainerInstanceId(3)], "another is not held up");
        }
        fleet.pass();
    }
    assert!(starts.windows(3).all(|three| three[2] - three[1] >= three[1] - three[0]), "{starts:?}");
    assert!(starts.len() < 12 && fleet.said("unable to consistently start tasks"), "{starts:?}");
}

#[test]
fn a_protected_task_is_left_alone_until_it_is_not() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(5);
    let until = fleet.now.plus_millis(10_000);
    fleet.tasks[0].protected_until = Some(until);
    fleet.deploy();
    let plan = fleet.step();
    assert_eq!(plan.steps.stop.len(), 1);
    assert_eq!(plan.steps.wake_at, Some(until));
    fleet.run(8);
    assert!(!fleet.is_steady() && fleet.plan().steps.why.iter().any(|why| why.contains("protected")));
    fleet.run(8);
    assert!(fleet.is_steady());
}

#[test]
fn a_deleted_one_drains_and_ends() {
    let mut fleet = Fleet::new(3, 0);
    fleet.run(2);
    (fleet.service.status, fleet.service.desired_count) = (ServiceStatus::Draining, 0);
    let plan = fleet.plan();
    assert_eq!((plan.steps.stop.len(), plan.on.len(), plan.desired), (3, 0, 0));
    for task in &mut fleet.tasks {
        Fleet::end(task, fleet.now, StopCode::ServiceSchedulerInitiated);
    }
    assert_eq!(fleet.plan().steps.status, ServiceStatus::Inactive);
}

/// What happens to a fleet.
#[derive(Debug, Clone, Copy)]
enum Event {
    Join,
    Leave(u128),
    Suit(u128, bool),
    Drain(u128, u32),
    Undrain(u128),
    OtherEnds(u128),
    Silence(u128, i64),
    Return(u128),
    Break(u128, bool),
    Room(u128, bool),
    Crash(u128),
    Protect(u128, i64),
    Deploy,
    Time(usize),
}

fn events() -> impl Strategy<Value = Event> {
    let host = 0_u128..8;
    prop_oneof![
        Just(Event::Join),
        host.clone().prop_map(Event::Leave),
        (host.clone(), any::<bool>()).prop_map(|(host, suits)| Event::Suit(host, suits)),
        (host.clone(), 0_u32..3).prop_map(|(host, others)| Event::Drain(host, others)),
        host.clone().prop_map(Event::Undrain),
        host.clone().prop_map(Event::OtherEnds),
        (host.clone(), 0_i64..6).prop_map(|(host, seconds)| Event::Silence(host, seconds)),
        host.clone().prop_map(Event::Return),
        (host.clone(), any::<bool>()).prop_map(|(host, broken)| Event::Break(host, broken)),
        (host.clone(), any::<bool>()).prop_map(|(host, roomy)| Event::Room(host, roomy)),
        host.clone().prop_map(Event::Crash),
        (host, 0_i64..12).prop_map(|(host, seconds)| Event::Protect(host, seconds)),
        Just(Event::Deploy),
        (0_usize..6).prop_map(Event::Time),
    ]
}

impl Fleet {
    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Join => drop(self.hosts.insert(self.next + 1_000, Host::default())),
            Event::Deploy => self.deploy(),
            Event::Time(seconds) => self.run(seconds),
            Event::Leave(host) => {
                self.hosts.remove(&host);
                let there = |task: &&mut TaskView| task.instance == ContainerInstanceId(host) && task.last != TaskStatus::Stopped;
                self.tasks.iter_mut().filter(there).for_each(|task| Self::end(task, now, StopCode::TerminationNotice));
            }
            Event::Silence(host, seconds) if self.hosts.contains_key(&host) => self.silence(host, seconds),
            Event::Crash(host) => {
                let there = |task: &&mut TaskView| task.instance == ContainerInstanceId(host) && task.last == TaskStatus::Running;
                self.tasks.iter_mut().filter(there).for_each(|task| Self::end(task, now, StopCode::EssentialContainerExited));
            }
            Event::Protect(host, seconds) => {
                let there = |task: &&mut TaskView| task.instance == ContainerInstanceId(host) && Self::is_live(task);
                self.tasks.iter_mut().filter(there).for_each(|task| task.protected_until = Some(now.plus_millis(seconds * 1_000)));
            }
            Event::Suit(host, _)
            | Event::Drain(host, _)
            | Event::Undrain(host)
            | Event::OtherEnds(host)
            | Event::Silence(host, _)
            | Event::Return(host)
            | Event::Break(host, _)
            | Event::Room(host, _) => {
                let Some(host) = self.hosts.get_mut(&host) else { return };
                match event {
                    Event::Suit(_, suits) => host.suits = suits,
                    Event::Drain(_, others) => (host.draining, host.others) = (true, others),
                    Event::Undrain(_) => host.draining = false,
                    Event::OtherEnds(_) => host.others = host.others.saturating_sub(1),
                    Event::Return(_) => (host.connected, host.lost_at) = (true, None),
                    Event::Break(_, broken) => host.broken = broken,
                    Event::Room(_, roomy) => host.roomy = roomy,
                    _ => {}
                }
            }
        }
        self.tell();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    /// Whatever happens, the auditor in `step` is content; and when no more does, every instance has its task.
    #[test]
    fn it_keeps_its_promises_and_comes_to_rest(hosts in 0_u128..8, minimum in 0_u32..100, events in prop::collection::vec(events(), 0..40)) {
        let mut fleet = Fleet::new(hosts, minimum);
        for event in events {
            fleet.happen(event);
            fleet.step();
            fleet.pass();
        }
        for host in fleet.hosts.values_mut() {
            *host = Host { suits: host.suits, ..Host::default() };
        }
        fleet.tell();
        for _ in 0..1_000 {
            let plan = fleet.step();
            if fleet.is_steady() {
                let there = |id: u128| fleet.live_on(id).is_some_and(|task| task.last == TaskStatus::Running);
                prop_assert!(fleet.hosts.iter().all(|(id, host)| host.suits == there(*id)));
                return Ok(());
            }
            let idle = plan.on.is_empty() && plan.steps.stop.is_empty();
            fleet.pass();
            if let Some(at) = plan.steps.wake_at.filter(|at| idle && *at > fleet.now) {
                fleet.now = at;
            }
        }
        // It can only hang where the minimum, rounded up, is all of them; then it says what the user has to change.
        let all = fleet.service.percentages.lower(fleet.service.desired_count) == fleet.service.desired_count;
        prop_assert!(all && fleet.said("because of the service deployment configuration"), "stuck: {:?}", fleet.plan().steps.why);
    }
}
