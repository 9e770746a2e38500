//! The planner of DAEMON services: one task on each container instance that meets the constraints, first in and last out. It never puts two
//! of a service on one instance, and never a task anywhere else than on the instance that it belongs to.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service_daemon.html>

use std::collections::{BTreeMap, BTreeSet};

use berth_model::ids::ContainerInstanceId;
use berth_model::service::{Deployment, RolloutState, ServiceStatus};
use berth_model::task::{HealthStatus, StopCode, TaskStatus};
use berth_model::time::UnixMillis;

use super::plan::{
    DEADLOCKED, IMPAIRED, IMPAIRED_AFTER, count, earliest, healthy, impaired_announced, is_gone, plan, stop_tasks, unhealthy,
};
use super::replace::stop_failed;
use super::throttle::throttle;
use super::{ServicePlan, ServiceView, Stop, TaskView, outcome};
use crate::placement::Rule;

/// Most container instances that are told of one by one.
const MOST_TOLD: usize = 10;

/// What a container instance is to a DAEMON service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is ACTIVE and meets the constraints.
    Eligible,
    /// It is DRAINING, and so many tasks on it that are of no DAEMON service have not stopped yet.
    Draining {
        /// How many.
        others: u32,
    },
    /// It does not meet this.
    Unsuited(Rule),
}

/// A container instance as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonInstance {
    /// Its id.
    pub id: ContainerInstanceId,
    /// What it is to the service.
    pub standing: Standing,
    /// Its agent is connected: without, nothing is placed there.
    pub connected: bool,
    /// When it counts as lost, if its agent is away.
    pub lost_at: Option<UnixMillis>,
}

/// Everything that the plan of a DAEMON service depends on.
#[derive(Debug, Clone, Copy)]
pub struct DaemonView<'a> {
    /// The service with its tasks. What placement needs of it is not read: there is nothing to choose.
    pub of: ServiceView<'a>,
    /// The container instances of its cluster that are registered.
    pub instances: &'a [DaemonInstance],
}

/// What a DAEMON service does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonPlan {
    /// As of any service; what is to be started is started on those of `on`.
    pub steps: ServicePlan,
    /// The container instances that get a task.
    pub on: Vec<ContainerInstanceId>,
    /// How many tasks the service is to have: `desiredCount`.
    pub desired: u32,
}

/// A container instance that is to have a task.
struct Post<'a> {
    instance: &'a DaemonInstance,
    /// The one it has.
    task: Option<&'a TaskView>,
    /// One that was told to stop has not stopped yet.
    ends: bool,
}

/// Plans a DAEMON service's next step.
#[must_use]
pub fn plan_daemon(view: &DaemonView<'_>, now: UnixMillis) -> DaemonPlan {
    let service = view.of.service;
    let primary = match (service.status, service.primary()) {
        (ServiceStatus::Active, Some(primary)) => primary,
        // It ends as any other.
        _ => return DaemonPlan { steps: plan(&view.of, now), on: Vec::new(), desired: service.desired_count },
    };
    let mut steps = ServicePlan::nothing(service);
    let mut by_instance: BTreeMap<ContainerInstanceId, Vec<&TaskView>> = BTreeMap::new();
    for task in view.of.tasks {
        by_instance.entry(task.instance).or_default().push(task);
    }
    // What is believed of a task or an instance may change with time alone.
    let of_tasks = view.of.tasks.iter().filter(|task| task.is_live()).filter_map(|task| task.protected_until);
    let of_instances = view.instances.iter().filter_map(|instance| instance.lost_at);
    steps.wake_at = of_tasks.chain(of_instances).filter(|at| *at > now).min();

    let posts = posts(view, &by_instance, primary, now, &mut steps);
    let desired = u32::try_from(posts.len()).unwrap_or(u32::MAX);
    let mut on = fill(view, &posts, &by_instance, primary, now, &mut steps);
    replace(view, &posts, primary, now, &mut steps);
    stop_sick(view, &posts, primary, now, &mut steps);

    let own: Vec<_> = posts.iter().filter_map(|post| post.task).filter(|task| primary.owns(task.deployment)).collect();
    let running = own.iter().filter(|task| task.last == TaskStatus::Running).count();
    let old_gone = !view.of.tasks.iter().any(|task| !primary.owns(task.deployment) && !is_gone(task, now));
    let must_be_healthy = outcome::must_be_healthy(&view.of, primary);
    let mut healthy_new = 0;
    for task in own {
        let (is_healthy, at) = healthy(task, view.of.healthy_after_millis, now);
        healthy_new += u32::from(is_healthy);
        steps.wake_at = earliest(steps.wake_at, at.filter(|_| must_be_healthy));
    }
    let is_whole = running == posts.len() && old_gone && steps.stop.is_empty();
    let reached = is_whole && (healthy_new == desired || !must_be_healthy);
    // Older deployments leave the list when their last task is STOPPED; waiters count on it. What such a task was on is not theirs to fill
    // again: on each instance there is the new one's alone.
    steps
        .deployments
        .retain(|own| own.id == primary.id || view.of.tasks.iter().any(|task| own.owns(task.deployment) && !is_gone(task, now)));
    if !reached {
        steps.why.push(format!("{running} of {desired} container instances run a task of the PRIMARY deployment"));
    }
    outcome::settle(&view.of, primary, outcome::Standing { reached, old_gone, healthy_new }, now, &mut steps);
    if steps.deployments.iter().any(|own| own.id == primary.id && own.rollout_state == RolloutState::Failed) {
        on.clear();
    }
    steps.start = u32::try_from(on.len()).unwrap_or(u32::MAX);
    steps.steady = reached;
    if reached && !service.announced_steady {
        steps.announcements.push("has reached a steady state.".to_owned());
    }
    DaemonPlan { steps, on, desired }
}

/// The instances that are to have a task; what runs elsewhere is told to stop.
fn posts<'a>(
    view: &DaemonView<'a>,
    by_instance: &BTreeMap<ContainerInstanceId, Vec<&'a TaskView>>,
    primary: &Deployment,
    now: UnixMillis,
    steps: &mut ServicePlan,
) -> Vec<Post<'a>> {
    let mut posts = Vec::new();
    let (mut lost, mut unsuited, mut drained) = (Vec::new(), Vec::new(), Vec::new());
    let none = Vec::new();
    for instance in view.instances {
        let here = by_instance.get(&instance.id).unwrap_or(&none);
        let ends = here.iter().any(|task| !task.is_live() && !is_gone(task, now));
        let mut live: Vec<_> = here.iter().copied().filter(|task| task.is_live()).collect();
        // There is never a second one, whatever a restored store may hold: the one that is to stay comes first.
        live.sort_by_key(|task| (!task.is_protected(now), !primary.owns(task.deployment), task.came(), task.id));
        stop_tasks(steps, live.drain(1.min(live.len())..).collect());
        let task = live.first().copied();
        let is_lost = instance.lost_at.is_some_and(|at| at <= now);
        // A protected task is not taken away, so it still counts among those that are desired.
        let stays = task.is_some_and(|task| task.is_protected(now));
        match (&instance.standing, task) {
            _ if stays => {}
            (_, Some(task)) if is_lost => {
                lost.push(task);
                continue;
            }
            (Standing::Unsuited(rule), Some(task)) => {
                unsuited.push((task, rule));
                continue;
            }
            (Standing::Draining { others: 0 }, Some(task)) => {
                drained.push(task);
                continue;
            }
            // Last out: what others there log or report is still to be taken up.
            (Standing::Draining { .. }, Some(_)) | (Standing::Eligible, _) if !is_lost => {}
            _ => continue,
        }
        posts.push(Post { instance, task, ends });
    }
    let known: BTreeSet<_> = view.instances.iter().map(|instance| instance.id).collect();
    for (_, tasks) in by_instance.iter().filter(|(id, _)| !known.contains(id)) {
        lost.extend(tasks.iter().copied().filter(|task| task.is_live() && !task.is_protected(now)));
    }
    stop_tasks(steps, drained);
    drop_lost(steps, &lost);
    evict(steps, &unsuited);
    posts
}

/// A lost machine's task has no successor elsewhere, so nothing is waited for: should the machine come back it gets a new one.
fn drop_lost(steps: &mut ServicePlan, lost: &[&TaskView]) {
    if lost.is_empty() {
        return;
    }
    let named: Vec<_> = lost.iter().map(|task| format!("(task {})", task.id)).collect();
    steps.announcements.push(format!("has dropped {} tasks whose container instances are not heard of: {}.", named.len(), named.join(" ")));
    steps.stop.extend(lost.iter().map(|task| Stop {
        task: task.id,
        code: StopCode::ServiceSchedulerInitiated,
        reason: format!("Container instance {} is not heard of; the task was dropped", task.instance),
    }));
}

/// What ECS calls `SERVICE_DAEMON_PLACEMENT_CONSTRAINT_VIOLATED`.
fn evict(steps: &mut ServicePlan, unsuited: &[(&TaskView, &Rule)]) {
    if unsuited.is_empty() {
        return;
    }
    let named: Vec<_> = unsuited.iter().map(|(task, _)| format!("(task {})", task.id)).collect();
    steps.announcements.push(format!("has {} tasks that no longer meet the placement constraints: {}.", named.len(), named.join(" ")));
    steps.stop.extend(unsuited.iter().map(|(task, rule)| Stop {
        task: task.id,
        code: StopCode::ServiceSchedulerInitiated,
        reason: format!("The task no longer meets the placement constraints: (container-instance {}) {}", task.instance, rule.in_words()),
    }));
}

/// Which instances get the task that they lack. Each waits for itself alone: one bad machine holds up no other.
fn fill(
    view: &DaemonView<'_>,
    posts: &[Post<'_>],
    by_instance: &BTreeMap<ContainerInstanceId, Vec<&TaskView>>,
    primary: &Deployment,
    now: UnixMillis,
    steps: &mut ServicePlan,
) -> Vec<ContainerInstanceId> {
    let service = view.of.service;
    let vacant: Vec<_> = posts.iter().filter(|post| post.task.is_none()).collect();
    if !vacant.is_empty() && primary.rollout_state == RolloutState::Failed {
        steps.why.push(format!("deployment {} failed, and starts no tasks any more", primary.id));
        return Vec::new();
    }
    let mut on = Vec::new();
    let mut waits = Vec::new();
    let mut is_impaired = false;
    for post in vacant {
        let id = post.instance.id;
        if post.ends {
            waits.push(format!("container instance {id}: the task before has not stopped yet"));
            continue;
        }
        if !post.instance.connected {
            waits.push(format!("container instance {id}: its agent is not connected"));
            continue;
        }
        let own = by_instance.get(&id).into_iter().flatten().copied().filter(|task| primary.owns(task.deployment));
        let throttle = throttle(own, 1, now);
        match throttle.not_before {
            Some(at) if at > now => {
                steps.wake_at = earliest(steps.wake_at, Some(at));
                is_impaired |= throttle.never_ran >= IMPAIRED_AFTER;
                let seconds = (at.since(now) + 999) / 1000;
                waits.push(format!("container instance {id}: {} there; the next start is in {seconds} s", throttle.cause()));
            }
            _ => on.push(id),
        }
    }
    tell(steps, waits);
    if is_impaired && !impaired_announced(service) {
        steps.announcements.push(IMPAIRED.to_owned());
    }
    on
}

/// Stops tasks of older deployments as far as the minimum allows. `maximumPercent` is 100: the new one starts when the old one is gone.
fn replace(view: &DaemonView<'_>, posts: &[Post<'_>], primary: &Deployment, now: UnixMillis, steps: &mut ServicePlan) {
    let old: Vec<_> = posts.iter().filter(|post| post.task.is_some_and(|task| !primary.owns(task.deployment))).collect();
    // A deployment that failed starts nothing, so nothing makes room for it.
    if old.is_empty() || primary.rollout_state == RolloutState::Failed {
        return;
    }
    let lower = view.of.service.percentages.lower(u32::try_from(posts.len()).unwrap_or(u32::MAX));
    let mut healthy_count = 0;
    for task in posts.iter().filter_map(|post| post.task) {
        let (is_healthy, at) = healthy(task, view.of.healthy_after_millis, now);
        healthy_count += u32::from(is_healthy);
        steps.wake_at = earliest(steps.wake_at, at);
    }
    let mut spare = healthy_count.saturating_sub(lower);
    let mut order = Vec::new();
    let mut waits = Vec::new();
    for post in &old {
        let Some(task) = post.task else { continue };
        if task.is_protected(now) {
            waits.push(format!("container instance {}: its older task is protected", task.instance));
        } else if matches!(post.instance.standing, Standing::Draining { .. }) {
            waits.push(format!("container instance {}: its older task leaves last, as it is DRAINING", task.instance));
        } else {
            let (is_healthy, may_be) = healthy(task, view.of.healthy_after_millis, now);
            // It is on its way to count as healthy, unless a check says otherwise.
            let soon = task.last == TaskStatus::Running && (may_be.is_some() || (task.has_check && task.health != HealthStatus::Unhealthy));
            // Where the agent is away the stop would take up what may be spared for as long as it is.
            order.push((is_healthy, !post.instance.connected, task.came(), task.id, soon, task));
        }
    }
    order.sort_by_key(|(healthy, away, came, id, ..)| (*healthy, *away, *came, *id));
    let mut stops = Vec::new();
    let mut held = 0;
    for (is_healthy, .., soon, task) in order {
        let may_go = if is_healthy { spare > 0 } else { !soon || healthy_count >= lower };
        if may_go {
            spare -= u32::from(is_healthy);
            stops.push(task);
        } else {
            held += 1;
        }
    }
    let nothing_moves = stops.is_empty() && held > 0 && healthy_count as usize == posts.len();
    stop_tasks(steps, stops);
    if held > 0 {
        steps.why.push(format!("{healthy_count} tasks are healthy, minimumHealthyPercent keeps {lower}; {held} older tasks wait"));
    }
    if nothing_moves {
        steps.announcements.push(DEADLOCKED.to_owned());
    }
    tell(steps, waits);
}

/// Stops tasks that fail their health checks, so that others take their places: where fewer than the minimum are healthy one at a time, and
/// only while no other instance is without.
fn stop_sick(view: &DaemonView<'_>, posts: &[Post<'_>], primary: &Deployment, now: UnixMillis, steps: &mut ServicePlan) {
    let mut sick = Vec::new();
    for task in posts.iter().filter(|post| post.instance.standing == Standing::Eligible).filter_map(|post| post.task) {
        let (is_sick, at) = unhealthy(&view.of, task, now);
        steps.wake_at = earliest(steps.wake_at, at);
        if is_sick && primary.owns(task.deployment) && !task.is_protected(now) {
            sick.push(task);
        }
    }
    if sick.is_empty() || primary.rollout_state == RolloutState::Failed {
        return;
    }
    steps.why.push(format!("{} of its tasks fail their health checks", sick.len()));
    let is_healthy = |task: &TaskView| healthy(task, view.of.healthy_after_millis, now).0;
    let healthy_count = posts.iter().filter_map(|post| post.task).filter(|task| is_healthy(task)).count();
    let lower = view.of.service.percentages.lower(u32::try_from(posts.len()).unwrap_or(u32::MAX));
    let others_come = posts.iter().any(|post| post.task.is_none_or(|task| task.last < TaskStatus::Running));
    let most = match (healthy_count >= lower as usize, others_come) {
        (true, _) => count(&sick),
        (false, true) => 0,
        (false, false) => 1,
    };
    stop_failed(steps, &sick, most);
}

/// Some reasons of many.
fn tell(steps: &mut ServicePlan, mut waits: Vec<String>) {
    let more = waits.len().saturating_sub(MOST_TOLD);
    waits.truncate(MOST_TOLD);
    steps.why.append(&mut waits);
    if more > 0 {
        steps.why.push(format!("{more} more container instances wait"));
    }
}
