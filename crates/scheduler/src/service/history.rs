//! What becomes of a service's deployments as records: begun, successful, replaced by a newer one, gone back.
//!
//! The states are those of <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html>.

use berth_model::ids::DeploymentId;
use berth_model::service::{Deployment, DeploymentStatus, RolloutState, Service, ServiceSettings};
use berth_model::service_deployment::{
    BreakerCount, RevisionImage, RevisionTally, Rollback, ServiceDeployment, ServiceDeploymentId, ServiceDeploymentStatus, ServiceRevision,
    ServiceRevisionId,
};
use berth_model::task::Container;
use berth_model::time::UnixMillis;

use super::{BreakerRules, shift};

/// Why a rollback without an earlier revision fails, in ECS's words.
pub const NO_CANDIDATE: &str = "No rollback candidate was found to run the rollback.";
/// Why a service deployment stopped.
const REPLACED: &str = "A newer service deployment replaced this one.";

/// How many tasks a revision has now: those of every deployment that brings it out. `count` gives a deployment's running and pending
/// tasks that should run.
#[must_use]
pub fn tally(service: &Service, count: impl Fn(DeploymentId) -> (u32, u32), revision: ServiceRevisionId) -> RevisionTally {
    let of: Vec<_> = service.deployments.iter().filter(|deployment| deployment.revision == Some(revision)).collect();
    let mut tally = RevisionTally::none(revision);
    for (running, pending) in of.iter().flat_map(|deployment| deployment.ids()).map(&count) {
        tally.running += running;
        tally.pending += pending;
    }
    let is_primary = of.iter().any(|deployment| deployment.status == DeploymentStatus::Primary);
    tally.requested = if is_primary { service.desired_count } else { tally.running + tally.pending };
    tally
}

/// What a service deployment becomes, given what the service becomes; `None`: it stays as it is. `tally` counts a revision's tasks,
/// which is kept when the deployment ends. `rollback`: its circuit breaker or an alarm wants it to go back: why.
#[must_use]
pub fn advance(
    record: &ServiceDeployment,
    service: &Service,
    rollback: Option<&str>,
    tally: impl Fn(ServiceRevisionId) -> RevisionTally,
    now: UnixMillis,
) -> Option<ServiceDeployment> {
    use ServiceDeploymentStatus as Status;
    if record.status.is_finished() {
        return None;
    }
    let own = service.primary().filter(|primary| primary.service_deployment == Some(record.id));
    let mut next = record.clone();
    let is_completed = own.is_some_and(|primary| primary.rollout_state == RolloutState::Completed);
    if own.is_some() && next.status == Status::Pending {
        next.status = Status::InProgress;
        next.started_at = Some(now);
    }
    // Where two revisions stand side by side the stages have counted, by the deployment's own configuration and not the service's of now.
    let has_counted = record.rollout.as_ref().is_some_and(|rollout| rollout.blue.and(rollout.green).is_some());
    if let Some(primary) = own.filter(|_| matches!(next.status, Status::InProgress) && !has_counted) {
        next.breaker = counted(service, primary);
        next.triggered_alarms.clone_from(&primary.progress.triggered_alarms);
    }
    match (own, next.status) {
        (None, Status::RollbackRequested | Status::RollbackInProgress) => {
            next.status = Status::RollbackFailed;
            next.status_reason = Some(REPLACED.to_owned());
        }
        (None, _) => {
            next.status = Status::Stopped;
            next.status_reason = Some(REPLACED.to_owned());
            next.stopped_at = Some(now);
        }
        (Some(_), Status::InProgress) if is_completed => next.status = Status::Successful,
        (Some(primary), Status::InProgress) if primary.rollout_state == RolloutState::Failed => match rollback {
            Some(reason) => {
                next.status = Status::RollbackRequested;
                next.status_reason = Some(reason.to_owned());
            }
            None => {
                next.status = Status::Stopped;
                next.status_reason = Some(primary.rollout_state_reason.clone());
                next.stopped_at = Some(now);
            }
        },
        (Some(_), Status::RollbackInProgress) if is_completed => next.status = Status::RollbackSuccessful,
        (Some(primary), Status::RollbackInProgress) if primary.rollout_state == RolloutState::Failed => {
            next.status = Status::RollbackFailed;
            next.status_reason = Some(primary.rollout_state_reason.clone());
            next.stopped_at = Some(now);
        }
        (Some(_), _) => {}
    }
    if next == *record {
        return None;
    }
    finish(&mut next, tally, now);
    Some(next)
}

/// What the circuit breaker counts; `None` while it is off.
fn counted(service: &Service, primary: &Deployment) -> Option<BreakerCount> {
    let rules = BreakerRules::of(&service.settings);
    rules.is_on.then(|| BreakerCount {
        failures: primary.progress.failures,
        threshold: rules.threshold(service.desired_count),
        triggered: primary.rollout_state == RolloutState::Failed,
    })
}

fn finish(record: &mut ServiceDeployment, tally: impl Fn(ServiceRevisionId) -> RevisionTally, now: UnixMillis) {
    record.updated_at = now;
    if record.status.is_finished() {
        if let Some(rollout) = &mut record.rollout {
            rollout.close_hooks("The service deployment ended.");
        }
        record.finished_at = Some(now);
        record.target = tally(record.target.revision);
        record.sources = record.sources.iter().map(|source| tally(source.revision)).collect();
    }
}

/// A rollback that begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Return {
    /// What the service becomes.
    pub service: Service,
    /// What the service deployment becomes.
    pub record: ServiceDeployment,
    /// The text of the service's event, without "(service NAME) ".
    pub announcement: String,
}

/// Begins a rollback that was asked for: the earlier revision becomes that of a new PRIMARY deployment, and no new revision is made.
/// `None`: none was asked for, or a newer deployment came before it.
#[must_use]
pub fn roll_back(
    service: &Service,
    record: &ServiceDeployment,
    to: Option<&ServiceRevision>,
    fresh: DeploymentId,
    now: UnixMillis,
) -> Option<Return> {
    let primary = service.primary().filter(|primary| primary.service_deployment == Some(record.id))?;
    if record.status != ServiceDeploymentStatus::RollbackRequested {
        return None;
    }
    let (mut after, mut record, old) = (service.clone(), record.clone(), primary.id);
    let reason = record.status_reason.clone().unwrap_or_default();
    record.rollback = Some(Rollback { reason, started_at: now, revision: to.map(|revision| revision.id) });
    record.updated_at = now;
    if let Some(rollout) = &mut record.rollout {
        rollout.close_hooks("The service deployment was rolled back.");
    }
    // One that its circuit breaker or an alarm ended has said so.
    let is_asked = |deployment: &&mut Deployment| deployment.id == old && deployment.rollout_state != RolloutState::Failed;
    let by_itself = primary.rollout_state == RolloutState::Failed;
    for deployment in after.deployments.iter_mut().filter(is_asked) {
        deployment.rollout_state = RolloutState::Failed;
        deployment.rollout_state_reason = format!("ECS deployment {old} was stopped.");
        deployment.updated_at = now;
    }
    let Some(revision) = to else {
        record.status = ServiceDeploymentStatus::RollbackFailed;
        record.status_reason = Some(NO_CANDIDATE.to_owned());
        record.finished_at = Some(now);
        record.stopped_at = Some(now);
        return Some(Return { service: after, record, announcement: format!("(deployment {old}) rollback has failed. {NO_CANDIDATE}") });
    };
    record.status = ServiceDeploymentStatus::RollbackInProgress;
    let to = shift::turn_round(&mut after, &mut record, now).unwrap_or_else(|| {
        for deployment in &mut after.deployments {
            deployment.status = DeploymentStatus::Active;
        }
        let mut back = deployment(fresh, revision, record.id, now);
        if by_itself {
            let cause = if primary.progress.triggered_alarms.is_empty() { "circuit breaker" } else { "alarms" };
            back.rollout_state_reason = format!("ECS deployment {cause}: rolling back to deploymentId {fresh}.");
        }
        // What is left of the revision stays as it is: going back starts only what is missing.
        let same: Vec<_> = after.deployments.extract_if(.., |own| own.revision == Some(revision.id)).collect();
        back.progress.adopted = same.iter().flat_map(Deployment::ids).collect();
        after.deployments.insert(0, back);
        fresh
    });
    after.settings = restored(&service.settings, &revision.settings);
    after.launch_type = revision.launch_type;
    after.announced_steady = false;
    after.announced_failure = None;
    Some(Return { service: after, record, announcement: format!("rolling back to deployment {to}.") })
}

/// A deployment that begins.
#[must_use]
pub fn deployment(id: DeploymentId, revision: &ServiceRevision, service_deployment: ServiceDeploymentId, now: UnixMillis) -> Deployment {
    Deployment {
        id,
        status: DeploymentStatus::Primary,
        definition: revision.definition.clone(),
        created_at: now,
        updated_at: now,
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: format!("ECS deployment {id} in progress."),
        revision: Some(revision.id),
        capacity_provider_strategy: revision.capacity_provider_strategy.clone(),
        service_deployment: Some(service_deployment),
        progress: Default::default(),
    }
}

/// A revision's settings, without those that can change while no deployment begins: these are the service's, not the revision's.
fn restored(now: &ServiceSettings, then: &ServiceSettings) -> ServiceSettings {
    ServiceSettings {
        deployment_configuration: now.deployment_configuration.clone(),
        health_check_grace_period_seconds: now.health_check_grace_period_seconds,
        availability_zone_rebalancing: now.availability_zone_rebalancing.clone(),
        placement_constraints: now.placement_constraints.clone(),
        placement_strategy: now.placement_strategy.clone(),
        ..then.clone()
    }
}

/// The revision with digests that its tasks' containers told of; `None` if there is nothing new. The first that is told stays.
#[must_use]
pub fn with_digests<'a>(revision: &ServiceRevision, containers: impl IntoIterator<Item = &'a Container>) -> Option<ServiceRevision> {
    let is_open = |image: &RevisionImage| image.digest.is_none();
    if !revision.images.iter().any(is_open) {
        return None;
    }
    // Made when there is the first digest: mostly there is none to tell of.
    let mut next: Option<ServiceRevision> = None;
    for container in containers {
        let Some(digest) = &container.image_digest else { continue };
        let is_told = |image: &RevisionImage| is_open(image) && image.container == *container.name;
        if next.as_ref().unwrap_or(revision).images.iter().any(is_told) {
            let images = &mut next.get_or_insert_with(|| revision.clone()).images;
            images.iter_mut().filter(|image| is_told(image)).for_each(|image| image.digest = Some(digest.to_string()));
        }
    }
    next
}
