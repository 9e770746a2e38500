//! `SubmitTaskStateChange`: an agent's report. Duplicates and late ones are normal and acknowledged.

use berth_model::arn::parse_task;
use berth_model::lifecycle::{ContainerObservation, TaskObservation};
use berth_model::task::{ContainerStatus, NetworkBinding, TaskStatus};
use berth_model::time::UnixMillis;
use berth_shapes::ecs::{self, SubmitTaskStateChangeRequest, SubmitTaskStateChangeResponse};

use crate::context::Api;
use crate::failure::Failure;

/// Longest reason that ECS keeps.
const MAX_REASON: usize = 1_024;
/// Most containers in a report: each may occur twice.
const MAX_CONTAINERS: usize = 64;

pub(crate) async fn run(api: &Api, request: SubmitTaskStateChangeRequest) -> Result<SubmitTaskStateChangeResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let id = parse_task(api.scope(), &cluster, request.task.as_deref().unwrap_or_default())?;
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
    };
    let known = api.control.observe_task(&cluster, id, &observation).await?;
    if !known {
        // The official agent drops an event on this error, which is right: the task is forgotten.
        return Err(Failure::invalid("The referenced task was not found: task"));
    }
    Ok(SubmitTaskStateChangeResponse { acknowledgment: Some("ACK".to_owned()) })
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

/// A binding of a port range has no numbers of its own and is not kept.
fn binding(binding: ecs::NetworkBinding) -> Option<NetworkBinding> {
    Some(NetworkBinding {
        bind_ip: binding.bind_ip.unwrap_or_else(|| "0.0.0.0".to_owned()),
        container_port: u16::try_from(binding.container_port?).ok()?,
        host_port: u16::try_from(binding.host_port?).ok()?,
        protocol: binding.protocol.map_or_else(|| "tcp".to_owned(), |protocol| protocol.as_str().to_owned()),
    })
}
