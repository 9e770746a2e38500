//! `UpdateCluster`: settings, configuration and Service Connect defaults; what is absent stays as it is.

use berth_model::record::Key;
use berth_shapes::ecs::{self, UpdateClusterRequest, UpdateClusterResponse};

use super::{namespaces, render};
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateClusterRequest) -> Result<UpdateClusterResponse, Failure> {
    let name = api.cluster_name(request.cluster.as_deref())?;
    check_settings(request.settings.as_deref().unwrap_or_default())?;
    api.change(|state, transaction| {
        let entry = active(state, &name)?;
        let mut cluster = (*entry.value).clone();
        merge(&mut cluster.settings, request.settings.as_deref().unwrap_or_default());
        if let Some(configuration) = &request.configuration {
            cluster.configuration = Some(configuration.clone());
        }
        if let Some(given) = &request.service_connect_defaults {
            cluster.service_connect_defaults = namespaces::defaults(api, state, transaction, given)?;
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
