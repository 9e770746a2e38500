//! One task as a row of `berth ps`.

use berth_shapes::ecs;

use super::age;
use super::table::Cell;
use crate::console::{Style, one_line};
use crate::tasks::{is_stopped, name_of, service_of, short_id};

/// The columns.
pub(super) const HEADINGS: [&str; 9] = ["TASK", "SERVICE", "DEFINITION", "CLUSTER", "STATUS", "CONTAINERS", "PORTS", "AGE", "REASON"];

/// A task's row; `now` in Unix milliseconds.
pub(super) fn of(task: &ecs::Task, now: i64) -> [Cell; 9] {
    let containers = task.containers.as_deref().unwrap_or_default();
    [
        Cell::plain(short_id(task.task_arn.as_deref().unwrap_or_default())),
        Cell::plain(service_of(task).or(task.group.as_deref()).unwrap_or_default()),
        Cell::plain(name_of(task.task_definition_arn.as_deref().unwrap_or_default())),
        Cell::plain(name_of(task.cluster_arn.as_deref().unwrap_or_default())),
        status(task),
        Cell::plain(joined(containers.iter().map(|container| name_and_state(container, task)))),
        Cell::plain(joined(address(task).into_iter().chain(containers.iter().flat_map(ports)))),
        Cell::styled(Style::Dim, task.created_at.map_or_else(String::new, |created| age::render(now - created.as_millis()))),
        Cell::plain(reason(task)),
    ]
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// What it is, and where it is to go if that is elsewhere.
fn status(task: &ecs::Task) -> Cell {
    let last = task.last_status.as_deref().unwrap_or_default();
    let desired = task.desired_status.as_deref().unwrap_or_default();
    let text = if desired.is_empty() || last == desired { last.to_owned() } else { format!("{last} -> {desired}") };
    let failed = task.containers.iter().flatten().any(|container| container.exit_code.is_some_and(|code| code != 0))
        || task.stop_code.as_ref().is_some_and(|code| *code == ecs::TaskStopCode::TaskFailedToStart);
    let style = match last {
        "RUNNING" if desired == "RUNNING" => Style::Good,
        _ if !is_stopped(task) => Style::Changing,
        _ if failed => Style::Bad,
        _ => Style::Dim,
    };
    Cell::styled(style, text)
}

/// The name, and whatever of its state the task's status does not say.
fn name_and_state(container: &ecs::Container, task: &ecs::Task) -> String {
    let name = container.name.as_deref().unwrap_or_default();
    let status = container.last_status.as_deref().unwrap_or_default();
    let health = container.health_status.as_ref().map(|health| health.as_str());
    match (container.exit_code, health) {
        (Some(code), _) => format!("{name} (exit {code})"),
        (None, _) if is_stopped(task) => format!("{name} (never ran)"),
        (None, Some("UNHEALTHY")) => format!("{name} (unhealthy)"),
        (None, _) if !status.is_empty() && Some(status) != task.last_status.as_deref() => format!("{name} ({})", status.to_lowercase()),
        _ => name.to_owned(),
    }
}

/// Where a task with an interface of its own is reached: at its own address, where no port is bound to one of the machine's.
fn address(task: &ecs::Task) -> Option<String> {
    let details = task.attachments.iter().flatten().filter_map(|attachment| attachment.details.as_ref()).flatten();
    let mut address = details.filter(|detail| detail.name.as_deref() == Some("privateIPv4Address"));
    address.next()?.value.clone()
}

fn ports(container: &ecs::Container) -> Vec<String> {
    let render = |binding: &ecs::NetworkBinding| {
        let host = match (&binding.host_port_range, binding.host_port) {
            (Some(range), _) => range.clone(),
            (None, port) => port?.to_string(),
        };
        let inside = match (&binding.container_port_range, binding.container_port) {
            (Some(range), _) => range.clone(),
            (None, port) => port?.to_string(),
        };
        let address = binding.bind_ip.as_deref().unwrap_or("0.0.0.0");
        let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let protocol = binding.protocol.as_ref().map_or("tcp", |protocol| protocol.as_str());
        Some(format!("{address}:{host}->{inside}/{protocol}"))
    };
    container.network_bindings.iter().flatten().filter_map(render).collect()
}

/// Why it stopped: the task's reason, then what each container adds to it.
fn reason(task: &ecs::Task) -> String {
    let own = task.stopped_reason.clone().into_iter();
    let containers = task.containers.iter().flatten().filter_map(|container| {
        let reason = container.reason.as_deref().filter(|reason| Some(*reason) != task.stopped_reason.as_deref())?;
        Some(format!("{}: {reason}", container.name.as_deref().unwrap_or_default()))
    });
    own.chain(containers).map(|text| one_line(&text)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::table::render;
    use super::*;
    use crate::console::Colours;
    use serde_json::json;

    fn task(members: serde_json::Value) -> ecs::Task {
        let mut all = json!({
            "taskArn": "arn:aws:ecs:us-east-1:000000000000:task/default/0123456789abcdef0123456789abcdef",
            "clusterArn": "arn:aws:ecs:us-east-1:000000000000:cluster/default",
            "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/web:3",
            "group": "service:web", "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "createdAt": 1000.5,
        });
        all.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn rows_as_people_see_them() {
        let tasks = [
            task(json!({ "containers": [
                { "name": "app", "lastStatus": "RUNNING", "healthStatus": "HEALTHY", "networkBindings": [
                    { "bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768, "protocol": "tcp" },
                    { "bindIP": "::", "containerPortRange": "90-91", "hostPortRange": "190-191", "protocol": "udp" } ] },
                { "name": "side", "lastStatus": "PENDING" } ] })),
            task(
                json!({ "group": "family:job", "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "stopCode": "EssentialContainerExited",
                "stoppedReason": "Essential container in task exited",
                "containers": [{ "name": "app", "lastStatus": "STOPPED", "exitCode": 137, "reason": "OutOfMemoryError: Container killed\ndue to memory usage" }] }),
            ),
            task(json!({ "lastStatus": "PROVISIONING", "createdAt": 1060 })),
            task(json!({ "attachments": [{ "type": "ElasticNetworkInterface", "details": [
                { "name": "macAddress", "value": "02:00:00:00:00:01" }, { "name": "privateIPv4Address", "value": "10.0.1.5" } ] }],
                "containers": [{ "name": "app", "lastStatus": "RUNNING", "networkBindings": [] }] })),
        ];
        let rows: Vec<_> = tasks.iter().map(|task| of(task, 1_065_500)).collect();
        assert_eq!(
            render(&HEADINGS, &rows, Colours::Off),
            "\
TASK          SERVICE     DEFINITION  CLUSTER  STATUS                   CONTAINERS           PORTS                                           AGE    REASON
0123456789ab  web         web:3       default  RUNNING                  app, side (pending)  0.0.0.0:32768->80/tcp, [::]:190-191->90-91/udp  1m05s
0123456789ab  family:job  web:3       default  STOPPED                  app (exit 137)                                                       1m05s  Essential container in task exited; app: OutOfMemoryError: Container killed due to memory usage
0123456789ab  web         web:3       default  PROVISIONING -> RUNNING                                                                       5s
0123456789ab  web         web:3       default  RUNNING                  app                  10.0.1.5                                        1m05s
"
        );
    }

    #[test]
    fn colours_follow_the_outcome() {
        let style = |members| status(&task(members)).style;
        assert_eq!(style(json!({})), Style::Good);
        assert_eq!(style(json!({ "desiredStatus": "STOPPED" })), Style::Changing);
        assert_eq!(style(json!({ "lastStatus": "STOPPED", "containers": [{ "exitCode": 0 }] })), Style::Dim);
        assert_eq!(style(json!({ "lastStatus": "STOPPED", "containers": [{ "exitCode": 1 }] })), Style::Bad);
        assert_eq!(style(json!({ "lastStatus": "STOPPED", "stopCode": "TaskFailedToStart" })), Style::Bad);
    }

    #[test]
    fn a_container_that_never_ran_says_so() {
        let cells = of(
            &task(
                json!({ "lastStatus": "STOPPED", "containers": [{ "name": "app", "lastStatus": "STOPPED", "reason": "CannotPullContainerError: no" }] }),
            ),
            0,
        );
        assert_eq!((cells[5].text.as_str(), cells[8].text.as_str()), ("app (never ran)", "app: CannotPullContainerError: no"));
    }
}
