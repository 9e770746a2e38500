//! A service under a virtual clock: plans are carried out, tasks come up and die, machines fall silent and are drained.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::alarm::{Alarm, AlarmState};
use berth_model::ids::{ClusterName, ContainerInstanceId, DefinitionId, DeploymentId, Family, ServiceName, TaskId};
use berth_model::service::{Deployment, DeploymentStatus, Percentages, RolloutState, Service, ServiceStatus};
use berth_model::task::{DesiredStatus, HealthStatus, LaunchType, StopCode, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::placement::Strategy;
use berth_scheduler::service::{FAILED_CHECK, Machine, ServicePlan, ServiceView, TaskView, plan};

pub const HEALTHY_AFTER: i64 = 40_000;

pub fn deployment(id: u64, status: DeploymentStatus) -> Deployment {
    Deployment {
        id: DeploymentId(id),
        status,
        definition: DefinitionId { family: Family::parse("web").unwrap(), revision: u32::try_from(id).unwrap() },
        created_at: UnixMillis(0),
        updated_at: UnixMillis(0),
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: String::new(),
        capacity_provider_strategy: Vec::new(),
        revision: None,
        service_deployment: None,
        progress: Default::default(),
    }
}

pub fn service(desired_count: u32, minimum_healthy: u32, maximum: u32) -> Service {
    Service {
        name: ServiceName::parse("web").unwrap(),
        cluster: ClusterName::parse("c").unwrap(),
        status: ServiceStatus::Active,
        desired_count,
        launch_type: LaunchType::Ec2,
        percentages: Percentages { minimum_healthy, maximum },
        deployments: vec![deployment(1, DeploymentStatus::Primary)],
        settings: Default::default(),
        tags: Default::default(),
        created_at: UnixMillis(0),
        created_by: String::new(),
        next_event: 0,
        announced_steady: false,
        announced_failure: None,
        client_token: None,
        controller: Default::default(),
        task_sets: Vec::new(),
        scheduling_strategy: Default::default(),
        completed_revision: None,
    }
}

/// What becomes of the tasks of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They never run.
    NeverRun,
    /// They end by themselves after so many seconds.
    Crash(i64),
    /// Their health check fails after so many seconds.
    Sicken(i64),
    /// They run, and their health check says so after so many seconds.
    Check(i64),
}

/// A service with its tasks and a machine that can hold `room` of them.
pub struct World {
    /// Of deployments not named here tasks run, and have no health check.
    pub fates: BTreeMap<DeploymentId, Fate>,
    pub service: Service,
    pub tasks: Vec<TaskView>,
    pub now: UnixMillis,
    pub room: usize,
    pub next: u128,
    /// Commits of tasks that were started.
    pub commits: u64,
    pub events: Vec<String>,
    /// Machines that are not heard of, with when they count as lost.
    pub silent: BTreeMap<ContainerInstanceId, UnixMillis>,
    /// What is said of alarms.
    pub alarms: Vec<Arc<Alarm>>,
    /// Machines that are DRAINING.
    pub drained: BTreeSet<ContainerInstanceId>,
}

impl World {
    pub fn new(service: Service) -> Self {
        Self {
            fates: BTreeMap::new(),
            service,
            tasks: Vec::new(),
            now: UnixMillis(0),
            room: 1_000,
            next: 1,
            commits: 0,
            events: Vec::new(),
            silent: BTreeMap::new(),
            alarms: Vec::new(),
            drained: BTreeSet::new(),
        }
    }

    /// Somebody says something of an alarm that needs a minute to notice.
    pub fn alarm(&mut self, name: &str, state: AlarmState) {
        let at = self.alarms.iter().position(|alarm| alarm.name == name).unwrap_or_else(|| {
            let (state, reason) = (AlarmState::InsufficientData, String::new());
            let (updated_at, alarmed_at) = (self.now, None);
            self.alarms.push(Arc::new(Alarm { name: name.to_owned(), state, reason, window_seconds: 60, updated_at, alarmed_at }));
            self.alarms.len() - 1
        });
        Arc::make_mut(&mut self.alarms[at]).say(state, "", self.now);
    }

    pub fn holding(&self) -> usize {
        self.tasks.iter().filter(|task| task.last != TaskStatus::Stopped && !self.silent.contains_key(&task.instance)).count()
    }

    pub fn healthy(&self) -> u32 {
        let counts = |task: &&TaskView| {
            task.desired == DesiredStatus::Running
                && task.last == TaskStatus::Running
                && !self.is_lost(task)
                && if task.has_check {
                    task.health == HealthStatus::Healthy
                } else {
                    task.started_at.is_some_and(|at| self.now.since(at) >= HEALTHY_AFTER)
                }
        };
        u32::try_from(self.tasks.iter().filter(counts).count()).unwrap()
    }

    pub fn is_lost(&self, task: &TaskView) -> bool {
        task.lost_at.is_some_and(|at| at <= self.now)
    }

    pub fn live(&self) -> u32 {
        let counts = |task: &&TaskView| task.desired == DesiredStatus::Running && task.last != TaskStatus::Stopped && !self.is_lost(task);
        u32::try_from(self.tasks.iter().filter(counts).count()).unwrap()
    }

    pub fn plan(&self, blocked: bool) -> ServicePlan {
        let view = ServiceView {
            service: &self.service,
            tasks: &self.tasks,
            healthy_after_millis: HEALTHY_AFTER,
            minute_millis: 60_000,
            blocked,
            zones: Default::default(),
            strategies: &Strategy::service_default(),
            alarms: &self.alarms,
            machine: &|_| Machine::default(),
        };
        plan(&view, self.now)
    }

    /// What the services loop does with a plan.
    pub fn step(&mut self) -> ServicePlan {
        let mut steps = self.plan(false);
        let mut starts = steps.starts(&self.service);
        let mut room = self.room.saturating_sub(self.holding());
        if !starts.is_empty() && room == 0 {
            steps = steps.without_room(usize::MAX, || self.plan(true));
            starts.clear();
        }
        self.commits += 1;
        for (deployment, count) in starts {
            let count = room.min(usize::try_from(count).unwrap());
            room -= count;
            for _ in 0..count {
                let task = self.task(deployment);
                self.next += 1;
                self.tasks.push(task);
            }
        }
        for stop in &steps.stop {
            let task = self.tasks.iter_mut().find(|task| task.id == stop.task).expect("a plan stops tasks that are there");
            assert_eq!(task.desired, DesiredStatus::Running, "a task is stopped once");
            task.desired = DesiredStatus::Stopped;
            task.stop_code = Some(stop.code);
            task.failed_check = stop.reason == FAILED_CHECK;
        }
        self.service.deployments.clone_from(&steps.deployments);
        self.service.status = steps.status;
        self.service.announced_steady = steps.steady;
        self.events.extend(steps.announcements.iter().cloned());
        steps
    }

    fn task(&self, deployment: DeploymentId) -> TaskView {
        TaskView {
            has_check: matches!(self.fates.get(&deployment), Some(Fate::Sicken(_) | Fate::Check(_))),
            ..TaskView::placed(TaskId(self.next), deployment, self.machine(), self.commits, self.now)
        }
    }

    /// One of three machines that takes tasks.
    pub fn machine(&self) -> ContainerInstanceId {
        let from = self.next % 3;
        let mut all = (0..3).map(|more| ContainerInstanceId((from + more) % 3));
        all.find(|id| !self.silent.contains_key(id) && !self.drained.contains(id)).expect("one takes tasks")
    }

    /// A machine is drained: nothing new comes to it.
    pub fn drain(&mut self, machine: u128) {
        self.drained.insert(ContainerInstanceId(machine));
        for task in self.tasks.iter_mut().filter(|task| task.instance == ContainerInstanceId(machine)) {
            task.draining = true;
        }
    }

    /// A machine is not heard of any more; after `grace` seconds it counts as lost.
    pub fn silence(&mut self, machine: u128, grace: i64) {
        let lost_at = self.now.plus_millis(grace * 1_000);
        self.silent.insert(ContainerInstanceId(machine), lost_at);
        for task in self.tasks.iter_mut().filter(|task| task.instance == ContainerInstanceId(machine)) {
            task.lost_at = Some(lost_at);
        }
    }

    pub fn comes_back(&mut self, machine: u128) {
        self.silent.remove(&ContainerInstanceId(machine));
        for task in self.tasks.iter_mut().filter(|task| task.instance == ContainerInstanceId(machine)) {
            task.lost_at = None;
        }
    }

    pub fn on(&self, machine: u128) -> impl Iterator<Item = &TaskView> {
        self.tasks.iter().filter(move |task| task.instance == ContainerInstanceId(machine))
    }

    pub fn stop(&mut self, at: usize, code: StopCode) {
        let task = &mut self.tasks[at];
        task.desired = DesiredStatus::Stopped;
        task.last = TaskStatus::Stopped;
        task.stopped_at = Some(self.now);
        task.stop_code.get_or_insert(code);
    }

    /// Agents do what is asked: pending tasks run, tasks that should stop end.
    pub fn agents(&mut self) {
        for at in 0..self.tasks.len() {
            let task = &mut self.tasks[at];
            if self.silent.contains_key(&task.instance) {
                continue;
            }
            let fate = self.fates.get(&task.deployment).copied();
            let age = task.started_at.map(|at| self.now.since(at) / 1_000);
            match (fate, age) {
                (Some(Fate::Sicken(after)), Some(age)) if age >= after => task.health = HealthStatus::Unhealthy,
                (Some(Fate::Check(after)), Some(age)) if age >= after => task.health = HealthStatus::Healthy,
                _ => {}
            }
            match (task.desired, task.last) {
                (DesiredStatus::Running, TaskStatus::Pending) if fate == Some(Fate::NeverRun) => {
                    self.stop(at, StopCode::TaskFailedToStart);
                }
                (DesiredStatus::Running, TaskStatus::Running) if matches!((fate, age), (Some(Fate::Crash(s)), Some(age)) if age >= s) => {
                    self.stop(at, StopCode::EssentialContainerExited);
                }
                (DesiredStatus::Running, TaskStatus::Pending) => {
                    task.last = TaskStatus::Running;
                    task.started_at = Some(self.now);
                }
                (DesiredStatus::Stopped, last) if last != TaskStatus::Stopped => self.stop(at, StopCode::UserInitiated),
                _ => {}
            }
        }
    }

    pub fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.step();
            self.agents();
            self.now = self.now.plus_millis(1_000);
        }
        self.step();
    }

    pub fn deploy(&mut self, id: u64) {
        self.service.demote_primary(self.now);
        self.service.deployments.insert(0, deployment(id, DeploymentStatus::Primary));
        self.service.announced_steady = false;
    }

    pub fn is_steady_on(&self, id: u64) -> bool {
        self.service.announced_steady
            && self.service.deployments.len() == 1
            && self
                .service
                .primary()
                .is_some_and(|primary| primary.id == DeploymentId(id) && primary.rollout_state == RolloutState::Completed)
            && self.live() == self.service.desired_count
    }
}
