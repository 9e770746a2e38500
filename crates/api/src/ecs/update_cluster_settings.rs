//! `UpdateClusterSettings`: `containerInsights`.

use berth_model::record::Key;
use berth_shapes::ecs::{UpdateClusterSettingsRequest, UpdateClusterSettingsResponse};

use super::render;
use super::update_cluster::{check_settings, merge};
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateClusterSettingsRequest) -> Result<UpdateClusterSettingsResponse, Failure> {
    let name = api.cluster_name(request.cluster.as_deref())?;
    let settings = request.settings.unwrap_or_default();
    if settings.is_empty() {
        return Err(Failure::invalid("At least one setting has to be given: settings"));
    }
    check_settings(&settings)?;
    api.change(|state, transaction| {
        let entry = active(state, &name)?;
        let mut cluster = (*entry.value).clone();
        merge(&mut cluster.settings, &settings);
        let shown = render::cluster(state, api.scope(), &cluster, &["TAGS", "SETTINGS", "CONFIGURATIONS"]);
        transaction.expect(Key::Cluster(name.clone()), entry.modified);
        if cluster != *entry.value {
            transaction.put(cluster);
        }
        Ok(UpdateClusterSettingsResponse { cluster: Some(shown) })
    })
    .await
}
