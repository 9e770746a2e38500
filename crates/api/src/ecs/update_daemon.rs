//! `UpdateDaemon`: always another revision and another deployment.

use berth_model::daemon;
use berth_model::record::Key;
use berth_shapes::ecs::{UpdateDaemonRequest, UpdateDaemonResponse};

use super::daemons::{Wish, find_active, last_deployment};
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateDaemonRequest) -> Result<UpdateDaemonResponse, Failure> {
    let arn = request.daemon_arn.clone().unwrap_or_default();
    let wish = Wish::parse(api, request)?;
    api.change(|state, transaction| {
        let entry = find_active(api, state, &arn)?;
        let deployment = wish.deployment(api, state, transaction, active(state, &entry.cluster)?)?;
        let mut daemon = (*entry.value).clone();
        let now = deployment.created_at;
        daemon.deploy(deployment, now);
        transaction.expect(Key::Daemon(entry.cluster.clone(), entry.name.clone()), entry.modified);
        let shown = UpdateDaemonResponse {
            daemon_arn: Some(daemon::arn(api.scope(), &daemon.cluster, &daemon.name)),
            status: Some("ACTIVE".into()),
            created_at: Some(daemon.created_at.to_wire()),
            updated_at: Some(daemon.updated_at.to_wire()),
            deployment_arn: last_deployment(api, &daemon),
        };
        transaction.put(daemon);
        Ok(shown)
    })
    .await
}
