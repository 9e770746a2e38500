//! `DescribeDaemon`: one that was deleted is not found.

use berth_model::daemon;
use berth_shapes::ecs::{DaemonDetail, DescribeDaemonRequest, DescribeDaemonResponse};

use super::daemons::{find, last_deployment, not_found, revision_detail};
use crate::context::Api;
use crate::failure::Failure;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: DescribeDaemonRequest) -> Result<DescribeDaemonResponse, Failure> {
    let state = api.store.state();
    let found = find(api, &state, request.daemon_arn.as_deref().unwrap_or_default())?;
    let daemon = found.filter(|daemon| daemon.is_active()).ok_or_else(not_found)?;
    let revisions = daemon.current().map(|revision| revision_detail(api, &state, &daemon.value, revision));
    let detail = DaemonDetail {
        daemon_arn: Some(daemon::arn(api.scope(), &daemon.cluster, &daemon.name)),
        cluster_arn: Some(api.scope().cluster(&daemon.cluster)),
        status: Some("ACTIVE".into()),
        current_revisions: Some(revisions.into_iter().collect()),
        deployment_arn: last_deployment(api, &daemon.value),
        created_at: Some(daemon.created_at.to_wire()),
        updated_at: Some(daemon.updated_at.to_wire()),
    };
    Ok(DescribeDaemonResponse { daemon: Some(detail) })
}
