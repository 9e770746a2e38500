//! `CreateCluster`: idempotent by name.

use berth_model::cluster::{Cluster, ClusterStatus};
use berth_model::ids::{CapacityProviderName, ClusterName};
use berth_model::record::Key;
use berth_model::tags::parse_tags;
use berth_shapes::ecs::{self, CreateClusterRequest, CreateClusterResponse};

use super::capacity_providers::association;
use super::{account_settings, capacity, namespaces, render, update_cluster};
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: CreateClusterRequest) -> Result<CreateClusterResponse, Failure> {
    let name = request.cluster_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let name = ClusterName::parse(name).ok_or_else(|| {
        Failure::invalid("The identifier of a cluster may hold up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens: clusterName")
    })?;
    let strategy = capacity::parse(api, request.default_capacity_provider_strategy.as_deref().unwrap_or_default())?;
    let tags = parse_tags(request.tags.as_deref())?;
    let settings = request.settings.unwrap_or_default();
    update_cluster::check_settings(&settings)?;
    api.change(|state, transaction| {
        let known = state.cluster(&name).filter(|cluster| cluster.status == ClusterStatus::Active);
        if let Some(known) = known {
            return Ok(answer(render::cluster(state, api.scope(), known, &["ATTACHMENTS", "TAGS", "SETTINGS", "CONFIGURATIONS"])));
        }
        let providers = association(api, state, &name, request.capacity_providers.as_deref().unwrap_or_default())?;
        capacity::check(state, &providers, &strategy)?;
        // A provider that is deleted at this moment must not become the cluster's.
        for provider in providers.iter().filter_map(|own| CapacityProviderName::parse(own)) {
            if let Some(known) = state.capacity_provider(&provider) {
                transaction.expect(Key::CapacityProvider(provider.clone()), known.modified);
                transaction.touch(Key::CapacityProvider(provider));
            }
        }
        let mut settings = settings.clone();
        if settings.is_empty() {
            // What ECS shows of a cluster that never set it: the account's choice.
            let insights = account_settings::known(Some(&ecs::SettingName::ContainerInsights))?;
            let value = account_settings::effective(api, state, insights, &api.scope().root_principal());
            settings.push(ecs::ClusterSetting { name: Some("containerInsights".into()), value: Some(cluster_value(&value).to_owned()) });
        }
        let service_connect_defaults = match &request.service_connect_defaults {
            Some(given) => namespaces::defaults(api, state, transaction, given)?,
            None => None,
        };
        let cluster = Cluster {
            name: name.clone(),
            status: ClusterStatus::Active,
            created_at: api.now(),
            tags: tags.clone(),
            settings,
            configuration: request.configuration.clone(),
            service_connect_defaults,
            capacity_providers: providers,
            default_capacity_provider_strategy: capacity::render(&strategy),
            gateways: Vec::new(),
        };
        let key = Key::Cluster(name.clone());
        match state.cluster(&name) {
            Some(inactive) => transaction.expect(key, inactive.modified),
            None => transaction.expect_absent(key),
        };
        let shown = render::cluster(state, api.scope(), &cluster, &["ATTACHMENTS", "TAGS", "SETTINGS", "CONFIGURATIONS"]);
        transaction.put(cluster);
        Ok(answer(shown))
    })
    .await
}

fn answer(cluster: ecs::Cluster) -> CreateClusterResponse {
    CreateClusterResponse { cluster: Some(cluster) }
}

/// The account's `on` and `off` are a cluster's `enabled` and `disabled`.
fn cluster_value(account: &str) -> &str {
    match account {
        "on" => "enabled",
        "off" => "disabled",
        other => other,
    }
}
