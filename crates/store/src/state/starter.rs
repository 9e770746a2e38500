//! What started a task, as ListTasks' `startedBy` names it: the user's own word, or the deployment of the task's service.

use std::sync::Arc;

use berth_model::ids::DeploymentId;
use berth_model::task::Task;

/// What tasks are found by. A word that reads like a deployment's id is one: a user may have written it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Starter {
    /// A service's deployment, or a task set.
    Deployment(DeploymentId),
    /// RunTask's or StartTask's `startedBy`.
    Word(Arc<str>),
}

impl Starter {
    /// What a `startedBy` means.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let number = text.strip_prefix("ecs-svc/").and_then(|number| number.parse().ok()).map(DeploymentId);
        // There are other ways to write the same number.
        number.filter(|id| id.to_string() == text).map_or_else(|| Self::Word(text.into()), Self::Deployment)
    }

    /// What started a task, if that is known.
    pub(super) fn of(task: &Task) -> Option<Self> {
        match (&task.service, &task.started_by) {
            (Some(membership), _) => Some(Self::Deployment(membership.deployment)),
            (None, Some(word)) if word.starts_with("ecs-svc/") => Some(Self::parse(word)),
            (None, Some(word)) => Some(Self::Word(Arc::clone(word))),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deployments_own_id_is_one() {
        let id = DeploymentId(1_234_567_890_123_456_789);
        assert_eq!(Starter::parse(&id.to_string()), Starter::Deployment(id));
        for word in ["", "ci", "ecs-svc/", "ecs-svc/+1", "ecs-svc/01", "ecs-svc/1 ", "ecs-svc/99999999999999999999"] {
            assert_eq!(Starter::parse(word), Starter::Word(word.into()), "{word}");
        }
    }
}
