//! `DeleteCluster`: only an empty one; it stays visible as INACTIVE.

use berth_model::cluster::{Cluster, ClusterStatus};
use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::record::Key;
use berth_model::service::ServiceStatus;
use berth_shapes::ecs::{DeleteClusterRequest, DeleteClusterResponse, ErrorCode};

use super::render;
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteClusterRequest) -> Result<DeleteClusterResponse, Failure> {
    let name = api.cluster_name(request.cluster.as_deref())?;
    api.change(|state, transaction| {
        let cluster = active(state, &name)?;
        if state.instances_of(&name).any(|instance| instance.status != ContainerInstanceStatus::Inactive) {
            return Err(Failure::modelled(
                ErrorCode::ClusterContainsContainerInstances,
                "The Cluster cannot be deleted while Container Instances are active or draining.",
            ));
        }
        let mut services = state.services_of(&name).map(|service| service.status);
        let mut express = state.express_services_of(&name).map(|service| service.status);
        if services.any(|status| status != ServiceStatus::Inactive) || express.any(|status| status != ServiceStatus::Inactive) {
            return Err(Failure::modelled(ErrorCode::ClusterContainsServices, "The Cluster cannot be deleted while Services are active."));
        }
        let tasks = state.index(&name).into_iter().flat_map(|index| index.desired_running.iter().chain(&index.desired_stopped));
        if tasks.filter_map(|id| state.task(*id)).any(|task| !task.is_stopped()) {
            return Err(Failure::modelled(ErrorCode::ClusterContainsTasks, "The Cluster cannot be deleted while Tasks are active."));
        }
        // Those of Auto Scaling groups and FARGATE only leave the cluster.
        if state.capacity_providers().any(|provider| provider.is_active() && provider.cluster() == Some(&name)) {
            return Err(Failure::modelled(
                ErrorCode::ClusterContainsCapacityProvider,
                "The Cluster cannot be deleted while Capacity Providers are active.",
            ));
        }
        // Its associations with gateways end with it: no service is left to use one.
        let inactive = Cluster {
            status: ClusterStatus::Inactive,
            gateways: Vec::new(),
            capacity_providers: Vec::new(),
            default_capacity_provider_strategy: Vec::new(),
            ..(*cluster.value).clone()
        };
        // Whatever places tasks, registers instances or makes services in the cluster is conditional on the cluster too.
        transaction.expect(Key::Cluster(name.clone()), cluster.modified);
        let shown = render::cluster(state, api.scope(), &inactive, &[]);
        transaction.put(inactive);
        Ok(DeleteClusterResponse { cluster: Some(shown) })
    })
    .await
}
