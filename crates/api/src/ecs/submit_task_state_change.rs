//! `SubmitTaskStateChange`: an agent's report. Duplicates and late ones are normal and acknowledged.

use berth_model::arn::{ReferenceError, parse_agents_task};
use berth_model::ids::{AttachmentId, ClusterName, TaskId};
use berth_model::lifecycle::{ContainerObservation, TaskObservation};
use berth_model::task::{ContainerStatus, LaunchType, NetworkBinding, TaskStatus};
use berth_model::time::UnixMillis;
use berth_shapes::ecs::{self, SubmitTaskStateChangeRequest, SubmitTaskStateChangeResponse};

use berth_store::State;

use crate::context::Api;
use crate::failure::Failure;

/// Longest reason that ECS keeps.
const MAX_REASON: usize = 1_024;
/// Most containers in a report: each may occur twice.
const MAX_CONTAINERS: usize = 64;

pub(crate) async fn run(api: &Api, request: SubmitTaskStateChangeRequest) -> Result<SubmitTaskStateChangeResponse, Failure> {
    let agents = api.agents_cluster(request.cluster.as_deref())?;
    let (cluster, id) = parse_agents_task(api.scope(), &agents, request.task.as_deref().unwrap_or_default())?;
    if cluster != agents && !is_of_agent(&api.store.state(), &agents, id) {
        return Err(ReferenceError::OtherCluster.into());
    }
    let containers = request.containers.unwrap_or_default();
    if containers.len() > MAX_CONTAINERS {
        return Err(Failure::invalid(format!("containers can have at most {MAX_CONTAINERS} items.")));
    }
    let status = match request.status.as_deref().filter(|status| !status.is_empty()) {
        None => None,
        Some(word) => Some(TaskStatus::parse(word).ok_or_else(|| Failure::invalid(format!("Invalid status: '{word}'")))?),
    };
    let observation = TaskObservation {
        status,
        reason: request.reason.map(clip),
        pull_started_at: request.pull_started_at.map(millis),
        pull_stopped_at: request.pull_stopped_at.map(millis),
        execution_stopped_at: request.execution_stopped_at.map(millis),
        containers: containers.into_iter().map(container).collect::<Result<_, _>>()?,
        attached: request.attachments.unwrap_or_default().iter().filter_map(|change| attached(api, change)).collect(),
    };
    let known = api.control.observe_task(&cluster, id, &observation).await?;
    if !known {
        // The official agent drops an event on this error, which is right: the task is forgotten.
        return Err(Failure::invalid("The referenced task was not found: task"));
    }
    Ok(SubmitTaskStateChangeResponse { acknowledgment: Some("ACK".to_owned()) })
}

/// A task of another cluster is the agent's business if it is Fargate's and on a machine of the agent's. One that is not known here yet may
/// be.
fn is_of_agent(state: &State, agents: &ClusterName, id: TaskId) -> bool {
    state.task(id).is_none_or(|task| {
        let machine = state.instance(task.container_instance);
        task.launch_type == LaunchType::Fargate && machine.is_none_or(|machine| machine.cluster == *agents)
    })
}

/// The attachment that a report says is there.
pub(crate) fn attached(api: &Api, change: &ecs::AttachmentStateChange) -> Option<AttachmentId> {
    let id = change.attachment_arn.as_deref()?.rsplit_once('/')?.1.parse().ok()?;
    let is_its_arn = change.attachment_arn.as_deref() == Some(api.scope().attachment(id).as_str());
    (is_its_arn && change.status.as_deref() == Some("ATTACHED")).then_some(id)
}

fn millis(timestamp: berth_shapes::Timestamp) -> UnixMillis {
    UnixMillis(timestamp.as_millis())
}

fn clip(reason: String) -> String {
    if reason.chars().count() > MAX_REASON { reason.chars().take(MAX_REASON).collect() } else { reason }
}

fn container(change: ecs::ContainerStateChange) -> Result<ContainerObservation, Failure> {
    let status = change.status.unwrap_or_default();
    Ok(ContainerObservation {
        name: change.container_name.unwrap_or_default(),
        status: ContainerStatus::parse(&status).ok_or_else(|| Failure::invalid(format!("Invalid status of a container: '{status}'")))?,
        runtime_id: change.runtime_id,
        exit_code: change.exit_code,
        reason: change.reason.map(clip),
        image_digest: change.image_digest,
        network_bindings: change.network_bindings.map(|list| list.into_iter().filter_map(binding).collect()),
    })
}

/// One binding of a port or of a range of ports; what has neither, or ranges that do not fit each other, is not kept.
fn binding(binding: ecs::NetworkBinding) -> Option<NetworkBinding> {
    let ((container_port, following), (host_port, on_host)) = match (&binding.container_port_range, &binding.host_port_range) {
        (Some(inside), Some(on_host)) => (range(inside)?, range(on_host)?),
        _ => ((u16::try_from(binding.container_port?).ok()?, 0), (u16::try_from(binding.host_port?).ok()?, 0)),
    };
    (following == on_host).then(|| NetworkBinding {
        bind_ip: binding.bind_ip.unwrap_or_else(|| "0.0.0.0".to_owned()),
        container_port,
        host_port,
        following,
        protocol: binding.protocol.map_or_else(|| "tcp".to_owned(), |protocol| protocol.as_str().to_owned()),
    })
}

/// The first port of `80-90` and how many follow.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let first: u16 = first.trim().parse().ok()?;
    Some((first, last.trim().parse::<u16>().ok()?.checked_sub(first)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_binding() {
        let kept = |json: serde_json::Value| binding(serde_json::from_value(json).unwrap());
        let range = kept(serde_json::json!({"containerPortRange": "80-90", "hostPortRange": "40000-40010", "protocol": "udp"})).unwrap();
        assert_eq!((range.container_port, range.host_ports(), range.protocol.as_str()), (80, 40_000..=40_010, "udp"));
        assert_eq!(range.ranges(), Some(("80-90".to_owned(), "40000-40010".to_owned())));
        let one = kept(serde_json::json!({"containerPort": 80, "hostPort": 8080})).unwrap();
        assert_eq!((one.host_ports(), one.ranges()), (8080..=8080, None));
        for odd in [
            serde_json::json!({"containerPortRange": "80-90", "hostPortRange": "40000-40009"}),
            serde_json::json!({"containerPortRange": "90-80", "hostPortRange": "90-80"}),
            serde_json::json!({"containerPortRange": "80", "hostPortRange": "80"}),
            serde_json::json!({"containerPort": 80}),
        ] {
            assert_eq!(kept(odd.clone()), None, "{odd}");
        }
    }
}
