//! Tasks that are to be replaced for what became of them, whatever deployments do: those that fail their health checks, those on machines
//! that are drained, those on machines that are lost. Every planner sorts and stops them here; when, is the planner's to say.

use berth_model::task::{StopCode, TaskStatus};
use berth_model::time::UnixMillis;

use super::plan::{count, stop_tasks, unhealthy};
use super::{ServicePlan, ServiceView, Stop, TaskView};

/// The live tasks of a revision by what is to be done with them. Each is in one list.
pub(super) struct Sorted<'t> {
    /// Those that count.
    pub(super) new: Vec<&'t TaskView>,
    /// Those that failed their health check. A protected one is not among them: nobody takes its place.
    pub(super) sick: Vec<&'t TaskView>,
    /// Those on machines that are drained.
    pub(super) draining: Vec<&'t TaskView>,
    /// Those on machines that are lost. They count for nothing.
    pub(super) lost: Vec<&'t TaskView>,
}

impl<'t> Sorted<'t> {
    pub(super) fn of(view: &ServiceView<'_>, tasks: impl Iterator<Item = &'t TaskView>, now: UnixMillis) -> Self {
        let (lost, live): (Vec<_>, Vec<_>) = tasks.filter(|task| task.is_live()).partition(|task| task.is_lost(now));
        let (draining, live): (Vec<_>, Vec<_>) = live.into_iter().partition(|task| task.draining);
        let (sick, new) = live.into_iter().partition(|task| unhealthy(view, task, now).0 && !task.is_protected(now));
        Self { new, sick, draining, lost }
    }
}

/// How many tasks that fail their health checks have healthy ones standing in for them, so many of which there are.
pub(super) fn covered(sick: &[&TaskView], healthy: u32, desired: u32) -> u32 {
    (healthy + count(sick)).saturating_sub(desired).min(count(sick))
}

/// `stoppedReason` of a task whose container health checks failed.
pub const FAILED_CHECK: &str = "Task failed container health checks";

/// Stops so many of the tasks that fail their health checks; those first that have run for longest.
pub(super) fn stop_failed(plan: &mut ServicePlan, sick: &[&TaskView], most: u32) {
    let mut order = sick.to_vec();
    order.sort_by_key(|task| (task.started_at, task.id));
    plan.stop.extend(order.iter().take(usize::try_from(most).unwrap_or(usize::MAX)).map(|task| Stop {
        task: task.id,
        code: StopCode::ServiceSchedulerInitiated,
        reason: FAILED_CHECK.to_owned(),
    }));
}

/// ECS: what has not come up yet on a machine that is drained ends at once.
pub(super) fn stop_early<'t>(plan: &mut ServicePlan, draining: impl Iterator<Item = &'t TaskView>, now: UnixMillis) {
    stop_tasks(plan, draining.filter(|task| task.draining && task.last < TaskStatus::Running && !task.is_protected(now)).collect());
}

/// Tasks on lost machines count for nothing, so others are started for them; but they are told to stop only as those run. A machine that
/// comes back before finds them wanted, and a service that has no other machine keeps what it had.
pub(super) fn stop_lost(plan: &mut ServicePlan, lost: &[&TaskView], running: u32, desired: u32, is_new: impl Fn(&TaskView) -> bool) {
    let replaced = (running + count(lost)).saturating_sub(desired).min(count(lost));
    if replaced < count(lost) {
        plan.why.push(format!("{} of its tasks are on container instances whose agents are away", lost.len()));
    }
    let mut order = lost.to_vec();
    order.sort_by_key(|task| (is_new(task), task.last, task.came(), task.id));
    let replaced: Vec<_> = order.into_iter().take(usize::try_from(replaced).unwrap_or(usize::MAX)).collect();
    if replaced.is_empty() {
        return;
    }
    let named: Vec<_> = replaced.iter().map(|task| format!("(task {})", task.id)).collect();
    plan.announcements.push(format!("has replaced {} tasks whose container instances are not heard of: {}.", named.len(), named.join(" ")));
    plan.stop.extend(replaced.iter().map(|task| Stop {
        task: task.id,
        code: StopCode::ServiceSchedulerInitiated,
        reason: format!("Container instance {} is not heard of; the task was replaced", task.instance),
    }));
}
