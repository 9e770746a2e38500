//! What a service does next: which tasks to start and stop, what becomes of its deployments, what it announces.
//!
//! Rolling updates follow
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html>: `minimumHealthyPercent` rounds up,
//! `maximumPercent` rounds down and counts pending tasks, a task without health checks counts as healthy after it has run
//! for a while (ECS: 40 seconds).

mod absence;
mod alarms;
mod believed;
mod breaker;
mod daemon;
pub mod history;
mod outcome;
mod plan;
pub mod rebalance;
mod replace;
pub mod shift;
mod stages;
mod surplus;
pub mod task_set;
mod throttle;
mod whole;

use std::fmt;
use std::sync::Arc;

use berth_model::alarm::Alarm;
use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::ids::{ContainerInstanceId, DeploymentId, TaskId};
use berth_model::service::{Deployment, Service, ServiceStatus};
use berth_model::task::{DesiredStatus, HealthStatus, StopCode, Task, TaskStatus};
use berth_model::time::UnixMillis;

use crate::placement::Strategy;

pub use absence::AbsenceRules;
pub use alarms::AlarmRules;
pub use breaker::BreakerRules;
pub use daemon::{DaemonInstance, DaemonPlan, DaemonView, Standing, plan_daemon};
pub use outcome::{ALARM_TRIGGERED, BREAKER_TRIGGERED};
pub use plan::{announced_failures, plan};
pub use rebalance::Zones;
pub use replace::FAILED_CHECK;
pub use surplus::Machine;

/// A task of the service as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// The deployment that started it.
    pub deployment: DeploymentId,
    /// What it should be.
    pub desired: DesiredStatus,
    /// What was last seen.
    pub last: TaskStatus,
    /// UNKNOWN if no essential container has a check.
    pub health: HealthStatus,
    /// An essential container has a health check.
    pub has_check: bool,
    /// CPU units that it takes.
    pub cpu: u32,
    /// MiB that it takes.
    pub memory: u32,
    /// Where it runs.
    pub instance: ContainerInstanceId,
    /// The zone of that instance.
    pub zone: Option<Arc<str>>,
    /// The number of the commit that created it. It tells in which order tasks came; when they were created may be of several clocks.
    pub commit: u64,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When it reached RUNNING.
    pub started_at: Option<UnixMillis>,
    /// When it reached STOPPED.
    pub stopped_at: Option<UnixMillis>,
    /// Why it stopped.
    pub stop_code: Option<StopCode>,
    /// It was stopped since it failed a health check.
    pub failed_check: bool,
    /// When its machine, whose agent is away, counts as lost: what was last seen of the task means nothing from then on.
    pub lost_at: Option<UnixMillis>,
    /// Its machine is DRAINING: another task is to take its place.
    pub draining: bool,
    /// Scale-in, deployments and draining leave it alone until then, and nobody takes its place.
    pub protected_until: Option<UnixMillis>,
}

impl TaskView {
    /// A task that was just placed: PENDING, without a health check, in no zone, and taking nothing.
    #[must_use]
    pub const fn placed(id: TaskId, deployment: DeploymentId, instance: ContainerInstanceId, commit: u64, created_at: UnixMillis) -> Self {
        Self {
            id,
            deployment,
            desired: DesiredStatus::Running,
            last: TaskStatus::Pending,
            health: HealthStatus::Unknown,
            has_check: false,
            cpu: 0,
            memory: 0,
            instance,
            zone: None,
            commit,
            created_at,
            started_at: None,
            stopped_at: None,
            stop_code: None,
            failed_check: false,
            lost_at: None,
            draining: false,
            protected_until: None,
        }
    }

    /// What the planner sees of a task and of the machine that it is on; `None` if it belongs to no service.
    #[must_use]
    pub fn of(
        task: &Task,
        commit: u64,
        has_check: bool,
        health: HealthStatus,
        instance: Option<&ContainerInstance>,
        absence: &AbsenceRules,
    ) -> Option<Self> {
        Some(Self {
            id: task.id,
            deployment: task.service.as_ref()?.deployment,
            desired: task.desired_status,
            last: task.last_status,
            health,
            has_check,
            cpu: task.demand.cpu,
            memory: task.demand.memory,
            instance: task.container_instance,
            zone: task.availability_zone.clone(),
            commit,
            created_at: task.created_at,
            started_at: task.started_at,
            stopped_at: task.stopped_at,
            stop_code: task.stop_code,
            failed_check: task.stopped_reason.as_deref().is_some_and(|reason| reason == FAILED_CHECK),
            lost_at: instance.and_then(|instance| absence.lost_at(instance)),
            protected_until: task.protected_until,
            draining: instance.is_some_and(|instance| instance.status == ContainerInstanceStatus::Draining),
        })
    }

    /// Sorts tasks as they came: by their commits, not by what clocks said. A store that was restored into etcd has many in one commit.
    const fn came(&self) -> (u64, UnixMillis) {
        (self.commit, self.created_at)
    }

    /// It runs or is on its way, and nobody asked it to stop.
    const fn is_live(&self) -> bool {
        matches!(self.desired, DesiredStatus::Running) && !matches!(self.last, TaskStatus::Stopped)
    }

    /// It may not be stopped for another one.
    fn is_protected(&self, now: UnixMillis) -> bool {
        self.protected_until.is_some_and(|until| until > now)
    }

    /// Its machine is lost. While it is protected that is not believed: there must never be two of it.
    fn is_lost(&self, now: UnixMillis) -> bool {
        !self.is_protected(now) && self.last != TaskStatus::Stopped && self.lost_at.is_some_and(|at| at <= now)
    }

    const fn is_running(&self) -> bool {
        matches!(self.desired, DesiredStatus::Running) && matches!(self.last, TaskStatus::Running)
    }
}

/// Everything a plan depends on.
#[derive(Clone, Copy)]
pub struct ServiceView<'a> {
    /// The service.
    pub service: &'a Service,
    /// Its tasks, ended ones too.
    pub tasks: &'a [TaskView],
    /// How long a task without health checks must run to count as healthy, in milliseconds. ECS: 40 s.
    pub healthy_after_millis: i64,
    /// How long a minute of bake times and timeouts takes, in milliseconds.
    pub minute_millis: i64,
    /// Nothing could be placed just now, and the PRIMARY deployment wants to start some, so tasks of old deployments must make room as far as
    /// `minimumHealthyPercent` allows.
    pub blocked: bool,
    /// How its tasks are placed, the default filled in: a scale-in is the mirror of it.
    pub strategies: &'a [Strategy],
    /// The alarms that its deployments watch, as far as anybody said anything of them.
    pub alarms: &'a [Arc<Alarm>],
    /// The availability zones that its tasks may be in.
    pub zones: Zones<'a>,
    /// What is known of a container instance.
    pub machine: &'a dyn Fn(ContainerInstanceId) -> Machine<'a>,
}

impl fmt::Debug for ServiceView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceView").field("service", &self.service).field("tasks", &self.tasks).finish_non_exhaustive()
    }
}

/// A task to stop, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub task: TaskId,
    /// `stopCode`.
    pub code: StopCode,
    /// `stoppedReason`.
    pub reason: String,
}

/// What a service does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlan {
    /// How many tasks to start in the PRIMARY deployment.
    pub start: u32,
    /// How many tasks to start in older deployments, in place of those that these lost.
    pub restore: Vec<(DeploymentId, u32)>,
    /// How many tasks to start in the PRIMARY deployment in which availability zone, beyond those that it wants: others stop for them.
    pub spread: Vec<(String, u32)>,
    /// Tasks to stop.
    pub stop: Vec<Stop>,
    /// The PRIMARY deployment starts nothing for now, whatever room there is.
    pub is_throttled: bool,
    /// Those of them that stop for others in other zones, each with its zone.
    pub freed: Vec<(String, TaskId)>,
    /// What its deployments become.
    pub deployments: Vec<Deployment>,
    /// What its status becomes.
    pub status: ServiceStatus,
    /// The steady state holds.
    pub steady: bool,
    /// Texts for its events, without "(service NAME) ".
    pub announcements: Vec<String>,
    /// When to plan again even if nothing changes.
    pub wake_at: Option<UnixMillis>,
    /// What it waits for, in words; empty in the steady state.
    pub why: Vec<String>,
    /// The deployment failed, and the service is to go back: why.
    pub rollback: Option<&'static str>,
}

impl ServicePlan {
    /// Leaves a service as it is.
    #[must_use]
    pub fn nothing(service: &Service) -> Self {
        Self {
            start: 0,
            restore: Vec::new(),
            spread: Vec::new(),
            is_throttled: false,
            stop: Vec::new(),
            freed: Vec::new(),
            deployments: service.deployments.clone(),
            status: service.status,
            steady: false,
            announcements: Vec::new(),
            wake_at: None,
            why: Vec::new(),
            rollback: None,
        }
    }

    /// The tasks it starts: in which deployment, how many. Those in place of lost ones come first.
    pub fn starts(&self, service: &Service) -> Vec<(DeploymentId, u32)> {
        let primary = service.primary().map(|primary| (primary.id, self.start));
        self.restore.iter().copied().chain(primary).filter(|(_, count)| *count > 0).collect()
    }

    /// Starts and stops no more than `most` tasks each. What is left comes with the next plan.
    pub fn limit(&mut self, most: usize) {
        self.stop.truncate(most);
        self.freed.retain(|(_, freed)| self.stop.iter().any(|stop| stop.task == *freed));
        let mut left = u32::try_from(most).unwrap_or(u32::MAX);
        let spread = self.spread.iter_mut().map(|(_, count)| count);
        for count in self.restore.iter_mut().map(|(_, count)| count).chain([&mut self.start]).chain(spread) {
            *count = (*count).min(left);
            left -= *count;
        }
        self.spread.retain(|(_, count)| *count > 0);
    }

    /// What becomes of it where none of the tasks that it starts found a place: older ones make room, no more than `most` at once. `blocked`
    /// makes the plan for that.
    #[must_use]
    pub fn without_room(self, most: usize, blocked: impl FnOnce() -> Self) -> Self {
        // What an older deployment lost waits for room while the newest starts nothing: to make some, others of its own would have to go.
        if self.start == 0 && self.is_throttled {
            return self;
        }
        let (start, restore) = (self.start, self.restore);
        let mut plan = Self { start, restore, ..blocked() };
        plan.stop.truncate(most);
        plan
    }

    /// It changes nothing.
    #[must_use]
    pub fn is_idle(&self, service: &Service) -> bool {
        self.start == 0
            && self.restore.is_empty()
            && self.spread.is_empty()
            && self.stop.is_empty()
            && self.announcements.is_empty()
            && self.deployments == service.deployments
            && self.status == service.status
            && self.steady == service.announced_steady
    }
}
