//! `UpdateCapacityProvider`: absent members stay as they are. It is complete at once.

use berth_model::capacity_provider::{Capacity, CapacityProvider, CapacityProviderUpdateStatus};
use berth_model::record::Key;
use berth_shapes::ecs::{UpdateCapacityProviderRequest, UpdateCapacityProviderResponse};

use super::capacity_providers::{clusters_of, find};
use super::{auto_scaling_group, managed_instances};
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateCapacityProviderRequest) -> Result<UpdateCapacityProviderResponse, Failure> {
    let text = request.name.unwrap_or_default();
    api.change(|state, transaction| {
        let entry = find(api, state, &text, request.cluster.as_deref(), "updated")?;
        let (group, instances) = (request.auto_scaling_group_provider.clone(), request.managed_instances_provider.clone());
        let capacity = match (&entry.capacity, group, instances) {
            (Capacity::AutoScalingGroup(before), Some(group), None) => {
                Capacity::AutoScalingGroup(Box::new(auto_scaling_group::update(before, group)?))
            }
            (Capacity::ManagedInstances { cluster, provider }, None, Some(instances)) => {
                Capacity::ManagedInstances { cluster: cluster.clone(), provider: Box::new(managed_instances::update(provider, instances)?) }
            }
            (Capacity::AutoScalingGroup(_), ..) => {
                return Err(Failure::invalid("autoScalingGroupProvider, and nothing else, must be specified for this capacity provider."));
            }
            (Capacity::ManagedInstances { .. }, ..) => {
                return Err(Failure::invalid("managedInstancesProvider, and nothing else, must be specified for this capacity provider."));
            }
        };
        let provider = CapacityProvider { capacity, update_status: CapacityProviderUpdateStatus::Updated, ..(*entry.value).clone() };
        if provider.has_managed_scaling() && clusters_of(state, &entry.name).nth(1).is_some() {
            return Err(Failure::invalid(
                "A capacity provider with managed scaling can be associated with one cluster only: autoScalingGroupProvider.managedScaling",
            ));
        }
        transaction.expect(Key::CapacityProvider(entry.name.clone()), entry.modified);
        let shown = provider.render(api.scope(), true);
        transaction.put(provider);
        Ok(UpdateCapacityProviderResponse { capacity_provider: Some(shown) })
    })
    .await
}
