//! Service deployments: how each ends, which of them nobody but a user ends, and how many of each kind a simulation has seen.

use berth_model::rollout::LifecycleStage;
use berth_model::service::{RolloutState, Service, ServiceStatus};
use berth_model::service_deployment::{ServiceDeployment, ServiceDeploymentStatus as Status};

use super::{Checker, Model, Verdict, broken};
use crate::load::DUD;

/// How the service deployments of a simulation ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Their revision came out.
    pub successful: u32,
    /// The same, through lifecycle stages.
    pub shifted: u32,
    /// Their circuit breaker triggered, whatever came of it.
    pub broke: u32,
    /// Their circuit breaker triggered, and nothing went back: there was nowhere to go, or nobody wanted it.
    pub failed: u32,
    /// They went back, and the old revision is the service's again.
    pub rolled_back: u32,
}

impl Tally {
    /// Adds another simulation's.
    pub const fn add(&mut self, other: Self) {
        self.successful += other.successful;
        self.shifted += other.shifted;
        self.broke += other.broke;
        self.failed += other.failed;
        self.rolled_back += other.rolled_back;
    }
}

fn has_broken(one: &ServiceDeployment) -> bool {
    one.breaker.is_some_and(|count| count.triggered)
}

impl Model {
    pub(super) fn follow_deployment(&mut self, one: &std::sync::Arc<ServiceDeployment>) -> Verdict {
        let before = self.rollouts.insert(one.id, std::sync::Arc::clone(one));
        if let Some(was) = before.as_ref().filter(|was| was.status.is_finished() && was.status != one.status) {
            let text = format!("service deployment {} of {} was {} and becomes {}", one.id, one.service, was.status, one.status);
            return broken("deployments", text);
        }
        let tally = &mut self.tally;
        tally.broke += u32::from(has_broken(one) && !before.as_deref().is_some_and(has_broken));
        if before.is_some_and(|was| was.status == one.status) {
            return Ok(());
        }
        match one.status {
            Status::Successful => {
                tally.successful += 1;
                tally.shifted += u32::from(one.rollout.is_some());
            }
            Status::RollbackSuccessful => tally.rolled_back += 1,
            Status::Stopped | Status::RollbackFailed => tally.failed += u32::from(has_broken(one)),
            _ => {}
        }
        Ok(())
    }

    /// The service's current deployment, if that goes through stages.
    pub(super) fn staged(&self, service: &Service) -> Option<&ServiceDeployment> {
        let one = self.rollouts.get(&service.primary()?.service_deployment?)?;
        one.rollout.is_some().then_some(&**one)
    }

    /// Its circuit breaker ended the service's deployment, and nothing more happens: there was nothing to go back to, or nobody wanted it.
    pub(super) fn has_ended_badly(&self, service: &Service) -> bool {
        let Some(primary) = service.primary() else { return false };
        let record = primary.service_deployment.and_then(|id| self.rollouts.get(&id));
        primary.rollout_state == RolloutState::Failed && record.is_none_or(|one| one.status.is_finished())
    }
}

impl Checker {
    /// What its deployments came to.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.model.lock().tally
    }

    /// Its tasks never start, and no circuit breaker is at work that has to end that.
    #[must_use]
    pub fn is_incurable(&self, service: &Service) -> bool {
        let Some(primary) = service.primary() else { return false };
        // A breaker ends what comes out in stages, and not its way back: what is gone back to may have been deployed with no task, and
        // be seen to never start only then. Without stages it ends the way back too, but counts tasks that are half an hour apart by then,
        // since what starts so badly is tried ever more seldom; its user has read so by that time.
        let model = self.model.lock();
        let one = primary.service_deployment.and_then(|id| model.rollouts.get(&id));
        let stands_beside = |one: &ServiceDeployment| one.rollout.as_ref().is_some_and(|rollout| rollout.blue.and(rollout.green).is_some());
        let goes_back = one.is_some_and(|one| one.status == Status::RollbackInProgress && (one.rollout.is_none() || stands_beside(one)));
        // Nor what begins to fail once the traffic has gone over and all that is left to do is to clean up: it came through with no task.
        let is_through = |one: &ServiceDeployment| one.rollout.as_ref().is_some_and(|rollout| rollout.stage >= LifecycleStage::CleanUp);
        let has_gone_over = one.is_some_and(|one| stands_beside(one) && is_through(one));
        // Stages with two revisions go by what the deployment began with, all else by what the service is set to now.
        let own = one.filter(|one| stands_beside(one)).map(|one| &one.configuration);
        let breaker = own.unwrap_or(&service.settings.deployment_configuration).deployment_circuit_breaker.clone();
        drop(model);
        let is_watched = primary.rollout_state == RolloutState::InProgress
            && !goes_back
            && !has_gone_over
            && breaker.is_some_and(|breaker| breaker.enable == Some(true));
        service.status == ServiceStatus::Active
            && service.desired_count > 0
            && primary.definition.family.as_str() == DUD
            && primary.rollout_state != RolloutState::Failed
            && !is_watched
    }
}
