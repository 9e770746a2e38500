//! `DeleteCluster`: only an empty one; it stays visible as INACTIVE.

use berth_model::cluster::{Cluster, ClusterStatus};
use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::ids::ClusterName;
use berth_model::record::Key;
use berth_model::service::ServiceStatus;
use berth_shapes::ecs::{DeleteClusterRequest, DeleteClusterResponse, ErrorCode};
use berth_store::State;

use super::render;
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteClusterRequest) -> Result<DeleteClusterResponse, Failure> {
    let name = api.cluster_name(request.cluster.as_deref())?;
    let (before, inactive) = api
        .change(|state, transaction| {
            let cluster = active(state, &name)?;
            check_empty(state, &name)?;
            // Its associations with gateways end with it: no service is left to use one.
            let inactive = Cluster {
                status: ClusterStatus::Inactive,
                gateways: Vec::new(),
                capacity_providers: Vec::new(),
                default_capacity_provider_strategy: Vec::new(),
                ..(*cluster.value).clone()
            };
            transaction.expect(Key::Cluster(name.clone()), cluster.modified);
            transaction.put(inactive.clone());
            Ok(((*cluster.value).clone(), inactive))
        })
        .await?;
    // Whoever makes something in a cluster is conditional on it, so nothing comes from here on. But such a commit leaves the cluster as it
    // was, so one may have come between the look above and this commit: then it was first, and the cluster is not deleted.
    api.change(|state, transaction| {
        let Some(cluster) = state.cluster(&name).filter(|cluster| *cluster.value == inactive) else { return Ok(Ok(())) };
        let empty = check_empty(state, &name);
        if empty.is_err() {
            transaction.expect(Key::Cluster(name.clone()), cluster.modified);
            transaction.put(before.clone());
        }
        Ok(empty)
    })
    .await??;
    let shown = render::cluster(&api.store.state(), api.scope(), &inactive, &[]);
    Ok(DeleteClusterResponse { cluster: Some(shown) })
}

/// Refuses while anything in the cluster has not ended.
fn check_empty(state: &State, name: &ClusterName) -> Result<(), Failure> {
    if state.instances_of(name).any(|instance| instance.status != ContainerInstanceStatus::Inactive) {
        return Err(Failure::modelled(
            ErrorCode::ClusterContainsContainerInstances,
            "The Cluster cannot be deleted while Container Instances are active or draining.",
        ));
    }
    let mut services = state.services_of(name).map(|service| service.status);
    let mut express = state.express_services_of(name).map(|service| service.status);
    if services.any(|status| status != ServiceStatus::Inactive) || express.any(|status| status != ServiceStatus::Inactive) {
        return Err(Failure::modelled(ErrorCode::ClusterContainsServices, "The Cluster cannot be deleted while Services are active."));
    }
    let tasks = state.index(name).into_iter().flat_map(|index| index.desired_running.iter().chain(&index.desired_stopped));
    if tasks.filter_map(|id| state.task(*id)).any(|task| !task.is_stopped()) {
        return Err(Failure::modelled(ErrorCode::ClusterContainsTasks, "The Cluster cannot be deleted while Tasks are active."));
    }
    // Those of Auto Scaling groups and FARGATE only leave the cluster.
    if state.capacity_providers().any(|provider| provider.is_active() && provider.cluster() == Some(name)) {
        return Err(Failure::modelled(
            ErrorCode::ClusterContainsCapacityProvider,
            "The Cluster cannot be deleted while Capacity Providers are active.",
        ));
    }
    Ok(())
}
