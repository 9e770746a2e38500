//! `DeleteDaemon`: a last deployment takes the daemon away. There is no instance to drain, so it is gone at once; its deployments and
//! revisions stay visible for a while, and its name is free.

use berth_model::daemon::{self, DaemonDeployment};
use berth_model::ids::DaemonDeploymentId;
use berth_model::record::Key;
use berth_shapes::ecs::{DeleteDaemonRequest, DeleteDaemonResponse};

use super::daemons::{find_active, last_deployment};
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteDaemonRequest) -> Result<DeleteDaemonResponse, Failure> {
    let arn = request.daemon_arn.unwrap_or_default();
    let id = DaemonDeploymentId(api.environment.entropy.bits());
    api.change(|state, transaction| {
        let entry = find_active(api, state, &arn)?;
        let mut daemon = (*entry.value).clone();
        let now = api.now();
        let configuration = daemon.deployments.first().map(|deployment| deployment.configuration.clone()).unwrap_or_default();
        let last = DaemonDeployment {
            id,
            number: 0,
            created_at: now,
            finished_at: now,
            stopped_at: None,
            target: None,
            source: None,
            configuration,
        };
        daemon.deploy(last, now);
        daemon.deleted_at = Some(now);
        transaction.expect(Key::Daemon(entry.cluster.clone(), entry.name.clone()), entry.modified);
        let shown = DeleteDaemonResponse {
            daemon_arn: Some(daemon::arn(api.scope(), &daemon.cluster, &daemon.name)),
            status: Some("DELETE_IN_PROGRESS".into()),
            created_at: Some(daemon.created_at.to_wire()),
            updated_at: Some(daemon.updated_at.to_wire()),
            deployment_arn: last_deployment(api, &daemon),
        };
        transaction.put(daemon);
        Ok(shown)
    })
    .await
}
