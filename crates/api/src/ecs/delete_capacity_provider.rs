//! `DeleteCapacityProvider`: only one that no cluster has, or, of Managed Instances, that nothing in its cluster uses. It stays visible as
//! INACTIVE for a while, and its name is free at once.

use berth_model::capacity_provider::{CapacityProvider, CapacityProviderStatus, CapacityProviderUpdateStatus};
use berth_model::cluster::Cluster;
use berth_model::record::Key;
use berth_shapes::ecs::{DeleteCapacityProviderRequest, DeleteCapacityProviderResponse};
use berth_store::{State, Transaction};

use super::capacity_providers::{clusters_of, find, used_in};
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteCapacityProviderRequest) -> Result<DeleteCapacityProviderResponse, Failure> {
    let text = request.capacity_provider.unwrap_or_default();
    api.change(|state, transaction| {
        let entry = find(api, state, &text, request.cluster.as_deref(), "deleted")?;
        match entry.cluster() {
            Some(_) => leave_cluster(state, transaction, &entry.value)?,
            None => {
                if let Some(cluster) = clusters_of(state, &entry.name).next() {
                    return Err(Failure::client(format!(
                        "The capacity provider cannot be deleted because it is associated with cluster: {}. Remove the capacity provider \
                         from the cluster and try again.",
                        cluster.name
                    )));
                }
            }
        }
        transaction.expect(Key::CapacityProvider(entry.name.clone()), entry.modified);
        let provider = CapacityProvider {
            status: CapacityProviderStatus::Inactive,
            update_status: CapacityProviderUpdateStatus::Deleted,
            deleted_at: Some(api.now()),
            ..(*entry.value).clone()
        };
        let shown = provider.render(api.scope(), true);
        transaction.put(provider);
        Ok(DeleteCapacityProviderResponse { capacity_provider: Some(shown) })
    })
    .await
}

/// Takes a provider of Managed Instances out of its cluster, if nothing there uses it.
fn leave_cluster(state: &State, transaction: &mut Transaction, provider: &CapacityProvider) -> Result<(), Failure> {
    let Some(name) = provider.cluster() else { return Ok(()) };
    let cluster = active(state, name)?;
    let own = provider.name.as_str();
    let in_default = cluster.default_capacity_provider_strategy.iter().any(|item| item.capacity_provider.as_deref() == Some(own));
    let by_daemon =
        state.daemons_of(name).find(|daemon| daemon.current().is_some_and(|run| run.capacity_providers.contains(&provider.name)));
    let user = if in_default {
        "the cluster's default capacity provider strategy".to_owned()
    } else if let Some(daemon) = by_daemon {
        format!("daemon {}", daemon.name)
    } else if used_in(state, name).contains(own) {
        "a service or a task".to_owned()
    } else {
        let mut left: Cluster = (*cluster.value).clone();
        left.capacity_providers.retain(|other| other != own);
        expect_cluster(transaction, cluster);
        transaction.put(left);
        return Ok(());
    };
    Err(Failure::client(format!("The capacity provider cannot be deleted because it is used by {user}. Remove it there and try again.")))
}
