//! The deployment circuit breaker: which ended tasks count as failures, and how many are too many. Counted from the tasks themselves, so
//! that there is nothing to lose and nothing to count twice.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>

use berth_model::service::ServiceSettings;
use berth_model::task::{HealthStatus, StopCode, TaskStatus};
use berth_model::time::UnixMillis;

use super::TaskView;
use super::believed::of_task;

/// Fewest and most failures that a share of the desired count comes to.
const BOUNDS: (u32, u32) = (3, 200);
/// The share of the desired count, in percent, where none is given.
const DEFAULT_PERCENT: u32 = 50;

/// What a service asks of its circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// It ends deployments that fail.
    pub is_on: bool,
    /// Then the service goes back to the last deployment that completed.
    pub rolls_back: bool,
    /// A task that counts as healthy sets the count back to 0.
    pub resets: bool,
    threshold: Threshold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threshold {
    Count(u32),
    Percent { percent: u32, is_bounded: bool },
}

impl BreakerRules {
    /// Reads `deploymentConfiguration.deploymentCircuitBreaker`.
    #[must_use]
    pub fn of(settings: &ServiceSettings) -> Self {
        let breaker = settings.deployment_configuration.deployment_circuit_breaker.as_ref();
        let threshold = breaker.and_then(|breaker| breaker.threshold_configuration.as_ref());
        let value = threshold.and_then(|threshold| threshold.value).and_then(|value| u32::try_from(value).ok());
        let threshold = match threshold.and_then(|threshold| threshold.r#type.as_ref()).map(|kind| kind.as_str()) {
            Some("COUNT") => Threshold::Count(value.unwrap_or(BOUNDS.0)),
            kind => Threshold::Percent { percent: value.unwrap_or(DEFAULT_PERCENT), is_bounded: kind != Some("UNBOUNDED_PERCENT") },
        };
        Self {
            is_on: breaker.is_some_and(|breaker| breaker.enable == Some(true)),
            rolls_back: breaker.is_some_and(|breaker| breaker.rollback == Some(true)),
            resets: breaker.is_none_or(|breaker| breaker.reset_on_healthy_task != Some(false)),
            threshold,
        }
    }

    /// At how many failures it ends a deployment of a service with this many tasks.
    #[must_use]
    pub fn threshold(&self, desired: u32) -> u32 {
        match self.threshold {
            Threshold::Count(count) => count.max(1),
            Threshold::Percent { percent, is_bounded } => {
                let share = (u64::from(desired) * u64::from(percent)).div_ceil(100);
                let share = u32::try_from(share).unwrap_or(u32::MAX);
                if is_bounded { share.clamp(BOUNDS.0, BOUNDS.1) } else { share.max(1) }
            }
        }
    }
}

/// How many tasks of a deployment failed; with `resets` since the last that counted as healthy.
///
/// A failure is a task that never ran, that failed its health check, or that ended by itself before it ever counted as healthy. The last is
/// ours: ECS's own launch is slow enough that a container which dies at once is seen as one that never ran.
pub(super) fn failures<'a>(tasks: impl Iterator<Item = &'a TaskView>, healthy_after_millis: i64, resets: bool, now: UnixMillis) -> u32 {
    let mut failed_at = Vec::new();
    let mut healthy_at = None;
    for task in tasks {
        healthy_at = healthy_at.max(counted_as_healthy_at(task, healthy_after_millis, now));
        if let Some(at) = task.stopped_at.filter(|_| has_failed(task, healthy_after_millis)) {
            failed_at.push(of_task(task, at, now));
        }
    }
    let counts = |at: &&UnixMillis| !resets || healthy_at.is_none_or(|healthy| **at >= healthy);
    u32::try_from(failed_at.iter().filter(counts).count()).unwrap_or(u32::MAX)
}

fn has_failed(task: &TaskView, healthy_after_millis: i64) -> bool {
    if task.last != TaskStatus::Stopped {
        return false;
    }
    match (task.stop_code, task.started_at, task.stopped_at) {
        _ if task.failed_check => true,
        (Some(StopCode::TaskFailedToStart), None, _) => true,
        (Some(StopCode::EssentialContainerExited), Some(_), _) if task.has_check => task.health != HealthStatus::Healthy,
        (Some(StopCode::EssentialContainerExited), Some(started), Some(stopped)) => stopped.since(started) < healthy_after_millis,
        _ => false,
    }
}

/// When a task first counted as healthy. Of one with a health check only its start is known, which is earlier; so a failure in between
/// still counts.
fn counted_as_healthy_at(task: &TaskView, healthy_after_millis: i64, now: UnixMillis) -> Option<UnixMillis> {
    let started = of_task(task, task.started_at?, now);
    if task.has_check {
        return Some(started).filter(|_| task.health == HealthStatus::Healthy && !task.failed_check);
    }
    let at = started.plus_millis(healthy_after_millis);
    (at <= task.stopped_at.map_or(now, |stopped| of_task(task, stopped, now))).then_some(at)
}

#[cfg(test)]
mod tests {
    use berth_model::ids::{ContainerInstanceId, DeploymentId, TaskId};

    use super::*;

    fn rules(kind: &str, value: i32) -> BreakerRules {
        let mut settings = ServiceSettings::default();
        let breaker = settings.deployment_configuration.deployment_circuit_breaker.get_or_insert_default();
        let threshold = breaker.threshold_configuration.get_or_insert_default();
        threshold.r#type = Some(kind.into());
        threshold.value = Some(value);
        BreakerRules::of(&settings)
    }

    #[test]
    fn the_threshold_is_half_the_desired_count_within_bounds() {
        let rules = BreakerRules::of(&ServiceSettings::default());
        assert_eq!((rules.is_on, rules.rolls_back, rules.resets), (false, false, true));
        for (desired, wanted) in [(0, 3), (1, 3), (6, 3), (7, 4), (25, 13), (400, 200), (5_000, 200)] {
            assert_eq!(rules.threshold(desired), wanted, "of {desired}");
        }
    }

    #[test]
    fn failures_count_whatever_clock_told_them() {
        let now = UnixMillis(1_000_000);
        let task = |id: u64, created| TaskView::placed(TaskId(id.into()), DeploymentId(1), ContainerInstanceId(1), id, UnixMillis(created));
        let healthy = |started| TaskView { last: TaskStatus::Running, started_at: Some(UnixMillis(started)), ..task(1, 100_000) };
        let failed = |stopped| TaskView {
            last: TaskStatus::Stopped,
            stopped_at: Some(UnixMillis(stopped)),
            stop_code: Some(StopCode::TaskFailedToStart),
            ..task(2, 900_000)
        };
        for (started, stopped, what) in [
            (101_000, 901_000, "clocks agree"),
            (101_000, 50_000, "the failure was told by a clock that is behind"),
            (4_600_000, 901_000, "the start was told by a clock that is ahead"),
        ] {
            let tasks = [healthy(started), failed(stopped)];
            assert_eq!(failures(tasks.iter(), 10_000, true, now), 1, "{what}");
        }
    }

    #[test]
    fn the_threshold_may_be_given_as_a_count_or_a_share() {
        assert_eq!(rules("COUNT", 1).threshold(5_000), 1);
        assert_eq!(rules("BOUNDED_PERCENT", 10).threshold(100), 10);
        assert_eq!(rules("BOUNDED_PERCENT", 10).threshold(10), 3);
        assert_eq!(rules("UNBOUNDED_PERCENT", 10).threshold(10), 1);
        assert_eq!(rules("UNBOUNDED_PERCENT", 100).threshold(5_000), 5_000);
    }
}
