//! `UpdateCluster`: settings, configuration and Service Connect defaults; what is absent stays as it is.

use berth_model::record::Key;
use berth_shapes::ecs::{
    self, ClusterServiceConnectDefaults, ClusterServiceConnectDefaultsRequest, ErrorCode, UpdateClusterRequest, UpdateClusterResponse,
};

use super::render;
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateClusterRequest) -> Result<UpdateClusterResponse, Failure> {
    let name = api.cluster_name(request.cluster.as_deref())?;
    check_settings(request.settings.as_deref().unwrap_or_default())?;
    check_namespace(request.service_connect_defaults.as_ref())?;
    api.change(|state, transaction| {
        let entry = active(state, &name)?;
        let mut cluster = (*entry.value).clone();
        merge(&mut cluster.settings, request.settings.as_deref().unwrap_or_default());
        if let Some(configuration) = &request.configuration {
            cluster.configuration = Some(configuration.clone());
        }
        if request.service_connect_defaults.is_some() {
            cluster.service_connect_defaults = None::<ClusterServiceConnectDefaults>;
        }
        let shown = render::cluster(state, api.scope(), &cluster, &["TAGS", "SETTINGS", "CONFIGURATIONS"]);
        transaction.expect(Key::Cluster(name.clone()), entry.modified);
        if cluster != *entry.value {
            transaction.put(cluster);
        }
        Ok(UpdateClusterResponse { cluster: Some(shown) })
    })
    .await
}

/// A setting that is named replaces the one of its name; the others stay.
pub(crate) fn merge(settings: &mut Vec<ecs::ClusterSetting>, given: &[ecs::ClusterSetting]) {
    for setting in given {
        match settings.iter_mut().find(|known| known.name == setting.name) {
            Some(known) => known.value.clone_from(&setting.value),
            None => settings.push(setting.clone()),
        }
    }
}

/// An empty name takes the default away. There are no namespaces yet that another name could mean.
pub(crate) fn check_namespace(defaults: Option<&ClusterServiceConnectDefaultsRequest>) -> Result<(), Failure> {
    let namespace = defaults.and_then(|defaults| defaults.namespace.as_deref()).unwrap_or_default();
    if namespace.is_empty() {
        return Ok(());
    }
    Err(Failure::modelled(ErrorCode::NamespaceNotFound, "Namespace not found: serviceConnectDefaults.namespace"))
}

/// ECS's values of `containerInsights`.
pub(crate) fn check_settings(settings: &[ecs::ClusterSetting]) -> Result<(), Failure> {
    for setting in settings {
        let value = setting.value.as_deref().unwrap_or_default();
        if !["enabled", "disabled", "enhanced"].contains(&value) {
            return Err(Failure::invalid(format!(
                "Invalid cluster setting value {value:?}; containerInsights is enabled, disabled or enhanced: settings.value"
            )));
        }
    }
    Ok(())
}
