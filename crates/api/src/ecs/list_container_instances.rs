//! `ListContainerInstances`: ARNs in the order of ids, by status and by an expression of the cluster query language.

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::task::TaskStatus;
use berth_scheduler::query::{Expression, Subject};
use berth_shapes::ecs::{ListContainerInstancesRequest, ListContainerInstancesResponse};
use berth_store::State;

use crate::context::{Api, active};
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListContainerInstancesRequest) -> Result<ListContainerInstancesResponse, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let page = Page::parse("ListContainerInstances", request.next_token.as_deref(), request.max_results, 100)?;
    // Not kept: whoever asks once, for one instance's attribute, would push out what placement uses.
    let filter = request.filter.as_deref().filter(|filter| !filter.is_empty()).map(Expression::parse).transpose();
    let filter = filter.map_err(|error| Failure::invalid(format!("filter is invalid: {error}")))?;
    let state = api.store.state();
    active(&state, &cluster)?;
    let status = request.status.as_ref().map(|status| status.as_str());
    let shown = |of: ContainerInstanceStatus| match status {
        Some(status) => of.as_str() == status,
        None => of != ContainerInstanceStatus::Inactive,
    };
    let ids = state.instances_of(&cluster).filter(|instance| shown(instance.status));
    let ids = ids.filter(|instance| filter.as_ref().is_none_or(|filter| selects(filter, &state, instance))).map(|instance| instance.id);
    let (ids, next_token) = page.take("ListContainerInstances", ids, ToString::to_string, false);
    let arns = ids.iter().map(|id| api.scope().container_instance(&cluster, *id)).collect();
    Ok(ListContainerInstancesResponse { container_instance_arns: Some(arns), next_token })
}

/// Whether an expression holds for an instance as it is now; `runningTasksCount` is what DescribeContainerInstances shows.
fn selects(filter: &Expression, state: &State, instance: &ContainerInstance) -> bool {
    let tasks = || state.tasks_of_instance(&instance.cluster, instance.id);
    // The tasks are counted only where they may matter.
    let running = if filter.reads_only_attributes() { 0 } else { tasks().filter(|task| task.last_status == TaskStatus::Running).count() };
    filter.holds(&Subject {
        attributes: &instance.attributes,
        agent_connected: instance.agent_connected,
        agent_version: instance.agent.agent_version.as_deref(),
        ec2_instance_id: instance.ec2_instance_id.as_deref(),
        registered_at: instance.registered_at,
        running_tasks: u32::try_from(running).unwrap_or(u32::MAX),
        any_group: &|test| tasks().any(|task| !task.is_stopped() && test(&task.group)),
    })
}
