//! The planner of REPLICA services: rolling updates, replacement of what is lost or unhealthy, scale-in.

use berth_model::ids::DeploymentId;
use berth_model::service::{Deployment, DeploymentStatus, RolloutState, Service, ServiceStatus};
use berth_model::task::{HealthStatus, StopCode, TaskStatus};
use berth_model::time::UnixMillis;

use super::believed::believed;
use super::replace::{self, Sorted};
use super::throttle::throttle;
use super::{ServicePlan, ServiceView, Stop, TaskView, outcome, rebalance, surplus};

/// How many failed starts in a row make the service say that it cannot start tasks.
pub(super) const IMPAIRED_AFTER: u32 = 3;

/// Plans a service's next step.
#[must_use]
pub fn plan(view: &ServiceView<'_>, now: UnixMillis) -> ServicePlan {
    let mut plan = ServicePlan::nothing(view.service);
    match view.service.status {
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
    let Some(started) = task.started_at else { return (false, None) };
    match believed([started, task.created_at], now).map(|at| at.plus_millis(healthy_after_millis)) {
        Some(at) if at > now => (false, Some(at)),
        _ => (true, None),
    }
}

/// Did it fail its health check, after the service's grace period? If it is still within that: when is it over?
pub(super) fn unhealthy(view: &ServiceView<'_>, task: &TaskView, now: UnixMillis) -> (bool, Option<UnixMillis>) {
    if !task.is_running() || !task.has_check || task.health != HealthStatus::Unhealthy {
        return (false, None);
    }
    let grace = i64::from(view.service.settings.health_check_grace_period_seconds.unwrap_or(0)) * 1000;
    let started = task.started_at.and_then(|at| believed([at, task.created_at], now));
    match started.map(|at| at.plus_millis(grace)) {
        Some(over) if over > now => (false, Some(over)),
        _ => (true, None),
    }
}

/// The live tasks of a service by what is to become of them. Each is in one list.
struct Groups<'t> {
    /// Tasks of the PRIMARY deployment that stay.
    new: Vec<&'t TaskView>,
    /// Tasks of older deployments, and those on machines that are drained: others take their places.
    old: Vec<&'t TaskView>,
    /// Tasks of the PRIMARY deployment that failed their health check.
    sick: Vec<&'t TaskView>,
    /// All of these.
    live: Vec<&'t TaskView>,
    /// Tasks on machines that are lost. They count for nothing.
    lost: Vec<&'t TaskView>,
}

impl<'t> Groups<'t> {
    fn of(view: &ServiceView<'t>, primary: &Deployment, now: UnixMillis, plan: &mut ServicePlan) -> Self {
        let (lost, live): (Vec<_>, Vec<_>) = view.tasks.iter().filter(|task| task.is_live()).partition(|task| task.is_lost(now));
        let Sorted { new, sick, .. } = Sorted::of(view, view.tasks.iter().filter(|task| primary.owns(task.deployment)), now);
        let old = live.iter().copied().filter(|task| task.draining || !primary.owns(task.deployment)).collect();
        let over = live.iter().filter_map(|task| unhealthy(view, task, now).1).min();
        plan.wake_at = earliest(plan.wake_at, over);
        Self { new, old, sick, live, lost }
    }
}

fn plan_active(view: &ServiceView<'_>, now: UnixMillis, plan: &mut ServicePlan) {
    let service = view.service;
    let desired = service.desired_count;
    // Under an EXTERNAL controller each task set is planned as a service of its own.
    let Some(primary) = service.primary() else { return };
    let groups = Groups::of(view, primary, now, plan);
    let Groups { new, old, sick, live, lost } = &groups;
    // What is believed of a task may change with time alone.
    let changes = live.iter().flat_map(|task| [task.lost_at, task.protected_until]).flatten().filter(|at| *at > now).min();
    plan.wake_at = earliest(plan.wake_at, changes);
    lower_keeps(view, &groups, now, plan);
    let is_quiet = old.is_empty() && sick.is_empty() && lost.is_empty();
    let rebalances = is_quiet && count(new) > desired && rebalance::finish(view, new, now, plan);

    if rebalances {
        // It has tasks for a moment that it wants elsewhere.
    } else if count(new) > desired {
        let is_healthy = |task: &TaskView| healthy(task, view.healthy_after_millis, now).0;
        let free: Vec<_> = new.iter().copied().filter(|task| !task.is_protected(now)).collect();
        let surplus = surplus::pick(&free, live, count(new) - desired, (view.strategies, view.machine), is_healthy);
        if count(&free) < count(new) - desired {
            plan.why.push("protected tasks hold up the scale-in".to_owned());
        }
        stop_tasks(plan, surplus);
    } else {
        plan_starts(view, &groups, primary, now, plan);
    }
    if !old.is_empty() {
        replace::stop_early(plan, old.iter().copied(), now);
        stop_replaced(view, &groups, now, plan);
    }
    stop_sick(view, &groups, now, plan);

    let running = count_where(new, |task| task.last == TaskStatus::Running);
    let healthy_new = count_where(new, |task| healthy(task, view.healthy_after_millis, now).0);
    replace::stop_lost(plan, lost, running, desired, |task| primary.owns(task.deployment));
    let old_gone = old.is_empty() && !view.tasks.iter().any(|task| !primary.owns(task.deployment) && !is_gone(task, now));
    let must_be_healthy = outcome::must_be_healthy(view, primary);
    let is_whole = running == desired && count(new) == desired && sick.is_empty() && lost.is_empty() && plan.restore.is_empty();
    let reached = is_whole && old_gone && (healthy_new == desired || !must_be_healthy);
    if must_be_healthy {
        let seen = new.iter().filter_map(|task| healthy(task, view.healthy_after_millis, now).1).min();
        plan.wake_at = earliest(plan.wake_at, seen);
    }
    forget_ended_deployments(view, reached, now, plan);
    if !reached && !rebalances {
        plan.why.push(format!("{running} of {desired} tasks of the PRIMARY deployment run, {} of older ones", old.len()));
        if !sick.is_empty() {
            plan.why.push(format!("{} of its tasks fail their health checks", sick.len()));
        }
    }
    outcome::settle(view, primary, outcome::Standing { reached, old_gone, healthy_new }, now, plan);
    plan.steady = reached || (rebalances && service.announced_steady);
    if reached && !service.announced_steady {
        plan.announcements.push("has reached a steady state.".to_owned());
    }
    if reached {
        rebalance::begin(view, new, now, plan);
    }
}

/// Older deployments keep no more tasks than healthy new ones leave to do.
fn lower_keeps(view: &ServiceView<'_>, groups: &Groups<'_>, now: UnixMillis, plan: &mut ServicePlan) {
    let healthy_new = count_where(&groups.new, |task| healthy(task, view.healthy_after_millis, now).0);
    let mut needed = view.service.desired_count.saturating_sub(healthy_new);
    for deployment in plan.deployments.iter_mut().filter(|deployment| deployment.status == DeploymentStatus::Active) {
        if let Some(keeps) = &mut deployment.progress.keeps {
            *keeps = (*keeps).min(needed);
            needed -= *keeps;
        }
    }
}

/// Starts what is missing, as far as the maximum and the throttle allow: what older deployments lost first, from their own revisions,
/// unless it is they who fail.
fn plan_starts(view: &ServiceView<'_>, groups: &Groups<'_>, primary: &Deployment, now: UnixMillis, plan: &mut ServicePlan) {
    let service = view.service;
    let desired = service.desired_count;
    let mut room = service.percentages.upper(desired).saturating_sub(count(&groups.live));
    let missing = desired - count(&groups.new);
    let mut late = Vec::new();
    for deployment in plan.deployments.clone().iter().filter(|deployment| deployment.status == DeploymentStatus::Active) {
        let own: Vec<_> = view.tasks.iter().filter(|task| deployment.owns(task.deployment)).collect();
        let has = count_where(&own, |task| task.is_live() && !task.is_lost(now) && !task.draining && !unhealthy(view, task, now).0);
        let lacks = deployment.progress.keeps.unwrap_or(0).saturating_sub(has);
        if lacks == 0 {
            continue;
        }
        let throttle = throttle(own.iter().copied(), desired, now);
        if throttle.not_before.is_some_and(|at| at > now) {
            plan.wake_at = earliest(plan.wake_at, throttle.not_before);
        } else if throttle.has_failed() && missing > 0 {
            late.push((deployment.id, lacks));
        } else {
            restore(plan, &mut room, deployment.id, lacks);
        }
    }
    if missing > 0 {
        room -= start_new(view, primary, missing, room, now, plan);
    }
    for (deployment, lacks) in late {
        restore(plan, &mut room, deployment, lacks);
    }
}

fn restore(plan: &mut ServicePlan, room: &mut u32, deployment: DeploymentId, lacks: u32) {
    let start = lacks.min(*room);
    *room -= start;
    if start > 0 {
        plan.restore.push((deployment, start));
    }
}

/// Starts tasks of the PRIMARY deployment; how many.
fn start_new(view: &ServiceView<'_>, primary: &Deployment, missing: u32, room: u32, now: UnixMillis, plan: &mut ServicePlan) -> u32 {
    let service = view.service;
    if primary.rollout_state == RolloutState::Failed {
        plan.why.push(format!("deployment {} failed, and starts no tasks any more", primary.id));
        plan.is_throttled = true;
        return 0;
    }
    let wanted = missing.min(room);
    let throttle = throttle(view.tasks.iter().filter(|task| primary.owns(task.deployment)), service.desired_count, now);
    plan.is_throttled = throttle.not_before.is_some_and(|at| at > now);
    if wanted == 0 {
        plan.why.push(format!("maximumPercent {} leaves no room for another task", service.percentages.maximum));
        return 0;
    }
    match throttle.not_before {
        Some(at) if at > now => {
            plan.wake_at = earliest(plan.wake_at, Some(at));
            let seconds = (at.since(now) + 999) / 1000;
            plan.why.push(format!("{}; the next start is in {seconds} s", throttle.cause()));
            if throttle.never_ran >= IMPAIRED_AFTER && !impaired_announced(service) {
                plan.announcements.push(IMPAIRED.to_owned());
            }
            0
        }
        _ => {
            plan.start = wanted;
            wanted
        }
    }
}

/// The percentages, rounded, allow neither one task more nor one less: only the user can help.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html>
pub(super) const DEADLOCKED: &str = "is unable to stop or start tasks during a deployment because of the service deployment configuration. \
                          Update the minimumHealthyPercent or maximumPercent value and try again.";

pub(super) const IMPAIRED: &str = "is unable to consistently start tasks successfully.";

/// The failures that were announced since they began and still last, the oldest first.
pub fn announced_failures(service: &Service) -> impl Iterator<Item = &str> {
    service.announced_failure.iter().flat_map(|(texts, _)| texts.lines())
}

pub(super) fn impaired_announced(service: &Service) -> bool {
    announced_failures(service).any(|text| text == IMPAIRED)
}

/// Stops tasks of older deployments as healthy ones replace them; never below the minimum.
fn stop_replaced(view: &ServiceView<'_>, groups: &Groups<'_>, now: UnixMillis, plan: &mut ServicePlan) {
    let service = view.service;
    let desired = service.desired_count;
    let lower = service.percentages.lower(desired);
    let Groups { new, old, sick, live, .. } = groups;
    let is_failed = service.primary().is_some_and(|primary| primary.rollout_state == RolloutState::Failed);
    let mut healthy_count = 0;
    for task in live {
        let (is_healthy, at) = healthy(task, view.healthy_after_millis, now);
        healthy_count += u32::from(is_healthy);
        plan.wake_at = earliest(plan.wake_at, at);
    }
    let new_count = count(new) + count(sick);
    let room = service.percentages.upper(desired).saturating_sub(count(live));
    // As long as new tasks can still be started beside the old ones, keep the whole desired count; otherwise old tasks must
    // make room, down to the minimum. A deployment that failed starts nothing, so nothing makes room for it.
    let is_blocked = !is_failed && (view.blocked || (new_count < desired && room == 0));
    let floor = if is_blocked { lower } else { lower.max(desired.min(healthy_count)) };
    // Tasks that are not healthy hold nothing up: they may go as soon as the rest keeps the minimum.
    let mut spare = healthy_count.saturating_sub(floor);
    let mut surplus = if is_blocked && view.blocked {
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
    order.sort_by_key(|task| (healthy(task, view.healthy_after_millis, now).0, task.last, task.came()));
    // What an older deployment has beyond what it keeps. Without need to make room it gives up no more, or what was just restored would go
    // again; what makes room is kept no longer.
    let beyond = |own: &Deployment| {
        let has = count_where(old, |task| !task.draining && own.owns(task.deployment));
        own.progress.keeps.map(|keeps| has.saturating_sub(keeps))
    };
    let mut beyond: Vec<_> = plan.deployments.iter_mut().filter_map(|own| Some((beyond(own)?, own))).collect();
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
        if let Some((beyond, own)) = beyond.iter_mut().find(|(_, own)| !task.draining && own.owns(task.deployment)) {
            match (*beyond, &mut own.progress.keeps) {
                (0, _) if !is_blocked => continue,
                (0, keeps) => *keeps = keeps.map(|keeps| keeps.saturating_sub(1)),
                _ => *beyond -= 1,
            }
        }
        spare -= u32::from(is_healthy);
        surplus -= 1;
        stops.push(task);
    }
    stop_tasks(plan, stops);
    let nothing_may_stop = plan.stop.is_empty() && healthy_count == count(live) && healthy_count <= lower;
    if new_count < desired && room == 0 && nothing_may_stop && !is_failed {
        plan.announcements.push(DEADLOCKED.to_owned());
    }
    if plan.stop.is_empty() {
        plan.why.push(format!("{healthy_count} tasks are healthy, minimumHealthyPercent keeps {lower}; {} older tasks wait", old.len()));
    }
}

/// Stops tasks that fail their health checks: each when a healthy one has taken its place. Where the maximum leaves no room for that one,
/// they go first, one at a time.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html>
fn stop_sick(view: &ServiceView<'_>, groups: &Groups<'_>, now: UnixMillis, plan: &mut ServicePlan) {
    let desired = view.service.desired_count;
    let Groups { new, sick, live, .. } = groups;
    if sick.is_empty() {
        return;
    }
    let healthy_new = count_where(new, |task| healthy(task, view.healthy_after_millis, now).0);
    let mut stops = replace::covered(sick, healthy_new, desired);
    let is_failed = view.service.primary().is_some_and(|primary| primary.rollout_state == RolloutState::Failed);
    let has_room = view.service.percentages.upper(desired) > count(live) && !view.blocked;
    // A replacement that is on its way has to come up first: what is unhealthy may still do part of its work.
    let is_quiet = plan.start == 0 && plan.stop.is_empty() && healthy_new == count(new);
    if stops == 0 && count(new) < desired && !has_room && is_quiet && !is_failed {
        stops = 1;
    }
    replace::stop_failed(plan, sick, stops);
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

/// Older deployments leave the list when their last task is STOPPED and they are to keep none; waiters count on it.
fn forget_ended_deployments(view: &ServiceView<'_>, reached: bool, now: UnixMillis, plan: &mut ServicePlan) {
    plan.deployments.retain(|deployment| {
        deployment.status == DeploymentStatus::Primary
            || (!reached && deployment.progress.keeps.is_some_and(|keeps| keeps > 0))
            || view.tasks.iter().any(|task| deployment.owns(task.deployment) && !is_gone(task, now))
    });
}

fn plan_draining(view: &ServiceView<'_>, now: UnixMillis, plan: &mut ServicePlan) {
    for task in view.tasks.iter().filter(|task| task.is_live()) {
        stop_tasks(plan, vec![task]);
    }
    forget_ended_deployments(view, true, now, plan);
    if view.tasks.iter().all(|task| task.last == TaskStatus::Stopped) {
        plan.status = ServiceStatus::Inactive;
    } else {
        plan.why.push("its tasks are stopping".to_owned());
    }
}

pub(super) fn count(tasks: &[&TaskView]) -> u32 {
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
