//! `DescribeServiceDeployments`: up to twenty by their ARNs; those that are not there, or went with their service, become `failures[]`.

use berth_model::arn::parse_service_deployment;
use berth_model::service::ServiceStatus;
use berth_shapes::ecs::{DescribeServiceDeploymentsRequest, DescribeServiceDeploymentsResponse};

use super::{render, service_history};
use crate::context::{Api, active};
use crate::failure::Failure;

/// Most that can be named at once.
const MOST: usize = 20;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: DescribeServiceDeploymentsRequest) -> Result<DescribeServiceDeploymentsResponse, Failure> {
    let named = request.service_deployment_arns.unwrap_or_default();
    if named.is_empty() {
        return Err(Failure::invalid("serviceDeploymentArns cannot be empty."));
    }
    if named.len() > MOST {
        return Err(Failure::invalid(format!("serviceDeploymentArns can have at most {MOST} items.")));
    }
    let state = api.store.state();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in named {
        let (cluster, name, id) = parse_service_deployment(api.scope(), &arn)?;
        active(&state, &cluster)?;
        let service = state.service(&cluster, &name).filter(|service| service.status != ServiceStatus::Inactive);
        match service.zip(state.service_deployment(&cluster, &name, id)) {
            Some((service, one)) => found.push(service_history::render_deployment(&state, api.scope(), service, one)),
            None => failures.push(render::missing(arn)),
        }
    }
    Ok(DescribeServiceDeploymentsResponse { service_deployments: Some(found), failures: Some(failures) })
}
