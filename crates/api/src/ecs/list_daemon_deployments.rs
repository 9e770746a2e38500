//! `ListDaemonDeployments`: newest first, twenty a page unless told otherwise; those of a daemon that was deleted a while ago too.

use berth_model::daemon;
use berth_shapes::ecs::{DaemonDeploymentSummary, ListDaemonDeploymentsRequest, ListDaemonDeploymentsResponse};

use super::daemons::{find, finished_at, reason};
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListDaemonDeploymentsRequest) -> Result<ListDaemonDeploymentsResponse, Failure> {
    const ACTION: &str = "ListDaemonDeployments";
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 20)?;
    let statuses = request.status.unwrap_or_default();
    let range = request.created_at.unwrap_or_default();
    if let (Some(after), Some(before)) = (range.after, range.before)
        && after > before
    {
        return Err(Failure::invalid("createdAt.after must not be later than createdAt.before: createdAt"));
    }
    let state = api.store.state();
    // DaemonNotFoundException is not among this operation's errors in the model.
    let found = find(api, &state, request.daemon_arn.as_deref().unwrap_or_default())?;
    let daemon = found.ok_or_else(|| Failure::invalid("The specified daemon was not found: daemonArn"))?;
    let (now, scope) = (api.now(), api.scope());
    let matching = daemon.deployments.iter().filter(|deployment| {
        let status = deployment.status(now);
        let made = deployment.created_at.to_wire();
        (statuses.is_empty() || statuses.iter().any(|wanted| wanted.as_str() == status.as_str()))
            && range.after.is_none_or(|after| made > after)
            && range.before.is_none_or(|before| made < before)
    });
    let (deployments, next_token) = page.take(ACTION, matching, |deployment| format!("{:020}", deployment.number), true);
    let (cluster, name) = (&daemon.cluster, &daemon.name);
    let summaries = deployments.iter().map(|deployment| {
        let status = deployment.status(now);
        DaemonDeploymentSummary {
            daemon_deployment_arn: Some(daemon::deployment_arn(scope, cluster, name, deployment.id)),
            daemon_arn: Some(daemon::arn(scope, cluster, name)),
            cluster_arn: Some(scope.cluster(cluster)),
            status: Some(status.as_str().into()),
            status_reason: Some(reason(status).to_owned()),
            target_daemon_revision_arn: deployment.target.as_ref().map(|target| daemon::revision_arn(scope, cluster, name, target.id)),
            created_at: Some(deployment.created_at.to_wire()),
            started_at: Some(deployment.created_at.to_wire()),
            stopped_at: deployment.stopped_at.map(berth_model::time::UnixMillis::to_wire),
            finished_at: finished_at(deployment, status),
        }
    });
    Ok(ListDaemonDeploymentsResponse { daemon_deployments: Some(summaries.collect()), next_token })
}
