//! `PutClusterCapacityProviders`: replaces a cluster's providers and its default strategy as a whole. Providers of Managed Instances belong
//! to their cluster anyway and stay.

use berth_model::record::Key;
use berth_shapes::ecs::{ErrorCode, PutClusterCapacityProvidersRequest, PutClusterCapacityProvidersResponse};

use super::capacity_providers::{association, used_in};
use super::{capacity, render};
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: PutClusterCapacityProvidersRequest) -> Result<PutClusterCapacityProvidersResponse, Failure> {
    let name = api.cluster_name(request.cluster.as_deref())?;
    let named = request.capacity_providers.unwrap_or_default();
    let strategy = capacity::parse(api, request.default_capacity_provider_strategy.as_deref().unwrap_or_default())?;
    api.change(|state, transaction| {
        let entry = active(state, &name)?;
        let providers = association(api, state, &name, &named)?;
        capacity::check(state, &providers, &strategy)?;
        let used = used_in(state, &name);
        if entry.capacity_providers.iter().any(|known| used.contains(known.as_str()) && !providers.contains(known)) {
            return Err(Failure::modelled(ErrorCode::ResourceInUse, "The specified capacity provider is in use and cannot be removed."));
        }
        let mut cluster = (*entry.value).clone();
        cluster.capacity_providers = providers;
        cluster.default_capacity_provider_strategy = capacity::render(&strategy);
        let shown = render::cluster(state, api.scope(), &cluster, &["ATTACHMENTS", "TAGS", "SETTINGS", "CONFIGURATIONS"]);
        transaction.expect(Key::Cluster(name.clone()), entry.modified);
        // A provider that is deleted at this moment must not become the cluster's.
        for provider in cluster.capacity_providers.iter().filter_map(|own| berth_model::ids::CapacityProviderName::parse(own)) {
            if let Some(known) = state.capacity_provider(&provider) {
                transaction.expect(Key::CapacityProvider(provider.clone()), known.modified);
                transaction.touch(Key::CapacityProvider(provider));
            }
        }
        if cluster != *entry.value {
            transaction.put(cluster);
        }
        Ok(PutClusterCapacityProvidersResponse { cluster: Some(shown) })
    })
    .await
}
