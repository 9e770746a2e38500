//! Why a container instance takes no tasks, or what it waits for.

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::task::Task;

use super::{Reason, Sight, Why, count, duration};

pub(super) fn why(sight: &Sight<'_>, instance: &ContainerInstance) -> Why {
    let tasks: Vec<&Task> =
        sight.state.tasks_of_machine(&instance.cluster, instance.id).map(|task| &*task.value).filter(|task| !task.is_stopped()).collect();
    let mut reasons = Vec::new();
    if let Some(absence) = sight.absence(instance) {
        reasons.push(Reason::new("AGENT_AWAY", format!("it takes no tasks: {absence}")));
        reasons.extend(lost(sight, instance, &tasks));
    }
    if let Some(text) = &instance.status_reason {
        reasons.push(Reason::new("STATUS", text.clone()));
    }
    match instance.status {
        ContainerInstanceStatus::Active => reasons.push(room(instance, &tasks)),
        ContainerInstanceStatus::Draining => reasons.extend(draining(sight, &tasks)),
        ContainerInstanceStatus::Inactive => reasons.push(Reason::new("INACTIVE", "it was deregistered, and takes no tasks any more")),
    }
    let connected = if instance.agent_connected { "connected" } else { "not connected" };
    Why {
        kind: "containerInstance",
        arn: sight.scope.container_instance(&instance.cluster, instance.id),
        summary: format!("a container instance that is {}, {connected}, with {}", instance.status, count(tasks.len(), "task")),
        reasons,
        containers: Vec::new(),
    }
}

/// What becomes of the tasks of one whose agent is away.
fn lost(sight: &Sight<'_>, instance: &ContainerInstance, tasks: &[&Task]) -> Option<Reason> {
    let of_services = tasks.iter().filter(|task| task.service.is_some()).count();
    if of_services == 0 {
        return None;
    }
    let text = match sight.rules.absence.lost_at(instance) {
        None => "nobody replaces its service tasks (--replace-after off)".to_owned(),
        Some(at) if at <= sight.now => {
            format!("it counts as lost since {}: service tasks are replaced elsewhere", duration(sight.now.since(at)))
        }
        Some(at) => format!("it counts as lost in {}: then service tasks are replaced elsewhere", duration(at.since(sight.now))),
    };
    Some(Reason::new("LOST", text))
}

fn room(instance: &ContainerInstance, tasks: &[&Task]) -> Reason {
    let used = tasks
        .iter()
        .fold((0_u32, 0_u32), |(cpu, memory), task| (cpu.saturating_add(task.demand.cpu), memory.saturating_add(task.demand.memory)));
    let free = (instance.registered.cpu.saturating_sub(used.0), instance.registered.memory.saturating_sub(used.1));
    let ports = instance.registered.ports_tcp.len() + tasks.iter().map(|task| task.demand.ports_tcp.len()).sum::<usize>();
    let text = format!(
        "free are {} of {} CPU units and {} of {} MiB; {} in use",
        free.0,
        instance.registered.cpu,
        free.1,
        instance.registered.memory,
        count(ports, "TCP port"),
    );
    Reason::new("ROOM", text)
}

/// Whom a DRAINING instance still waits for.
fn draining(sight: &Sight<'_>, tasks: &[&Task]) -> Vec<Reason> {
    let arns = |tasks: &[&&Task]| tasks.iter().map(|task| sight.task_arn(task)).collect::<Vec<_>>().into_iter();
    let (protected, rest): (Vec<&&Task>, Vec<&&Task>) = tasks.iter().partition(|task| task.is_protected(sight.now));
    let (of_services, alone): (Vec<&&Task>, Vec<&&Task>) = rest.into_iter().partition(|task| task.service.is_some());
    let mut reasons = Vec::new();
    for (code, tasks, text) in [
        ("DRAINS", &of_services, "of services: each stops when another one runs in its place, as minimumHealthyPercent asks"),
        ("PROTECTED", &protected, "protected from scale-in: they stay until their protection ends"),
        ("STANDALONE", &alone, "of no service: DRAINING leaves them until they end by themselves"),
    ] {
        if !tasks.is_empty() {
            reasons.push(Reason::new(code, format!("{} {text}", count(tasks.len(), "task"))).about(arns(tasks)));
        }
    }
    if reasons.is_empty() {
        reasons.push(Reason::new("DRAINED", "it is drained: no task is left, and it takes none"));
    }
    reasons
}
