//! `ListContainerInstances`: ARNs in the order of ids, by status.

use berth_model::container_instance::ContainerInstanceStatus;
use berth_shapes::ecs::{ListContainerInstancesRequest, ListContainerInstancesResponse};

use crate::context::{Api, active};
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListContainerInstancesRequest) -> Result<ListContainerInstancesResponse, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let page = Page::parse("ListContainerInstances", request.next_token.as_deref(), request.max_results, 100)?;
    if request.filter.as_ref().is_some_and(|filter| !filter.is_empty()) {
        return Err(Failure::invalid("Berth does not serve the cluster query language yet: filter"));
    }
    let state = api.store.state();
    active(&state, &cluster)?;
    let status = request.status.as_ref().map(|status| status.as_str());
    let shown = |of: ContainerInstanceStatus| match status {
        Some(status) => of.as_str() == status,
        None => of != ContainerInstanceStatus::Inactive,
    };
    let ids = state.instances_of(&cluster).filter(|instance| shown(instance.status)).map(|instance| instance.id);
    let (ids, next_token) = page.take("ListContainerInstances", ids, ToString::to_string, false);
    let arns = ids.iter().map(|id| api.scope().container_instance(&cluster, *id)).collect();
    Ok(ListContainerInstancesResponse { container_instance_arns: Some(arns), next_token })
}
