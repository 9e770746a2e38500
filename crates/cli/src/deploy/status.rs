//! How a service's deployment stands, put together from what the API says of it. It must never know a clock, nor what is shown of it.

use berth_shapes::ecs;
use serde::Serialize;

use crate::reason::Reason;
use crate::tasks::name_of;

/// How many of the newest events are kept: more than come between two looks.
const MOST_EVENTS: usize = 20;

/// What became of a deployment, or is becoming of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Outcome {
    /// The service has no deployment of its own, as with an EXTERNAL controller.
    None,
    /// It goes on, forwards or back.
    InProgress,
    /// The new revision is the service's.
    Completed,
    /// The earlier revision is the service's again.
    RolledBack,
    /// It could not come out, nor go back.
    Failed,
    /// A newer one took its place, or the service was deleted.
    Stopped,
}

impl Outcome {
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::InProgress)
    }
}

/// A service in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceSummary {
    pub service_arn: String,
    pub service_name: String,
    pub cluster_arn: String,
    pub status: String,
    pub desired_count: i32,
    pub running_count: i32,
    pub pending_count: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_definition: Option<String>,
    pub deployment_controller: String,
}

/// What a service revision runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevisionSummary {
    pub service_revision_arn: String,
    pub task_definition: String,
}

/// How a deployment stands. What it holds of ECS's has ECS's own members, so that programs know them already.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub outcome: Outcome,
    /// Why it is so, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub service: ServiceSummary,
    /// The service's deployments, PRIMARY first.
    pub deployments: Vec<ecs::Deployment>,
    /// The record of the deployment that is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_deployment: Option<ecs::ServiceDeployment>,
    /// The revisions it names.
    pub revisions: Vec<RevisionSummary>,
    /// What keeps it, as the server's planner says.
    pub waits_for: Vec<Reason>,
    /// The newest events, the newest first.
    pub events: Vec<ecs::ServiceEvent>,
}

impl Status {
    pub fn new(
        service: ecs::Service,
        service_deployment: Option<ecs::ServiceDeployment>,
        revisions: Vec<RevisionSummary>,
        waits_for: Vec<Reason>,
    ) -> Self {
        let deployments = service.deployments.unwrap_or_default();
        let status = service.status.unwrap_or_default();
        let (outcome, reason) = match status.as_str() {
            "ACTIVE" => outcome(&deployments, service_deployment.as_ref()),
            _ => (Outcome::Stopped, Some("the service was deleted".to_owned())),
        };
        let mut events = service.events.unwrap_or_default();
        events.truncate(MOST_EVENTS);
        let controller = service.deployment_controller.and_then(|controller| controller.r#type);
        Self {
            outcome,
            reason,
            service: ServiceSummary {
                service_arn: service.service_arn.unwrap_or_default(),
                service_name: service.service_name.unwrap_or_default(),
                cluster_arn: service.cluster_arn.unwrap_or_default(),
                status,
                desired_count: service.desired_count.unwrap_or_default(),
                running_count: service.running_count.unwrap_or_default(),
                pending_count: service.pending_count.unwrap_or_default(),
                task_definition: service.task_definition,
                deployment_controller: controller.map_or_else(|| "ECS".to_owned(), |kind| kind.as_str().to_owned()),
            },
            deployments,
            service_deployment,
            revisions,
            waits_for,
            events,
        }
    }

    /// The definition a revision runs, as `family:revision`; the revision's own id where that is not known.
    pub fn definition_of(&self, revision: &str) -> String {
        let found = self.revisions.iter().find(|one| one.service_revision_arn == revision);
        found.map_or_else(|| name_of(revision).to_owned(), |one| name_of(&one.task_definition).to_owned())
    }

    /// The id of the revision that a deployment of the service brings out. The API does not name it: it is told where just one of the
    /// revisions has the deployment's task definition.
    pub fn revision_of(&self, deployment: &ecs::Deployment) -> Option<&str> {
        let mut fits = self.revisions.iter().filter(|one| Some(&one.task_definition) == deployment.task_definition.as_ref());
        let first = fits.next()?;
        fits.next().is_none().then(|| name_of(&first.service_revision_arn))
    }

    /// How long it has gone on, or went on, in milliseconds.
    pub fn elapsed_millis(&self, now: i64) -> Option<i64> {
        let one = self.service_deployment.as_ref()?;
        let until = one.finished_at.map_or(now, |at| at.as_millis());
        Some(until.saturating_sub(one.created_at?.as_millis()).max(0))
    }

    /// The same without what changes by itself: two looks between which nothing happened are alike.
    pub fn without_clocks(&self) -> Self {
        let mut same = self.clone();
        same.deployments.iter_mut().for_each(|deployment| deployment.updated_at = None);
        if let Some(one) = &mut same.service_deployment {
            one.updated_at = None;
        }
        same.waits_for.retain(|reason| !is_clock(reason));
        same.waits_for.iter_mut().for_each(|reason| reason.text = numberless(&reason.text));
        same
    }
}

/// Whether a reason says when it is looked at again, and nothing else.
pub(crate) fn is_clock(reason: &Reason) -> bool {
    reason.code == "NEXT"
}

/// A reason's text without its numbers and ids: those are counts that show elsewhere, times that run, or one of many tasks that come and go.
pub(crate) fn numberless(text: &str) -> String {
    let is_number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit()) || is_id(word);
    text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric())
        .map(|piece| {
            let word = piece.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
            if is_number(word) { format!("#{}", &piece[word.len()..]) } else { piece.to_owned() }
        })
        .collect()
}

/// The id of a task or container instance.
fn is_id(word: &str) -> bool {
    word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What became of it, and why. A service of before there were such records has only its PRIMARY deployment's word.
fn outcome(deployments: &[ecs::Deployment], one: Option<&ecs::ServiceDeployment>) -> (Outcome, Option<String>) {
    let primary = deployments.iter().find(|deployment| deployment.status.as_deref() == Some("PRIMARY"));
    let rollout = primary.and_then(|primary| primary.rollout_state.as_ref()).map(|state| state.as_str());
    let reason_of_primary = || primary.and_then(|primary| primary.rollout_state_reason.clone());
    let Some(one) = one else {
        let outcome = match rollout {
            Some("COMPLETED") => Outcome::Completed,
            Some("FAILED") => Outcome::Failed,
            Some(_) => Outcome::InProgress,
            None => Outcome::None,
        };
        return (outcome, reason_of_primary());
    };
    let outcome = match one.status.as_ref().map_or("", |status| status.as_str()) {
        "SUCCESSFUL" => Outcome::Completed,
        "ROLLBACK_SUCCESSFUL" => Outcome::RolledBack,
        "ROLLBACK_FAILED" => Outcome::Failed,
        // A circuit breaker that does not roll back stops the deployment too; then it is the PRIMARY one still.
        "STOPPED" if rollout == Some("FAILED") => Outcome::Failed,
        "STOPPED" => Outcome::Stopped,
        _ => Outcome::InProgress,
    };
    (outcome, one.status_reason.clone().or_else(reason_of_primary))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn outcomes() {
        let of = |status: &str, rollout: &str| {
            let mut service = sample::service();
            service["deployments"][0]["rolloutState"] = rollout.into();
            sample::status_of(&service, &sample::service_deployment(status), &[]).outcome
        };
        for status in ["PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS"] {
            assert_eq!(of(status, "IN_PROGRESS"), Outcome::InProgress, "{status}");
        }
        assert_eq!(of("SUCCESSFUL", "COMPLETED"), Outcome::Completed);
        assert_eq!(of("ROLLBACK_SUCCESSFUL", "COMPLETED"), Outcome::RolledBack);
        assert_eq!(of("ROLLBACK_FAILED", "FAILED"), Outcome::Failed);
        assert_eq!(of("STOPPED", "FAILED"), Outcome::Failed);
        assert_eq!(of("STOPPED", "IN_PROGRESS"), Outcome::Stopped, "a newer one goes on");
    }

    #[test]
    fn a_service_without_a_record_of_its_deployment() {
        let mut service = sample::service();
        let none = serde_json::Value::Null;
        assert_eq!(sample::status_of(&service, &none, &[]).outcome, Outcome::InProgress);
        service["deployments"] = serde_json::json!([]);
        assert_eq!(sample::status_of(&service, &none, &[]).outcome, Outcome::None, "as with an EXTERNAL controller");
        service["status"] = "DRAINING".into();
        let gone = sample::status_of(&service, &none, &[]);
        assert_eq!((gone.outcome, gone.reason.as_deref()), (Outcome::Stopped, Some("the service was deleted")));
    }

    #[test]
    fn what_runs_by_itself_is_no_change() {
        let before = sample::status("IN_PROGRESS", &[("WAITS", "wakes in 14 s"), ("NEXT", "it is looked at again in 3 s")]);
        let mut after = sample::status("IN_PROGRESS", &[("WAITS", "wakes in 9 s"), ("NEXT", "it is looked at again in 1 s")]);
        assert_ne!(before, after);
        assert_eq!(before.without_clocks(), after.without_clocks());
        after.deployments[0].failed_tasks = Some(7);
        assert_ne!(before.without_clocks(), after.without_clocks());
    }

    #[test]
    fn numbers_and_ids_are_no_news() {
        let of = |text| numberless(text);
        assert_eq!(of("task c88b0e5dfbdebc3a8aadb455c76f322d: pulls, for 12s"), "task #: pulls, for #");
        assert_eq!(of("2 tasks are healthy, minimumHealthyPercent keeps 2"), "# tasks are healthy, minimumHealthyPercent keeps #");
        assert_eq!(of("größe 5 MiB (i-5a)"), "größe # MiB (i-#)");
        assert_eq!(of(""), "");
    }

    #[test]
    fn a_deployments_revision_is_told_where_it_is_certain() {
        let mut status = sample::status("IN_PROGRESS", &[]);
        assert_eq!(status.revision_of(&status.deployments[0]), Some("2222222222222222222"));
        status.revisions[0].task_definition = status.revisions[1].task_definition.clone();
        assert_eq!(status.revision_of(&status.deployments[1]), None, "a forced deployment has the same definition");
    }
}
