//! A DAEMON service on a fleet under a virtual clock. After every plan an auditor, which counts for itself, looks whether the promises hold.

use std::collections::BTreeMap;

use berth_model::ids::{ContainerInstanceId, DeploymentId, TaskId};
use berth_model::service::{DeploymentStatus, RolloutState, SchedulingStrategy, Service};
use berth_model::task::{DesiredStatus, HealthStatus, StopCode, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::placement::Rule;
use berth_scheduler::service::{DaemonInstance, DaemonPlan, DaemonView, Machine, ServiceView, Standing, TaskView, plan_daemon};

use crate::world::{deployment, service};

pub const HEALTHY_AFTER: i64 = 3_000;

/// A container instance.
#[derive(Debug, Clone)]
pub struct Host {
    pub suits: bool,
    pub draining: bool,
    pub others: u32,
    pub connected: bool,
    pub lost_at: Option<UnixMillis>,
    /// Whether there is room for a task.
    pub roomy: bool,
    /// Tasks fail there before they run.
    pub broken: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self { suits: true, draining: false, others: 0, connected: true, lost_at: None, roomy: true, broken: false }
    }
}

pub struct Fleet {
    pub service: Service,
    pub tasks: Vec<TaskView>,
    pub hosts: BTreeMap<u128, Host>,
    pub now: UnixMillis,
    pub next: u128,
    pub events: Vec<String>,
}

impl Fleet {
    pub fn new(hosts: u128, minimum: u32) -> Self {
        let service = Service { scheduling_strategy: SchedulingStrategy::Daemon, ..service(0, minimum, 100) };
        let hosts = (0..hosts).map(|id| (id, Host::default())).collect();
        Self { service, tasks: Vec::new(), hosts, now: UnixMillis(0), next: 1, events: Vec::new() }
    }

    pub fn primary(&self) -> DeploymentId {
        self.service.primary().unwrap().id
    }

    pub fn plan(&self) -> DaemonPlan {
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
        let (healthy_after_millis, minute_millis) = (HEALTHY_AFTER, 60_000);
        let of = ServiceView {
            service,
            tasks,
            healthy_after_millis,
            minute_millis,
            blocked: false,
            zones: Default::default(),
            strategies: &[],
            alarms: &[],
            machine: &machine,
        };
        plan_daemon(&DaemonView { of, instances: &instances }, self.now)
    }

    pub fn is_live(task: &TaskView) -> bool {
        task.desired == DesiredStatus::Running && task.last != TaskStatus::Stopped
    }

    pub fn is_protected(&self, task: &TaskView) -> bool {
        task.protected_until.is_some_and(|until| until > self.now)
    }

    pub fn is_healthy(&self, task: &TaskView) -> bool {
        let ran = task.started_at.is_some_and(|at| self.now.since(at) >= HEALTHY_AFTER);
        let is_well = if task.has_check { task.health == HealthStatus::Healthy } else { ran };
        Self::is_live(task) && task.last == TaskStatus::Running && is_well
    }

    pub fn on(&self, host: u128) -> impl Iterator<Item = &TaskView> {
        self.tasks.iter().filter(move |task| task.instance == ContainerInstanceId(host))
    }

    pub fn live_on(&self, host: u128) -> Option<&TaskView> {
        self.on(host).find(|task| Self::is_live(task))
    }

    pub fn is_lost(&self, host: &Host) -> bool {
        host.lost_at.is_some_and(|at| at <= self.now)
    }

    /// The hosts that are to have a task, by the promises and not by the planner.
    pub fn wanted(&self) -> Vec<u128> {
        let is_wanted = |id: u128, host: &Host| match self.live_on(id) {
            Some(task) if self.is_protected(task) => true,
            _ if self.is_lost(host) || !host.suits => false,
            Some(_) => !host.draining || host.others > 0,
            None => !host.draining,
        };
        self.hosts.iter().filter(|(id, host)| is_wanted(**id, host)).map(|(id, _)| *id).collect()
    }

    pub fn healthy_on(&self, hosts: &[u128]) -> u32 {
        let healthy = hosts.iter().filter(|id| self.live_on(**id).is_some_and(|task| self.is_healthy(task)));
        u32::try_from(healthy.count()).unwrap()
    }

    /// Carries out a plan, and looks whether it keeps the promises.
    pub fn step(&mut self) -> DaemonPlan {
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

    pub fn task(&mut self, instance: ContainerInstanceId) -> TaskView {
        self.next += 1;
        TaskView::placed(TaskId(self.next), self.primary(), instance, self.tasks.len() as u64, self.now)
    }

    pub fn end(task: &mut TaskView, now: UnixMillis, code: StopCode) {
        task.desired = DesiredStatus::Stopped;
        task.last = TaskStatus::Stopped;
        task.stopped_at = Some(now);
        task.stop_code.get_or_insert(code);
    }

    /// Agents do what is asked, a second passes, and what is known of hosts is known of their tasks.
    pub fn pass(&mut self) {
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

    pub fn tell(&mut self) {
        for task in &mut self.tasks {
            if let Some(host) = self.hosts.get(&task.instance.0) {
                task.lost_at = host.lost_at;
                task.draining = host.draining;
            }
        }
    }

    pub fn run(&mut self, seconds: usize) {
        for _ in 0..seconds {
            self.step();
            self.pass();
        }
        self.step();
    }

    pub fn deploy(&mut self) {
        let next = self.primary().0 + 1;
        for deployment in &mut self.service.deployments {
            deployment.status = DeploymentStatus::Active;
        }
        self.service.deployments.insert(0, deployment(next, DeploymentStatus::Primary));
        self.service.announced_steady = false;
    }

    pub fn silence(&mut self, host: u128, seconds: i64) {
        let lost_at = self.now.plus_millis(seconds * 1_000);
        let host = self.hosts.get_mut(&host).unwrap();
        host.connected = false;
        host.lost_at.get_or_insert(lost_at);
        self.tell();
    }

    pub fn is_steady(&self) -> bool {
        let primary = self.service.primary().unwrap();
        self.service.announced_steady && self.service.deployments.len() == 1 && primary.rollout_state == RolloutState::Completed
    }

    pub fn said(&self, words: &str) -> bool {
        self.events.iter().any(|event| event.contains(words))
    }
}
