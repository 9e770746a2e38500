//! `DescribeDaemonDeployments`: up to twenty; unknown ones become `failures[]`.

use berth_model::daemon;
use berth_model::ids::DaemonDeploymentId;
use berth_shapes::ecs::{DescribeDaemonDeploymentsRequest, DescribeDaemonDeploymentsResponse};

use super::{daemons, render};
use crate::context::{Api, active};
use crate::failure::Failure;

/// Most deployments in one request.
const MOST: usize = 20;

pub(crate) async fn run(api: &Api, request: DescribeDaemonDeploymentsRequest) -> Result<DescribeDaemonDeploymentsResponse, Failure> {
    let named = request.daemon_deployment_arns.unwrap_or_default();
    if !(1..=MOST).contains(&named.len()) {
        return Err(Failure::invalid(format!("A request has 1 to {MOST} daemon deployments: daemonDeploymentArns")));
    }
    let (state, now) = (api.store.state(), api.now());
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for text in &named {
        let (cluster, name, id): (_, _, DaemonDeploymentId) = daemon::parse_part(api.scope(), "daemon-deployment", text)?;
        active(&state, &cluster)?;
        let daemon = state.daemon(&cluster, &name);
        let known = daemon.and_then(|daemon| Some((daemon, daemon.deployments.iter().find(|one| one.id == id)?)));
        match known {
            Some((daemon, one)) => found.push(daemons::deployment(api, &state, &daemon.value, one, now)),
            None => failures.push(render::missing(text.clone())),
        }
    }
    Ok(DescribeDaemonDeploymentsResponse { daemon_deployments: Some(found), failures: Some(failures) })
}
