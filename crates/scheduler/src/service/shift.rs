//! Deployments that go through lifecycle stages: blue/green, linear and canary, and rolling updates with hooks. Both revisions are kept whole
//! until the last stage; nothing here stops a healthy task of the one that served before that.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-blue-green.html>. `maximumPercent` does not bind: AWS
//! documents it for rolling updates alone, and a green revision beside a whole blue one is 200 %. Where there is no load balancer the
//! stages are walked all the same, and the weights are what the traffic would be asked to be.

use berth_model::ids::{DeploymentId, TaskId};
use berth_model::rollout::{Course, LifecycleStage, Rollout, Strategy};
use berth_model::service::{Deployment, DeploymentStatus, RolloutState, Service, ServiceSettings};
use berth_model::service_deployment::{BreakerCount, ServiceDeployment, ServiceDeploymentStatus};
use berth_model::time::UnixMillis;

use super::alarms::AlarmRules;
use super::breaker::{BreakerRules, failures};
use super::outcome::{ALARM_TRIGGERED, BREAKER_TRIGGERED, complete};
use super::plan::{is_gone, plan};
use super::stages::{self, Sight, Verdict};
use super::throttle::throttle;
use super::whole::{Own, all_gone_but, keep, stop_all_but};
use super::{ServicePlan, ServiceView, TaskView};

/// Everything that the plan of a deployment with stages depends on.
#[derive(Clone, Copy)]
pub struct ShiftView<'a> {
    /// The service and its tasks.
    pub service: ServiceView<'a>,
    /// Its current deployment, which has a [`Rollout`].
    pub record: &'a ServiceDeployment,
    /// Is the task healthy in all its target groups? `None`: the service has none.
    pub target_healthy: Option<&'a dyn Fn(TaskId) -> bool>,
    /// Random bits for the ids of hooks.
    pub bits: &'a dyn Fn() -> u128,
}

impl ShiftView<'_> {
    /// Does the task belong to this deployment?
    pub(super) fn owns(&self, deployment: DeploymentId, task: &TaskView) -> bool {
        let own = self.service.service.deployments.iter().find(|own| own.id == deployment);
        own.map_or(task.deployment == deployment, |own| own.owns(task.deployment))
    }
}

/// What a deployment with stages does next.
#[derive(Debug, Clone, PartialEq)]
pub struct ShiftPlan {
    /// The plan for the service.
    pub steps: ServicePlan,
    /// What the service deployment becomes.
    pub record: ServiceDeployment,
}

/// Where a deployment begins that the service is given now: `service` is as it was before. `None`: it has no stages to go through. The first
/// of a service has nothing to shift from; it walks through the stages, whose hooks run, and nothing bakes.
#[must_use]
pub fn begin(service: &Service, fresh: DeploymentId, course: &Course, now: UnixMillis) -> Option<Rollout> {
    let is_rolling = course.strategy == Strategy::Rolling;
    if is_rolling && course.hooks.is_empty() {
        return None;
    }
    let completed = service.completed_revision.filter(|_| !is_rolling);
    let blue = service.deployments.iter().find(|deployment| completed.is_some() && deployment.revision == completed);
    Some(Rollout {
        stage: if service.deployments.len() > 1 { LifecycleStage::ReconcileService } else { LifecycleStage::PreScaleUp },
        since: now,
        is_entered: false,
        visit: 0,
        step: 0,
        test_weight: 0,
        production_weight: 0,
        blue: blue.map(|deployment| deployment.id),
        green: blue.map(|_| fresh),
        hooks: Vec::new(),
    })
}

/// Makes the blue deployment, which is still there, the PRIMARY one again; gives it. `None`: there is none to go back to that way.
pub(super) fn turn_round(service: &mut Service, record: &mut ServiceDeployment, now: UnixMillis) -> Option<DeploymentId> {
    let rollout = record.rollout.as_mut()?;
    let blue = rollout.blue?;
    let at = service.deployments.iter().position(|deployment| deployment.id == blue)?;
    stages::turn_round(rollout, now);
    let mut deployment = service.deployments.remove(at);
    service.deployments.iter_mut().for_each(|other| other.status = DeploymentStatus::Active);
    deployment.status = DeploymentStatus::Primary;
    deployment.service_deployment = Some(record.id);
    deployment.rollout_state = RolloutState::InProgress;
    deployment.rollout_state_reason = format!("ECS deployment {blue} in progress.");
    deployment.progress.keeps = None;
    deployment.updated_at = now;
    service.deployments.insert(0, deployment);
    Some(blue)
}

/// Plans the next step of a service whose current deployment has stages.
#[must_use]
pub fn plan_shift(view: &ShiftView<'_>, now: UnixMillis) -> ShiftPlan {
    let service = view.service.service;
    let mut next = ShiftPlan { steps: ServicePlan::nothing(service), record: view.record.clone() };
    let Some(mut rollout) = next.record.rollout.take() else {
        return rolling(view, plan(&view.service, now));
    };
    match rollout.blue.zip(rollout.green) {
        Some((blue, green)) => shift(view, (blue, green), &mut rollout, &mut next, now),
        None if view.record.status == ServiceDeploymentStatus::RollbackInProgress => return rolling(view, plan(&view.service, now)),
        None => gate(view, &mut rollout, &mut next, now),
    }
    next.record.rollout = Some(rollout);
    if next.record.rollout != view.record.rollout {
        next.record.updated_at = now;
    }
    next
}

/// The plan of a rolling update, as it is.
fn rolling(view: &ShiftView<'_>, steps: ServicePlan) -> ShiftPlan {
    ShiftPlan { steps, record: view.record.clone() }
}

/// Two revisions side by side.
fn shift(view: &ShiftView<'_>, (blue, green): (DeploymentId, DeploymentId), rollout: &mut Rollout, next: &mut ShiftPlan, now: UnixMillis) {
    let course = Course::read(&view.record.configuration);
    let desired = view.service.service.desired_count;
    let goes_back = view.record.status == ServiceDeploymentStatus::RollbackInProgress;
    let stays = if goes_back { blue } else { green };
    let whole = |deployment| Own::of(view, deployment, now).healthy(view, now) >= desired;
    // A blue revision that cannot start may never be whole; what serves in its place is left alone then, and holds up nothing.
    let blue_fails = throttle(view.service.tasks.iter().filter(|task| view.owns(blue, task)), desired, now).has_failed();
    let sight = Sight {
        course: &course,
        goes_back,
        is_green_whole: whole(green),
        is_blue_whole: whole(blue),
        others_may_stay: blue_fails || all_gone_but(view, &[blue, green], now),
        is_clean: all_gone_but(view, &[stays], now) && Own::of(view, stays, now).is_steady(desired),
        minute: view.service.minute_millis,
        bits: view.bits,
    };
    let watched = !goes_back && rollout.stage < LifecycleStage::CleanUp;
    let failure = if watched { failure(view, green, next, now) } else { None };
    let verdict = failure.map_or_else(|| stages::advance(rollout, &sight, now), |reason| Verdict::Fails(reason.to_owned()));
    follow(&verdict, next, now);
    let is_last = rollout.stage == LifecycleStage::CleanUp;
    // The one that serves comes first: what there is room for is its.
    if goes_back || !is_last {
        keep(view, blue, next, now);
    }
    if !goes_back && rollout.stage >= LifecycleStage::ScaleUp {
        keep(view, green, next, now);
    }
    if is_last {
        stop_all_but(view, &[stays], next, now);
    } else if sight.is_blue_whole {
        // Until then they may be all that serves.
        stop_all_but(view, &[blue, green], next, now);
    }
    let is_left = |deployment: &Deployment| {
        let has_tasks = view.service.tasks.iter().any(|task| deployment.owns(task.deployment) && !is_gone(task, now));
        deployment.id == blue || deployment.id == green || has_tasks
    };
    next.steps.deployments.retain(is_left);
    if verdict == Verdict::Ends {
        next.steps.deployments.retain(|deployment| deployment.id == stays);
        complete(stays, &mut next.steps, now);
        next.steps.steady = true;
        if !view.service.service.announced_steady {
            next.steps.announcements.push("has reached a steady state.".to_owned());
        }
    }
}

/// Notes what the stages came to.
fn follow(verdict: &Verdict, next: &mut ShiftPlan, now: UnixMillis) {
    match verdict {
        Verdict::Ends => {}
        Verdict::Waits { why, until } => {
            next.steps.why.push(why.clone());
            next.steps.wake_at = [next.steps.wake_at, *until].into_iter().flatten().min();
        }
        Verdict::Fails(reason) => {
            next.record.status = ServiceDeploymentStatus::RollbackRequested;
            next.record.status_reason = Some(reason.clone());
            next.record.updated_at = now;
            next.steps.why.push(reason.clone());
        }
    }
}

/// Why the circuit breaker or an alarm ends the deployment: too many tasks of the green revision failed, or an alarm came after it. Notes
/// what was counted. Without `rollback` there is no other end for it either, as ECS has it for traffic that shifts.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-failure-detection.html>
fn failure(view: &ShiftView<'_>, green: DeploymentId, next: &mut ShiftPlan, now: UnixMillis) -> Option<&'static str> {
    let service = view.service.service;
    let settings = ServiceSettings { deployment_configuration: view.record.configuration.clone(), ..Default::default() };
    let rules = BreakerRules::of(&settings);
    let own = view.service.tasks.iter().filter(|task| view.owns(green, task));
    let failed = failures(own, view.service.healthy_after_millis, rules.resets, now);
    let alarms = AlarmRules::of(&settings);
    for deployment in next.steps.deployments.iter_mut().filter(|own| own.id == green) {
        deployment.progress.failures = failed;
        deployment.progress.triggered_alarms = alarms.triggered(&view.service, deployment);
        next.record.triggered_alarms.clone_from(&deployment.progress.triggered_alarms);
    }
    let threshold = rules.threshold(service.desired_count);
    let triggered = failed >= threshold;
    next.record.breaker = rules.is_on.then_some(BreakerCount { failures: failed, threshold, triggered });
    if rules.is_on && triggered {
        return Some(BREAKER_TRIGGERED);
    }
    (!next.record.triggered_alarms.is_empty()).then_some(ALARM_TRIGGERED)
}

/// A rolling update with hooks, and a service's first deployment: what the rolling planner does, held back before the first task and before
/// the end.
fn gate(view: &ShiftView<'_>, rollout: &mut Rollout, next: &mut ShiftPlan, now: UnixMillis) {
    let course = Course::read(&view.record.configuration);
    let steps = plan(&view.service, now);
    let state = |deployments: &[Deployment]| {
        deployments.iter().find(|deployment| deployment.status == DeploymentStatus::Primary).map(|deployment| deployment.rollout_state)
    };
    let completes = state(&steps.deployments) == Some(RolloutState::Completed);
    let sight = Sight {
        course: &course,
        goes_back: false,
        is_green_whole: completes,
        is_blue_whole: true,
        // A rolling update replaces them itself.
        others_may_stay: true,
        is_clean: completes,
        minute: view.service.minute_millis,
        bits: view.bits,
    };
    let verdict = stages::advance(rollout, &sight, now);
    follow(&verdict, next, now);
    if rollout.stage < LifecycleStage::ScaleUp {
        if let Some(serves) = serves(view.service.service) {
            keep(view, serves, next, now);
        }
        return;
    }
    let (why, wake_at) = (std::mem::take(&mut next.steps.why), next.steps.wake_at);
    next.steps = steps;
    if verdict != Verdict::Ends {
        next.steps.why.extend(why);
        next.steps.wake_at = [next.steps.wake_at, wake_at].into_iter().flatten().min();
        if completes {
            hold_end(view.service.service, &mut next.steps);
        }
    }
}

/// The deployment is where it should be, but may not say so yet.
fn hold_end(before: &Service, steps: &mut ServicePlan) {
    steps.steady = false;
    steps.announcements.retain(|text| text != "has reached a steady state." && !text.ends_with("deployment completed."));
    for deployment in steps.deployments.iter_mut().filter(|deployment| deployment.status == DeploymentStatus::Primary) {
        if let Some(known) = before.deployments.iter().find(|known| known.id == deployment.id) {
            deployment.clone_from(known);
        }
    }
}

/// The deployment that serves while the PRIMARY one may not start yet.
fn serves(service: &Service) -> Option<DeploymentId> {
    let older = || service.deployments.iter().filter(|deployment| deployment.status != DeploymentStatus::Primary);
    let completed = older().find(|deployment| deployment.revision.is_some() && deployment.revision == service.completed_revision);
    completed.or_else(|| older().next()).map(|deployment| deployment.id)
}
