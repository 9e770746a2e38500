//! A task's life: how observations and wishes change it. Three facts with three writers: the definition (users), the
//! desired status (users and services), the last status (agents). The last status never goes back.

use crate::ids::AttachmentId;
use crate::shared_text;
use crate::task::{ContainerStatus, DesiredStatus, HealthStatus, NetworkBinding, StopCode, Task, TaskStatus};
use crate::task_interface::AttachmentStatus;
use crate::time::UnixMillis;

/// ECS's text for a task whose essential container ended.
pub const ESSENTIAL_EXITED: &str = "Essential container in task exited";

/// What an agent reports of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerObservation {
    /// Its name in the definition.
    pub name: String,
    /// Its status.
    pub status: ContainerStatus,
    /// The runtime's name of it.
    pub runtime_id: Option<String>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Why it ended or never ran.
    pub reason: Option<String>,
    /// Digest of its image.
    pub image_digest: Option<String>,
    /// Bound ports; `None` says nothing of them.
    pub network_bindings: Option<Vec<NetworkBinding>>,
}

/// What an agent reports of a task (`SubmitTaskStateChange`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskObservation {
    /// Its status; `None` says nothing of it.
    pub status: Option<TaskStatus>,
    /// The agent's reason, often empty.
    pub reason: Option<String>,
    /// When its first pull began.
    pub pull_started_at: Option<UnixMillis>,
    /// When its last pull ended.
    pub pull_stopped_at: Option<UnixMillis>,
    /// When its first essential container ended.
    pub execution_stopped_at: Option<UnixMillis>,
    /// Its containers, in the order to apply them; one may occur twice.
    pub containers: Vec<ContainerObservation>,
    /// Attachments of which it says that they are there.
    pub attached: Vec<AttachmentId>,
}

/// Folds a report into a task. Duplicate and late reports change nothing; returns whether anything changed.
///
/// `is_essential` tells of a container's name whether the definition calls it essential.
pub fn apply(task: &mut Task, seen: &TaskObservation, is_essential: impl Fn(&str) -> bool, now: UnixMillis) -> bool {
    if task.is_stopped() {
        return false;
    }
    let before = task.clone();
    for container in &seen.containers {
        apply_container(task, container);
    }
    set_once(&mut task.pull_started_at, seen.pull_started_at);
    set_once(&mut task.pull_stopped_at, seen.pull_stopped_at);
    set_once(&mut task.execution_stopped_at, seen.execution_stopped_at);
    if let Some(status) = seen.status.filter(|status| *status > task.last_status) {
        task.last_status = status;
    }
    if task.last_status >= TaskStatus::Running && task.last_status < TaskStatus::Deprovisioning && task.started_at.is_none() {
        task.started_at = Some(now);
        task.connected_at.get_or_insert(now);
    }
    let essential_ended = task.containers.iter().any(|c| c.last_status == ContainerStatus::Stopped && is_essential(&c.name));
    if (essential_ended || task.is_stopped()) && task.desired_status == DesiredStatus::Running {
        ended_by_itself(task, seen, &is_essential, now);
    }
    apply_attachment(task, seen);
    if task.is_stopped() {
        task.stopped_at = Some(now);
        task.stopping_at.get_or_insert(now);
        if task.has_run() {
            task.execution_stopped_at.get_or_insert(now);
        }
        for container in &mut task.containers {
            container.last_status = ContainerStatus::Stopped;
        }
    }
    *task != before
}

/// Nobody asked for the stop: finds out why it happened.
fn ended_by_itself(task: &mut Task, seen: &TaskObservation, is_essential: &impl Fn(&str) -> bool, now: UnixMillis) {
    task.desired_status = DesiredStatus::Stopped;
    task.stopping_at = Some(now);
    let of_agent = seen.reason.clone().filter(|reason| !reason.is_empty());
    if task.has_run() {
        task.stop_code = Some(StopCode::EssentialContainerExited);
        // An agent that has a reason of the whole task knows more than that a container ended: its host was restarted.
        task.stopped_reason = Some(of_agent.map_or_else(|| ESSENTIAL_EXITED.to_owned(), |reason| format!("{ESSENTIAL_EXITED}: {reason}")));
        return;
    }
    // ECS gives the reason of the container that could not start, or the agent's own.
    task.stop_code = Some(StopCode::TaskFailedToStart);
    let of_container = || {
        let failed = |essential: bool| task.containers.iter().filter(|c| is_essential(&c.name) == essential).find_map(|c| c.reason.clone());
        failed(true).or_else(|| failed(false))
    };
    task.stopped_reason = of_agent.or_else(of_container).or_else(|| Some("Task failed to start".to_owned()));
}

fn apply_container(task: &mut Task, seen: &ContainerObservation) {
    let Some(container) = task.containers.iter_mut().find(|c| *c.name == *seen.name) else { return };
    if seen.status > container.last_status {
        container.last_status = seen.status;
    }
    set_once(&mut container.exit_code, seen.exit_code);
    set_once(&mut container.reason, seen.reason.clone().filter(|reason| !reason.is_empty()));
    set_once(&mut container.runtime_id, seen.runtime_id.clone());
    set_once(&mut container.image_digest, seen.image_digest.as_deref().map(shared_text::recent));
    if let Some(bindings) = seen.network_bindings.as_ref().filter(|bindings| !bindings.is_empty()) {
        container.network_bindings.clone_from(bindings);
    }
}

/// The interface is there when the agent says so, and no later than when containers are made, which have it.
fn apply_attachment(task: &mut Task, seen: &TaskObservation) {
    let has_begun = task.last_status > TaskStatus::Pending || task.containers.iter().any(|container| container.runtime_id.is_some());
    let is_stopped = task.is_stopped();
    let Some(interface) = &mut task.interface else { return };
    if is_stopped {
        interface.advance(AttachmentStatus::Detaching);
    } else if has_begun || seen.attached.contains(&interface.attachment) {
        interface.advance(AttachmentStatus::Attached);
    }
}

fn set_once<T>(place: &mut Option<T>, value: Option<T>) {
    if place.is_none() {
        *place = value;
    }
}

/// Asks for a task's stop. A task whose stop was asked for before keeps its first reason. Returns whether anything changed.
pub fn ask_to_stop(task: &mut Task, code: StopCode, reason: &str, now: UnixMillis) -> bool {
    if task.desired_status == DesiredStatus::Stopped {
        return false;
    }
    task.desired_status = DesiredStatus::Stopped;
    task.stopping_at = Some(now);
    task.stop_code = Some(code);
    task.stopped_reason = Some(reason.to_owned());
    true
}

/// Ends a task whose machine is gone for good: nobody will report of it any more.
pub fn abandon(task: &mut Task, code: StopCode, reason: &str, now: UnixMillis) -> bool {
    if task.is_stopped() {
        return false;
    }
    ask_to_stop(task, code, reason, now);
    task.last_status = TaskStatus::Stopped;
    task.stopped_at = Some(now);
    if let Some(interface) = &mut task.interface {
        interface.advance(AttachmentStatus::Detaching);
    }
    for container in &mut task.containers {
        container.last_status = ContainerStatus::Stopped;
    }
    true
}

/// The health of a task: UNHEALTHY if an essential container is, HEALTHY if all essential containers with a check are.
#[must_use]
pub fn health(task: &Task, is_checked_essential: impl Fn(&str) -> bool) -> HealthStatus {
    let mut checked = task.containers.iter().filter(|c| is_checked_essential(&c.name)).map(|c| c.health_status).peekable();
    if checked.peek().is_none() {
        return HealthStatus::Unknown;
    }
    checked.fold(HealthStatus::Healthy, |worst, health| match (worst, health) {
        (HealthStatus::Unhealthy, _) | (_, HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
        (HealthStatus::Unknown, _) | (_, HealthStatus::Unknown) => HealthStatus::Unknown,
        _ => HealthStatus::Healthy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterName, ContainerId, ContainerInstanceId, DefinitionId, Family, TaskId};
    use crate::task::Container;

    fn task() -> Task {
        let container = |name: &str| Container::pending(ContainerId(1), name.into(), "i".into());
        Task {
            containers: vec![container("main"), container("side")],
            ..Task::placed(
                TaskId(1),
                ClusterName::parse("c").unwrap(),
                DefinitionId { family: Family::parse("f").unwrap(), revision: 1 },
                "family:f".into(),
                ContainerInstanceId(1),
                UnixMillis(0),
            )
        }
    }

    fn interface() -> crate::task_interface::TaskInterface {
        serde_json::from_value(serde_json::json!({
            "attachment": "0".repeat(31) + "1", "status": "PRECREATED", "interface": "eni-00000000000000001", "subnet": "subnet-00000000000000001",
            "subnet_cidr": "10.0.0.0/24", "private_address": "10.0.0.4", "mac_address": "02:00:0a:00:00:04", "groups": [],
        }))
        .unwrap()
    }

    #[test]
    fn an_interface_comes_with_the_agents_word_and_goes_with_the_task() {
        let status = |task: &Task| task.interface.as_ref().unwrap().status;
        let mut told = Task { interface: Some(Box::new(interface())), ..task() };
        let mut left = told.clone();
        assert!(!apply(&mut told, &TaskObservation { attached: vec![AttachmentId(2)], ..Default::default() }, |_| true, UnixMillis(1)));
        assert!(apply(&mut told, &TaskObservation { attached: vec![AttachmentId(1)], ..Default::default() }, |_| true, UnixMillis(1)));
        assert_eq!((status(&told), told.last_status), (AttachmentStatus::Attached, TaskStatus::Pending));
        apply(&mut told, &seen(TaskStatus::Stopped, &[]), |_| true, UnixMillis(2));
        assert_eq!(status(&told), AttachmentStatus::Detaching);
        abandon(&mut left, StopCode::TerminationNotice, "gone", UnixMillis(2));
        assert_eq!(status(&left), AttachmentStatus::Detaching, "nobody will report of it");
    }

    fn seen(status: TaskStatus, containers: &[(&str, ContainerStatus, Option<i32>, Option<&str>)]) -> TaskObservation {
        TaskObservation {
            status: Some(status),
            containers: containers
                .iter()
                .map(|(name, status, exit_code, reason)| ContainerObservation {
                    name: (*name).to_owned(),
                    status: *status,
                    runtime_id: None,
                    exit_code: *exit_code,
                    reason: reason.map(str::to_owned),
                    image_digest: None,
                    network_bindings: None,
                })
                .collect(),
            ..Default::default()
        }
    }

    fn apply_main(task: &mut Task, seen: &TaskObservation, now: i64) -> bool {
        apply(task, seen, |name| name == "main", UnixMillis(now))
    }

    #[test]
    fn runs_and_ends_with_its_exit_code() {
        let mut task = task();
        assert!(apply_main(&mut task, &seen(TaskStatus::Running, &[("main", ContainerStatus::Running, None, None)]), 5));
        assert_eq!((task.last_status, task.started_at), (TaskStatus::Running, Some(UnixMillis(5))));
        assert!(apply_main(&mut task, &seen(TaskStatus::Stopped, &[("main", ContainerStatus::Stopped, Some(7), None)]), 9));
        assert_eq!(task.stop_code, Some(StopCode::EssentialContainerExited));
        assert_eq!(task.stopped_reason.as_deref(), Some(ESSENTIAL_EXITED));
        assert_eq!(task.containers[0].exit_code, Some(7));
        assert_eq!(task.desired_status, DesiredStatus::Stopped);
        assert_eq!(task.containers[1].last_status, ContainerStatus::Stopped);
    }

    #[test]
    fn late_and_duplicate_reports_change_nothing() {
        let mut task = task();
        let running = seen(TaskStatus::Running, &[("main", ContainerStatus::Running, None, None)]);
        apply_main(&mut task, &running, 5);
        assert!(!apply_main(&mut task, &running, 6));
        assert!(!apply_main(&mut task, &seen(TaskStatus::Pending, &[("main", ContainerStatus::Pending, None, None)]), 7));
        apply_main(&mut task, &seen(TaskStatus::Stopped, &[("main", ContainerStatus::Stopped, Some(0), None)]), 8);
        let stopped = task.clone();
        assert!(!apply_main(&mut task, &running, 9));
        assert_eq!(task, stopped);
    }

    #[test]
    fn an_agents_reason_of_a_task_that_ran_is_shown() {
        let mut task = task();
        apply_main(&mut task, &seen(TaskStatus::Running, &[("main", ContainerStatus::Running, None, None)]), 5);
        let mut over = seen(TaskStatus::Stopped, &[("main", ContainerStatus::Stopped, None, Some("ContainerVanishedError: x"))]);
        over.reason = Some("the host was restarted".to_owned());
        apply_main(&mut task, &over, 9);
        assert_eq!(task.stop_code, Some(StopCode::EssentialContainerExited));
        assert_eq!(task.stopped_reason.as_deref(), Some("Essential container in task exited: the host was restarted"));
        // A stop that was asked for keeps its own.
        let mut asked = self::task();
        apply_main(&mut asked, &seen(TaskStatus::Running, &[("main", ContainerStatus::Running, None, None)]), 5);
        ask_to_stop(&mut asked, StopCode::UserInitiated, "Task stopped by user", UnixMillis(6));
        apply_main(&mut asked, &over, 9);
        assert_eq!(asked.stopped_reason.as_deref(), Some("Task stopped by user"));
    }

    #[test]
    fn a_task_that_never_ran_failed_to_start_and_says_why() {
        let mut task = task();
        let reason = "CannotPullContainerError: no such image";
        apply_main(&mut task, &seen(TaskStatus::Stopped, &[("main", ContainerStatus::Stopped, None, Some(reason))]), 5);
        assert_eq!(task.stop_code, Some(StopCode::TaskFailedToStart));
        assert_eq!(task.stopped_reason.as_deref(), Some(reason));
        assert_eq!(task.started_at, None);
        assert_eq!(task.execution_stopped_at, None);
    }

    #[test]
    fn a_side_container_may_end() {
        let mut task = task();
        apply_main(&mut task, &seen(TaskStatus::Running, &[("side", ContainerStatus::Stopped, Some(0), None)]), 5);
        assert_eq!(task.desired_status, DesiredStatus::Running);
    }

    #[test]
    fn one_report_may_hold_a_container_twice() {
        let mut task = task();
        let both = [("main", ContainerStatus::Running, Some(3), None), ("main", ContainerStatus::Stopped, Some(3), None)];
        apply_main(&mut task, &seen(TaskStatus::Stopped, &both), 5);
        assert_eq!((task.containers[0].last_status, task.containers[0].exit_code), (ContainerStatus::Stopped, Some(3)));
    }

    #[test]
    fn the_first_reason_to_stop_stays() {
        let mut task = task();
        assert!(ask_to_stop(&mut task, StopCode::UserInitiated, "enough", UnixMillis(3)));
        assert!(!ask_to_stop(&mut task, StopCode::ServiceSchedulerInitiated, "scaling", UnixMillis(4)));
        apply_main(&mut task, &seen(TaskStatus::Stopped, &[("main", ContainerStatus::Stopped, Some(137), None)]), 5);
        assert_eq!((task.stop_code, task.stopped_reason.as_deref()), (Some(StopCode::UserInitiated), Some("enough")));
    }

    #[test]
    fn health_counts_checked_containers_only() {
        let mut task = task();
        assert_eq!(health(&task, |_| false), HealthStatus::Unknown);
        task.containers[0].health_status = HealthStatus::Healthy;
        assert_eq!(health(&task, |name| name == "main"), HealthStatus::Healthy);
        assert_eq!(health(&task, |_| true), HealthStatus::Unknown);
        task.containers[1].health_status = HealthStatus::Unhealthy;
        assert_eq!(health(&task, |_| true), HealthStatus::Unhealthy);
    }
}
