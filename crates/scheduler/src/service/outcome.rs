//! How a rolling deployment ends: completed, also early; failed by its circuit breaker or an alarm; or not yet, since it bakes.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html> and
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentEarlySuccessCriteria.html>

use berth_model::ids::DeploymentId;
use berth_model::service::{Deployment, RolloutState, Service};
use berth_model::time::UnixMillis;

use super::alarms::AlarmRules;
use super::believed::believed;
use super::breaker::{BreakerRules, failures};
use super::plan::earliest;
use super::{ServicePlan, ServiceView};

/// Why a service deployment goes back that its circuit breaker ended.
pub const BREAKER_TRIGGERED: &str = "Service deployment rolled back because the circuit breaker threshold was exceeded.";
/// Why a service deployment goes back that an alarm ended. The names are in its `alarms.triggeredAlarmNames`.
pub const ALARM_TRIGGERED: &str = "Service deployment rolled back because a CloudWatch alarm went into the ALARM state.";

/// Where the service stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// It has what it should have, and nothing else.
    pub(super) reached: bool,
    /// No task of an older deployment is left.
    pub(super) old_gone: bool,
    /// Healthy tasks of the PRIMARY deployment.
    pub(super) healthy_new: u32,
}

/// Decides what becomes of the PRIMARY deployment.
pub(super) fn settle(view: &ServiceView<'_>, primary: &Deployment, standing: Standing, now: UnixMillis, plan: &mut ServicePlan) {
    if primary.rollout_state == RolloutState::Completed {
        return;
    }
    let service = view.service;
    let id = primary.id;
    let rules = BreakerRules::of(&service.settings);
    // What an adopted deployment's tasks did before was not this deployment's.
    let own = view.tasks.iter().filter(|task| task.deployment == primary.id);
    let failed = failures(own, view.healthy_after_millis, rules.resets, now);
    let Some(next) = plan.deployments.iter_mut().find(|deployment| deployment.id == id) else { return };
    next.progress.failures = failed;
    if primary.rollout_state == RolloutState::Failed {
        return;
    }
    let threshold = rules.threshold(service.desired_count);
    let alarms = AlarmRules::of(&service.settings);
    next.progress.triggered_alarms = alarms.triggered(view, primary);
    let failure = if rules.is_on && failed >= threshold {
        Some(("circuit breaker: tasks failed to start.", "tasks failed to start.", rules.rolls_back.then_some(BREAKER_TRIGGERED)))
    } else if next.progress.triggered_alarms.is_empty() {
        None
    } else {
        // The words are ours in part: ECS's pages show none of an alarm.
        Some(("alarms: alarm detected.", "alarm detected.", alarms.rolls_back.then_some(ALARM_TRIGGERED)))
    };
    if let Some((reason, event, rollback)) = failure {
        next.rollout_state = RolloutState::Failed;
        next.rollout_state_reason = format!("ECS deployment {reason}");
        next.progress.bakes_since = None;
        next.updated_at = now;
        plan.announcements.push(format!("(deployment {id}) deployment failed: {event}"));
        plan.rollback = rollback;
        plan.start = 0;
        return;
    }
    if failed > 0 && rules.is_on {
        plan.why.push(format!("{failed} of its tasks failed; the circuit breaker ends the deployment at {threshold}"));
    }
    if !standing.reached && !is_early(service, standing) {
        next.progress.bakes_since = None;
        return;
    }
    let configuration = &service.settings.deployment_configuration;
    // The first deployment of a service that shifts traffic later comes here too: it has no older revision to bake beside.
    let is_rolling = configuration.strategy.as_ref().is_none_or(|strategy| strategy.as_str() == "ROLLING");
    // Nothing bakes that could not go back.
    let bakes = is_rolling && service.completed_revision.is_some();
    let minutes = configuration.bake_time_in_minutes.filter(|_| bakes).unwrap_or(0);
    let (asked, noticed) = (i64::from(minutes) * view.minute_millis, alarms.bake_millis(view));
    if asked.max(noticed) > 0 {
        let since = next.progress.bakes_since.and_then(|at| believed([at], now)).unwrap_or(now);
        next.progress.bakes_since = Some(since);
        let over = since.plus_millis(asked.max(noticed));
        if over > now {
            plan.wake_at = earliest(plan.wake_at, Some(over));
            let cause = if noticed > asked { "its alarms' window".to_owned() } else { format!("bakeTimeInMinutes {minutes}") };
            plan.why.push(format!("{cause}: it is watched for {} s more", (over.since(now) + 999) / 1000));
            return;
        }
    }
    complete(id, plan, now);
}

/// A deployment came out whole, or so far that it counts as such.
pub(super) fn complete(id: DeploymentId, plan: &mut ServicePlan, now: UnixMillis) {
    for deployment in plan.deployments.iter_mut().filter(|own| own.id == id && own.rollout_state == RolloutState::InProgress) {
        deployment.rollout_state = RolloutState::Completed;
        deployment.rollout_state_reason = format!("ECS deployment {id} completed.");
        deployment.progress.bakes_since = None;
        deployment.progress.failures = 0;
        deployment.updated_at = now;
        plan.announcements.push(format!("(deployment {id}) deployment completed."));
    }
}

/// Enough of its tasks are healthy for `earlySuccessCriteria`.
fn is_early(service: &Service, standing: Standing) -> bool {
    let criteria = service.settings.deployment_configuration.early_success_criteria.as_ref();
    let Some(criteria) = criteria.filter(|criteria| criteria.enable == Some(true)) else { return false };
    let percent = criteria.healthy_percent.and_then(|percent| u64::try_from(percent).ok()).unwrap_or(100);
    let wanted = (u64::from(service.desired_count) * percent).div_ceil(100);
    let waits_for_old = criteria.source_service_revision_cleanup.as_ref().is_none_or(|cleanup| cleanup.as_str() != "DEFERRED");
    u64::from(standing.healthy_new) >= wanted && (standing.old_gone || !waits_for_old)
}

/// Has the PRIMARY deployment tasks that must be seen healthy before it is complete, rather than only running? Without a health check and
/// without a circuit breaker nobody would look at what comes after.
pub(super) fn must_be_healthy(view: &ServiceView<'_>, primary: &Deployment) -> bool {
    primary.rollout_state == RolloutState::InProgress
        && (BreakerRules::of(&view.service.settings).is_on
            || view.tasks.iter().any(|task| task.is_live() && task.has_check && primary.owns(task.deployment)))
}
