//! `DescribeContainerInstances`: up to a hundred; unknown ones become `failures[]`.

use berth_model::arn::parse_container_instance;
use berth_shapes::ecs::{DescribeContainerInstancesRequest, DescribeContainerInstancesResponse};

use super::render;
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DescribeContainerInstancesRequest) -> Result<DescribeContainerInstancesResponse, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let named = request.container_instances.unwrap_or_default();
    let state = api.store.state();
    active(&state, &cluster)?;
    if named.is_empty() {
        return Err(Failure::invalid("Container instance cannot be empty."));
    }
    if named.len() > 100 {
        return Err(Failure::invalid("containerInstances can have at most 100 items."));
    }
    let with_tags = request.include.iter().flatten().any(|part| part.as_str() == "TAGS");
    let mut instances = Vec::new();
    let mut failures = Vec::new();
    for text in &named {
        let id = parse_container_instance(api.scope(), &cluster, text)?;
        match state.instance(id).filter(|instance| instance.cluster == cluster) {
            Some(entry) => instances.push(render::container_instance(&state, api.scope(), entry, with_tags)),
            None => failures.push(render::missing(api.scope().container_instance(&cluster, id))),
        }
    }
    Ok(DescribeContainerInstancesResponse { container_instances: Some(instances), failures: Some(failures) })
}
