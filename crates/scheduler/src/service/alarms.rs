//! Deployment alarms: which of them end a deployment, and for how long one bakes because of them. What an alarm says is a fact from
//! elsewhere; nothing here measures.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-alarm-failure.html>

use berth_model::alarm::Alarm;
use berth_model::service::{Deployment, ServiceSettings};

use super::{ServiceView, TaskView};

/// What a service asks of its alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmRules<'a> {
    /// The alarms that may end its deployments, by name; none while they are off.
    pub names: &'a [String],
    /// Then the service goes back to the last deployment that completed.
    pub rolls_back: bool,
}

impl<'a> AlarmRules<'a> {
    /// Reads `deploymentConfiguration.alarms`.
    #[must_use]
    pub fn of(settings: &'a ServiceSettings) -> Self {
        let given = settings.deployment_configuration.alarms.as_ref().filter(|alarms| alarms.enable == Some(true));
        Self {
            names: given.and_then(|alarms| alarms.alarm_names.as_deref()).unwrap_or_default(),
            rolls_back: given.is_some_and(|alarms| alarms.rollback == Some(true)),
        }
    }

    /// Those of the alarms that it watches.
    fn watched(self, alarms: &'a [impl AsRef<Alarm>]) -> impl Iterator<Item = &'a Alarm> {
        alarms.iter().map(AsRef::as_ref).filter(move |alarm| self.names.contains(&alarm.name))
    }

    /// The alarms that end a deployment, by name: those that went into ALARM since the first of its tasks ran.
    ///
    /// ECS begins to look when a task runs. One that was in ALARM before says nothing of this deployment, which may well be what mends it.
    pub(super) fn triggered(self, view: &ServiceView<'_>, deployment: &Deployment) -> Vec<String> {
        if self.names.is_empty() {
            return Vec::new();
        }
        // Not those of deployments that it took over: what they started ran before.
        let is_own = |task: &&TaskView| task.deployment == deployment.id;
        let Some(since) = view.tasks.iter().filter(is_own).filter_map(|task| task.started_at).min() else { return Vec::new() };
        let went = |alarm: &&Alarm| alarm.alarmed_at.is_some_and(|at| at > since);
        self.watched(view.alarms).filter(went).map(|alarm| alarm.name.clone()).collect()
    }

    /// How long a deployment bakes for the slowest of them to notice, in milliseconds.
    pub(super) fn bake_millis(self, view: &ServiceView<'_>) -> i64 {
        let slowest = self.watched(view.alarms).map(|alarm| alarm.window_seconds).max().unwrap_or(0);
        i64::from(slowest).saturating_mul(view.minute_millis) / 60
    }
}
