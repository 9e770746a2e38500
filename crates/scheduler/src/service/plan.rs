//! The planner of REPLICA services with rolling updates.

use berth_model::ids::DeploymentId;
use berth_model::service::{DeploymentStatus, RolloutState, Service, ServiceStatus};
use berth_model::task::{HealthStatus, StopCode, TaskStatus};
use berth_model::time::UnixMillis;

use super::throttle::throttle;
use super::{ServicePlan, ServiceView, Stop, TaskView, surplus};

/// How many failed starts in a row make the service say that it cannot start tasks.
pub(super) const IMPAIRED_AFTER: u32 = 3;

/// Plans a service's next step.
#[must_use]
pub fn plan(view: &ServiceView<'_>, now: UnixMillis) -> ServicePlan {
    let service = view.service;
    let mut plan = ServicePlan {
        start: 0,
        stop: Vec::new(),
        deployments: service.deployments.clone(),
        status: service.status,
        steady: false,
        announcements: Vec::new(),
        wake_at: None,
        why: Vec::new(),
    };
    match service.status {
        ServiceStatus::Active => plan_active(view, now, &mut plan),
        ServiceStatus::Draining => plan_draining(view, now, &mut plan),
        ServiceStatus::Inactive => {}
    }
    plan
}

/// Is the task counted as healthy, and if not yet, when might it be?
pub(super) fn healthy(task: &TaskView, healthy_after_millis: i64, now: UnixMillis) -> (bool, Option<UnixMillis>) {
    if !task.is_running() {
        return (false, None);
    }
    if task.has_check {
        return (task.health == HealthStatus::Healthy, None);
    }
    match task.started_at.map(|at| at.plus_millis(healthy_after_millis)) {
        Some(at) if at <= now => (true, None),
        at => (false, at),
    }
}

fn plan_active(view: &ServiceView<'_>, now: UnixMillis, plan: &mut ServicePlan) {
    let service = view.service;
    let desired = service.desired_count;
    // Under an EXTERNAL controller each task set is planned as a service of its own.
    let Some(primary) = service.primary().map(|primary| primary.id) else { return };
    let (lost, live): (Vec<_>, Vec<_>) = view.tasks.iter().filter(|task| task.is_live()).partition(|task| task.is_lost(now));
    // What is believed of a task may change with time alone.
    plan.wake_at = live.iter().flat_map(|task| [task.lost_at, task.protected_until]).flatten().filter(|at| *at > now).min();
    // Tasks on machines that are drained are replaced as those of older deployments are.
    let (new, old): (Vec<_>, Vec<_>) = live.iter().copied().partition(|task| task.deployment == primary && !task.draining);
    let new_count = count(&new);

    if new_count > desired {
        let is_healthy = |task: &TaskView| healthy(task, view.healthy_after_millis, now).0;
        let free: Vec<_> = new.iter().copied().filter(|task| !task.is_protected(now)).collect();
        let surplus = surplus::pick(&free, &live, new_count - desired, (view.strategies, view.machine), is_healthy);
        if count(&free) < new_count - desired {
            plan.why.push("protected tasks hold up the scale-in".to_owned());
        }
        stop_tasks(plan, surplus);
    } else if new_count < desired {
        plan_starts(view, now, plan, primary, &new, count(&live));
    }
    if !old.is_empty() {
        // ECS: what has not come up on such a machine yet ends at once.
        let early =
            old.iter().copied().filter(|task| task.draining && task.last < TaskStatus::Running && !task.is_protected(now)).collect();
        stop_tasks(plan, early);
        stop_replaced(view, now, plan, &live, &old);
    }

    let running = count_where(&new, |task| task.last == TaskStatus::Running);
    stop_lost(plan, &lost, running, desired, primary);
    let old_gone = !view.tasks.iter().any(|task| task.deployment != primary && !is_gone(task, now));
    forget_ended_deployments(view, now, plan);
    let reached = running == desired && new_count == desired && old_gone && old.is_empty() && lost.is_empty();
    if reached {
        complete(primary, plan, now);
    } else {
        plan.why.push(format!("{running} of {desired} tasks of the PRIMARY deployment run, {} of older ones", old.len()));
    }
    plan.steady = reached;
    if reached && !service.announced_steady {
        plan.announcements.push("has reached a steady state.".to_owned());
    }
}

/// Starts what is missing, as far as the maximum and the throttle allow.
fn plan_starts(view: &ServiceView<'_>, now: UnixMillis, plan: &mut ServicePlan, primary: DeploymentId, new: &[&TaskView], live: u32) {
    let service = view.service;
    let desired = service.desired_count;
    if service.primary().is_some_and(|deployment| deployment.rollout_state == RolloutState::Failed) {
        plan.why.push(format!("deployment {primary} failed, and starts no tasks any more"));
        return;
    }
    let missing = desired - count(new);
    // Without older tasks the maximum cannot bind: it limits deployments, not the desired count itself.
    let has_old = live > count(new);
    let room = if has_old { service.percentages.upper(desired).saturating_sub(live) } else { missing };
    let wanted = missing.min(room);
    if wanted == 0 {
        plan.why.push(format!("maximumPercent {} leaves no room for another task", service.percentages.maximum));
        return;
    }
    let throttle = throttle(view.tasks.iter().filter(|task| task.deployment == primary), desired);
    match throttle.not_before {
        Some(at) if at > now => {
            plan.wake_at = earliest(plan.wake_at, Some(at));
            plan.why.push(format!(
                "{} tasks in a row failed; the next start is in {} s",
                throttle.never_ran,
                at.since(now).div_ceil_1000()
            ));
            if throttle.never_ran >= IMPAIRED_AFTER && !impaired_announced(service) {
                plan.announcements.push(IMPAIRED.to_owned());
            }
        }
        _ => plan.start = wanted,
    }
}

/// The percentages, rounded, allow neither one task more nor one less: only the user can help.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html>
pub(super) const DEADLOCKED: &str = "is unable to stop or start tasks during a deployment because of the service deployment configuration. \
                          Update the minimumHealthyPercent or maximumPercent value and try again.";

pub(super) const IMPAIRED: &str = "is unable to consistently start tasks successfully.";

fn impaired_announced(service: &Service) -> bool {
    service.announced_failure.as_ref().is_some_and(|(text, _)| &**text == IMPAIRED)
}

/// Stops tasks of older deployments as healthy ones replace them; never below the minimum.
fn stop_replaced(view: &ServiceView<'_>, now: UnixMillis, plan: &mut ServicePlan, live: &[&TaskView], old: &[&TaskView]) {
    let service = view.service;
    let desired = service.desired_count;
    let lower = service.percentages.lower(desired);
    let mut healthy_count = 0;
    for task in live {
        let (is_healthy, at) = healthy(task, view.healthy_after_millis, now);
        healthy_count += u32::from(is_healthy);
        plan.wake_at = earliest(plan.wake_at, at);
    }
    let new_count = count(live) - count(old);
    let room = service.percentages.upper(desired).saturating_sub(count(live));
    // As long as new tasks can still be started beside the old ones, keep the whole desired count; otherwise old tasks must
    // make room, down to the minimum.
    let is_blocked = view.blocked || (new_count < desired && room == 0);
    let floor = if is_blocked { lower } else { lower.max(desired.min(healthy_count)) };
    // Tasks that are not healthy hold nothing up: they may go as soon as the rest keeps the minimum.
    let mut spare = healthy_count.saturating_sub(floor);
    let mut surplus = if view.blocked {
        // Whatever the maximum allows, there is no place for it.
        desired.saturating_sub(new_count).min(count(old))
    } else if is_blocked {
        desired.saturating_sub(new_count).saturating_sub(room).min(count(old))
    } else {
        count(live).saturating_sub(desired.max(new_count))
    };
    let mut order: Vec<_> = old.iter().copied().filter(|task| !task.is_protected(now)).collect();
    if order.len() < old.len() {
        plan.why.push(format!("{} older tasks are protected", old.len() - order.len()));
    }
    order.sort_by_key(|task| (healthy(task, view.healthy_after_millis, now).0, task.last, task.created_at));
    let mut stops = Vec::new();
    for task in order {
        if plan.stop.iter().any(|stop| stop.task == task.id) {
            surplus = surplus.saturating_sub(1);
            continue;
        }
        let is_healthy = healthy(task, view.healthy_after_millis, now).0;
        if surplus == 0 || (is_healthy && spare == 0) {
            continue;
        }
        // An old task that only just started may be all there is: it goes when a healthy one stands in for it.
        if !is_healthy && task.last == TaskStatus::Running && healthy_count < lower {
            continue;
        }
        spare -= u32::from(is_healthy);
        surplus -= 1;
        stops.push(task);
    }
    stop_tasks(plan, stops);
    let nothing_may_stop = plan.stop.is_empty() && healthy_count == count(live) && healthy_count <= lower;
    if new_count < desired && room == 0 && nothing_may_stop {
        plan.announcements.push(DEADLOCKED.to_owned());
    }
    if plan.stop.is_empty() {
        plan.why.push(format!("{healthy_count} tasks are healthy, minimumHealthyPercent keeps {lower}; {} older tasks wait", old.len()));
    }
}

pub(super) fn stop_tasks(plan: &mut ServicePlan, tasks: Vec<&TaskView>) {
    plan.stop.extend(tasks.into_iter().map(|task| Stop {
        task: task.id,
        code: StopCode::ServiceSchedulerInitiated,
        reason: format!("Scaling activity initiated by (deployment {})", task.deployment),
    }));
}

/// Nothing is to be waited for any more: it ended, or was told to end on a machine that is lost, where it ends should that come back.
pub(super) fn is_gone(task: &TaskView, now: UnixMillis) -> bool {
    task.last == TaskStatus::Stopped || (!task.is_live() && task.is_lost(now))
}

/// Tasks on lost machines count for nothing, so others are started for them; but they are told to stop only as those run. A machine that
/// comes back before finds them wanted, and a service that has no other machine keeps what it had.
fn stop_lost(plan: &mut ServicePlan, lost: &[&TaskView], running: u32, desired: u32, primary: DeploymentId) {
    let replaced = (running + count(lost)).saturating_sub(desired).min(count(lost));
    if replaced < count(lost) {
        plan.why.push(format!("{} of its tasks are on container instances whose agents are away", lost.len()));
    }
    let mut order = lost.to_vec();
    order.sort_by_key(|task| (task.deployment == primary, task.last, task.created_at, task.id));
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

/// Older deployments leave the list when their last task is STOPPED; waiters count on it.
fn forget_ended_deployments(view: &ServiceView<'_>, now: UnixMillis, plan: &mut ServicePlan) {
    plan.deployments.retain(|deployment| {
        deployment.status == DeploymentStatus::Primary
            || view.tasks.iter().any(|task| task.deployment == deployment.id && !is_gone(task, now))
    });
}

fn complete(primary: DeploymentId, plan: &mut ServicePlan, now: UnixMillis) {
    for deployment in plan.deployments.iter_mut().filter(|d| d.id == primary && d.rollout_state == RolloutState::InProgress) {
        deployment.rollout_state = RolloutState::Completed;
        deployment.rollout_state_reason = format!("ECS deployment {primary} completed.");
        deployment.updated_at = now;
        plan.announcements.push(format!("(deployment {primary}) deployment completed."));
    }
}

fn plan_draining(view: &ServiceView<'_>, now: UnixMillis, plan: &mut ServicePlan) {
    for task in view.tasks.iter().filter(|task| task.is_live()) {
        stop_tasks(plan, vec![task]);
    }
    forget_ended_deployments(view, now, plan);
    if view.tasks.iter().all(|task| task.last == TaskStatus::Stopped) {
        plan.status = ServiceStatus::Inactive;
    } else {
        plan.why.push("its tasks are stopping".to_owned());
    }
}

fn count(tasks: &[&TaskView]) -> u32 {
    u32::try_from(tasks.len()).unwrap_or(u32::MAX)
}

fn count_where(tasks: &[&TaskView], matches: impl Fn(&TaskView) -> bool) -> u32 {
    u32::try_from(tasks.iter().filter(|task| matches(task)).count()).unwrap_or(u32::MAX)
}

pub(super) fn earliest(a: Option<UnixMillis>, b: Option<UnixMillis>) -> Option<UnixMillis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

trait DivCeilThousand {
    fn div_ceil_1000(self) -> i64;
}

impl DivCeilThousand for i64 {
    /// Milliseconds as whole seconds, rounded up.
    fn div_ceil_1000(self) -> i64 {
        (self + 999) / 1000
    }
}
