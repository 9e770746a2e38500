//! Why a task is as it is.

use berth_model::task::{ContainerStatus, DesiredStatus, HealthStatus, LaunchType, StopCode, Task};

use super::{Reason, Sight, Why, duration, ending, last_words};

pub(super) fn why(sight: &Sight<'_>, task: &Task) -> Why {
    let mut reasons = reasons(sight, task);
    if let Some(membership) = &task.service {
        let of = format!("it belongs to the service {}, of which `berth why {}` tells more", membership.service, membership.service);
        reasons.push(Reason::new("SERVICE", of).about([sight.scope.service(&task.cluster, &membership.service)].into_iter()));
    }
    Why {
        kind: "task",
        arn: sight.task_arn(task),
        summary: summary(sight, task),
        reasons,
        containers: if task.is_stopped() { last_words(sight, task) } else { Vec::new() },
    }
}

fn summary(sight: &Sight<'_>, task: &Task) -> String {
    let of = &task.definition;
    match (task.stopped_at, task.desired_status, task.started_at) {
        (Some(at), ..) => format!("a task of {of} that stopped {}", sight.ago(at)),
        (None, DesiredStatus::Stopped, _) => format!("a task of {of} that is stopping"),
        (None, _, Some(at)) => format!("a task of {of} that has run for {}", duration(sight.now.since(at))),
        (None, _, None) => format!("a task of {of} that is starting since {}", duration(sight.now.since(task.created_at))),
    }
}

/// Without what its service has to say.
pub(super) fn reasons(sight: &Sight<'_>, task: &Task) -> Vec<Reason> {
    if task.is_stopped() {
        return stopped(task);
    }
    let mut reasons = Vec::new();
    let instance = sight.state.instance(task.container_instance);
    // Of a Fargate task nobody is told the machine's ARN; it has one in another cluster, or in none.
    let machine = (task.launch_type != LaunchType::Fargate).then(|| sight.scope.container_instance(&task.cluster, task.container_instance));
    if let Some(absence) = instance.and_then(|instance| sight.absence(instance)) {
        let hears = if task.desired_status == DesiredStatus::Stopped { "that it is to stop" } else { "of it" };
        let text = format!("{} {} hears nothing {hears}: {absence}", noun(task), task.container_instance);
        reasons.push(Reason::new("AGENT_AWAY", text).about(machine.clone().into_iter()));
    }
    match (task.desired_status, task.started_at) {
        (DesiredStatus::Stopped, _) => reasons.extend(stopping(sight, task)),
        (_, None) => reasons.push(starting(sight, task).about(machine.into_iter())),
        (_, Some(_)) => reasons.extend(running(task)),
    }
    if task.is_protected(sight.now) {
        let left = task.protected_until.map_or(0, |until| until.since(sight.now));
        reasons.push(Reason::new("PROTECTED", format!("deployments and scale-in leave it alone for another {}", duration(left))));
    }
    reasons
}

fn stopped(task: &Task) -> Vec<Reason> {
    let code = task.stop_code.map_or("it stopped", in_words);
    let reason = task.stopped_reason.as_deref().unwrap_or("no reason is known");
    let mut reasons = vec![Reason::new("STOPPED", format!("{code}: {reason}"))];
    reasons.extend(task.containers.iter().filter_map(ending).map(|text| Reason::new("CONTAINER_ENDED", text)));
    reasons
}

pub(super) const fn in_words(code: StopCode) -> &'static str {
    match code {
        StopCode::TaskFailedToStart => "it failed to start",
        StopCode::EssentialContainerExited => "an essential container ended",
        StopCode::UserInitiated => "a user stopped it",
        StopCode::ServiceSchedulerInitiated => "its service stopped it",
        StopCode::SpotInterruption => "its capacity was taken away",
        StopCode::TerminationNotice => "its machine went away",
    }
}

fn stopping(sight: &Sight<'_>, task: &Task) -> Vec<Reason> {
    let since = task.stopping_at.map_or_else(String::new, |at| format!(" since {}", duration(sight.now.since(at))));
    let why = task.stopped_reason.as_deref().or(task.stop_code.map(in_words)).unwrap_or("no reason is known");
    let mut reasons = vec![Reason::new("STOPPING", format!("it is asked to stop{since}: {why}"))];
    let definition = sight.state.definition(&task.definition);
    let timeout = |name: &str| {
        let containers = definition.into_iter().flat_map(|definition| definition.document.container_definitions.iter().flatten());
        containers.filter(|container| container.name.as_deref() == Some(name)).find_map(|container| container.stop_timeout).unwrap_or(30)
    };
    let left = task.containers.iter().filter(|container| container.last_status == ContainerStatus::Running);
    reasons.extend(left.map(|container| {
        let text = format!(
            "container {} has not ended; it is killed {} s after its stop signal (stopTimeout)",
            container.name,
            timeout(&container.name)
        );
        Reason::new("CONTAINER_RUNS", text)
    }));
    reasons
}

/// What its machine is called.
fn noun(task: &Task) -> &'static str {
    if task.launch_type == LaunchType::Fargate { "the machine" } else { "container instance" }
}

fn starting(sight: &Sight<'_>, task: &Task) -> Reason {
    let instance = task.container_instance;
    if let (Some(at), None) = (task.pull_started_at, task.pull_stopped_at) {
        let images: Vec<_> = task.containers.iter().map(|container| &*container.image).collect();
        return Reason::new("PULLING", format!("{instance} pulls {} since {}", images.join(", "), duration(sight.now.since(at))));
    }
    let waiting: Vec<_> = task.containers.iter().filter(|c| c.last_status == ContainerStatus::Pending).map(|c| &*c.name).collect();
    if task.pull_stopped_at.is_some() && !waiting.is_empty() {
        return Reason::new("STARTING", format!("{instance} has the images and starts the containers {}", waiting.join(", ")));
    }
    Reason::new("DISPATCHED", format!("it was given to {} {instance}, which has not begun with it", noun(task)))
}

fn running(task: &Task) -> Vec<Reason> {
    let mut reasons: Vec<_> = task.containers.iter().filter(|c| c.last_status == ContainerStatus::Stopped).filter_map(ending).collect();
    let unhealthy = task.containers.iter().filter(|container| container.health_status == HealthStatus::Unhealthy);
    reasons.extend(unhealthy.map(|container| format!("the health check of container {} fails", container.name)));
    if reasons.is_empty() {
        return vec![Reason::new("RUNNING", "it runs, as it should")];
    }
    reasons.into_iter().map(|text| Reason::new("CONTAINER", text)).collect()
}
