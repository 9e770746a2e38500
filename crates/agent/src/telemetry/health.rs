//! What is told of containers' health: each change at once, everything every twenty seconds.

use std::collections::BTreeMap;

use berth_acs::messages::{ContainerHealth, HealthStatus, MetricsMetadata, PublishHealthRequest, TaskHealth};

use super::MOST_TASKS_PER_PAGE;
use crate::engine::{TaskState, Verdict};
use crate::plan::TaskPlan;

/// The health of a task's containers that run and have a health check; `None` if there are none.
#[must_use]
pub fn health_of(plan: &TaskPlan, state: &TaskState) -> Option<TaskHealth> {
    let one = |(container, phase): (&crate::plan::ContainerPlan, &crate::engine::Phase)| {
        container.health_check.as_ref()?;
        let run = phase.run().filter(|_| phase.is_up())?;
        Some(ContainerHealth {
            container_name: container.name.clone(),
            health_status: match run.health.verdict {
                Verdict::Unknown => HealthStatus::Unknown,
                Verdict::Healthy => HealthStatus::Healthy,
                Verdict::Unhealthy => HealthStatus::Unhealthy,
            },
            status_since: Some(run.health.stands_since(run.started_at) as f64 / 1000.0),
        })
    };
    let containers: Vec<_> = plan.containers.iter().zip(&state.containers).filter_map(one).collect();
    (!containers.is_empty()).then(|| TaskHealth {
        task_arn: plan.arn.clone(),
        task_definition_family: plan.family.clone(),
        task_definition_version: plan.version.clone(),
        containers,
    })
}

/// What was told of tasks' health over one connection.
#[derive(Debug, Default)]
pub struct ToldHealth(BTreeMap<String, TaskHealth>);

impl ToldHealth {
    /// The tasks of `now`, which are all there are, that were not told so yet; from now on they are.
    pub fn news(&mut self, now: Vec<TaskHealth>) -> Vec<TaskHealth> {
        let mut before = std::mem::take(&mut self.0);
        self.0 = now.iter().map(|task| (task.task_arn.clone(), task.clone())).collect();
        now.into_iter().filter(|task| before.remove(&task.task_arn).as_ref() != Some(task)).collect()
    }
}

/// Cuts health into pages that share `metadata`'s message id; the last says so. Without tasks there is no page.
#[must_use]
pub fn health_pages(metadata: &MetricsMetadata, tasks: &[TaskHealth], timestamp: f64) -> Vec<PublishHealthRequest> {
    let count = tasks.len().div_ceil(MOST_TASKS_PER_PAGE);
    let page = |(index, chunk): (usize, &[TaskHealth])| PublishHealthRequest {
        metadata: MetricsMetadata { idle: Some(false), fin: Some(index + 1 == count), ..metadata.clone() },
        tasks: chunk.to_vec(),
        timestamp,
    };
    tasks.chunks(MOST_TASKS_PER_PAGE).enumerate().map(page).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(arn: &str, health_status: HealthStatus) -> TaskHealth {
        let containers = vec![ContainerHealth { container_name: "c".into(), health_status, status_since: Some(1.0) }];
        TaskHealth { task_arn: arn.into(), containers, ..Default::default() }
    }

    #[test]
    fn only_changes_are_news() {
        let mut told = ToldHealth::default();
        let (a, b) = (task("a", HealthStatus::Unknown), task("b", HealthStatus::Healthy));
        assert_eq!(told.news(vec![a.clone(), b.clone()]), [a.clone(), b.clone()]);
        assert!(told.news(vec![a.clone(), b.clone()]).is_empty());
        let well = task("a", HealthStatus::Healthy);
        assert_eq!(told.news(vec![well.clone(), b.clone()]), std::slice::from_ref(&well));
        assert!(told.news(vec![b.clone()]).is_empty(), "of one that is gone nothing is said");
        assert_eq!(told.news(vec![well.clone(), b]), [well], "and when it is back, all of it");
    }

    #[test]
    fn ten_to_a_page() {
        let metadata = MetricsMetadata { message_id: "m".into(), ..Default::default() };
        let tasks = vec![task("a", HealthStatus::Unknown); 11];
        let shape: Vec<_> =
            health_pages(&metadata, &tasks, 1.0).iter().map(|page| (page.tasks.len(), page.metadata.fin.unwrap())).collect();
        assert_eq!(shape, [(10, false), (1, true)]);
        assert!(health_pages(&metadata, &[], 1.0).is_empty());
    }
}
