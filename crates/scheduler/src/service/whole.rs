//! Keeping one revision of a service whole, whatever its others do: missing tasks are started in it, what is too much stops. It knows
//! nothing of deployments, and never takes a healthy task that the desired count needs.

use berth_model::ids::DeploymentId;
use berth_model::task::TaskStatus;
use berth_model::time::UnixMillis;

use super::plan::{count, healthy, is_gone, stop_tasks, unhealthy};
use super::replace::{Sorted, covered, stop_early, stop_failed, stop_lost};
use super::shift::{ShiftPlan, ShiftView};
use super::throttle::throttle;
use super::{TaskView, surplus};

/// The tasks of a revision.
pub(super) struct Own<'a>(Sorted<'a>);

impl<'a> Own<'a> {
    pub(super) fn of(view: &ShiftView<'a>, deployment: DeploymentId, now: UnixMillis) -> Self {
        Self(Sorted::of(&view.service, view.service.tasks.iter().filter(|task| view.owns(deployment, task)), now))
    }

    /// How many of its tasks are healthy, those that are to be replaced left out.
    pub(super) fn healthy(&self, view: &ShiftView<'_>, now: UnixMillis) -> u32 {
        count_healthy(&self.0.new, view, now)
    }

    /// How many of its tasks run, those that are to be replaced left out.
    pub(super) fn running(&self) -> u32 {
        u32::try_from(self.0.new.iter().filter(|task| task.last == TaskStatus::Running).count()).unwrap_or(u32::MAX)
    }

    /// It has exactly what it should have, and nothing else.
    pub(super) fn is_steady(&self, desired: u32) -> bool {
        let replaced = [&self.0.sick, &self.0.draining, &self.0.lost];
        count(&self.0.new) == desired && self.running() == desired && replaced.iter().all(|tasks| tasks.is_empty())
    }
}

fn is_healthy(task: &TaskView, view: &ShiftView<'_>, now: UnixMillis) -> bool {
    healthy(task, view.service.healthy_after_millis, now).0 && view.target_healthy.is_none_or(|target| target(task.id))
}

fn count_healthy(tasks: &[&TaskView], view: &ShiftView<'_>, now: UnixMillis) -> u32 {
    u32::try_from(tasks.iter().filter(|task| is_healthy(task, view, now)).count()).unwrap_or(u32::MAX)
}

/// Keeps a revision at the desired count.
pub(super) fn keep(view: &ShiftView<'_>, deployment: DeploymentId, plan: &mut ShiftPlan, now: UnixMillis) {
    let desired = view.service.service.desired_count;
    let own = Own::of(view, deployment, now);
    let steps = &mut plan.steps;
    for task in own.0.new.iter().chain(&own.0.draining) {
        let seen = [healthy(task, view.service.healthy_after_millis, now).1, unhealthy(&view.service, task, now).1];
        let at = [task.lost_at, task.protected_until].into_iter().chain(seen);
        steps.wake_at = at.chain([steps.wake_at]).flatten().filter(|at| *at > now).min();
    }
    let has = count(&own.0.new);
    if has > desired {
        let free: Vec<_> = own.0.new.iter().copied().filter(|task| !task.is_protected(now)).collect();
        if count(&free) < has - desired {
            steps.why.push("protected tasks hold up the scale-in".to_owned());
        }
        let all: Vec<_> = view.service.tasks.iter().filter(|task| task.is_live()).collect();
        let surplus =
            surplus::pick(&free, &all, has - desired, (view.service.strategies, view.service.machine), |task| is_healthy(task, view, now));
        stop_tasks(steps, surplus);
    } else if has < desired {
        let throttle = throttle(view.service.tasks.iter().filter(|task| view.owns(deployment, task)), desired, now);
        match throttle.not_before {
            Some(at) if at > now => {
                steps.wake_at = Some(steps.wake_at.map_or(at, |known| known.min(at)));
                steps.why.push(format!("tasks of deployment {deployment} fail; the next start is in {} s", (at.since(now) + 999) / 1_000));
            }
            _ => {
                if view.service.service.primary().is_some_and(|primary| primary.id == deployment) {
                    steps.start = desired - has;
                } else {
                    steps.restore.push((deployment, desired - has));
                }
            }
        }
    }
    replace_draining(view, &own, plan, now);
    replace_sick(view, &own, plan, now);
    stop_lost(&mut plan.steps, &own.0.lost, own.running(), desired, |_| true);
}

/// Tasks that fail their health checks go as healthy ones stand in for them.
fn replace_sick(view: &ShiftView<'_>, own: &Own<'_>, plan: &mut ShiftPlan, now: UnixMillis) {
    if own.0.sick.is_empty() {
        return;
    }
    plan.steps.why.push(format!("{} tasks fail their health checks", own.0.sick.len()));
    let covered = covered(&own.0.sick, own.healthy(view, now), view.service.service.desired_count);
    stop_failed(&mut plan.steps, &own.0.sick, covered);
}

/// Tasks on drained machines go as healthy ones stand in for them; what has not come up there yet goes at once.
fn replace_draining(view: &ShiftView<'_>, own: &Own<'_>, plan: &mut ShiftPlan, now: UnixMillis) {
    let desired = view.service.service.desired_count;
    let mut spare = (own.healthy(view, now) + count_healthy(&own.0.draining, view, now)).saturating_sub(desired);
    let is_covered = own.healthy(view, now) >= desired;
    stop_early(&mut plan.steps, own.0.draining.iter().copied(), now);
    let mut doomed = Vec::new();
    for task in own.0.draining.iter().copied().filter(|task| !task.is_protected(now) && task.last >= TaskStatus::Running) {
        if !is_healthy(task, view, now) && is_covered {
            doomed.push(task);
        } else if is_healthy(task, view, now) && spare > 0 {
            spare -= 1;
            doomed.push(task);
        }
    }
    stop_tasks(&mut plan.steps, doomed);
    let stays = |task: &&&TaskView| !plan.steps.stop.iter().any(|stop| stop.task == task.id);
    let held = own.0.draining.iter().filter(stays).count();
    if held > 0 {
        plan.steps.why.push(format!("{held} tasks on DRAINING container instances are to be replaced"));
    }
}

/// Stops every task that belongs to none of these deployments. Protected ones stay until they no longer are.
pub(super) fn stop_all_but(view: &ShiftView<'_>, kept: &[DeploymentId], plan: &mut ShiftPlan, now: UnixMillis) {
    let doomed = view.service.tasks.iter().filter(|task| task.is_live() && !kept.iter().any(|own| view.owns(*own, task)));
    let (held, free): (Vec<_>, Vec<_>) = doomed.partition(|task| task.is_protected(now));
    if !held.is_empty() {
        plan.steps.why.push(format!("{} tasks of earlier revisions are protected", held.len()));
        plan.steps.wake_at = held.iter().filter_map(|task| task.protected_until).chain(plan.steps.wake_at).min();
    }
    stop_tasks(&mut plan.steps, free);
}

/// Nothing is left of revisions other than these.
pub(super) fn all_gone_but(view: &ShiftView<'_>, kept: &[DeploymentId], now: UnixMillis) -> bool {
    view.service.tasks.iter().all(|task| kept.iter().any(|own| view.owns(*own, task)) || is_gone(task, now))
}
